"""Queues: pause, clear, limits."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from shared.admin.models.base import Model

LARGEST = 1_000_000_000
#: A microsecond, of which times consist, and a day.
SHORTEST_WINDOW_SECONDS, LONGEST_WINDOW_SECONDS = 0.000001, 86_400.0


class QueueState(Model):
    """`changed` is false when it was so before."""

    queue: str
    paused: bool
    changed: bool


class ClearQuery(Model):
    """`confirm` keeps a slip from emptying a queue."""

    confirm: Literal["yes"]


class Cleared(Model):
    """How many jobs are cancelled; `more`: there are others, order it again."""

    queue: str
    cancelled: int
    more: bool


class RateLimit(Model):
    """At most `limit` in any `windowSeconds`."""

    limit: int = Field(ge=1, le=LARGEST)
    window_seconds: float = Field(ge=SHORTEST_WINDOW_SECONDS, le=LONGEST_WINDOW_SECONDS)


class LimitsChange(Model):
    """All limits of the queue; what is null or left out has none. `rate` counts requests, `jobCost` for each job."""

    rate: RateLimit | None = None
    concurrency: int | None = Field(None, ge=1, le=LARGEST)
    key_rate: RateLimit | None = None
    key_concurrency: int | None = Field(None, ge=1, le=LARGEST)
    job_cost: int = Field(1, ge=1, le=LARGEST)


class KeyFill(Model):
    """A key (a chat, a mailbox) that is in use now."""

    key: str
    in_use: int
    used_in_window: int
    blocked_until: datetime | None


class QueueLimits(LimitsChange):
    """`usedInWindow` of `rate` and `inUse` of `concurrency` say how full they are now; `keys` are the fullest ones.

    `changedAt` is null while the built-in limits hold.
    """

    queue: str
    built_in: LimitsChange
    used_in_window: int
    in_use: int
    blocked_until: datetime | None
    changed_at: datetime | None
    keys: list[KeyFill]
