"""What holds due jobs back in memory, and lets them go again: ordering, concurrency and fairness keys, limit keys."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from shared.engine.ageing import aged
from shared.engine.job import ConcurrencyKey, FairnessKey, JobState, OnDead, OrderingKey
from shared.engine.memory_state import HeldBy, Row, State
from shared.engine.ports import Limits, QueueSettings

NO_LIMIT = sys.maxsize


class Lanes:
    """Judges one job at a time, as it stands now; keeps nothing of its own."""

    def __init__(
        self, state: State, clock: Callable[[], datetime], settings_of: Callable[[str], QueueSettings]
    ) -> None:
        self._state = state
        self._clock = clock
        self._settings_of = settings_of

    def best(self, queue: str) -> Row | None:
        """The ready job that stands first in the queue's line."""
        return min(self._state.rows(JobState.READY, queue), key=self.line_order, default=None)

    def line_order(self, row: Row) -> tuple[int, datetime, int]:
        """The best job of a queue has the lowest."""
        record = row.record
        priority = aged(record.priority, record.run_at, self._settings_of(record.queue).ageing, self._clock())
        return priority, record.run_at, row.place

    def runner(self, row: Row) -> Row:
        """The job that goes in this one's place: the head of its ordering key while nobody holds the key."""
        lane = row.record.lane
        if not isinstance(row.lane, OrderingKey) or lane is None or lane in self._state.holders:
            return row
        return self._head(lane)

    def held_by(self, row: Row) -> HeldBy | None:
        """What does not let this job start now."""
        if self._lane_is_full(row):
            return HeldBy.LANE
        key = row.record.limit_key
        if key is not None and self._key_room(key, row.record.queue) < 1:
            return HeldBy.LIMIT_KEY
        return None

    def take(self, row: Row) -> None:
        """Count the start of a job that nothing holds back."""
        lane, key, now = row.record.lane, row.record.limit_key, self._clock()
        limits = self._limits_of(row.record.queue)
        row.held_by = None
        if lane is not None and isinstance(row.lane, OrderingKey):
            self._state.holders[lane] = row.id
        if lane is not None and isinstance(row.lane, FairnessKey):
            self._stand_behind(lane, row)
        if key is not None and limits.key_rate is not None:
            self._state.key_gate(key).take(1, now, limits.key_rate.window)

    def hold_back(self, row: Row, by: HeldBy) -> None:
        """The job waits, and with it every ready job that the same key holds back."""
        for other in self._state.rows(JobState.READY, row.record.queue):
            if other is row or (self._shares(other, row, by) and self._is_behind(other, by)):
                self._wait(other, by)

    def reopen(self, limit: int = NO_LIMIT) -> Counter[str]:
        """Make ready what waits for a key that has room now, best first; returns how many of which queue."""
        freed: Counter[str] = Counter()
        for row in sorted(self._state.rows(JobState.WAITING), key=self.line_order):
            if freed.total() < limit and row.held_by is not None and self._may_come_back(row, row.held_by):
                self._come_back(row)
                freed[row.record.queue] += 1
        return freed

    def move(self, row: Row, run_at: datetime) -> None:
        """Give a job that has not started another time. What is put off waits at no key."""
        is_due = run_at <= self._clock()
        row.record = replace(row.record, run_at=run_at)
        if row.state is not JobState.WAITING:
            row.record = replace(row.record, state=JobState.READY if is_due else JobState.SCHEDULED)
        elif row.held_by is not None and not is_due:
            row.held_by = None
            row.record = replace(row.record, state=JobState.SCHEDULED)
        if row.state is JobState.SCHEDULED:
            self._leave_place(row)

    def wait(self, queue: str) -> timedelta | None:
        """How long until the first limit key opens by time for a job that it holds back; None: none does."""
        waiting = self._state.rows(JobState.WAITING, queue)
        keys = {row.record.limit_key for row in waiting if row.held_by is HeldBy.LIMIT_KEY}
        now = self._clock()
        times = [self._opens_at(key, queue) for key in keys if key is not None]
        return min((at - now for at in times if at > now), default=None)

    def _leave_place(self, row: Row) -> None:
        """Put off before its first attempt it stands in nobody's way, unless it stands for a dead job that does."""
        lane, record = row.lane, row.record
        stands_for_another = record.redrive_of and isinstance(lane, OrderingKey) and lane.on_dead is OnDead.BLOCK
        if record.attempt or stands_for_another or record.lane is None:
            return
        if self._state.holders.get(record.lane) == row.id:
            del self._state.holders[record.lane]

    def _limits_of(self, queue: str) -> Limits:
        return self._settings_of(queue).limits

    def _head(self, lane: str) -> Row:
        """The first by due time of those that are due, whatever their priorities."""
        return min((r for r in self._state.lane(lane) if _is_in_line(r)), key=lambda r: r.due_order)

    def _lane_is_full(self, row: Row) -> bool:
        lane = row.record.lane
        match row.lane:
            case OrderingKey() if lane is not None:
                holder = self._state.holders.get(lane)
                return holder != row.id if holder is not None else self._head(lane) is not row
            case ConcurrencyKey(limit=limit):
                return _count(self._state.lane(lane), JobState.ACTIVE) >= limit
        return False

    def _key_room(self, key: str, queue: str) -> int:
        """How many jobs of a queue the limit key lets start now."""
        gate, limits, now = self._state.key_gate(key), self._limits_of(queue), self._clock()
        if gate.is_blocked(now):
            return 0
        running = sum(row.record.limit_key == key for row in self._state.rows(JobState.ACTIVE))
        slots = NO_LIMIT if limits.key_concurrency is None else limits.key_concurrency - running
        permits = NO_LIMIT if limits.key_rate is None else gate.room(limits.key_rate, now)
        return min(slots, permits)

    def _opens_at(self, key: str, queue: str) -> datetime:
        gate, rate, now = self._state.key_gate(key), self._limits_of(queue).key_rate, self._clock()
        by_rate = gate.opens_at(rate, 1, now) if rate is not None else now
        return max(by_rate, gate.blocked_until or now)

    def _shares(self, other: Row, row: Row, by: HeldBy) -> bool:
        if by is HeldBy.LANE:
            return other.record.lane == row.record.lane
        return other.record.limit_key == row.record.limit_key

    def _is_behind(self, other: Row, by: HeldBy) -> bool:
        return by is HeldBy.LIMIT_KEY or self._lane_is_full(other)

    def _may_come_back(self, row: Row, held_by: HeldBy) -> bool:
        """There is room for it beside those of its key that are ready already."""
        if held_by is HeldBy.LIMIT_KEY:
            key, queue = row.record.limit_key or "", row.record.queue
            beside = sum(r.record.limit_key == key for r in self._state.rows(JobState.READY, queue))
            return self._key_room(key, queue) > beside
        ready = _count(self._state.lane(row.record.lane), JobState.READY)
        match row.lane:
            case ConcurrencyKey(limit=limit):
                return _count(self._state.lane(row.record.lane), JobState.ACTIVE) + ready < limit
            case FairnessKey():
                return ready == 0
        return not self._lane_is_full(row)

    def _come_back(self, row: Row) -> None:
        takes_its_turn = row.held_by is HeldBy.LANE and isinstance(row.lane, FairnessKey)
        row.held_by = None
        row.record = replace(row.record, state=JobState.READY)
        if takes_its_turn:
            self._to_the_end(row)

    def _stand_behind(self, lane: str, taken: Row) -> None:
        """A job of a fairness key goes: the best of the others stands at the end of the line, the rest wait."""
        others = [row for row in self._state.lane(lane) if row is not taken and _is_in_its_lane(row)]
        others.sort(key=self.line_order)
        for row in others[:1]:
            row.record = replace(row.record, state=JobState.READY)
            row.held_by = None
            self._to_the_end(row)
        for row in others[1:]:
            self._wait(row, HeldBy.LANE)

    def _to_the_end(self, row: Row) -> None:
        row.record = replace(row.record, run_at=self._clock())
        row.place = next(self._state.numbers)

    def _wait(self, row: Row, by: HeldBy) -> None:
        row.held_by = by
        row.record = replace(row.record, state=JobState.WAITING)


def _is_in_line(row: Row) -> bool:
    """It is due: ready, or only held back by a key."""
    return row.state is JobState.READY or (row.state is JobState.WAITING and row.held_by is not None)


def _is_in_its_lane(row: Row) -> bool:
    return row.state is JobState.READY or (row.state is JobState.WAITING and row.held_by is HeldBy.LANE)


def _count(rows: Iterable[Row], state: JobState) -> int:
    return sum(row.state is state for row in rows)
