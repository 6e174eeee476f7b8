"""Rates in memory: what has started under one key, in windows that slide by a twentieth."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shared.engine.errors import ControlError
from shared.engine.ports import Limits, Rate

#: A window is counted in so many slots. The slot of now and as many before it cover every window that ends now.
SLOTS = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Gate:
    """One key (a queue, a limit key): its starts, until when it is blocked, and the last place given to a caller."""

    starts: deque[tuple[datetime, int]] = field(default_factory=deque)
    longest: timedelta = timedelta()
    blocked_until: datetime | None = None
    reserved_until: datetime | None = None

    def copy(self) -> Gate:
        return Gate(deque(self.starts), self.longest, self.blocked_until, self.reserved_until)

    def is_blocked(self, now: datetime) -> bool:
        return self.blocked_until is not None and now < self.blocked_until

    def block(self, until: datetime) -> None:
        """A later, shorter block does not shorten the one that stands."""
        self.blocked_until = max(self.blocked_until or until, until)

    def room(self, rate: Rate, at: datetime) -> int:
        """How many may start then, when nothing starts until then."""
        return max(0, rate.limit - self._used(rate.window, at))

    def opens_at(self, rate: Rate, n: int, now: datetime) -> datetime:
        """When `n` may start at the earliest; `n` is not above the limit."""
        return next(at for at in self._turns(rate.window, now) if self.room(rate, at) >= n)

    def take(self, n: int, now: datetime, window: timedelta) -> None:
        self.longest = max(self.longest, window)
        while self.starts and self.starts[0][0] < now - self.longest * (SLOTS + 2) / SLOTS:
            self.starts.popleft()
        self.starts.append((now, n))

    def reserve(self, rate: Rate, n: int, now: datetime) -> timedelta:
        """How long a caller that finds no room waits: each waits longer than the one before."""
        place = self.opens_at(rate, n, now)
        if self.reserved_until is not None:
            step = max(rate.window / SLOTS, rate.window * n / rate.limit)
            place = max(place, self.reserved_until + step)
        self.reserved_until = place
        return place - now

    def _used(self, window: timedelta, at: datetime) -> int:
        first = _slot(at, window) - SLOTS
        return sum(n for started_at, n in self.starts if _slot(started_at, window) >= first)

    def _turns(self, window: timedelta, now: datetime) -> Iterator[datetime]:
        """Now, and every time at which a start leaves the window."""
        yield now
        for started_at, _ in self.starts:
            leaves_at = _slot_start(_slot(started_at, window) + SLOTS + 1, window)
            if leaves_at > now:
                yield leaves_at


def check_limits(limits: Limits) -> None:
    """Raises ControlError that names what no queue could live with."""
    for name, rate in (("rate", limits.rate), ("key_rate", limits.key_rate)):
        if rate is not None and (rate.limit < 1 or rate.window < timedelta(milliseconds=1)):
            raise ControlError(f"{name}: it needs a limit of at least 1 and a window of at least a millisecond")
    for name, most in (("concurrency", limits.concurrency), ("key_concurrency", limits.key_concurrency)):
        if most is not None and most < 1:
            raise ControlError(f"{name}: it must be at least 1; to start nothing, pause the queue")
    if limits.job_cost < 1 or (limits.rate is not None and limits.job_cost > limits.rate.limit):
        raise ControlError("job_cost: it must be at least 1 and at most the limit of the rate")


def _slot(at: datetime, window: timedelta) -> int:
    return (at - _EPOCH) // _MICROSECOND * SLOTS // (window // _MICROSECOND)


def _slot_start(slot: int, window: timedelta) -> datetime:
    return _EPOCH - (-slot * (window // _MICROSECOND) // SLOTS) * _MICROSECOND
