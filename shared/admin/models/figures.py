"""Figures of now and over time."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from shared.admin.models.base import Model, ShortText


class TimeRange(StrEnum):
    """How far back."""

    HOUR = "1h"
    QUARTER = "6h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"


class RecentFigures(Model):
    """The last five minutes, measured every minute. Rates are a minute's; `failureRate` is the share of attempts."""

    at: datetime
    enqueued: int
    completed: int
    failed: int
    dead: int
    enqueued_per_minute: float
    ended_per_minute: float
    failure_rate: float | None
    average_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None


class QueueFigures(Model):
    """A queue now. `retrying` of the scheduled jobs have failed before; `deadLetters` are those that nobody has dealt
    with; `closed` says why it takes no jobs."""

    queue: str
    queue_class: str
    paused: bool
    closed: str | None
    ready: int
    active: int
    scheduled: int
    waiting: int
    retrying: int
    dead_letters: int
    oldest_ready_seconds: float | None
    recent: RecentFigures | None


class OpenAlerts(Model):
    """How many alerts are open."""

    info: int
    warning: int
    critical: int


class Stats(Model):
    """Every queue as it was a second or two ago; some more where millions of jobs wait."""

    at: datetime
    queues: list[QueueFigures]
    open_alerts: OpenAlerts


class MetricsQuery(Model):
    """Which figures."""

    time_range: TimeRange = TimeRange.DAY
    queue: ShortText | None = None


class Bucket(Model):
    """What happened in a queue from `at` on for a step. `failed` are attempts, the others jobs; `failures` the failed
    ones by error class. Percentiles are of the time from due to ended. Gauges are the highest; null: not measured."""

    at: datetime
    queue: str
    enqueued: int
    completed: int
    failed: int
    dead: int
    cancelled: int
    failures: dict[str, int]
    ready: int | None
    active: int | None
    scheduled: int | None
    waiting: int | None
    dead_letters: int | None
    oldest_ready_seconds: float | None
    average_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


class Metrics(Model):
    """Oldest first: a bucket for each queue and step in which something is known."""

    time_range: TimeRange
    step_seconds: float
    buckets: list[Bucket]
