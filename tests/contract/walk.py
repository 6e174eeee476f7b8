"""A random walk over every verb of the store, and what must be true after each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.engine.ageing import aged
from shared.engine.backoff import decide
from shared.engine.control import CLEARABLE
from shared.engine.errors import ControlError
from shared.engine.job import (
    ENDED,
    TRANSITIONS,
    Cancellation,
    Cancelled,
    Completed,
    ConcurrencyKey,
    Dead,
    Debounce,
    Deferred,
    ErrorClass,
    Failure,
    FairnessKey,
    IfDependencyFails,
    Job,
    JobRecord,
    JobState,
    Lane,
    NewJob,
    OnDead,
    OrderingKey,
    Outcome,
    Released,
    Retry,
    Settlement,
    Singleton,
    SingletonPolicy,
    Throttle,
    Unique,
)
from shared.engine.ports import Limits, Rate, Store
from tests.contract.reasons import why_waiting

QUEUE = "teams-outbound"
CALLBACKS = "outlook-outbound"
CALLBACK = NewJob(CALLBACKS, {})
#: As long as a test can wait: everything scheduled or leased is moved into the past by `let_time_pass`.
LEASE = timedelta(hours=1)
STEP = timedelta(hours=3)
#: What the relay waits for between two looks, and a little more.
RELAY = timedelta(seconds=11)
REFUSED = Failure(ErrorClass.VALIDATION, "refused")
OUTCOMES: list[Outcome] = [
    Completed({"ok": True}),
    Completed(follow_ups=(NewJob(QUEUE, {"follow": "up"}, lane=OrderingKey("a")),)),
    Dead(REFUSED),
    Retry(Failure(ErrorClass.NETWORK, "reset"), timedelta(hours=2)),
    Retry(Failure(ErrorClass.AUTH, "401"), timedelta()),
    Deferred(timedelta(hours=2)),
    Released(),
    Cancelled(),
]
LANES: list[Lane] = [
    OrderingKey("a"),
    OrderingKey("b", OnDead.BLOCK),
    ConcurrencyKey("c", 2),
    FairnessKey("x"),
    FairnessKey("y"),
]
UNIQUE: list[Unique] = [
    Singleton("s"),
    Singleton("s", SingletonPolicy.REPLACE_SCHEDULED),
    Debounce("d", timedelta(hours=2)),
    Throttle("t", timedelta(hours=2)),
]
LIMITS = [
    Limits(),
    Limits(key_concurrency=1),
    Limits(concurrency=3, key_concurrency=2),
    Limits(key_rate=Rate(2, timedelta(hours=1))),
]
MOST_ROUNDS = 150


@dataclass(frozen=True, slots=True)
class World:
    """A store, how to let time pass for it, how to see every job that there is, and how to begin anew."""

    store: Store
    let_time_pass: Callable[[timedelta], None]
    look: Callable[[], dict[UUID, JobRecord]]
    reset: Callable[[], None]
    now: Callable[[], datetime]


class Walk(RuleBasedStateMachine):
    """`world` is set by the tests."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()
        self.store = self.world.store
        self.seen: dict[UUID, JobState] = {}
        self.claimed: list[Job] = []
        self.batches: set[UUID] = set()
        self.holders: dict[str, UUID] = {}
        self.given_up: set[UUID] = set()
        self.singletons: set[UUID] = set()
        self.limits = Limits()
        self.ageing: timedelta | None = None
        self.random = Random(1)

    # -------------------------------------------------------------- what happens

    @rule(
        n=st.integers(1, 4),
        delayed=st.booleans(),
        priority=st.integers(1, 10),
        expires_in=st.sampled_from([None, None, timedelta(hours=2.5), timedelta(hours=5)]),
        lane=st.none() | st.sampled_from(LANES),
        limit_key=st.sampled_from([None, "chat:1", "chat:2"]),
    )
    def enqueue(
        self,
        n: int,
        delayed: bool,
        priority: int,
        expires_in: timedelta | None,
        lane: Lane | None,
        limit_key: str | None,
    ) -> None:
        asked = NewJob(QUEUE, {}, priority=priority, expires_in=expires_in, lane=lane, limit_key=limit_key)
        made = self.store.enqueue([replace(asked, delay=timedelta(hours=2) if delayed else None)] * n)
        expected = JobState.SCHEDULED if delayed else JobState.READY
        assert all(each.created and self.record(each.id).state is expected for each in made)

    @rule(unique=st.sampled_from(UNIQUE), delayed=st.booleans())
    def enqueue_unique(self, unique: Unique, delayed: bool) -> None:
        delay = timedelta(hours=2) if delayed and not isinstance(unique, Debounce) else None
        [made] = self.store.enqueue([NewJob(QUEUE, {}, delay=delay, unique=unique)])
        if isinstance(unique, Singleton):
            self.singletons.add(made.id)
            assert made.created or self.record(made.id).state not in ENDED
        if made.replaced is not None:
            assert self.record(made.replaced).state is JobState.CANCELLED

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), n=st.integers(1, 3), policy=st.sampled_from(IfDependencyFails), delayed=st.booleans())
    def enqueue_dependent(self, data: st.DataObject, n: int, policy: IfDependencyFails, delayed: bool) -> None:
        others = tuple(self.any_job(data) for _ in range(n))
        delay = timedelta(hours=2) if delayed else None
        asked = NewJob(QUEUE, {}, depends_on=others, if_dependency_fails=policy, delay=delay)
        before = [self.record(job_id).state for job_id in others]
        [made] = self.store.enqueue([asked])
        failed = any(state in (JobState.DEAD, JobState.CANCELLED) for state in before)
        state = self.record(made.id).state
        if failed and policy is not IfDependencyFails.RUN:
            assert state is (JobState.DEAD if policy is IfDependencyFails.DIE else JobState.CANCELLED)
        elif set(before) <= ENDED:
            assert state is (JobState.SCHEDULED if delayed else JobState.READY)
        else:
            assert state is JobState.WAITING

    @rule(n=st.integers(0, 3), lane=st.none() | st.sampled_from(LANES))
    def create_batch(self, n: int, lane: Lane | None) -> None:
        batch_id, made = self.store.create_batch([NewJob(QUEUE, {}, lane=lane)] * n, CALLBACK)
        self.batches.add(batch_id)
        assert len(made) == n

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        before = self.world.look()
        jobs = self.store.claim(QUEUE, limit, "worker", LEASE).jobs
        assert len(jobs) <= limit
        after = self.world.look()
        self.check_i3(jobs, limit, before, after)
        self.check_limits(jobs, after)
        for job in jobs:
            self.take_lane(job.id, after)
        self.claimed.extend(jobs)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), blocks=st.booleans())
    def settle(self, data: st.DataObject, outcome: Outcome, blocks: bool) -> None:
        job = self.claimed.pop(data.draw(st.integers(0, len(self.claimed) - 1)))
        before = self.record(job.id)
        held = before.lease_until is not None and before.attempt == job.attempt
        block = timedelta(minutes=30) if blocks and isinstance(outcome, Retry) and before.limit_key else None
        settled = self.store.settle([Settlement(job.id, job.lease_token, outcome, block=block)])
        if settled.lost:
            assert settled.lost == (job.id,) and not settled.freed
        else:
            assert held, "a lease that was not held settled a job"

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), page=st.integers(0, 9))
    def save_progress(self, data: st.DataObject, page: int) -> None:
        job = self.claimed[data.draw(st.integers(0, len(self.claimed) - 1))]
        before = self.record(job.id)
        saved = self.store.save_progress(job.id, job.lease_token, {"page": page})
        assert self.record(job.id).progress == ({"page": page} if saved else before.progress)

    @rule()
    def time_passes_and_the_timers_run(self) -> None:
        self.world.let_time_pass(STEP)
        expired = self.store.expired(100)
        lost = Failure(ErrorClass.WORKER_LOST, "gone")
        settlements = [Settlement(j.id, j.lease_token, decide(j, lost, self.random)) for j in expired]
        assert self.store.settle(settlements, only_expired=True).lost == ()
        self.the_relay_runs()

    @rule()
    def the_relay_runs(self) -> None:
        self.world.let_time_pass(RELAY)
        self.store.expire_due(1000)
        self.store.promote_due(1000)
        self.store.open_due(1000)
        jobs = self.world.look()
        for record in jobs.values():
            if record.state is JobState.WAITING:
                assert why_waiting(record, jobs, self.limits), f"nothing will make it ready: {record}"
        assert self.store.repair() == 0

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = self.any_job(data)
        answers = dict.fromkeys(CLEARABLE, Cancellation.CANCELLED) | {JobState.ACTIVE: Cancellation.REQUESTED}
        before = self.record(job_id).state
        assert self.store.cancel(job_id) == answers.get(before)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), priority=st.none() | st.integers(1, 10), hours=st.sampled_from([-1, 0.5, 2]))
    def reschedule(self, data: st.DataObject, priority: int | None, hours: float) -> None:
        job_id = self.any_job(data)
        before = self.record(job_id)
        run_at = before.enqueued_at + timedelta(hours=hours)
        movable = before.state in CLEARABLE
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
            self.check_placed(before, after)
        else:
            assert after == before

    def check_placed(self, before: JobRecord, after: JobRecord) -> None:
        """What waited goes on waiting, but at a key only when it is due; put off before it was tried, it leaves its
        ordering key, unless it stands for a dead job that blocks it."""
        put_off = after.run_at > self.world.now()
        if before.state is JobState.WAITING:
            assert after.state is (JobState.SCHEDULED if put_off and not before.depends_on else JobState.WAITING)
        else:
            assert after.state is (JobState.SCHEDULED if put_off else JobState.READY)
        stands_for_another = after.redrive_of is not None and str(after.lane).endswith(":b")
        leaves = put_off and after.attempt == 0 and not stands_for_another
        if leaves and after.lane is not None and self.holders.get(after.lane) == after.id:
            del self.holders[after.lane]

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def retry_now(self, data: st.DataObject) -> None:
        job_id = self.any_job(data)
        before = self.record(job_id).state
        assert (self.store.retry_now(job_id) is not None) == (before is JobState.SCHEDULED)
        assert before is not JobState.SCHEDULED or self.record(job_id).state is JobState.READY

    @rule(limit=st.integers(1, 3), states=st.sampled_from([[state] for state in CLEARABLE] + [list(CLEARABLE)]))
    def clear(self, limit: int, states: list[JobState]) -> None:
        waited = sum(record.state in states and record.queue == QUEUE for record in self.world.look().values())
        assert self.store.clear(QUEUE, QUEUE, states, limit) == min(limit, waited)

    @rule(limit=st.integers(1, 3))
    def a_paused_queue_hands_out_nothing(self, limit: int) -> None:
        self.store.pause(QUEUE)
        assert self.store.claim(QUEUE, limit, "worker", LEASE).jobs == ()
        assert self.store.resume(QUEUE)

    @rule(limits=st.sampled_from(LIMITS))
    def set_limits(self, limits: Limits) -> None:
        self.store.set_limits(QUEUE, limits)
        self.limits = limits

    @rule(every=st.sampled_from([None, timedelta(minutes=40)]))
    def set_ageing(self, every: timedelta | None) -> None:
        self.store.set_ageing(QUEUE, every)
        self.ageing = every

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        job_id = self.any_job(data)
        try:
            made = self.store.redrive(job_id, "ann")
        except ControlError:
            assert any(self.record(other).state not in ENDED for other in self.singletons)
            return
        if made is not None:
            dead = self.record(job_id)
            assert dead.state is JobState.DEAD and job_id not in self.given_up
            self.given_up.add(job_id)
            if job_id in self.singletons:
                self.singletons.add(made.id)
            if dead.lane is not None and self.holders.get(dead.lane) == job_id:
                self.holders[dead.lane] = made.id

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        job_id = self.any_job(data)
        could = self.record(job_id).state is JobState.DEAD and job_id not in self.given_up
        assert self.store.discard(job_id, "ann") == could
        self.given_up.add(job_id)

    # -------------------------------------------------------------- what must be true

    @invariant()
    def states_change_only_as_drawn_and_no_job_vanishes(self) -> None:
        jobs = self.world.look()
        assert self.seen.keys() <= jobs.keys(), "a job vanished"
        for job_id, record in jobs.items():
            before = self.seen.get(job_id, record.state)
            assert record.state is before or record.state in _reachable(before), f"{before} -> {record.state}"
            assert (record.state is JobState.ACTIVE) == (record.lease_until is not None)
            assert (record.finished_at is not None) == (not TRANSITIONS[record.state])
            assert (record.error_class is not None) == (record.state is JobState.DEAD)
            assert record.stop_requested_at is None or record.state is JobState.ACTIVE
            assert not record.depends_on or record.state is JobState.WAITING
            # Every counted attempt that has ended is kept; the one under way is not yet.
            assert len(record.attempts) == record.attempt - (record.state is JobState.ACTIVE)
        self.seen = {job_id: record.state for job_id, record in jobs.items()}

    @invariant()
    def one_job_of_an_ordering_key_and_one_live_singleton(self) -> None:
        jobs = self.world.look()
        ordered = [r.lane for r in jobs.values() if r.state is JobState.ACTIVE and r.lane and ":order:" in r.lane]
        assert len(ordered) == len(set(ordered)), "two jobs of an ordering key run at once"
        assert sum(jobs[job_id].state not in ENDED for job_id in self.singletons) <= 1

    @invariant()
    def the_counts_of_batches_are_those_of_their_jobs(self) -> None:
        jobs = self.world.look()
        for batch_id in self.batches:
            batch = self.store.batch(batch_id)
            assert batch is not None
            states = [record.state for record in jobs.values() if record.batch_id == batch_id]
            counted = (batch.total, batch.completed, batch.dead, batch.cancelled)
            ended = (states.count(state) for state in (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED))
            assert counted == (len(states), *ended)
            assert (batch.finished_at is not None) == (batch.pending == 0) == (batch.callback_id is not None)
        callbacks = [r for r in jobs.values() if r.queue == CALLBACKS]
        assert len({r.correlation_id for r in callbacks}) == len(callbacks) <= len(self.batches)

    def check_i3(
        self, jobs: Sequence[Job], limit: int, before: dict[UUID, JobRecord], after: dict[UUID, JobRecord]
    ) -> None:
        """What was taken is at least as good as the best that was ready before and that nothing could hold back."""
        bare = [r for r in before.values() if r.state is JobState.READY and r.queue == QUEUE]
        best = min((self.aged(r) for r in bare if r.lane is None and r.limit_key is None), default=None)
        ordered = any(":order:" in (after[job.id].lane or "") for job in jobs)
        if len(jobs) == limit and best is not None and not ordered:
            assert min(self.aged(after[job.id]) for job in jobs) <= best
        for job in jobs:
            assert job.id not in before or before[job.id].state in CLEARABLE

    def aged(self, record: JobRecord) -> int:
        return aged(record.priority, record.run_at, self.ageing, self.world.now())

    def check_limits(self, jobs: Sequence[Job], after: dict[UUID, JobRecord]) -> None:
        """I10: with what was just taken, no limit is exceeded."""
        running = [record for record in after.values() if record.state is JobState.ACTIVE]
        if jobs and self.limits.concurrency is not None:
            assert len(running) <= self.limits.concurrency
        for job in jobs:
            taken = after[job.id]
            if taken.lane is not None and ":concurrency:" in taken.lane:
                assert sum(record.lane == taken.lane for record in running) <= 2
            if taken.limit_key is not None and self.limits.key_concurrency is not None:
                beside = sum(record.limit_key == taken.limit_key for record in running)
                assert beside <= self.limits.key_concurrency

    def take_lane(self, job_id: UUID, jobs: dict[UUID, JobRecord]) -> None:
        """An ordering key is free, or this job's own, when it starts."""
        lane = jobs[job_id].lane
        if lane is None or ":order:" not in lane:
            return
        holder = self.holders.get(lane)
        if holder is not None and holder != job_id:
            ended = jobs[holder]
            blocks = lane.endswith(":b") and ended.state is JobState.DEAD and holder not in self.given_up
            blocks = blocks and ended.attempt > 0
            assert ended.state in ENDED and not blocks, f"{lane} is held by {ended}"
        self.holders[lane] = job_id

    # -------------------------------------------------------------- the end

    def teardown(self) -> None:
        """From wherever the walk has come, every job ends: nothing is stuck."""
        for _ in range(MOST_ROUNDS):
            self.the_relay_runs()
            jobs = self.world.look()
            if all(record.state in ENDED for record in jobs.values()):
                return
            for record in jobs.values():
                if record.state is JobState.DEAD and record.lane is not None:
                    self.store.discard(record.id, "ann")
            for queue in {record.queue for record in jobs.values() if record.state not in ENDED}:
                found = self.store.claim(queue, 50, "worker", LEASE).jobs
                self.store.settle([Settlement(job.id, job.lease_token, Completed()) for job in found])
            lost = self.store.expired(100)
            self.store.settle([Settlement(job.id, job.lease_token, Completed()) for job in lost])
            self.world.let_time_pass(STEP)
        left = [record for record in self.world.look().values() if record.state not in ENDED]
        raise AssertionError(f"these never end: {left}")

    def any_job(self, data: st.DataObject) -> UUID:
        return list(self.seen)[data.draw(st.integers(0, len(self.seen) - 1))]

    def record(self, job_id: UUID) -> JobRecord:
        record = self.store.get(job_id)
        assert record is not None, "a job vanished"
        return record


def _reachable(state: JobState) -> frozenset[JobState]:
    """One or two steps: a rule may promote and claim, or take back and promote, in one go."""
    return TRANSITIONS[state].union(*(TRANSITIONS[following] for following in TRANSITIONS[state]))
