"""What every Store promises about ordering, concurrency and fairness keys; on PostgreSQL and in memory."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from uuid import UUID

import pytest

from shared.engine.job import (
    Cancellation,
    Cancelled,
    Completed,
    ConcurrencyKey,
    Dead,
    Deferred,
    FairnessKey,
    Job,
    JobState,
    Lane,
    NewJob,
    OnDead,
    OrderingKey,
    Outcome,
    Placed,
    Released,
    Retry,
)
from shared.engine.ports import Limits, Rate
from tests.contract.bench import (
    LOST,
    QUEUE,
    REFUSED,
    Bench,
    block,
    claim,
    enqueue,
    finish,
    ids,
    record,
    settle,
    state,
    states,
)
from tests.threads import at_once

OTHER = "outlook-outbound"
HOUR = timedelta(hours=1)
TRIP = OrderingKey("trip-7")
BLOCKING = OrderingKey("trip-7", OnDead.BLOCK)
ENDS: list[Outcome] = [Completed(), Dead(REFUSED), Cancelled()]
COMES_BACK: list[Outcome] = [Retry(LOST, timedelta()), Retry(LOST, HOUR), Deferred(HOUR), Released()]


def named(outcome: object) -> str | None:
    if isinstance(outcome, Retry):
        return "retry later" if outcome.delay else "retry at once"
    return type(outcome).__name__.lower() if isinstance(outcome, Outcome) else None


# ------------------------------------------------------------------ ordering


def test_jobs_of_an_ordering_key_run_one_at_a_time_in_order(bench: Bench) -> None:
    jobs = enqueue(bench, 4, lane=TRIP)
    for job_id in jobs:
        [job] = claim(bench)
        assert job.id == job_id and record(bench, job_id).lane == f"{QUEUE}:order:trip-7"
        assert claim(bench) == []
        finish(bench, job)
    assert claim(bench) == []


def test_an_ordering_key_keeps_its_order_over_limit_keys(bench: Bench) -> None:
    """The first of the key is put aside with others of its limit key, before anybody has looked at it itself."""
    bench.store.set_limits(QUEUE, Limits(key_rate=Rate(1, HOUR)))
    [busy] = enqueue(bench, limit_key="chat:1")
    enqueue(bench, limit_key="chat:1")
    [first] = enqueue(bench, limit_key="chat:1", lane=TRIP)
    rest = [enqueue(bench, limit_key=f"chat:{n}", lane=TRIP)[0] for n in (2, 3)]
    assert ids(claim(bench)) == [busy]
    assert claim(bench) == [] and states(bench, [first, *rest]) == [JobState.WAITING] * 3
    bench.store.set_limits(QUEUE, Limits())
    bench.open_all()
    for job_id in [first, *rest]:
        [job] = [job for job in claim(bench) if record(bench, job.id).lane is not None]
        assert job.id == job_id
        finish(bench, job)


def test_an_ordering_key_whose_first_goes_while_it_is_put_aside_goes_on(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_rate=Rate(1, HOUR)))
    [busy] = enqueue(bench, limit_key="chat:1")
    enqueue(bench, limit_key="chat:1")
    [first] = enqueue(bench, limit_key="chat:1", lane=TRIP)
    [second] = enqueue(bench, limit_key="chat:2", lane=TRIP)
    assert ids(claim(bench)) == [busy] and claim(bench) == []
    assert bench.store.cancel(first) is Cancellation.CANCELLED
    bench.open_all()
    assert ids(claim(bench)) == [second]


def test_an_ordering_key_holds_back_no_other_and_belongs_to_its_queue(bench: Bench) -> None:
    first, _ = enqueue(bench, 2, lane=TRIP)
    [other] = enqueue(bench, lane=OrderingKey("trip-8"))
    [bare] = enqueue(bench)
    [made] = bench.store.enqueue([NewJob(OTHER, {}, lane=TRIP)])
    assert ids(claim(bench)) == [first, other, bare]
    assert ids(claim(bench, queue=OTHER)) == [made.id]


def test_jobs_that_an_ordering_key_holds_back_wait_and_the_next_is_ready_when_its_turn_comes(bench: Bench) -> None:
    first, second, third = enqueue(bench, 3, lane=TRIP)
    [job] = claim(bench)
    assert states(bench, (first, second, third)) == [JobState.ACTIVE, JobState.WAITING, JobState.WAITING]
    assert finish(bench, job) == {QUEUE: 1}
    assert states(bench, (second, third)) == [JobState.READY, JobState.WAITING]


@pytest.mark.parametrize("outcome", ENDS, ids=named)
def test_the_end_of_a_job_passes_its_ordering_key_on(bench: Bench, outcome: Outcome) -> None:
    first, second = enqueue(bench, 2, lane=TRIP)
    [job] = claim(bench)
    assert job.id == first and settle(bench, job, outcome)
    assert ids(claim(bench)) == [second]


@pytest.mark.parametrize("outcome", COMES_BACK, ids=named)
def test_a_job_that_runs_again_keeps_its_ordering_key(bench: Bench, outcome: Outcome) -> None:
    first, second = enqueue(bench, 2, lane=TRIP)
    for _ in range(2):
        [job] = claim(bench)
        assert job.id == first and settle(bench, job, outcome)
        if state(bench, first) is JobState.SCHEDULED:
            assert claim(bench) == [], "the others wait for the retry"
            bench.pass_time(2 * HOUR)
    [job] = claim(bench)
    assert job.id == first
    finish(bench, job)
    assert ids(claim(bench)) == [second]


def test_an_ordering_key_goes_on_when_a_retry_is_cancelled(bench: Bench) -> None:
    first, second = enqueue(bench, 2, lane=TRIP)
    [job] = claim(bench)
    settle(bench, job, Retry(LOST, HOUR))
    assert claim(bench) == []
    assert bench.store.cancel(first) is Cancellation.CANCELLED
    assert state(bench, second) is JobState.READY and ids(claim(bench)) == [second]


def test_an_ordering_key_goes_on_when_a_retry_is_cleared(bench: Bench) -> None:
    _, second = enqueue(bench, 2, lane=TRIP)
    [job] = claim(bench)
    settle(bench, job, Retry(LOST, HOUR))
    assert claim(bench) == []
    assert bench.store.clear(QUEUE, QUEUE, [JobState.SCHEDULED], 10) == 1
    assert ids(claim(bench)) == [second]


def test_an_ordering_key_goes_on_when_a_retry_expires(bench: Bench) -> None:
    enqueue(bench, lane=TRIP, expires_in=2 * HOUR)
    [second] = enqueue(bench, lane=TRIP)
    [job] = claim(bench)
    settle(bench, job, Retry(LOST, HOUR))
    assert claim(bench) == []
    bench.pass_time(3 * HOUR)
    assert bench.store.expire_due(10) == 1
    assert ids(claim(bench)) == [second]


def test_a_retry_now_runs_the_holder(bench: Bench) -> None:
    first, _ = enqueue(bench, 2, lane=TRIP)
    [job] = claim(bench)
    settle(bench, job, Retry(LOST, HOUR))
    assert claim(bench) == []
    bench.store.retry_now(first)
    assert ids(claim(bench)) == [first] and claim(bench) == []


def test_inside_an_ordering_key_the_order_is_stronger_than_the_priority(bench: Bench) -> None:
    [low] = enqueue(bench, lane=TRIP, priority=9)
    [bare] = enqueue(bench, priority=5)
    [urgent] = enqueue(bench, lane=TRIP, priority=1)
    assert ids(claim(bench, 1)) == [low], "the urgent one brings its key forward, and the first of it runs"
    assert ids(claim(bench)) == [bare]
    assert state(bench, urgent) is JobState.WAITING


def test_an_ordering_key_orders_by_when_a_job_became_due(bench: Bench) -> None:
    [late] = enqueue(bench, lane=TRIP, delay=HOUR)
    [soon] = enqueue(bench, lane=TRIP)
    [job] = claim(bench)
    assert job.id == soon, "what is not due yet is not in the line"
    [last] = enqueue(bench, lane=TRIP, delay=2 * HOUR)
    bench.pass_time(3 * HOUR)
    bench.store.promote_due(10)
    finish(bench, job)
    [job] = claim(bench)
    assert job.id == late
    finish(bench, job)
    assert ids(claim(bench)) == [last]


def test_the_head_of_an_ordering_key_is_not_overtaken_while_its_limit_key_is_blocked(bench: Bench) -> None:
    enqueue(bench, limit_key="chat:1")
    [job] = claim(bench)
    block(bench, job, HOUR)
    first, second = (enqueue(bench, lane=TRIP, limit_key=key)[0] for key in ("chat:1", "chat:2"))
    assert claim(bench) == []
    bench.pass_time(HOUR + timedelta(seconds=1))
    bench.store.open_due(100)
    taken = ids(claim(bench))
    assert first in taken and second not in taken


def test_a_head_that_goes_before_its_start_leaves_its_place(bench: Bench) -> None:
    first, second, third = enqueue(bench, 3, lane=TRIP)
    [job] = claim(bench)
    assert job.id == first
    finish(bench, job)
    assert bench.store.cancel(second) is Cancellation.CANCELLED
    bench.open_all()
    assert ids(claim(bench)) == [third]


def test_a_head_that_is_put_off_leaves_its_place(bench: Bench) -> None:
    first, second, third = enqueue(bench, 3, lane=TRIP)
    [job] = claim(bench)
    assert job.id == first
    finish(bench, job)
    assert bench.store.reschedule(second, None, record(bench, second).enqueued_at + timedelta(days=9))
    bench.open_all()
    assert ids(claim(bench)) == [third]


def test_a_job_that_waits_in_its_ordering_key_keeps_its_place_whatever_its_priority(bench: Bench) -> None:
    _, second, third = enqueue(bench, 3, lane=TRIP)
    [job] = claim(bench)
    assert claim(bench) == [] and states(bench, (second, third)) == [JobState.WAITING] * 2
    assert bench.store.reschedule(third, 1, None) == Placed(QUEUE, JobState.WAITING)
    finish(bench, job)
    [job] = claim(bench)
    assert job.id == second
    finish(bench, job)
    assert ids(claim(bench)) == [third] and record(bench, third).priority == 1


def test_a_job_that_waits_in_its_ordering_key_is_put_off_or_brought_forward(bench: Bench) -> None:
    first, second, third, fourth = enqueue(bench, 4, lane=TRIP)
    [job] = claim(bench)
    assert job.id == first and claim(bench) == []
    now = record(bench, first).enqueued_at
    assert bench.store.reschedule(second, None, now + HOUR) == Placed(QUEUE, JobState.SCHEDULED)
    assert bench.store.reschedule(fourth, None, now - HOUR) == Placed(QUEUE, JobState.WAITING)
    for expected in (fourth, third):
        finish(bench, job)
        [job] = claim(bench)
        assert job.id == expected
    finish(bench, job)
    bench.pass_time(2 * HOUR)
    assert ids(claim(bench)) == [second] and bench.store.repair() == 0


def at_its_limit_key(bench: Bench, lane: Lane, expires_in: timedelta | None = None) -> tuple[UUID, UUID]:
    """The head of an ordering key that waits until its chat opens, and the next, which waits behind it."""
    enqueue(bench, limit_key="chat:1")
    [job] = claim(bench)
    block(bench, job, HOUR)
    first, second = (enqueue(bench, lane=lane, limit_key=key, expires_in=expires_in)[0] for key in ("chat:1", "chat:2"))
    assert claim(bench) == [] and states(bench, (first, second)) == [JobState.WAITING] * 2
    return first, second


def test_a_head_that_waits_at_its_limit_key_and_is_put_off_leaves_its_place_at_once(bench: Bench) -> None:
    first, second = at_its_limit_key(bench, TRIP)
    placed = bench.store.reschedule(first, None, record(bench, first).enqueued_at + timedelta(days=9))
    assert placed == Placed(QUEUE, JobState.SCHEDULED, freed=1)
    assert ids(claim(bench)) == [second] and bench.store.repair() == 0


def test_a_head_that_waits_at_its_limit_key_and_becomes_urgent_keeps_its_place(bench: Bench) -> None:
    first, second = at_its_limit_key(bench, TRIP)
    assert bench.store.reschedule(second, 1, None) == Placed(QUEUE, JobState.WAITING)
    bench.open_all()
    assert claim(bench) == [] and states(bench, (first, second)) == [JobState.WAITING] * 2
    bench.pass_time(HOUR)
    bench.store.open_due(100)
    assert first in ids(claim(bench)) and state(bench, second) is JobState.WAITING


def test_a_head_that_came_back_from_its_limit_key_and_is_put_off_leaves_its_place(bench: Bench) -> None:
    first, second = at_its_limit_key(bench, TRIP)
    bench.pass_time(HOUR + timedelta(seconds=1))
    bench.store.open_due(100)
    assert state(bench, first) is JobState.READY
    assert bench.store.reschedule(first, None, record(bench, first).enqueued_at + timedelta(days=9))
    assert second in ids(claim(bench)) and bench.store.repair() == 0


def test_a_job_that_was_tried_keeps_its_ordering_key_when_it_is_put_off(bench: Bench) -> None:
    first, second = enqueue(bench, 2, lane=TRIP, limit_key="chat:1")
    [job] = claim(bench)
    block(bench, job, HOUR)
    assert bench.store.retry_now(first) and claim(bench) == []
    assert states(bench, (first, second)) == [JobState.WAITING] * 2
    placed = bench.store.reschedule(first, None, record(bench, first).enqueued_at + timedelta(days=9))
    assert placed == Placed(QUEUE, JobState.SCHEDULED)
    bench.pass_time(2 * HOUR)
    bench.store.open_due(100)
    assert claim(bench) == [] and state(bench, second) is JobState.WAITING and bench.store.repair() == 0


# ------------------------------------------------------------------ ordering: a dead job that blocks


def dead_and_blocking(bench: Bench) -> tuple[UUID, UUID, UUID]:
    first, second, third = enqueue(bench, 3, lane=BLOCKING)
    [job] = claim(bench)
    assert job.id == first and settle(bench, job, Dead(REFUSED))
    bench.open_all()
    assert claim(bench) == [] and bench.store.repair() == 0
    return first, second, third


def test_a_dead_job_blocks_its_ordering_key_until_it_is_redriven(bench: Bench) -> None:
    first, second, third = dead_and_blocking(bench)
    again = bench.store.redrive(first, "ann")
    assert again is not None and record(bench, again.id).lane == f"{QUEUE}:order:trip-7"
    [job] = claim(bench)
    assert job.id == again.id, "it takes the place of the dead one"
    assert claim(bench) == []
    finish(bench, job)
    [job] = claim(bench)
    assert job.id == second
    finish(bench, job)
    assert ids(claim(bench)) == [third]


def test_a_redriven_job_that_dies_blocks_again(bench: Bench) -> None:
    first, second, _ = dead_and_blocking(bench)
    again = bench.store.redrive(first, "ann")
    assert again is not None
    [job] = claim(bench)
    settle(bench, job, Dead(REFUSED))
    assert claim(bench) == []
    assert not bench.store.discard(first, "ann"), "that one was redriven"
    assert bench.store.discard(again.id, "ann")
    assert ids(claim(bench)) == [second]


def test_a_dead_job_blocks_its_ordering_key_until_it_is_discarded(bench: Bench) -> None:
    first, second, _ = dead_and_blocking(bench)
    assert bench.store.discard(first, "ann") and not bench.store.discard(first, "ann")
    assert state(bench, first) is JobState.DEAD and bench.store.redrive(first, "ann") is None
    assert state(bench, second) is JobState.READY and ids(claim(bench)) == [second]


def test_only_dead_jobs_are_discarded(bench: Bench) -> None:
    [job_id] = enqueue(bench)
    assert not bench.store.discard(job_id, "ann")
    [job] = claim(bench)
    finish(bench, job)
    assert not bench.store.discard(job_id, "ann")


def test_a_cancelled_holder_does_not_block(bench: Bench) -> None:
    _, second = enqueue(bench, 2, lane=BLOCKING)
    [job] = claim(bench)
    settle(bench, job, Cancelled())
    assert ids(claim(bench)) == [second]


def test_a_redriven_job_of_a_key_that_went_on_stands_in_line(bench: Bench) -> None:
    first, second, third = enqueue(bench, 3, lane=TRIP)
    [job] = claim(bench)
    settle(bench, job, Dead(REFUSED))
    [running] = claim(bench)
    assert running.id == second
    again = bench.store.redrive(first, "ann")
    assert again is not None and claim(bench) == []
    finish(bench, running)
    [running] = claim(bench)
    assert running.id == third
    finish(bench, running)
    assert ids(claim(bench)) == [again.id]


def test_a_job_that_dies_by_its_deadline_before_it_was_tried_blocks_nothing(bench: Bench) -> None:
    first, second = at_its_limit_key(bench, BLOCKING, expires_in=HOUR / 2)
    third = enqueue(bench, lane=BLOCKING, limit_key="chat:2")[0]
    bench.pass_time(HOUR / 2)
    assert bench.store.expire_due(10) == 2
    assert states(bench, (first, second)) == [JobState.DEAD] * 2
    assert ids(claim(bench)) == [third] and bench.store.repair() == 0


def test_a_redriven_job_that_is_put_off_blocks_its_ordering_key_as_the_dead_one_did(bench: Bench) -> None:
    first, second, _ = dead_and_blocking(bench)
    again = bench.store.redrive(first, "ann")
    assert again is not None
    assert bench.store.reschedule(again.id, None, record(bench, again.id).enqueued_at + HOUR)
    bench.open_all()
    assert claim(bench) == [] and bench.store.repair() == 0
    bench.pass_time(2 * HOUR)
    assert ids(claim(bench)) == [again.id] and state(bench, second) is JobState.WAITING


def test_every_ordering_key_keeps_its_order_with_many_workers(bench: Bench) -> None:
    trips = {f"trip-{n}": enqueue(bench, 8, lane=OrderingKey(f"trip-{n}"), priority=5 - n) for n in range(4)}
    taken: list[Job] = []

    def work(_: int) -> None:
        empty = 0
        while empty < 100:
            found = claim(bench, 2)
            taken.extend(found)  # before the end, so that none of its key comes before it
            for job in found:
                again = job.attempt == 1 and json.loads(job.payload)["n"] == 5
                settle(bench, job, Retry(LOST, timedelta()) if again else Completed())
            empty = 0 if found else empty + 1

    at_once(4, work)
    assert claim(bench) == [] and bench.store.repair() == 0
    for name, jobs in trips.items():
        expected = [*jobs[:5], jobs[5], *jobs[5:]]
        assert [job.id for job in taken if job.id in jobs] == expected, f"{name}: the sixth ran twice"
        attempts = [attempt for job_id in jobs for attempt in record(bench, job_id).attempts]
        assert all(before.finished_at <= after.started_at for before, after in pairwise(attempts)), "two at once"


# ------------------------------------------------------------------ concurrency keys


def test_at_most_so_many_jobs_of_a_concurrency_key_run_at_once(bench: Bench) -> None:
    jobs = enqueue(bench, 5, lane=ConcurrencyKey("depot", 2))
    [bare] = enqueue(bench)
    running = claim(bench)
    assert ids(running) == [*jobs[:2], bare]
    assert record(bench, jobs[0]).lane == f"{QUEUE}:concurrency:depot"
    assert claim(bench) == [] and states(bench, jobs[2:]) == [JobState.WAITING] * 3
    assert finish(bench, running[0]) == {QUEUE: 1}
    assert ids(claim(bench)) == jobs[2:3]
    assert finish(bench, running[1]) == {QUEUE: 1}
    assert ids(claim(bench)) == jobs[3:4] and claim(bench) == []


@pytest.mark.parametrize("outcome", ENDS + COMES_BACK, ids=named)
def test_a_slot_of_a_concurrency_key_comes_back_on_every_way_out(bench: Bench, outcome: Outcome) -> None:
    first, second, _ = enqueue(bench, 3, lane=ConcurrencyKey("depot", 1))
    [job] = claim(bench)
    assert claim(bench) == [] and settle(bench, job, outcome)
    runs_again = state(bench, first) is JobState.READY
    assert ids(claim(bench)) == [first if runs_again else second] and claim(bench) == []
    assert bench.store.repair() == 0


def test_the_best_waiting_job_gets_the_slot(bench: Bench) -> None:
    enqueue(bench, lane=ConcurrencyKey("depot", 1))
    [job] = claim(bench)
    enqueue(bench, 2, lane=ConcurrencyKey("depot", 1), priority=7)
    [urgent] = enqueue(bench, lane=ConcurrencyKey("depot", 1), priority=2)
    assert claim(bench) == []
    finish(bench, job)
    assert ids(claim(bench)) == [urgent]


def test_each_job_goes_by_its_own_maximum(bench: Bench) -> None:
    [narrow] = enqueue(bench, lane=ConcurrencyKey("depot", 1))
    [wide] = enqueue(bench, lane=ConcurrencyKey("depot", 2))
    [last] = enqueue(bench, lane=ConcurrencyKey("depot", 1))
    running = {job.id: job for job in claim(bench)}
    assert set(running) == {narrow, wide}
    finish(bench, running[narrow])
    bench.open_all()
    assert claim(bench) == [], "one still runs"
    finish(bench, running[wide])
    bench.open_all()
    assert ids(claim(bench)) == [last]


def test_a_concurrency_key_of_one_queue_is_not_that_of_another(bench: Bench) -> None:
    enqueue(bench, lane=ConcurrencyKey("depot", 1))
    bench.store.enqueue([NewJob(OTHER, {}, lane=ConcurrencyKey("depot", 1))])
    assert len(claim(bench)) == len(claim(bench, queue=OTHER)) == 1


@pytest.mark.parametrize("order", ["cancel", "reschedule", "expire"])
def test_a_job_that_had_its_slot_and_went_leaves_it_to_the_next(bench: Bench, order: str) -> None:
    lane = ConcurrencyKey("depot", 1)
    enqueue(bench, lane=lane)
    [second] = enqueue(bench, lane=lane, expires_in=HOUR)
    [third] = enqueue(bench, lane=lane)
    [job] = claim(bench)
    finish(bench, job)
    assert states(bench, (second, third)) == [JobState.READY, JobState.WAITING]
    match order:
        case "cancel":
            assert bench.store.cancel(second)
        case "reschedule":
            later = record(bench, second).enqueued_at + timedelta(minutes=59)
            assert bench.store.reschedule(second, None, later)
        case "expire":
            bench.pass_time(2 * HOUR)
            assert bench.store.expire_due(10) == 1
    bench.open_all()
    assert ids(claim(bench)) == [third]


def test_a_job_with_a_lane_and_a_limit_key_obeys_both(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    lane = ConcurrencyKey("depot", 2)
    first, second = enqueue(bench, 2, lane=lane, limit_key="chat:1")
    third, fourth = enqueue(bench, 2, lane=lane, limit_key="chat:2")
    running = {job.id: job for job in claim(bench)}
    assert set(running) == {first, third}, "chat:1 is busy, the depot is not"
    finish(bench, running[first])
    bench.open_all()
    assert ids(claim(bench)) == [second]
    finish(bench, running[third])
    bench.open_all()
    assert ids(claim(bench)) == [fourth]
    assert bench.store.repair() == 0


# ------------------------------------------------------------------ fairness keys


def keys_of(bench: Bench, taken: list[UUID]) -> str:
    return "".join(str(record(bench, job_id).lane)[-1] for job_id in taken)


def test_fairness_keys_take_turns(bench: Bench) -> None:
    enqueue(bench, 40, lane=FairnessKey("A"))
    enqueue(bench, 5, lane=FairnessKey("B"))
    taken = [claim(bench, 1)[0].id for _ in range(14)]
    assert keys_of(bench, taken[:1]) == "A"
    assert keys_of(bench, taken[1:10]) in ("BABABABAB", "ABABABABA")
    assert keys_of(bench, taken[11:]) == "AAA", "nobody else is there"


def test_a_large_tenant_does_not_starve_a_small_one(bench: Bench) -> None:
    enqueue(bench, 100, lane=FairnessKey("A"))
    small = enqueue(bench, 10, lane=FairnessKey("B"))
    done = Counter[str]()
    for _ in range(22):
        [job] = claim(bench, 1)
        finish(bench, job)
        done[keys_of(bench, [job.id])] += 1
    assert done["B"] == 10 and set(states(bench, small)) == {JobState.COMPLETED}


def test_a_newcomer_waits_for_one_round_only(bench: Bench) -> None:
    for key in "ABC":
        enqueue(bench, 20, lane=FairnessKey(key))
    for _ in range(12):
        claim(bench, 1)
    enqueue(bench, 3, lane=FairnessKey("D"))
    taken = [claim(bench, 1)[0].id for _ in range(4)]
    assert sorted(keys_of(bench, taken)) == list("ABCD")


def test_all_of_a_fairness_key_run_in_the_end_and_in_their_order(bench: Bench) -> None:
    jobs = enqueue(bench, 12, lane=FairnessKey("A"))
    taken = []
    for _ in range(12):
        [job] = claim(bench, 1)
        taken.append(job.id)
    assert taken == jobs and claim(bench) == []


def test_a_fairness_key_holds_nothing_back(bench: Bench) -> None:
    jobs = enqueue(bench, 6, lane=FairnessKey("A"))
    taken: list[UUID] = []
    for _ in range(6):
        taken += ids(claim(bench, 6))
    assert sorted(taken) == sorted(jobs), "several of a key run at once"


def test_a_fairness_key_goes_on_when_the_one_in_line_is_cancelled(bench: Bench) -> None:
    jobs = enqueue(bench, 4, lane=FairnessKey("A"))
    assert ids(claim(bench, 1)) == jobs[:1]
    in_line = [job_id for job_id in jobs[1:] if state(bench, job_id) is JobState.READY]
    assert in_line == jobs[1:2]
    assert bench.store.cancel(in_line[0])
    bench.open_all()
    assert ids(claim(bench, 1)) == jobs[2:3]


def test_a_fairness_key_goes_on_past_a_blocked_limit_key(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    [first] = enqueue(bench, lane=FairnessKey("A"), limit_key="chat:1")
    [second] = enqueue(bench, lane=FairnessKey("A"), limit_key="chat:1")
    [third] = enqueue(bench, lane=FairnessKey("A"), limit_key="chat:2")
    assert ids(claim(bench, 1)) == [first]
    taken = ids(claim(bench, 1))
    bench.open_all()
    taken += ids(claim(bench, 1))
    assert taken == [third] and state(bench, second) in (JobState.READY, JobState.WAITING)


def test_a_priority_is_stronger_than_fairness(bench: Bench) -> None:
    enqueue(bench, 3, lane=FairnessKey("A"), priority=2)
    enqueue(bench, 3, lane=FairnessKey("B"), priority=7)
    taken = [claim(bench, 1)[0].id for _ in range(6)]
    assert keys_of(bench, taken) == "AAABBB"
