"""Singleton, debounce and throttle in memory: which job a new one meets, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.engine.errors import EnqueueError
from shared.engine.job import Debounce, JobState, NewJob, Singleton, SingletonPolicy, Throttle
from shared.engine.memory_state import FirstThrottled, LastDebounced, Row, State


@dataclass(frozen=True, slots=True)
class Meeting:
    """What a new job meets: one that answers for it, or one that it replaces; `run_at` is set by a debounce."""

    existing: UUID | None = None
    replaces: Row | None = None
    run_at: datetime | None = None


class UniqueKeys:
    """Keys belong to a queue and a kind of rule."""

    def __init__(self, state: State, clock: Callable[[], datetime]) -> None:
        self._state = state
        self._clock = clock

    def meet(self, job: NewJob) -> Meeting:
        """Raises EnqueueError when a singleton rule refuses the job."""
        match job.unique:
            case None:
                return Meeting()
            case Singleton():
                return self._meet_singleton(job.queue, job.unique)
            case Debounce():
                return self._meet_debounced(job.queue, job.unique)
            case Throttle(key=key):
                first = self._state.throttled.get((job.queue, key))
                return Meeting(first.job_id) if first and self._clock() < first.until else Meeting()

    def remember(self, job: NewJob, job_id: UUID, replaces: Row | None) -> None:
        """A job was made: the next with its key meets it."""
        now = self._clock()
        match job.unique:
            case Debounce(key=key):
                last = self._state.debounced.get((job.queue, key))
                first_at = last.first_at if last and replaces else now
                self._state.debounced[job.queue, key] = LastDebounced(job_id, first_at)
            case Throttle(key=key, window=window):
                self._state.throttled[job.queue, key] = FirstThrottled(job_id, now + window)

    def live_singleton(self, queue: str, key: str) -> Row | None:
        for row in self._state.live.values():
            if row.record.queue == queue and isinstance(row.unique, Singleton) and row.unique.key == key:
                return row
        return None

    def _meet_singleton(self, queue: str, rule: Singleton) -> Meeting:
        row = self.live_singleton(queue, rule.key)
        if row is None:
            return Meeting()
        if rule.policy is SingletonPolicy.REJECT:
            raise EnqueueError(singleton_problem(row))
        if rule.policy is SingletonPolicy.REPLACE_SCHEDULED and _gives_way(row):
            return Meeting(replaces=row)
        return Meeting(row.id)

    def _meet_debounced(self, queue: str, rule: Debounce) -> Meeting:
        run_at = self._clock() + rule.window
        last = self._state.debounced.get((queue, rule.key))
        row = self._state.live.get(last.job_id) if last else None
        replaces = row if row is not None and _gives_way(row) else None
        if rule.at_most is not None:
            first_at = last.first_at if last and replaces else self._clock()
            run_at = min(run_at, first_at + rule.at_most)
        return Meeting(replaces=replaces, run_at=run_at)


def _gives_way(row: Row) -> bool:
    """It is scheduled, and nothing of it can have happened yet."""
    return row.state is JobState.SCHEDULED and row.record.attempt == 0 and row.effect_since is None


def singleton_problem(row: Row) -> str:
    return f"singletonKey: job {row.id} is live ({row.state.value})"
