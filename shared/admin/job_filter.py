"""What a list of jobs is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.engine.job import JobState


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list has. Without a queue those of all but the `hidden` ones, unless a search names a job itself.

    `since` and `until` bound the time that the list is ordered by; `digests` are those of the search under each key
    that seals payloads.
    """

    queue: str | None = None
    states: Sequence[JobState] = tuple(JobState)
    search: str | None = None
    error_class: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    hidden: Sequence[str] = ()
    digests: Sequence[bytes] = ()
