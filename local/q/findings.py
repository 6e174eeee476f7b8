"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`problem`: something needs doing; `notice`: worth knowing; `unknown`: it could not be looked at."""

    OK = "ok"
    NOTICE = "notice"
    UNKNOWN = "unknown"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a part, and the remedy where there is something to do."""

    part: str
    level: Level
    text: str
    remedy: str | None = None


def problem(part: str, text: str, remedy: str) -> Finding:
    return Finding(part, Level.PROBLEM, text, remedy)
