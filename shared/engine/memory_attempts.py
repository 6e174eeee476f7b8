"""Attempts in memory: how one starts and ends, and what ends jobs that never started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from shared.engine.job import (
    Attempt,
    Cancelled,
    Completed,
    Dead,
    Deferred,
    ErrorClass,
    Job,
    JobRecord,
    JobState,
    Released,
    Retry,
    Settlement,
)
from shared.engine.json_text import to_json
from shared.engine.memory_ends import Ends
from shared.engine.memory_intake import Intake
from shared.engine.memory_state import Row, State


class Attempts:
    """The way from ready to active and on; what an end does to others is for Ends."""

    def __init__(self, state: State, clock: Callable[[], datetime], ends: Ends, intake: Intake) -> None:
        self._state = state
        self._clock = clock
        self._ends = ends
        self._intake = intake

    def start(self, row: Row, token: UUID, worker: str, lease: timedelta) -> None:
        row.token, row.started_at = token, self._clock()
        row.record = replace(
            row.record,
            state=JobState.ACTIVE,
            attempt=row.record.attempt + 1,
            lease_until=self._clock() + lease,
            leased_by=worker,
        )

    def end(self, row: Row, settlement: Settlement) -> None:
        """Carry an outcome out, for whoever holds the lease."""
        outcome, now = settlement.outcome, self._clock()
        stopped = row.record.stop_requested_at is not None
        entry = self._entry(row, settlement)
        row.token = row.started_at = None
        record = replace(row.record, lease_until=None, leased_by=None, stop_requested_at=None)
        uncounted = replace(record, attempt=record.attempt - 1)
        counted = replace(record, attempts=(*record.attempts, entry))
        if settlement.block is not None:
            key = record.limit_key
            gate = self._state.key_gate(key) if key is not None else self._state.queue_gate(record.queue)
            gate.block(now + settlement.block)
        match outcome:
            case Retry() | Cancelled() if stopped or isinstance(outcome, Cancelled):
                self._ends.end(row, replace(counted, state=JobState.CANCELLED))
            case Deferred() | Released() if stopped:
                self._ends.end(row, replace(uncounted, state=JobState.CANCELLED))
            case Retry(failure=failed, delay=delay) if record.expires_at and record.expires_at <= now + delay:
                reason = f"{_expiry_reason(record.expires_at)} (next attempt); the last one failed: {failed.message}"
                self._ends.die(row, counted, ErrorClass.EXPIRED, reason)
            case Completed():
                self._complete(row, counted, outcome)
            case Dead(failure=failed):
                self._ends.die(row, counted, failed.error_class, failed.message)
            case Retry(delay=delay):
                row.permits = None if delay else row.permits
                state = JobState.SCHEDULED if delay else JobState.READY
                row.record = replace(counted, state=state, run_at=now + delay if delay else record.run_at)
            case Deferred(delay=delay):
                row.permits = outcome.permits
                row.record = replace(uncounted, state=JobState.SCHEDULED, run_at=now + delay)
            case Released():
                row.record = replace(uncounted, state=JobState.READY)

    def is_expired(self, row: Row) -> bool:
        return row.record.lease_until is not None and row.record.lease_until < self._clock()

    def promote(self, queue: str | None, limit: int | None = None) -> int:
        """scheduled -> ready, the earliest first."""
        due = [row for row in self._state.rows(JobState.SCHEDULED, queue) if row.record.run_at <= self._clock()]
        due.sort(key=lambda row: row.record.run_at)
        for row in due[:limit]:
            row.record = replace(row.record, state=JobState.READY)
        return len(due[:limit])

    def expire_due(self, queue: str | None, limit: int | None = None) -> int:
        """What has not started by its deadline dies."""
        late = [
            (row, row.record.expires_at)
            for row in self._state.live.values()
            if row.state is not JobState.ACTIVE
            and queue in (None, row.record.queue)
            and row.record.expires_at is not None
            and row.record.expires_at <= self._clock()
        ]
        for row, expires_at in late[:limit]:
            self._ends.die(row, row.record, ErrorClass.EXPIRED, _expiry_reason(expires_at))
        return len(late[:limit])

    def _complete(self, row: Row, record: JobRecord, outcome: Completed) -> None:
        """Its batch is finished after this, when its follow-ups have joined it."""
        self._ends.end(row, replace(record, state=JobState.COMPLETED, result=outcome.result))
        for job in outcome.follow_ups:
            self._intake.check(job)
            self._intake.insert(job)

    def _entry(self, row: Row, settlement: Settlement) -> Attempt:
        outcome, now = settlement.outcome, self._clock()
        failure = outcome.failure if isinstance(outcome, Retry | Dead) else None
        return Attempt(
            number=row.record.attempt,
            started_at=row.started_at or now,
            finished_at=now,
            worker=row.record.leased_by or "",
            outcome=type(outcome).__name__.lower(),
            error_class=failure.error_class if failure else None,
            message=failure.message if failure else outcome.reason if isinstance(outcome, Cancelled) else None,
            details=settlement.details | (failure.details if failure else {}),
        )


def as_job(row: Row) -> Job:
    """What a worker gets."""
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
        progress=record.progress,
        batch_id=record.batch_id,
        permits=row.paid,
    )


def _expiry_reason(expires_at: datetime | None) -> str:
    if expires_at is None:
        raise AssertionError("an expired job has a deadline")
    return f"it had not started by its deadline, {expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
