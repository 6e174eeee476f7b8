"""The engine without a database: the same contract (tests/contract runs both), for tests and examples.

One lock, one clock that a test may move, nothing durable. This is the readable model of the engine: what a verb does
is here, what follows from it in memory_lanes.py, memory_limits.py, memory_unique.py and memory_ends.py.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from shared.engine.ageing import check_ageing
from shared.engine.backoff import RetryPolicy, check_retries
from shared.engine.errors import ControlError, EnqueueError
from shared.engine.job import (
    BatchRecord,
    Cancellation,
    Claimed,
    Completed,
    Enqueued,
    ErrorClass,
    Job,
    JobRecord,
    JobState,
    Lease,
    NewJob,
    Placed,
    Renewal,
    Settled,
    Settlement,
    Singleton,
    effect_since,
)
from shared.engine.json_text import clean_text, to_json
from shared.engine.memory_attempts import Attempts, as_job
from shared.engine.memory_ends import Ends
from shared.engine.memory_intake import Intake
from shared.engine.memory_lanes import Lanes
from shared.engine.memory_limits import check_limits
from shared.engine.memory_queue_limits import QueueLimits
from shared.engine.memory_state import HeldBy, Letter, Row, State
from shared.engine.memory_unique import UniqueKeys, singleton_problem
from shared.engine.ports import Limits, QueueSettings

#: States that an operator may clear.
CLEARABLE = (JobState.READY, JobState.SCHEDULED, JobState.WAITING)


@dataclass(slots=True)
class MemoryClock:
    """A clock that moves when told to."""

    now: datetime = field(default_factory=lambda: datetime(2026, 1, 5, 8, 0, tzinfo=UTC))

    def advance(self, by: timedelta) -> None:
        self.now += by

    def __call__(self) -> datetime:
        return self.now


class MemoryStore:
    """See shared.engine.ports.Store. `closed` maps queues that take no jobs to the reason."""

    def __init__(
        self,
        queues: Sequence[str],
        closed: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.queues = {queue: QueueSettings(queue) for queue in queues}
        self._clock = clock or MemoryClock()
        self._state = State()
        self._unique = UniqueKeys(self._state, self._clock)
        self._ends = Ends(self._state, self._clock, lambda job: self._intake.insert(job))
        self._intake = Intake(self._state, self._clock, self._unique, self._ends, self.queues, closed or {})
        self._attempts = Attempts(self._state, self._clock, self._ends, self._intake)
        self._lanes = Lanes(self._state, self._clock, self.settings)
        self._queue_limits = QueueLimits(self._state, self._clock, self._limits)
        self._turns: dict[str, tuple[UUID, datetime]] = {}
        self._lock = threading.RLock()

    @property
    def letters(self) -> list[Letter]:
        return self._state.letters

    def enqueue(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        if conn is not None:
            raise EnqueueError("the store in memory has no transactions to take part in")
        with self._changing(), self._all_or_nothing(jobs):
            for job in jobs:
                self._intake.check(job)
            return [self._intake.insert(job) for job in jobs]

    def claim(self, queue: str, limit: int, worker: str, lease: timedelta) -> Claimed:
        with self._changing():
            if self.settings(queue).paused:
                return Claimed()
            self._attempts.promote(queue)
            self._attempts.expire_due(queue)
            self._conclude()
            token, taken, may_start, wait = uuid4(), list[Row](), True, None
            while len(taken) < limit and (best := self._lanes.best(queue)) is not None:
                row = self._lanes.runner(best)
                cost = self._queue_limits.cost(row)
                may_start, wait = self._queue_limits.may_start(queue, cost, reserve=not taken)
                if not may_start:
                    break
                held_by = self._lanes.held_by(row)
                if held_by is None:
                    self._lanes.take(row)
                    row.paid = self._queue_limits.take(queue, cost)
                    self._attempts.start(row, token, worker, lease)
                    taken.append(row)
                else:
                    self._lanes.hold_back(row, held_by)
                    if row is not best:
                        self._lanes.hold_back(best, HeldBy.LANE)
                    self._lanes.reopen()
            return Claimed(tuple(map(as_job, taken)), wait if not may_start else self._lanes.wait(queue))

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        completed = [each.outcome for each in settlements if isinstance(each.outcome, Completed)]
        follow_ups = [job for outcome in completed for job in outcome.follow_ups]
        with self._lock, self._all_or_nothing(follow_ups):
            lost = []
            for settlement in settlements:
                row = self._state.live.get(settlement.job_id)
                if (
                    row is None
                    or row.token != settlement.lease_token
                    or (only_expired and not self._attempts.is_expired(row))
                ):
                    lost.append(settlement.job_id)
                else:
                    self._attempts.end(row, settlement)
            return Settled(tuple(lost), dict(self._conclude()))

    def settle_and_claim(
        self, settlements: Sequence[Settlement], queue: str, limit: int, worker: str, lease: timedelta
    ) -> tuple[Settled, Claimed]:
        with self._lock:
            return self.settle(settlements), self.claim(queue, limit, worker, lease)

    def save_progress(self, job_id: UUID, lease_token: UUID, progress: dict[str, Any]) -> bool:
        with self._lock:
            row = self._state.live.get(job_id)
            if row is None or row.token != lease_token:
                return False
            row.record = replace(row.record, progress=json.loads(to_json(progress)))
            return True

    def take_permits(self, queue: str, n: int) -> timedelta | None:
        with self._lock:
            return self._queue_limits.take_permits(queue, n)

    def renew(self, leases: Sequence[Lease], lease: timedelta) -> Renewal:
        with self._lock:
            lost, asked_to_stop = [], []
            for held in leases:
                row = self._state.live.get(held.job_id)
                if row is None or row.token != held.token:
                    lost.append(held.job_id)
                else:
                    row.record = replace(row.record, lease_until=self._clock() + lease)
                    if row.record.stop_requested_at is not None:
                        asked_to_stop.append(held.job_id)
            return Renewal(tuple(lost), tuple(asked_to_stop))

    def expired(self, limit: int) -> list[Job]:
        with self._lock:
            return [as_job(row) for row in self._state.rows(JobState.ACTIVE) if self._attempts.is_expired(row)][:limit]

    def expire_due(self, limit: int) -> int:
        with self._changing():
            return self._attempts.expire_due(None, limit)

    def promote_due(self, limit: int) -> int:
        with self._lock:
            return self._attempts.promote(None, limit)

    def open_due(self, limit: int) -> int:
        with self._lock:
            return self._lanes.reopen(limit).total()

    def repair(self) -> int:
        """Nothing is counted here but what is there: what it finds is a mistake of this module."""
        with self._lock:
            return self._lanes.reopen().total() + self._ends.finish().total()

    def runnable(self, cap: int) -> Mapping[str, int]:
        with self._lock:
            ready = Counter(row.record.queue for row in self._state.rows(JobState.READY))
            counts = {queue: min(jobs, cap, self._queue_limits.startable(queue)) for queue, jobs in ready.items()}
            return {queue: jobs for queue, jobs in counts.items() if jobs and not self.settings(queue).paused}

    def settings(self, queue: str) -> QueueSettings:
        return self.queues.get(queue, QueueSettings(queue))

    def get(self, job_id: UUID) -> JobRecord | None:
        with self._lock:
            row = self._state.find(job_id)
            return row.record if row else None

    def cancel(self, job_id: UUID) -> Cancellation | None:
        with self._changing():
            row = self._state.live.get(job_id)
            if row is None:
                return None
            if row.state is JobState.ACTIVE:
                row.record = replace(row.record, stop_requested_at=row.record.stop_requested_at or self._clock())
                return Cancellation.REQUESTED
            self._ends.end(row, replace(row.record, state=JobState.CANCELLED))
            return Cancellation.CANCELLED

    def reschedule(self, job_id: UUID, priority: int | None, run_at: datetime | None) -> Placed | None:
        if priority is None and run_at is None:
            raise ControlError("priority, run_at: give at least one of the two")
        if priority is not None and not 1 <= priority <= 10:
            raise ControlError("priority: it must be 1 (first) to 10 (last)")
        with self._changing():
            row = self._state.live.get(job_id)
            if row is None or row.state is JobState.ACTIVE:
                return None
            record = row.record
            if run_at is not None and record.expires_at is not None and run_at >= record.expires_at:
                raise ControlError("run_at: it must be earlier than the job's deadline")
            row.record = replace(record, priority=priority or record.priority)
            if run_at is not None:
                self._lanes.move(row, run_at)
            freed = self._conclude()[record.queue]
            return Placed(record.queue, row.state, freed)

    def retry_now(self, job_id: UUID) -> Placed | None:
        with self._lock:
            row = self._state.live.get(job_id)
            if row is None or row.state is not JobState.SCHEDULED:
                return None
            run_at = min(row.record.run_at, self._clock())
            row.record = replace(row.record, state=JobState.READY, run_at=run_at)
            return Placed(row.record.queue, JobState.READY)

    def pause(self, queue: str) -> bool:
        return self._set_paused(queue, True)

    def resume(self, queue: str) -> bool:
        return self._set_paused(queue, False)

    def clear(self, queue: str, confirm: str, states: Sequence[JobState], limit: int) -> int:
        with self._changing():
            self._must_exist(queue)
            if confirm != queue:
                raise ControlError(f'confirm: repeat the name "{queue}" to cancel the jobs of this queue')
            if not states or not set(states) <= set(CLEARABLE):
                raise ControlError("states: they are ready, scheduled and waiting")
            chosen = [row for state in states for row in self._state.rows(state, queue)][:limit]
            for row in chosen:
                self._ends.end(row, replace(row.record, state=JobState.CANCELLED))
            return len(chosen)

    def set_limits(self, queue: str, limits: Limits) -> None:
        with self._changing():
            self._must_exist(queue)
            check_limits(limits)
            self.queues[queue] = replace(self.settings(queue), limits=limits)

    def set_ageing(self, queue: str, every: timedelta | None) -> None:
        with self._lock:
            self._must_exist(queue)
            check_ageing(every)
            self.queues[queue] = replace(self.settings(queue), ageing=every)

    def set_retries(self, queue: str, retries: Mapping[ErrorClass, RetryPolicy]) -> None:
        with self._lock:
            self._must_exist(queue)
            check_retries(retries)
            self.queues[queue] = replace(self.settings(queue), retries=dict(retries))

    def redrive(self, job_id: UUID, by: str) -> Enqueued | None:
        with self._changing():
            letter = self._open_letter(job_id)
            if letter is None:
                return None
            old = self._state.ended[job_id]
            unique = old.unique if isinstance(old.unique, Singleton) else None
            if unique is not None and (live := self._unique.live_singleton(old.record.queue, unique.key)):
                raise ControlError(singleton_problem(live))
            letter.closed_by = by
            again = NewJob(
                old.record.queue,
                old.record.payload,
                old.record.priority,
                correlation_id=old.record.correlation_id,
                redrive_of=old.record.redrive_of or job_id,
                effect_since=old.effect_since or effect_since(old.record.attempts),
                unique=unique,
                lane=old.lane,
                limit_key=old.record.limit_key,
            )
            made = self._intake.insert(again)
            row = self._state.live[made.id]
            row.record = replace(row.record, progress=old.record.progress)
            if (lane := old.record.lane) is not None and self._state.holders.get(lane) == job_id:
                self._state.holders[lane] = made.id
            return made

    def discard(self, job_id: UUID, by: str) -> bool:
        with self._changing():
            letter = self._open_letter(job_id)
            if letter is None:
                return False
            letter.closed_by = by
            lane = self._state.ended[job_id].record.lane
            if lane is not None and self._state.holders.get(lane) == job_id:
                del self._state.holders[lane]
            return True

    def create_batch(self, jobs: Sequence[NewJob], callback: NewJob | None) -> tuple[UUID, list[Enqueued]]:
        with self._changing(), self._state.all_or_nothing():
            if callback is not None:
                self._intake.check_callback(callback)
            batch_id = self._ends.open_batch(callback)
            members = [replace(job, batch_id=batch_id) for job in jobs]
            for job in members:
                self._intake.check(job)
            return batch_id, [self._intake.insert(job) for job in members]

    def batch(self, batch_id: UUID) -> BatchRecord | None:
        with self._lock:
            batch = self._state.batches.get(batch_id)
            return batch.record if batch else None

    def bury(self, queue: str, body: str, reason: str, source: str) -> bool:
        with self._lock:
            if any(letter.source == source for letter in self.letters):
                return False
            self._ends.bury(Letter(uuid4(), queue, clean_text(reason), source=source, body=clean_text(body)))
            return True

    def bury_job(self, job: NewJob, reason: str, source: str) -> UUID | None:
        with self._lock:
            alone = replace(job, run_at=None, delay=None, unique=None, depends_on=(), batch_id=None)
            self._intake.check(alone)
            made = self._intake.insert(replace(alone, idempotency_key=job.idempotency_key or f"message:{source}"))
            if not made.created:
                return None
            row = self._state.live[made.id]
            self._ends.die(row, row.record, ErrorClass.WORKER_LOST, reason)
            return made.id

    def take_turn(self, timer: str, at_most: timedelta) -> UUID | None:
        with self._lock:
            now = self._clock()
            if timer in self._turns and self._turns[timer][1] >= now:
                return None
            token = uuid4()
            self._turns[timer] = (token, now + at_most)
            return token

    def end_turn(self, timer: str, token: UUID) -> None:
        with self._lock:
            if timer in self._turns and self._turns[timer][0] == token:
                del self._turns[timer]

    def jobs(self, queue: str | None = None) -> list[JobRecord]:
        """Every job, in the order of enqueueing."""
        with self._lock:
            return [row.record for row in self._state.everything() if queue in (None, row.record.queue)]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Alone; and what the change lets go on goes on with it."""
        with self._lock:
            yield
            self._conclude()

    def _conclude(self) -> Counter[str]:
        """Finish batches and open keys; returns how many jobs became runnable, per queue."""
        return self._ends.finish() + self._lanes.reopen()

    def _all_or_nothing(self, jobs: Sequence[NewJob]) -> AbstractContextManager[None]:
        """Bare jobs are checked before the first is stored; others may be refused in the middle."""
        bare = all(job.unique is None and not job.depends_on and job.batch_id is None for job in jobs)
        return nullcontext() if bare else self._state.all_or_nothing()

    def _limits(self, queue: str) -> Limits:
        return self.settings(queue).limits

    def _must_exist(self, queue: str) -> None:
        if queue not in self.queues:
            raise ControlError(f'queue "{queue}" does not exist')

    def _set_paused(self, queue: str, paused: bool) -> bool:
        with self._lock:
            self._must_exist(queue)
            changed = self.settings(queue).paused != paused
            self.queues[queue] = replace(self.settings(queue), paused=paused)
            return changed

    def _open_letter(self, job_id: UUID) -> Letter | None:
        return next((x for x in self.letters if x.job_id == job_id and x.closed_by is None), None)


class MemoryTransport:
    """See shared.engine.ports.Transport. Messages stand in `sent`, in order, until a test takes them."""

    def __init__(self) -> None:
        self.sent: deque[tuple[str, str, timedelta]] = deque()

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None:
        self.sent.append((queue, body, delay))

    def visible(self, queue: str, cap: int) -> int:
        return min(cap, sum(name == queue and not delay for name, _, delay in self.sent))
