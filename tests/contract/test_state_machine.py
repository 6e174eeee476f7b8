"""Random walks over every verb of the store: states change only as drawn, no job vanishes, no lease is shared.

The same walk runs on PostgreSQL and in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from shared.engine.backoff import decide
from shared.engine.control import CLEARABLE
from shared.engine.errors import ControlError
from shared.engine.job import (
    TRANSITIONS,
    Cancellation,
    Cancelled,
    Completed,
    Dead,
    Deferred,
    ErrorClass,
    Failure,
    Job,
    JobRecord,
    JobState,
    NewJob,
    Outcome,
    Released,
    Retry,
    Settlement,
)
from shared.engine.memory import MemoryClock, MemoryStore
from shared.engine.ports import Store
from shared.handlers.registry import QUEUES
from shared.postgres.store import PostgresStore

QUEUE = "teams-outbound"
#: As long as a test can wait: everything scheduled or leased is moved into the past by `let_time_pass`.
LEASE = timedelta(hours=1)
OUTCOMES: list[Outcome] = [
    Completed({"ok": True}),
    Completed(follow_ups=(NewJob(QUEUE, {"follow": "up"}),)),
    Dead(Failure(ErrorClass.VALIDATION, "refused")),
    Retry(Failure(ErrorClass.NETWORK, "reset"), timedelta(hours=2)),
    Retry(Failure(ErrorClass.AUTH, "401"), timedelta()),
    Deferred(timedelta(hours=2)),
    Released(),
    Cancelled(),
]


class Walk(RuleBasedStateMachine):
    """`store` and `let_time_pass` are set by the tests below."""

    store: Store
    let_time_pass: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[UUID, JobState] = {}
        self.claimed: list[Job] = []
        self.random = Random(1)

    @rule(
        n=st.integers(1, 4),
        delayed=st.booleans(),
        priority=st.integers(1, 10),
        expires_in=st.sampled_from([None, None, timedelta(hours=2.5), timedelta(hours=5)]),
    )
    def enqueue(self, n: int, delayed: bool, priority: int, expires_in: timedelta | None) -> None:
        delay = timedelta(hours=2) if delayed else None
        asked = [NewJob(QUEUE, {"n": i}, priority=priority, delay=delay, expires_in=expires_in) for i in range(n)]
        made = self.store.enqueue(asked)
        for one in made:
            self.jobs[one.id] = JobState.SCHEDULED if delayed else JobState.READY

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        before = self.states()
        best = sorted((r.priority, r.run_at) for r in before.values() if r.state is JobState.READY and r.queue == QUEUE)
        jobs = self.store.claim(QUEUE, limit, "worker", LEASE)
        assert len(jobs) <= limit
        if len(jobs) == limit and best:
            # I3: what was taken is at least as good as the best that was ready before.
            assert min(job.priority for job in jobs) <= best[0][0]
        for job in jobs:
            if job.id in before:
                assert before[job.id].state in (JobState.READY, JobState.SCHEDULED)
            self.jobs.setdefault(job.id, JobState.READY)  # a follow-up is met here for the first time
        self.claimed.extend(jobs)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES))
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        job = self.claimed.pop(data.draw(st.integers(0, len(self.claimed) - 1)))
        held = self.record(job.id).lease_until is not None and self.record(job.id).attempt == job.attempt
        lost = self.store.settle([Settlement(job.id, job.lease_token, outcome)])
        if lost:
            assert lost == [job.id]
        else:
            assert held, "a lease that was not held settled a job"

    @rule()
    def time_passes_and_the_timers_run(self) -> None:
        self.let_time_pass()
        expired = self.store.expired(100)
        lost = Failure(ErrorClass.WORKER_LOST, "gone")
        settlements = [Settlement(j.id, j.lease_token, decide(j, lost, self.random)) for j in expired]
        assert self.store.settle(settlements, only_expired=True) == []
        self.store.expire_due(1000)
        self.store.promote_due(1000)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = self.any_job(data)
        before = self.record(job_id).state
        answers = {JobState.SCHEDULED: Cancellation.CANCELLED, JobState.READY: Cancellation.CANCELLED}
        answers[JobState.ACTIVE] = Cancellation.REQUESTED
        assert self.store.cancel(job_id) == answers.get(before)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), priority=st.none() | st.integers(1, 10), hours=st.sampled_from([-1, 0.5, 2]))
    def reschedule(self, data: st.DataObject, priority: int | None, hours: float) -> None:
        job_id = self.any_job(data)
        before = self.record(job_id)
        run_at = before.enqueued_at + timedelta(hours=hours)
        movable = before.state in (JobState.SCHEDULED, JobState.READY)
        if movable and before.expires_at is not None and before.expires_at <= run_at:
            with pytest.raises(ControlError):
                self.store.reschedule(job_id, priority, run_at)
            return
        placed = self.store.reschedule(job_id, priority, run_at)
        assert (placed is not None) == movable
        after = self.record(job_id)
        if placed is not None:
            assert (after.state, after.run_at) == (placed.state, run_at)
            assert after.priority == (priority or before.priority)
        else:
            assert after == before

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def retry_now(self, data: st.DataObject) -> None:
        job_id = self.any_job(data)
        before = self.record(job_id).state
        assert (self.store.retry_now(job_id) is not None) == (before is JobState.SCHEDULED)
        assert before is not JobState.SCHEDULED or self.record(job_id).state is JobState.READY

    @rule(limit=st.integers(1, 3), states=st.sampled_from([[JobState.READY], [JobState.SCHEDULED], list(CLEARABLE)]))
    def clear(self, limit: int, states: list[JobState]) -> None:
        waited = sum(record.state in states for record in self.states().values())
        cleared = self.store.clear(QUEUE, QUEUE, states, limit)
        assert cleared >= min(limit, waited), "follow-ups that the walk has not met may be among them"

    @rule(limit=st.integers(1, 3))
    def a_paused_queue_hands_out_nothing(self, limit: int) -> None:
        self.store.pause(QUEUE)
        assert self.store.claim(QUEUE, limit, "worker", LEASE) == []
        assert self.store.resume(QUEUE)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        job_id = self.any_job(data)
        made = self.store.redrive(job_id, "ann")
        if made is not None:
            assert self.jobs[job_id] is JobState.DEAD
            self.jobs[made.id] = JobState.READY

    @invariant()
    def states_change_only_as_drawn_and_no_job_vanishes(self) -> None:
        for job_id, record in self.states().items():
            before = self.jobs.get(job_id, JobState.READY)
            assert record.state is before or record.state in _reachable(before), f"{before} -> {record.state}"
            self.jobs[job_id] = record.state
            assert (record.state is JobState.ACTIVE) == (record.lease_until is not None)
            assert (record.finished_at is not None) == (not TRANSITIONS[record.state])
            assert (record.error_class is not None) == (record.state is JobState.DEAD)
            assert record.stop_requested_at is None or record.state is JobState.ACTIVE
            # Every counted attempt that has ended is kept; the one under way is not yet.
            assert len(record.attempts) == record.attempt - (record.state is JobState.ACTIVE)

    def any_job(self, data: st.DataObject) -> UUID:
        return list(self.jobs)[data.draw(st.integers(0, len(self.jobs) - 1))]

    def states(self) -> dict[UUID, JobRecord]:
        return {job_id: self.record(job_id) for job_id in self.jobs}

    def record(self, job_id: UUID) -> JobRecord:
        record = self.store.get(job_id)
        assert record is not None, "a job vanished"
        return record


def _reachable(state: JobState) -> frozenset[JobState]:
    """One or two steps: a rule may promote and claim, or take back and promote, in one go."""
    return TRANSITIONS[state].union(*(TRANSITIONS[following] for following in TRANSITIONS[state]))


def _walk(store: Store, let_time_pass: Callable[[], None], examples: int, reset: Callable[[], Any]) -> None:
    class Bound(Walk):
        def __init__(self) -> None:
            reset()
            super().__init__()

    Bound.store = store
    Bound.let_time_pass = staticmethod(let_time_pass)
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_I1_I2_I3_random_walks_in_memory() -> None:
    clock = MemoryClock()
    store = MemoryStore(list(QUEUES), clock=clock)

    def reset() -> None:
        store.__init__(list(QUEUES), clock=clock)  # type: ignore[misc]

    _walk(store, lambda: clock.advance(timedelta(hours=3)), 60, reset)


def test_I1_I2_I3_random_walks_on_postgres(postgres_store: PostgresStore, sql: psycopg.Connection) -> None:
    def let_time_pass() -> None:
        back = "- interval '3 hours'"
        sql.execute(f"update queue.later set run_at = run_at {back}, expires_at = expires_at {back}".encode())
        sql.execute(f"update queue.job set lease_until = lease_until {back}, expires_at = expires_at {back}".encode())

    def reset() -> None:
        for table in ("job", "later", "job_tracking", "dead_letter_queue"):
            sql.execute(f"delete from queue.{table}".encode())

    _walk(postgres_store, let_time_pass, 12, reset)
