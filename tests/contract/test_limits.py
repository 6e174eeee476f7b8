"""What every Store promises about limits: rates, concurrency, limit keys, blocks; on PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared.engine.errors import ControlError
from shared.engine.job import (
    Cancellation,
    Cancelled,
    Claimed,
    Completed,
    Dead,
    Deferred,
    ErrorClass,
    Job,
    JobState,
    NewJob,
    Outcome,
    Placed,
    Released,
    Retry,
    Settlement,
)
from shared.engine.memory import MemoryClock, MemoryStore
from shared.engine.ports import Limits, Rate
from tests.contract.bench import (
    LEASE,
    LOST,
    QUEUE,
    REFUSED,
    Bench,
    block,
    claim,
    enqueue,
    finish,
    ids,
    look,
    record,
    settle,
    state,
    states,
)
from tests.threads import at_once

OTHER = "outlook-outbound"
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
#: A window and the slot more that a start is counted for.
PAST_AN_HOUR = timedelta(minutes=64)
WAYS_OUT: list[Outcome] = [
    Completed(),
    Dead(REFUSED),
    Retry(LOST, timedelta()),
    Retry(LOST, HOUR),
    Deferred(HOUR),
    Released(),
    Cancelled(),
]


def named(outcome: object) -> str | None:
    if isinstance(outcome, Retry):
        return "retry later" if outcome.delay else "retry at once"
    return type(outcome).__name__.lower() if isinstance(outcome, Outcome) else None


# ------------------------------------------------------------------ the rate of a queue


def test_I10_a_whole_limit_may_start_at_once_and_then_nothing_until_the_window_has_passed(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(3, HOUR)))
    jobs = enqueue(bench, 5)
    first = look(bench)
    assert ids(first.jobs) == jobs[:3]
    refused = look(bench)
    assert refused.jobs == () and refused.wait is not None
    assert HOUR - MINUTE <= refused.wait <= PAST_AN_HOUR
    assert finish(bench, *first.jobs) == {}, "a start counts, not an end"
    bench.pass_time(HOUR / 2)
    assert claim(bench) == []
    bench.pass_time(HOUR / 2 + 4 * MINUTE)
    assert ids(claim(bench)) == jobs[3:]


def test_what_a_limit_holds_back_stays_ready_and_keeps_its_place(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(1, HOUR)))
    _, second = enqueue(bench, 2)
    claim(bench)
    claim(bench)
    assert state(bench, second) is JobState.READY
    [urgent] = enqueue(bench, priority=1)
    bench.pass_time(PAST_AN_HOUR)
    assert ids(claim(bench)) == [urgent], "the next permit is for the best job"


def test_nothing_to_run_is_nothing_to_wait_for(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(1, HOUR)))
    enqueue(bench)
    assert len(look(bench).jobs) == 1
    assert look(bench) == Claimed()


def test_refused_claims_are_spread(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(4, HOUR), job_cost=2))
    enqueue(bench, 9)
    assert len(claim(bench)) == 2
    waits = [look(bench).wait for _ in range(4)]
    for sooner, later in pairwise(waits):
        assert sooner is not None and later is not None
        assert later - sooner >= HOUR / 2 - SECOND, "a job costs half of the rate"


def test_a_job_takes_what_it_costs(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(10, HOUR), job_cost=3))
    enqueue(bench, 9)
    assert len(claim(bench)) == 3


def test_a_claim_takes_no_permits_for_jobs_that_it_does_not_hand_out(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(4, HOUR)))
    enqueue(bench, 1)
    assert len(claim(bench)) == 1
    enqueue(bench, 5)
    assert [len(claim(bench, 2)) for _ in range(3)] == [2, 1, 0]


def test_permits_beyond_a_job_s_cost_come_from_the_same_window(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(5, HOUR), job_cost=2))
    enqueue(bench, 3)
    assert len(claim(bench, 1)) == 1
    assert bench.store.take_permits(QUEUE, 2) is None
    wait = bench.store.take_permits(QUEUE, 2)
    assert wait is not None and HOUR - MINUTE <= wait <= PAST_AN_HOUR
    assert bench.store.take_permits(QUEUE, 1) is None
    assert claim(bench) == []
    bench.pass_time(PAST_AN_HOUR)
    assert bench.store.take_permits(QUEUE, 5) is None
    assert claim(bench) == []


def test_permits_that_can_never_be_had_are_refused_and_without_a_rate_all_are_granted(bench: Bench) -> None:
    assert bench.store.take_permits(QUEUE, 1000) is None
    bench.store.set_limits(QUEUE, Limits(rate=Rate(5, HOUR)))
    with pytest.raises(ControlError, match="permits"):
        bench.store.take_permits(QUEUE, 6)


# ------------------------------------------------------------------ concurrency of a queue


@pytest.mark.parametrize("outcome", WAYS_OUT, ids=named)
def test_a_slot_of_the_queue_comes_back_on_every_way_out(bench: Bench, outcome: Outcome) -> None:
    bench.store.set_limits(QUEUE, Limits(concurrency=2))
    enqueue(bench, 4)
    running = claim(bench)
    assert len(running) == 2 and look(bench) == Claimed(), "an end wakes, not a time"
    assert settle(bench, running[0], outcome)
    assert len(claim(bench)) == 1 and claim(bench) == []


def test_a_slot_comes_back_when_a_lease_is_lost(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(concurrency=1, key_concurrency=1))
    [job_id] = enqueue(bench, limit_key="chat:1")
    claim(bench)
    bench.expire(job_id)
    [lost] = bench.store.expired(10)
    rescue = Settlement(lost.id, lost.lease_token, Retry(LOST, timedelta()))
    assert bench.store.settle([rescue], only_expired=True).lost == ()
    assert ids(claim(bench)) == [job_id]
    assert bench.store.repair() == 0


# ------------------------------------------------------------------ limit keys


@pytest.mark.parametrize("outcome", WAYS_OUT, ids=named)
def test_a_slot_of_a_key_comes_back_on_every_way_out(bench: Bench, outcome: Outcome) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    first, second, _ = enqueue(bench, 3, limit_key="chat:1")
    [other] = enqueue(bench, limit_key="chat:2")
    running = {job.id: job for job in claim(bench)}
    assert list(running) == [first, other]
    assert look(bench) == Claimed()
    settled = bench.store.settle([Settlement(first, running[first].lease_token, outcome)])
    runs_again = state(bench, first) is JobState.READY
    if not runs_again:
        assert settled.freed == {QUEUE: 1} and state(bench, second) is JobState.READY
    assert ids(claim(bench)) == [first if runs_again else second]


def test_what_a_key_holds_back_waits_with_its_place_and_its_priority(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    first, low, normal = (enqueue(bench, limit_key="chat:1", priority=n)[0] for n in (1, 9, 5))
    before = [record(bench, x) for x in (low, normal)]
    [running] = claim(bench)
    assert running.id == first and states(bench, (low, normal)) == [JobState.WAITING] * 2
    held = record(bench, low)
    assert (held.run_at, held.priority, held.limit_key) == (before[0].run_at, 9, "chat:1")
    finish(bench, running)
    assert states(bench, (low, normal)) == [JobState.WAITING, JobState.READY], "the best comes back"
    assert record(bench, normal) == before[1]


def test_a_busy_key_is_passed_over(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    busy = enqueue(bench, 60, limit_key="chat:1")
    free = [enqueue(bench, limit_key=f"chat:{n}")[0] for n in range(2, 6)] + enqueue(bench, 2)
    assert ids(claim(bench, 1)) == busy[:1]
    assert [claim(bench, 1)[0].id for _ in free] == free
    assert look(bench, 1) == Claimed()


def test_I10_the_rate_of_a_key_holds_back_that_key_alone(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_rate=Rate(2, HOUR)))
    chatty = enqueue(bench, 5, limit_key="chat:1")
    [other] = enqueue(bench, limit_key="chat:2")
    bare = enqueue(bench, 3)
    claimed = look(bench)
    assert set(ids(claimed.jobs)) == {*chatty[:2], other, *bare}
    assert claimed.wait is not None and HOUR - MINUTE <= claimed.wait <= PAST_AN_HOUR
    assert states(bench, chatty[2:]) == [JobState.WAITING] * 3
    finish(bench, *claimed.jobs)
    assert claim(bench) == []
    bench.pass_time(PAST_AN_HOUR)
    assert bench.store.open_due(100) >= 1
    assert ids(claim(bench)) == chatty[2:4]


def test_a_claim_opens_the_keys_whose_time_has_come_itself(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_rate=Rate(1, HOUR)))
    jobs = enqueue(bench, 2, limit_key="chat:1")
    assert ids(claim(bench)) == jobs[:1] and claim(bench) == []
    bench.pass_time(PAST_AN_HOUR)
    enqueue(bench)
    assert jobs[1] in ids(claim(bench))


def test_a_key_counts_in_all_queues_that_use_it(bench: Bench) -> None:
    for queue in (QUEUE, OTHER):
        bench.store.set_limits(queue, Limits(key_concurrency=1))
    enqueue(bench, limit_key="mailbox:1")
    [elsewhere] = [made.id for made in bench.store.enqueue([NewJob(OTHER, {}, limit_key="mailbox:1")])]
    [running] = claim(bench)
    assert claim(bench, queue=OTHER) == [] and state(bench, elsewhere) is JobState.WAITING
    assert finish(bench, running) == {OTHER: 1}
    assert ids(claim(bench, queue=OTHER)) == [elsewhere]


def test_without_limits_a_key_holds_nothing_back(bench: Bench) -> None:
    jobs = enqueue(bench, 9, limit_key="chat:1")
    assert ids(claim(bench)) == jobs


# ------------------------------------------------------------------ blocks (429)


def test_a_block_closes_its_key_in_every_queue_and_no_other(bench: Bench) -> None:
    first, second = enqueue(bench, 2, limit_key="chat:1")
    [other] = enqueue(bench, limit_key="chat:2")
    [elsewhere] = [made.id for made in bench.store.enqueue([NewJob(OTHER, {}, limit_key="chat:1")])]
    [job] = claim(bench, 1)
    assert job.id == first
    block(bench, job, HOUR)
    assert ids(claim(bench)) == [other]
    assert claim(bench, queue=OTHER) == []
    assert states(bench, (first, second, elsewhere)) == [JobState.SCHEDULED, JobState.WAITING, JobState.WAITING]
    bench.pass_time(HOUR + SECOND)
    bench.store.open_due(100)
    assert second in ids(claim(bench)) and ids(claim(bench, queue=OTHER)) == [elsewhere]


def test_a_claim_that_meets_a_block_waits_for_its_end_if_for_anything(bench: Bench) -> None:
    """Whoever set the time looks again then; the others need not be told."""
    enqueue(bench, limit_key="chat:1")
    [job] = claim(bench)
    block(bench, job, HOUR)
    [late] = enqueue(bench, limit_key="chat:1")
    claimed = look(bench)
    assert claimed.jobs == () and (claimed.wait is None or HOUR - MINUTE <= claimed.wait <= HOUR)
    assert state(bench, late) is JobState.WAITING


def test_a_block_without_a_key_closes_the_queue(bench: Bench) -> None:
    _, second = enqueue(bench, 2)
    [elsewhere] = [made.id for made in bench.store.enqueue([NewJob(OTHER, {})])]
    [job] = claim(bench, 1)
    block(bench, job, HOUR)
    claimed = look(bench)
    assert claimed.jobs == () and claimed.wait is not None and HOUR - MINUTE <= claimed.wait <= HOUR + MINUTE
    assert bench.store.runnable(10) == {OTHER: 1} and ids(claim(bench, queue=OTHER)) == [elsewhere]
    wait = bench.store.take_permits(QUEUE, 1)
    assert wait is not None and HOUR - MINUTE <= wait <= HOUR
    bench.pass_time(HOUR + SECOND)
    assert second in ids(claim(bench))


def test_a_shorter_block_does_not_shorten_one(bench: Bench) -> None:
    enqueue(bench, 3, limit_key="chat:1")
    first, second, _ = claim(bench)
    block(bench, first, HOUR)
    block(bench, second, SECOND)
    [late] = enqueue(bench, limit_key="chat:1")
    bench.pass_time(MINUTE)
    bench.store.open_due(100)
    bench.store.retry_now(second.id)
    assert claim(bench) == [] and state(bench, late) is JobState.WAITING


def test_a_settlement_that_lost_its_lease_blocks_nothing(bench: Bench) -> None:
    enqueue(bench, 2, limit_key="chat:1")
    [job] = claim(bench, 1)
    settle(bench, job, Completed())
    stale = Settlement(job.id, job.lease_token, Retry(LOST, HOUR), block=HOUR)
    assert bench.store.settle([stale]).lost == (job.id,)
    assert len(claim(bench)) == 1


# ------------------------------------------------------------------ what waits, and orders to it


def test_a_waiting_job_is_cancelled_and_cleared_but_not_run_now(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    enqueue(bench, limit_key="chat:1")
    [running] = claim(bench)
    first, second, third = enqueue(bench, 3, limit_key="chat:1")
    assert claim(bench) == []
    assert bench.store.retry_now(first) is None
    assert bench.store.cancel(first) is Cancellation.CANCELLED
    assert bench.store.clear(QUEUE, QUEUE, [JobState.READY, JobState.SCHEDULED], 10) == 0
    assert bench.store.clear(QUEUE, QUEUE, [JobState.WAITING], 1) == 1
    assert sorted(states(bench, (second, third))) == [JobState.CANCELLED, JobState.WAITING]
    assert finish(bench, running) == {QUEUE: 1}
    assert len(claim(bench)) == 1


def behind_a_busy_chat(bench: Bench, n: int, **options: object) -> tuple[Job, list[UUID]]:
    """A job that runs, and those that wait until it has ended."""
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    enqueue(bench, limit_key="chat:1", priority=1)
    [running] = claim(bench)
    waiting = enqueue(bench, n, limit_key="chat:1", **options)
    assert claim(bench) == [] and states(bench, waiting) == [JobState.WAITING] * n
    return running, waiting


def test_a_job_that_waits_at_a_limit_key_and_becomes_urgent_goes_first(bench: Bench) -> None:
    running, (first, second, third) = behind_a_busy_chat(bench, 3)
    assert bench.store.reschedule(third, 1, None) == Placed(QUEUE, JobState.WAITING)
    assert bench.store.reschedule(first, 9, None) == Placed(QUEUE, JobState.WAITING)
    assert [record(bench, job_id).priority for job_id in (first, second, third)] == [9, 5, 1]
    for expected in (third, second, first):
        finish(bench, running)
        [running] = claim(bench)
        assert running.id == expected
    assert bench.store.repair() == 0


def test_a_job_that_waits_at_a_limit_key_is_put_off_and_brought_back(bench: Bench) -> None:
    running, (first, second) = behind_a_busy_chat(bench, 2)
    now = record(bench, first).enqueued_at
    assert bench.store.reschedule(second, 2, now - HOUR) == Placed(QUEUE, JobState.WAITING)
    assert bench.store.reschedule(first, None, now + HOUR) == Placed(QUEUE, JobState.SCHEDULED)
    moved = record(bench, first)
    assert (moved.run_at, moved.limit_key, moved.priority) == (now + HOUR, "chat:1", 5)
    finish(bench, running)
    assert ids(claim(bench)) == [second] and claim(bench) == []
    bench.pass_time(2 * HOUR)
    assert claim(bench) == [] and state(bench, first) is JobState.WAITING, "due, and its chat is busy"
    assert bench.store.repair() == 0


def test_a_waiting_job_is_not_put_off_past_its_deadline(bench: Bench) -> None:
    _, [waiting] = behind_a_busy_chat(bench, 1, expires_in=HOUR)
    before = record(bench, waiting)
    with pytest.raises(ControlError, match="deadline"):
        bench.store.reschedule(waiting, 1, before.expires_at)
    assert record(bench, waiting) == before


def test_a_waiting_job_keeps_its_deadline(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    enqueue(bench, limit_key="chat:1")
    [running] = claim(bench)
    [late] = enqueue(bench, limit_key="chat:1", expires_in=HOUR)
    assert claim(bench) == [] and state(bench, late) is JobState.WAITING
    bench.pass_time(HOUR + SECOND)
    assert bench.store.expire_due(10) == 1
    ended = record(bench, late)
    assert (ended.state, ended.error_class) == (JobState.DEAD, ErrorClass.EXPIRED)
    assert len(claim(bench, queue="dead-letter")) == 1
    finish(bench, running)
    assert claim(bench) == []


@pytest.mark.parametrize("order", ["cancel", "reschedule", "clear"])
def test_a_job_that_came_back_and_then_went_leaves_its_slot_to_the_next(bench: Bench, order: str) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    first, second, third = enqueue(bench, 3, limit_key="chat:1")
    [running] = claim(bench)
    assert running.id == first
    finish(bench, running)
    assert states(bench, (second, third)) == [JobState.READY, JobState.WAITING]
    match order:
        case "cancel":
            assert bench.store.cancel(second)
        case "reschedule":
            assert bench.store.reschedule(second, None, record(bench, second).enqueued_at + timedelta(days=9))
        case "clear":
            assert bench.store.clear(QUEUE, QUEUE, [JobState.READY], 10) == 1
    bench.open_all()
    assert ids(claim(bench)) == [third]


def test_a_paused_queue_opens_nothing_by_its_claims(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    _, second = enqueue(bench, 2, limit_key="chat:1")
    [running] = claim(bench)
    bench.store.pause(QUEUE)
    finish(bench, running)
    assert look(bench) == Claimed() and bench.store.runnable(10) == {}
    bench.store.resume(QUEUE)
    bench.open_all()
    assert ids(claim(bench)) == [second]


def test_runnable_is_what_the_limits_let_start(bench: Bench) -> None:
    enqueue(bench, 9)
    bench.store.set_limits(QUEUE, Limits(concurrency=4))
    assert bench.store.runnable(10) == {QUEUE: 4}
    claim(bench, 3)
    assert bench.store.runnable(10) == {QUEUE: 1}
    claim(bench)
    assert bench.store.runnable(10) == {}
    bench.store.set_limits(QUEUE, Limits(rate=Rate(6, timedelta(days=1)), job_cost=2))
    assert 3 <= bench.store.runnable(10)[QUEUE] <= 4
    claim(bench)
    assert bench.store.runnable(10).get(QUEUE, 0) <= 1


# ------------------------------------------------------------------ changing limits


def test_limits_change_while_jobs_run(bench: Bench) -> None:
    jobs = enqueue(bench, 9)
    assert bench.store.settings(QUEUE).limits == Limits()
    running = claim(bench, 3)
    limits = Limits(Rate(100, HOUR), 4, Rate(7, MINUTE), 5, 2)
    bench.store.set_limits(QUEUE, limits)
    assert bench.store.settings(QUEUE).limits == limits
    assert ids(claim(bench)) == jobs[3:4], "what runs is counted"
    bench.store.set_limits(QUEUE, Limits(concurrency=2))
    finish(bench, running[0])
    assert claim(bench) == [], "three run, two may"
    finish(bench, *running[1:])
    assert len(claim(bench)) == 1
    bench.store.set_limits(QUEUE, Limits())
    assert len(claim(bench)) == 4


@pytest.mark.parametrize(("before", "after"), [(SECOND, MINUTE), (MINUTE, SECOND)], ids=["longer", "shorter"])
def test_I10_a_window_of_another_length_counts_what_started_in_it_and_lets_it_go(
    bench: Bench, before: timedelta, after: timedelta
) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(3, before)))
    enqueue(bench, 20)
    finish(bench, *claim(bench, 3))
    bench.store.set_limits(QUEUE, Limits(rate=Rate(4, after)))
    started = claim(bench, 4)
    assert len(started) == 1, "three are in the window"
    finish(bench, *started)
    bench.pass_time(MINUTE * 1.1)
    for _ in range(2):
        started = claim(bench, 5)
        assert len(started) == 4
        finish(bench, *started)
        assert claim(bench) == []
        bench.pass_time(after * 1.1)


def test_I10_a_key_s_window_of_another_length_does_the_same(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_rate=Rate(1, SECOND)))
    jobs = enqueue(bench, 3, limit_key="chat:1")
    finish(bench, *claim(bench))
    bench.store.set_limits(QUEUE, Limits(key_rate=Rate(1, MINUTE)))
    for job_id in jobs[1:]:
        bench.open_all()
        assert claim(bench) == []
        bench.pass_time(MINUTE * 1.1)
        bench.open_all()
        [job] = claim(bench)
        assert job.id == job_id
        finish(bench, job)


def test_limits_that_are_lifted_let_go_a_key_that_was_blocked_once(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_rate=Rate(1, HOUR)))
    enqueue(bench, 2, limit_key="chat:1")
    [job] = claim(bench)
    block(bench, job, SECOND)
    bench.pass_time(MINUTE)
    bench.store.open_due(10)
    assert claim(bench) == [], "the block has passed, the rate has not"
    bench.store.set_limits(QUEUE, Limits())
    bench.store.open_due(10)
    assert len(claim(bench)) == 2


def test_a_wider_key_limit_lets_go_what_the_narrower_held_back(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    jobs = enqueue(bench, 4, limit_key="chat:1")
    assert ids(claim(bench)) == jobs[:1] and claim(bench) == []
    bench.store.set_limits(QUEUE, Limits(key_concurrency=3))
    bench.open_all()
    assert ids(claim(bench)) == jobs[1:3] and claim(bench) == []
    bench.store.set_limits(QUEUE, Limits())
    bench.open_all()
    assert ids(claim(bench)) == jobs[3:]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(rate=Rate(0, HOUR)),
        Limits(rate=Rate(1, timedelta())),
        Limits(key_rate=Rate(0, HOUR)),
        Limits(concurrency=0),
        Limits(key_concurrency=0),
        Limits(job_cost=0),
        Limits(rate=Rate(3, HOUR), job_cost=4),
    ],
    ids=["rate", "window", "key rate", "concurrency", "key concurrency", "cost", "cost above the rate"],
)
def test_limits_that_make_no_sense_are_refused_and_change_nothing(bench: Bench, limits: Limits) -> None:
    kept = Limits(concurrency=7)
    bench.store.set_limits(QUEUE, kept)
    with pytest.raises(ControlError):
        bench.store.set_limits(QUEUE, limits)
    with pytest.raises(ControlError, match="does not exist"):
        bench.store.set_limits("nope", Limits())
    assert bench.store.settings(QUEUE).limits == kept


# ------------------------------------------------------------------ many at once


def test_I10_claims_at_once_stay_within_the_limits(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(20, HOUR), key_concurrency=2))
    for n in range(6):
        enqueue(bench, 10, limit_key=f"chat:{n}")

    def work(_: int) -> list[Job]:
        found: list[Job] = []
        for _ in range(6):
            found += claim(bench, 3)
        return found

    taken = [job for jobs in at_once(6, work) for job in jobs]
    keys = [record(bench, job.id).limit_key for job in taken]
    assert len({job.id for job in taken}) == len(taken) <= 20
    assert all(keys.count(key) <= 2 for key in keys)
    assert bench.store.repair() == 0


def test_I10_all_of_a_limit_is_used_in_the_end(bench: Bench) -> None:
    """Nobody is refused for good because others looked at the same moment."""
    bench.store.set_limits(QUEUE, Limits(concurrency=3, key_concurrency=1))
    jobs = [job_id for n in range(4) for job_id in enqueue(bench, 5, limit_key=f"chat:{n}")]

    def work(_: int) -> int:
        done = 0
        for _ in range(200):
            found = claim(bench, 2)
            finish(bench, *found)
            done += len(found)
            if not found and all(state(bench, x) is JobState.COMPLETED for x in jobs):
                break
        return done

    assert sum(at_once(4, work)) <= len(jobs)
    while found := claim(bench):
        finish(bench, *found)
    assert set(states(bench, jobs)) == {JobState.COMPLETED}
    assert bench.store.repair() == 0


# ------------------------------------------------------------------ I10 as a property


@hypothesis_settings(max_examples=150)
@given(
    limit=st.integers(1, 6),
    window=st.sampled_from([0.1, 1.0, 7.0, 60.0]),
    steps=st.lists(st.tuples(st.floats(0, 1.2), st.integers(1, 4), st.booleans()), max_size=60),
    keyed=st.booleans(),
)
def test_I10_no_window_has_more_starts_than_the_limit(
    limit: int, window: float, steps: Sequence[tuple[float, int, bool]], keyed: bool
) -> None:
    """`steps`: how long to wait, as a share of the window, how much to ask for, and whether as permits."""
    clock = MemoryClock()
    store = MemoryStore([QUEUE], clock=clock)
    length = timedelta(seconds=window)
    rate = Rate(limit, length)
    store.set_limits(QUEUE, Limits(key_rate=rate) if keyed else Limits(rate=rate))
    store.enqueue([NewJob(QUEUE, {}, limit_key="chat:1")] * 250)
    starts: list[datetime] = []
    for share, n, as_permits in steps:
        clock.advance(length * share)
        if as_permits and not keyed and n < limit:
            starts += [clock.now] * n if store.take_permits(QUEUE, n) is None else []
            continue
        claimed = store.claim(QUEUE, n, "w", LEASE)
        starts += [clock.now] * len(claimed.jobs)
        if not claimed.jobs:
            assert claimed.wait is not None and timedelta() < claimed.wait, "it says when to look again"
    for start in starts:
        assert sum(start <= other < start + length for other in starts) <= limit


@hypothesis_settings(max_examples=60)
@given(limit=st.integers(1, 6), window=st.sampled_from([0.1, 1.0, 7.0, 60.0]), shift=st.floats(0, 1))
def test_who_waits_as_told_gets_a_permit(limit: int, window: float, shift: float) -> None:
    clock = MemoryClock()
    clock.advance(timedelta(seconds=window) * shift)
    store = MemoryStore([QUEUE], clock=clock)
    store.set_limits(QUEUE, Limits(rate=Rate(limit, timedelta(seconds=window))))
    store.enqueue([NewJob(QUEUE, {})] * 40)
    for _ in range(4):
        assert len(store.claim(QUEUE, 10, "w", LEASE).jobs) == limit
        refused = store.claim(QUEUE, 10, "w", LEASE)
        assert refused.jobs == () and refused.wait is not None
        assert refused.wait <= timedelta(seconds=window) * 1.06
        clock.advance(refused.wait)
