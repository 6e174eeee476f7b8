"""The limits of whole queues in memory: blocks, concurrency, and the rate that starts and further requests share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta

from shared.engine.errors import ControlError
from shared.engine.job import JobState
from shared.engine.memory_state import Row, State
from shared.engine.ports import Limits

#: So far ahead `startable` looks.
STARTABLE_WITHIN = timedelta(seconds=10)


class QueueLimits:
    """Judges a queue as it stands now; its starts are in its gate, what runs is counted from the jobs."""

    def __init__(self, state: State, clock: Callable[[], datetime], limits_of: Callable[[str], Limits]) -> None:
        self._state = state
        self._clock = clock
        self._limits_of = limits_of

    def cost(self, row: Row) -> int:
        """What the start of a job takes of the rate: more where it was deferred for want of more that can be had."""
        limits = self._limits_of(row.record.queue)
        cost = limits.job_cost + (row.permits or 0)
        return cost if limits.rate is not None and cost <= limits.rate.limit else limits.job_cost

    def may_start(self, queue: str, cost: int, reserve: bool) -> tuple[bool, timedelta | None]:
        """Whether one more job may start, and if not, how long until one may; None: when a running one ends.

        With `reserve` a caller that the rate refuses gets a place of its own.
        """
        gate, limits, now = self._state.queue_gate(queue), self._limits_of(queue), self._clock()
        if gate.blocked_until is not None and gate.is_blocked(now):
            return False, gate.blocked_until - now
        if limits.concurrency is not None and self._running(queue) >= limits.concurrency:
            return False, None
        if limits.rate is None or gate.room(limits.rate, now) >= cost:
            return True, None
        if reserve:
            return False, gate.reserve(limits.rate, cost, now)
        return False, gate.opens_at(limits.rate, cost, now) - now

    def take(self, queue: str, cost: int) -> int:
        """Count the start of a job; returns how many permits it took besides its cost."""
        limits = self._limits_of(queue)
        if limits.rate is not None:
            self._state.queue_gate(queue).take(cost, self._clock(), limits.rate.window)
        return cost - limits.job_cost

    def take_permits(self, queue: str, n: int) -> timedelta | None:
        """See the port."""
        gate, rate, now = self._state.queue_gate(queue), self._limits_of(queue).rate, self._clock()
        if gate.blocked_until is not None and gate.is_blocked(now):
            return gate.blocked_until - now
        if rate is None:
            return None
        if gate.room(rate, now) < n:
            cost = self._limits_of(queue).job_cost
            if n + cost > rate.limit:
                raise ControlError(
                    f"permits: {n} at once, besides the {cost} that a job costs, are above the rate of queue "
                    f'"{queue}", {rate.limit}: '
                    "ask for fewer at a time, or raise the rate"
                )
            return gate.opens_at(rate, n, now) - now
        gate.take(n, now, rate.window)
        return None

    def startable(self, queue: str) -> int:
        """About how many jobs may start within the next ten seconds, when none that runs ends."""
        gate, limits, soon = self._state.queue_gate(queue), self._limits_of(queue), self._clock() + STARTABLE_WITHIN
        if gate.is_blocked(soon):
            return 0
        slots = sys.maxsize if limits.concurrency is None else max(0, limits.concurrency - self._running(queue))
        if limits.rate is None:
            return slots
        windows = STARTABLE_WITHIN // limits.rate.window
        permits = gate.room(limits.rate, soon) if windows < 2 else limits.rate.limit * windows
        return min(slots, permits // limits.job_cost)

    def _running(self, queue: str) -> int:
        return len(self._state.rows(JobState.ACTIVE, queue))
