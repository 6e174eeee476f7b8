"""Figures of now and over time."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from shared.admin.models.base import Model, ShortText


class TimeRange(StrEnum):
    """How far back."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"


class QueueFigures(Model):
    """A queue now: counts by state, rates a minute over the last five, and the age of the oldest ready job.

    Counts are exact up to 10,000 and say "or more" by `countsCapped`.
    """

    queue: str
    queue_class: str
    paused: bool
    closed: str | None
    ready: int
    active: int
    scheduled: int
    waiting: int
    dead: int
    counts_capped: bool
    enqueued_per_minute: float | None
    completed_per_minute: float | None
    failure_rate: float | None
    oldest_ready_seconds: float | None


class Stats(Model):
    """Every queue at one moment."""

    at: datetime
    queues: list[QueueFigures]
    open_alerts: int


class MetricsQuery(Model):
    """Which figures."""

    time_range: TimeRange = TimeRange.DAY
    queue: ShortText | None = None


class Bucket(Model):
    """A span that begins at `at`. Percentiles are of the time from the start to the end of a job; null: none ended."""

    at: datetime
    queue: str
    enqueued: int
    completed: int
    failed: int
    dead: int
    ready: int
    active: int
    scheduled: int
    oldest_ready_seconds: float | None
    average_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


class Metrics(Model):
    """Oldest first, a bucket for each queue and `bucketSeconds` in which something is known."""

    time_range: TimeRange
    bucket_seconds: int = Field(ge=1)
    buckets: list[Bucket]
