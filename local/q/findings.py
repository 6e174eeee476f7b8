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


#: What somebody does something about first; the rest follows in the order in which it was found.
FIRST = ("app", "admin API", "database", "storage", "setting", "clock", "alert identity", "Graph", "timer", "queue")
_LEVELS = (Level.PROBLEM, Level.UNKNOWN, Level.NOTICE, Level.OK)


def by_weight(findings: list[Finding]) -> list[Finding]:
    """What needs doing first, and of that what holds up most."""

    def weight(finding: Finding) -> tuple[int, int]:
        place = next((at for at, part in enumerate(FIRST) if finding.part.startswith(part)), len(FIRST))
        return _LEVELS.index(finding.level), place

    return sorted(findings, key=weight)


def problem(part: str, text: str, remedy: str) -> Finding:
    return Finding(part, Level.PROBLEM, text, remedy)
