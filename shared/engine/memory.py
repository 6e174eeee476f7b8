"""The engine without a database: the same contract (tests/contract runs both), for tests and examples.

One lock, one clock that a test may move, nothing durable.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from shared.engine.enqueue import DEAD_LETTERS
from shared.engine.errors import ControlError, EnqueueError
from shared.engine.job import (
    NORMAL_PRIORITY,
    Attempt,
    Cancellation,
    Cancelled,
    Completed,
    Dead,
    Deferred,
    Enqueued,
    ErrorClass,
    Job,
    JobRecord,
    JobState,
    Lease,
    NewJob,
    Placed,
    Released,
    Renewal,
    Retry,
    Settlement,
    effect_since,
)
from shared.engine.json_text import clean_text, to_json
from shared.engine.ports import QueueSettings

#: States that a job can be cancelled in, and that its deadline ends.
WAITS = (JobState.READY, JobState.SCHEDULED, JobState.WAITING)


@dataclass(slots=True)
class _Row:
    record: JobRecord
    order: int
    token: UUID | None = None
    started_at: datetime | None = None
    effect_since: datetime | None = None


@dataclass(slots=True)
class _Letter:
    id: UUID
    queue: str
    message: str
    job_id: UUID | None = None
    source: str | None = None
    body: str | None = None
    redriven_by: str | None = None


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
        self.letters: list[_Letter] = []
        self._closed = dict(closed or {})
        self._clock = clock or MemoryClock()
        self._rows: dict[UUID, _Row] = {}
        self._keys: dict[tuple[str, str], UUID] = {}
        self._turns: dict[str, tuple[UUID, datetime]] = {}
        self._order = itertools.count()
        self._lock = threading.RLock()

    def enqueue(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        if conn is not None:
            raise EnqueueError("the store in memory has no transactions to take part in")
        with self._lock:
            for job in jobs:
                self._check(job)
            return [self._insert(job) for job in jobs]

    def claim(self, queue: str, limit: int, worker: str, lease: timedelta) -> list[Job]:
        with self._lock:
            if self.settings(queue).paused:
                return []
            self._promote(queue)
            self._expire_due(queue)
            token, now = uuid4(), self._clock()
            ready = [row for row in self._in_state(JobState.READY) if row.record.queue == queue]
            ready.sort(key=lambda row: (row.record.priority, row.record.run_at, row.order))
            for row in ready[:limit]:
                row.token, row.started_at = token, now
                row.record = replace(
                    row.record,
                    state=JobState.ACTIVE,
                    attempt=row.record.attempt + 1,
                    lease_until=now + lease,
                    leased_by=worker,
                )
            return [_job(row) for row in ready[:limit]]

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> list[UUID]:
        with self._lock:
            lost = []
            for settlement in settlements:
                row = self._rows.get(settlement.job_id)
                if row is None or row.token != settlement.lease_token or (only_expired and not self._expired(row)):
                    lost.append(settlement.job_id)
                else:
                    self._end(row, settlement)
            return lost

    def settle_and_claim(
        self, settlements: Sequence[Settlement], queue: str, limit: int, worker: str, lease: timedelta
    ) -> tuple[list[UUID], list[Job]]:
        with self._lock:
            return self.settle(settlements), self.claim(queue, limit, worker, lease)

    def renew(self, leases: Sequence[Lease], lease: timedelta) -> Renewal:
        with self._lock:
            lost, asked_to_stop = [], []
            for held in leases:
                row = self._rows.get(held.job_id)
                if row is None or row.token != held.token:
                    lost.append(held.job_id)
                else:
                    row.record = replace(row.record, lease_until=self._clock() + lease)
                    if row.record.stop_requested_at is not None:
                        asked_to_stop.append(held.job_id)
            return Renewal(tuple(lost), tuple(asked_to_stop))

    def expired(self, limit: int) -> list[Job]:
        with self._lock:
            return [_job(row) for row in self._in_state(JobState.ACTIVE) if self._expired(row)][:limit]

    def expire_due(self, limit: int) -> int:
        with self._lock:
            return self._expire_due(None, limit)

    def promote_due(self, limit: int) -> int:
        with self._lock:
            return self._promote(None, limit)

    def runnable(self, cap: int) -> Mapping[str, int]:
        with self._lock:
            counts: dict[str, int] = {}
            for row in self._in_state(JobState.READY):
                queue = row.record.queue
                if not self.settings(queue).paused:
                    counts[queue] = min(counts.get(queue, 0) + 1, cap)
            return counts

    def settings(self, queue: str) -> QueueSettings:
        return self.queues.get(queue, QueueSettings(queue))

    def get(self, job_id: UUID) -> JobRecord | None:
        with self._lock:
            row = self._rows.get(job_id)
            return row.record if row else None

    def cancel(self, job_id: UUID) -> Cancellation | None:
        with self._lock:
            row = self._rows.get(job_id)
            if row is not None and row.record.state in WAITS:
                row.record = replace(row.record, state=JobState.CANCELLED, finished_at=self._clock())
                return Cancellation.CANCELLED
            if row is not None and row.record.state is JobState.ACTIVE:
                row.record = replace(row.record, stop_requested_at=row.record.stop_requested_at or self._clock())
                return Cancellation.REQUESTED
            return None

    def reschedule(self, job_id: UUID, priority: int | None, run_at: datetime | None) -> Placed | None:
        if priority is None and run_at is None:
            raise ControlError("priority, run_at: give at least one of the two")
        if priority is not None and not 1 <= priority <= 10:
            raise ControlError("priority: it must be 1 (first) to 10 (last)")
        with self._lock:
            row = self._rows.get(job_id)
            if row is None or row.record.state not in (JobState.READY, JobState.SCHEDULED):
                return None
            record = row.record
            if run_at is not None and record.expires_at is not None and run_at >= record.expires_at:
                raise ControlError("run_at: it must be earlier than the job's deadline")
            if run_at is not None:
                state = JobState.SCHEDULED if run_at > self._clock() else JobState.READY
                record = replace(record, run_at=run_at, state=state)
            row.record = replace(record, priority=priority or record.priority)
            return Placed(record.queue, record.state)

    def retry_now(self, job_id: UUID) -> Placed | None:
        with self._lock:
            row = self._rows.get(job_id)
            if row is None or row.record.state is not JobState.SCHEDULED:
                return None
            run_at = min(row.record.run_at, self._clock())
            row.record = replace(row.record, state=JobState.READY, run_at=run_at)
            return Placed(row.record.queue, JobState.READY)

    def pause(self, queue: str) -> bool:
        return self._set_paused(queue, True)

    def resume(self, queue: str) -> bool:
        return self._set_paused(queue, False)

    def clear(self, queue: str, confirm: str, states: Sequence[JobState], limit: int) -> int:
        with self._lock:
            self._must_exist(queue)
            if confirm != queue:
                raise ControlError(f'confirm: repeat the name "{queue}" to cancel the jobs of this queue')
            if not states or not set(states) <= {JobState.READY, JobState.SCHEDULED}:
                raise ControlError("states: they are ready and scheduled")
            ids = [r.id for r in self.jobs(queue) if r.state in states][:limit]
            return sum(self.cancel(job_id) is Cancellation.CANCELLED for job_id in ids)

    def redrive(self, job_id: UUID, by: str) -> Enqueued | None:
        with self._lock:
            letter = next((x for x in self.letters if x.job_id == job_id and x.redriven_by is None), None)
            if letter is None:
                return None
            old = self._rows[job_id].record
            letter.redriven_by = by
            again = NewJob(
                old.queue,
                old.payload,
                old.priority,
                correlation_id=old.correlation_id,
                redrive_of=old.redrive_of or job_id,
                effect_since=self._rows[job_id].effect_since or effect_since(old.attempts),
            )
            return self._insert(again)

    def bury(self, queue: str, body: str, reason: str, source: str) -> bool:
        with self._lock:
            if any(letter.source == source for letter in self.letters):
                return False
            self._letter(_Letter(uuid4(), queue, clean_text(reason), source=source, body=clean_text(body)))
            return True

    def bury_job(self, job: NewJob, reason: str, source: str) -> UUID | None:
        with self._lock:
            self._check(job)
            made = self._insert(replace(job, idempotency_key=f"message:{source}", run_at=None, delay=None))
            if not made.created:
                return None
            row = self._rows[made.id]
            row.record = replace(row.record, state=JobState.DEAD, finished_at=self._clock(), error_message=reason)
            self._letter(_Letter(uuid4(), job.queue, reason, job_id=made.id))
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
            return [row.record for row in self._rows.values() if queue in (None, row.record.queue)]

    def _check(self, job: NewJob) -> None:
        if job.queue not in self.queues:
            raise EnqueueError(f'queue "{job.queue}" does not exist')
        if job.queue in self._closed:
            raise EnqueueError(f'queue "{job.queue}" takes no jobs: {self._closed[job.queue]}')
        if job.priority is not None and not 1 <= job.priority <= 10:
            raise EnqueueError("priority: it must be 1 (first) to 10 (last)")
        if job.run_at is not None and job.delay is not None:
            raise EnqueueError("run_at, delay: give one of the two, not both")
        if job.expires_at is not None and job.expires_in is not None:
            raise EnqueueError("expires_at, expires_in: give one of the two, not both")
        too_early = job.expires_at is not None and job.run_at is not None and job.expires_at <= job.run_at
        if too_early or (job.expires_in is not None and job.expires_in <= (job.delay or timedelta())):
            raise EnqueueError("expires_at: it must be later than the time that the job may run from")

    def _must_exist(self, queue: str) -> None:
        if queue not in self.queues:
            raise ControlError(f'queue "{queue}" does not exist')

    def _set_paused(self, queue: str, paused: bool) -> bool:
        with self._lock:
            self._must_exist(queue)
            changed = self.settings(queue).paused != paused
            self.queues[queue] = replace(self.settings(queue), paused=paused)
            return changed

    def _insert(self, job: NewJob) -> Enqueued:
        now = self._clock()
        run_at = job.run_at or now + (job.delay or timedelta())
        due = run_at <= now and not self.queues.get(job.queue, QueueSettings(job.queue)).paused
        key = (job.queue, job.idempotency_key) if job.idempotency_key is not None else None
        if key in self._keys:
            return Enqueued(self._keys[key], False, due)
        record = JobRecord(
            id=uuid4(),
            queue=job.queue,
            state=JobState.READY if run_at <= now else JobState.SCHEDULED,
            priority=job.priority or NORMAL_PRIORITY,
            attempt=0,
            payload=json.loads(to_json(job.payload)),
            enqueued_at=now,
            run_at=run_at,
            attempts=(),
            correlation_id=job.correlation_id,
            idempotency_key=job.idempotency_key,
            redrive_of=job.redrive_of,
            expires_at=job.expires_at or (now + job.expires_in if job.expires_in is not None else None),
        )
        self._rows[record.id] = _Row(record, next(self._order), effect_since=job.effect_since)
        if key is not None:
            self._keys[key] = record.id
        return Enqueued(record.id, True, due)

    def _end(self, row: _Row, settlement: Settlement) -> None:
        outcome, now, record = settlement.outcome, self._clock(), row.record
        failure = outcome.failure if isinstance(outcome, Retry | Dead) else None
        entry = Attempt(
            number=record.attempt,
            started_at=row.started_at or now,
            finished_at=now,
            worker=record.leased_by or "",
            outcome=type(outcome).__name__.lower(),
            error_class=failure.error_class if failure else None,
            message=failure.message if failure else outcome.reason if isinstance(outcome, Cancelled) else None,
            details=settlement.details | (failure.details if failure else {}),
        )
        row.token = row.started_at = None
        stopped = record.stop_requested_at is not None
        record = replace(record, lease_until=None, leased_by=None, stop_requested_at=None)
        uncounted = replace(record, attempt=record.attempt - 1)
        counted = replace(record, attempts=(*record.attempts, entry))
        match outcome:
            case Retry() | Cancelled() if stopped or isinstance(outcome, Cancelled):
                row.record = replace(counted, state=JobState.CANCELLED, finished_at=now)
            case Deferred() | Released() if stopped:
                row.record = replace(uncounted, state=JobState.CANCELLED, finished_at=now)
            case Retry(failure=failed, delay=delay) if record.expires_at and record.expires_at <= now + delay:
                reason = f"{_expiry_reason(record.expires_at)} (next attempt); the last one failed: {failed.message}"
                self._die(row, counted, ErrorClass.EXPIRED, reason)
            case Completed(result=result, follow_ups=follow_ups):
                row.record = replace(counted, state=JobState.COMPLETED, finished_at=now, result=result)
                for job in follow_ups:
                    self._insert(job)
            case Dead(failure=failed):
                self._die(row, counted, failed.error_class, failed.message)
            case Retry(delay=delay):
                state = JobState.SCHEDULED if delay else JobState.READY
                row.record = replace(counted, state=state, run_at=now + delay if delay else record.run_at)
            case Deferred(delay=delay):
                row.record = replace(uncounted, state=JobState.SCHEDULED, run_at=now + delay)
            case Released():
                row.record = replace(uncounted, state=JobState.READY)

    def _die(self, row: _Row, record: JobRecord, error_class: ErrorClass, message: str) -> None:
        row.record = replace(
            record,
            state=JobState.DEAD,
            finished_at=self._clock(),
            error_class=error_class,
            error_message=message,
        )
        self._letter(_Letter(uuid4(), record.queue, message, job_id=record.id))

    def _expire_due(self, queue: str | None, limit: int | None = None) -> int:
        late = [
            (row, row.record.expires_at)
            for row in self._rows.values()
            if row.record.state in WAITS
            and queue in (None, row.record.queue)
            and row.record.expires_at is not None
            and row.record.expires_at <= self._clock()
        ]
        for row, expires_at in late[:limit]:
            self._die(row, row.record, ErrorClass.EXPIRED, _expiry_reason(expires_at))
        return len(late[:limit])

    def _letter(self, letter: _Letter) -> None:
        self.letters.append(letter)
        if letter.queue != DEAD_LETTERS:
            self._insert(NewJob(DEAD_LETTERS, {"deadLetterId": str(letter.id)}))

    def _promote(self, queue: str | None, limit: int | None = None) -> int:
        due = [
            row
            for row in self._in_state(JobState.SCHEDULED)
            if queue in (None, row.record.queue) and row.record.run_at <= self._clock()
        ]
        due.sort(key=lambda row: row.record.run_at)
        for row in due[:limit]:
            row.record = replace(row.record, state=JobState.READY)
        return len(due[:limit])

    def _in_state(self, state: JobState) -> list[_Row]:
        return [row for row in self._rows.values() if row.record.state is state]

    def _expired(self, row: _Row) -> bool:
        return row.record.lease_until is not None and row.record.lease_until < self._clock()


class MemoryTransport:
    """See shared.engine.ports.Transport. Messages stand in `sent`, in order, until a test takes them."""

    def __init__(self) -> None:
        self.sent: deque[tuple[str, str, timedelta]] = deque()

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None:
        self.sent.append((queue, body, delay))

    def visible(self, queue: str, cap: int) -> int:
        return min(cap, sum(name == queue and not delay for name, _, delay in self.sent))


def _expiry_reason(expires_at: datetime | None) -> str:
    if expires_at is None:
        raise AssertionError("an expired job has a deadline")
    return f"it had not started by its deadline, {expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _job(row: _Row) -> Job:
    record = row.record
    if row.token is None:
        raise AssertionError("an active job has a token")
    return Job(
        id=record.id,
        queue=record.queue,
        payload=to_json(record.payload),
        attempt=record.attempt,
        priority=record.priority,
        lease_token=row.token,
        correlation_id=record.correlation_id,
        enqueued_at=record.enqueued_at,
        redrive_of=record.redrive_of,
        inherited_effect_since=row.effect_since,
        attempts=record.attempts,
    )
