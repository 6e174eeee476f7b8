"""What surrounds a job and decides what becomes of it: its queue, its keys, who it waits for, its dead letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.engine.job import ErrorClass, JobState

Row = Mapping[str, Any]
#: So many waiting jobs are counted; there may be more.
MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`now` is the database's time.

    `paused_*`: who paused the queue, where that is on record; of an ended job, as it was then. `queue_blocked_until`,
    `key_blocked_until`: until then no job of the queue, of the limit key starts (a 429). `started_at`: of the attempt
    that runs. `waits_at`: the key at which a waiting job stands, "" for other jobs. `key_in_use`: jobs of that key that
    run. `holder`: the job that has the lane, and `holder_state`. `behind`: jobs that wait for this one's lane.
    `reason`: why it was put off. `identity`: what gives no token, while it waits for that, with its open alert.
    `dependency_state`: now, of the job whose end ended this one, or of what that was redriven as. `cleared_by`: who
    emptied the queue when this job was cancelled. `earlier`: how those ended of which this is a redrive.
    `reports_watched`: whether reports about its mails that come back are seen (None: that cannot be told).
    `accounts`: the service accounts.
    """

    now: datetime
    is_paused: bool = False
    paused_at: datetime | None = None
    paused_by: str | None = None
    resumed_at: datetime | None = None
    queue_blocked_until: datetime | None = None
    key_blocked_until: datetime | None = None
    started_at: datetime | None = None
    waits_at: str | None = None
    key_in_use: int = 0
    holder: UUID | None = None
    holder_state: JobState | None = None
    holder_since: datetime | None = None
    behind: int = 0
    reason: str | None = None
    identity: str | None = None
    identity_since: datetime | None = None
    alert_id: UUID | None = None
    alert_reason: str | None = None
    remedy: str | None = None
    dependency_state: JobState | None = None
    cleared_by: str | None = None
    earlier: tuple[ErrorClass, ...] = ()
    reports_watched: bool | None = None
    accounts: tuple[str, ...] = ()
    letter: Row | None = None
    orders: Sequence[Row] = ()
    related: Sequence[Row] = ()
    failures: Sequence[Row] = field(default_factory=tuple)
