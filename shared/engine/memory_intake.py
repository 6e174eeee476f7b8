"""How a job comes into being in memory: checked, met with what has its keys, stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

from shared.engine.errors import EnqueueError
from shared.engine.job import NORMAL_PRIORITY, ConcurrencyKey, Debounce, Enqueued, JobRecord, JobState, NewJob
from shared.engine.json_text import to_json
from shared.engine.memory_ends import Ends
from shared.engine.memory_state import Row, State, lane_name
from shared.engine.memory_unique import Meeting, UniqueKeys
from shared.engine.ports import QueueSettings


class Intake:
    """`queues` are the settings as they stand; `closed` maps queues that take no jobs to the reason."""

    def __init__(
        self,
        state: State,
        clock: Callable[[], datetime],
        unique: UniqueKeys,
        ends: Ends,
        queues: Mapping[str, QueueSettings],
        closed: Mapping[str, str],
    ) -> None:
        self._state = state
        self._clock = clock
        self._unique = unique
        self._ends = ends
        self._queues = queues
        self._closed = closed

    def check(self, job: NewJob) -> None:
        """Raises EnqueueError when the job cannot be stored."""
        if job.queue not in self._queues:
            raise EnqueueError(f'queue "{job.queue}" does not exist')
        if job.queue in self._closed:
            raise EnqueueError(f'queue "{job.queue}" takes no jobs: {self._closed[job.queue]}')
        if job.priority is not None and not 1 <= job.priority <= 10:
            raise EnqueueError("priority: it must be 1 (first) to 10 (last)")
        if isinstance(job.lane, ConcurrencyKey) and job.lane.limit < 1:
            raise EnqueueError("concurrency_key: its limit must be at least 1")
        _check_times(job)
        self._check_relations(job)

    def check_callback(self, callback: NewJob) -> None:
        """It must be possible to store it whenever the last job of the batch ends."""
        if callback.unique is not None or callback.depends_on or callback.batch_id is not None:
            raise EnqueueError("callback: it cannot be unique, depend on others or belong to a batch")
        self.check(callback)

    def insert(self, job: NewJob) -> Enqueued:
        """Store a job that `check` has let pass. Raises EnqueueError when a singleton rule refuses it."""
        now = self._clock()
        key = (job.queue, job.idempotency_key) if job.idempotency_key is not None else None
        known = self._state.idempotency.get(key) if key is not None else None
        meeting = Meeting(known) if known is not None else self._unique.meet(job)
        run_at = meeting.run_at or job.run_at or now + (job.delay or timedelta())
        if meeting.existing is not None:
            if key is not None:
                self._state.idempotency[key] = meeting.existing
            return Enqueued(meeting.existing, False, run_at <= now and not self._is_paused(job.queue))
        row = self._make(job, run_at)
        self._unique.remember(job, row.id, meeting.replaces)
        if key is not None:
            self._state.idempotency[key] = row.id
        if job.batch_id is not None:
            self._ends.join(job.batch_id)
        if meeting.replaces is not None:
            replaced = replace(meeting.replaces.record, state=JobState.CANCELLED, result={"replacedBy": str(row.id)})
            self._ends.end(meeting.replaces, replaced)
        self._ends.wait_for(row, job.depends_on)
        due = row.state is JobState.READY and not self._is_paused(job.queue)
        return Enqueued(row.id, True, due, meeting.replaces.id if meeting.replaces else None)

    def _make(self, job: NewJob, run_at: datetime) -> Row:
        now, number = self._clock(), next(self._state.numbers)
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
            lane=lane_name(job.queue, job.lane),
            limit_key=job.limit_key,
            batch_id=job.batch_id,
        )
        row = Row(record, number, number, effect_since=job.effect_since, lane=job.lane, unique=job.unique)
        row.if_dependency_fails = job.if_dependency_fails
        self._state.live[record.id] = row
        return row

    def _check_relations(self, job: NewJob) -> None:
        for job_id in job.depends_on:
            if self._state.find(job_id) is None:
                raise EnqueueError(f"depends_on: job {job_id} is not known")
        if job.batch_id is not None:
            batch = self._state.batches.get(job.batch_id)
            if batch is None or batch.record.finished_at is not None:
                problem = "is not known" if batch is None else "has finished"
                raise EnqueueError(f"batch_id: batch {job.batch_id} {problem}")

    def _is_paused(self, queue: str) -> bool:
        return queue in self._queues and self._queues[queue].paused


def _check_times(job: NewJob) -> None:
    if job.run_at is not None and job.delay is not None:
        raise EnqueueError("run_at, delay: give one of the two, not both")
    if isinstance(job.unique, Debounce) and (job.run_at is not None or job.delay is not None):
        raise EnqueueError("run_at, delay: a debounced job runs after its window")
    if job.expires_at is not None and job.expires_in is not None:
        raise EnqueueError("expires_at, expires_in: give one of the two, not both")
    too_early = job.expires_at is not None and job.run_at is not None and job.expires_at <= job.run_at
    if too_early or (job.expires_in is not None and job.expires_in <= (job.delay or timedelta())):
        raise EnqueueError("expires_at: it must be later than the time that the job may run from")
