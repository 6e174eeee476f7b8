"""Kept figures: what a queue holds now, and what happened in it over time. The port that pages and metrics read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from shared.engine.errors import StoreUnavailableError
from shared.monitoring.histogram import percentile
from shared.monitoring.latest import Latest, LookUnderWayError

BUCKET = timedelta(minutes=5)
#: Many watchers cause one look.
CACHE_SECONDS = 1.0
#: A look that took long is good for so many times as long.
REST = 10
#: How long a watcher waits for a first look of another one.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Span:
    """A range that figures can be asked for: so long until now, in steps; `by_hour`: from the hours' figures."""

    length: timedelta
    step: timedelta
    by_hour: bool = False


#: What `timeRange` may be.
RANGES: Mapping[str, Span] = {
    "1h": Span(timedelta(hours=1), BUCKET),
    "6h": Span(timedelta(hours=6), BUCKET),
    "24h": Span(timedelta(hours=24), timedelta(minutes=15)),
    "7d": Span(timedelta(days=7), timedelta(hours=1), by_hour=True),
    "30d": Span(timedelta(days=30), timedelta(hours=6), by_hour=True),
}


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened in a queue from `at` on for `step`. `failed` are attempts, the others jobs.

    A job counts as enqueued when its id was made, and otherwise when it ended. `processing_seconds` is the sum over the
    `processed` jobs that ran, `latency` how many ended how long after they were due (shared/monitoring/histogram.py),
    `failures` the failed attempts by error class, `slowest` ids and seconds of jobs. The gauges are the highest that
    were measured, None where nothing was.
    """

    queue: str
    at: datetime
    step: timedelta
    enqueued: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    processed: int = 0
    processing_seconds: float = 0.0
    latency: Sequence[int] | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    slowest: Sequence[Mapping[str, Any]] = ()
    ready: int | None = None
    active: int | None = None
    scheduled: int | None = None
    waiting: int | None = None
    dead_letters: int | None = None
    oldest_ready_seconds: float | None = None

    @property
    def failure_rate(self) -> float | None:
        """The share of attempts that failed; None where none ended."""
        attempts = self.failed + self.completed
        return self.failed / attempts if attempts else None

    @property
    def average_processing_seconds(self) -> float | None:
        return self.processing_seconds / self.processed if self.processed else None

    def latency_at(self, share: float) -> float | None:
        """Seconds from due to ended that `share` (0 to 1) of the jobs did not exceed."""
        return percentile(self.latency, share)


@dataclass(frozen=True, slots=True)
class QueueNow:
    """A queue as it is. `retrying` of the scheduled jobs have failed before; `dead_letters` are those that nobody has
    dealt with; `recent` is what happened in the last five minutes, measured every minute (None: not yet)."""

    queue: str
    paused: bool
    ready: int
    active: int
    scheduled: int
    waiting: int
    retrying: int
    dead_letters: int
    oldest_ready_seconds: float | None
    recent: Activity | None = None

    @property
    def enqueued_per_minute(self) -> float | None:
        return self.recent.enqueued / _minutes(self.recent) if self.recent else None

    @property
    def ended_per_minute(self) -> float | None:
        recent = self.recent
        return (recent.completed + recent.dead + recent.cancelled) / _minutes(recent) if recent else None


@dataclass(frozen=True, slots=True)
class TimerRun:
    """When a timer last began and ended a turn; `finished_at` is None while the first one lasts."""

    timer: str
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Totals:
    """What has happened in a queue since counting began, up to the last five minutes that are kept; it only grows.

    `failed` are attempts, the others jobs.
    """

    queue: str
    enqueued: int
    completed: int
    failed: int
    dead: int
    cancelled: int


class Statistics(Protocol):
    """Reads kept figures. Raises StoreUnavailableError."""

    def overview(self) -> Sequence[QueueNow]:
        """Every queue as it is now, by name."""
        ...

    def series(self, time_range: str, queue: str | None = None) -> Sequence[Activity]:
        """What happened, by queue and step, oldest first. `time_range` is a key of RANGES (else KeyError)."""
        ...

    def between(self, since: datetime, until: datetime) -> Sequence[Activity]:
        """The hours from `since` to `until` (whole hours), summed up for each queue."""
        ...

    def totals(self) -> Sequence[Totals]:
        """Of every queue of which something is kept, by name."""
        ...

    def timers(self) -> Sequence[TimerRun]: ...


class Overview:
    """Statistics.overview, at most every second in a process and for a tenth of the time: what lies in the queues is
    counted, and a backlog of millions takes a while."""

    def __init__(self, statistics: Statistics, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._latest = Latest(
            statistics.overview, lambda taken: max(CACHE_SECONDS, REST * taken), PATIENCE_SECONDS, monotonic
        )

    def queues(self) -> Sequence[QueueNow]:
        """Raises StoreUnavailableError, also while a first count takes very long."""
        try:
            return self._latest.get()
        except LookUnderWayError:
            raise StoreUnavailableError("the queues are still being counted") from None


def _minutes(activity: Activity) -> float:
    return activity.step / timedelta(minutes=1)
