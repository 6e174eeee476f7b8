"""What every Store promises about ageing: a waiting job gains priority, and claims go by what it is worth then (I3)."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest

from shared.engine.ageing import aged
from shared.engine.errors import ControlError
from shared.engine.job import ConcurrencyKey, FairnessKey, Job, NewJob, OrderingKey, Retry
from shared.engine.memory import MemoryClock, MemoryStore
from shared.engine.ports import Limits
from tests.contract.bench import LEASE, LOST, QUEUE, Bench, claim, enqueue, finish, ids, record, settle
from tests.threads import at_once

OTHER = "outlook-outbound"
EVERY = timedelta(minutes=10)
MINUTE = timedelta(minutes=1)


def test_I3_a_waiting_job_gains_one_priority_a_step_and_goes_before_what_it_has_caught_up_with(bench: Bench) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    [old] = enqueue(bench, priority=8)
    bench.pass_time(3 * EVERY + MINUTE)
    [four], [five], [six] = (enqueue(bench, priority=priority) for priority in (4, 5, 6))
    assert ids(claim(bench)) == [four, old, five, six]
    assert record(bench, old).priority == 8, "what was asked for stays"


def test_I3_without_ageing_and_in_other_queues_priorities_stand(bench: Bench) -> None:
    bench.store.set_ageing(OTHER, EVERY)
    [old] = enqueue(bench, priority=8)
    bench.pass_time(100 * EVERY)
    [new] = enqueue(bench, priority=7)
    assert ids(claim(bench)) == [new, old]


def test_I3_the_highest_priority_is_the_end_and_then_the_one_that_was_due_first_goes_first(bench: Bench) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    [old] = enqueue(bench, priority=10)
    bench.pass_time(1000 * EVERY)
    [urgent] = enqueue(bench, priority=1)
    assert ids(claim(bench)) == [old, urgent]


def test_I3_ageing_is_switched_on_and_off_for_jobs_that_wait_already(bench: Bench) -> None:
    [old] = enqueue(bench, priority=8)
    bench.pass_time(5 * EVERY)
    [new] = enqueue(bench, priority=5)
    bench.store.set_ageing(QUEUE, EVERY)
    assert bench.store.settings(QUEUE).ageing == EVERY
    [first] = claim(bench, 1)
    assert first.id == old and bench.store.settle([]).lost == ()
    assert settle(bench, first, Retry(LOST, timedelta()))
    bench.store.set_ageing(QUEUE, None)
    assert bench.store.settings(QUEUE).ageing is None
    assert ids(claim(bench)) == [new, old]


def test_I3_a_retry_ages_from_when_it_is_due_again(bench: Bench) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    [old] = enqueue(bench, priority=8)
    bench.pass_time(5 * EVERY)
    [job] = claim(bench)
    assert settle(bench, job, Retry(LOST, MINUTE))
    bench.pass_time(2 * MINUTE)
    [new] = enqueue(bench, priority=7)
    assert ids(claim(bench)) == [new, old]


def test_I3_what_a_key_held_back_ages_too(bench: Bench) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    lane = ConcurrencyKey("customer", 1)
    [first] = enqueue(bench, lane=lane, priority=1)
    [running] = claim(bench)
    assert running.id == first
    [old] = enqueue(bench, lane=lane, priority=8)
    assert claim(bench) == [], "the key is taken, and the job waits"
    bench.pass_time(4 * EVERY)
    [new] = enqueue(bench, lane=lane, priority=5)
    assert claim(bench) == []
    finish(bench, running)
    [next_one] = claim(bench)
    assert next_one.id == old
    finish(bench, next_one)
    assert ids(claim(bench)) == [new]


def test_I3_what_a_limit_key_held_back_ages_too(bench: Bench) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    bench.store.set_limits(QUEUE, Limits(key_concurrency=1))
    enqueue(bench, limit_key="chat:1", priority=1)
    [running] = claim(bench)
    [old] = enqueue(bench, limit_key="chat:1", priority=8)
    assert claim(bench) == []
    bench.pass_time(4 * EVERY)
    [new] = enqueue(bench, limit_key="chat:1", priority=5)
    assert claim(bench) == []
    finish(bench, running)
    [next_one] = claim(bench)
    assert next_one.id == old
    finish(bench, next_one)
    assert ids(claim(bench)) == [new]


def test_I3_an_ordering_key_keeps_its_order_and_a_fairness_key_its_turns(bench: Bench) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    first = enqueue(bench, lane=OrderingKey("trip"), priority=9)
    bench.pass_time(2 * EVERY)
    second = enqueue(bench, lane=OrderingKey("trip"), priority=1)
    bench.pass_time(EVERY)
    [head] = claim(bench)
    assert [head.id] == first
    finish(bench, head)
    [after] = claim(bench)
    assert [after.id] == second
    finish(bench, after)
    a = enqueue(bench, 3, lane=FairnessKey("a"), priority=6)
    b = enqueue(bench, 2, lane=FairnessKey("b"), priority=6)
    turns: list[Job] = [claim(bench, 1)[0] for _ in range(5)]
    assert ids(turns) == [a[0], b[0], a[1], b[1], a[2]]


def test_I3_jobs_past_their_deadline_are_not_handed_out(bench: Bench) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    enqueue(bench, expires_in=EVERY)
    bench.pass_time(2 * EVERY)
    assert claim(bench) == []


def test_I3_any_mixture_goes_by_aged_priority_then_due_time_then_order(bench: Bench) -> None:
    random, made = Random(5), []
    bench.store.set_ageing(QUEUE, EVERY)
    for _ in range(60):
        made += enqueue(bench, random.choice((1, 1, 3)), priority=random.randint(1, 10))
        bench.pass_time(random.choice((0, 1, 7, 25)) * MINUTE)
    now = bench.now()
    order = {job_id: number for number, job_id in enumerate(made)}
    waiting = [record(bench, job_id) for job_id in made]
    expected = sorted(waiting, key=lambda r: (aged(r.priority, r.run_at, EVERY, now), r.run_at, order[r.id]))
    taken = [job for limit in (1, 2, 5, 1, 30, 200) for job in claim(bench, limit)]
    assert ids(taken) == [one.id for one in expected]


def test_I3_claims_at_once_take_the_best_and_each_job_once(bench: Bench) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    old = enqueue(bench, 20, priority=9)
    bench.pass_time(5 * EVERY)
    new = enqueue(bench, 20, priority=5)
    taken = [job.id for jobs in at_once(4, lambda _: [j for _ in range(5) for j in claim(bench, 1)]) for job in jobs]
    assert sorted(taken) == sorted(old), "aged to 4, they go before 5"
    assert sorted(ids(claim(bench, 100))) == sorted(new)


@pytest.mark.parametrize("every", [timedelta(), timedelta(milliseconds=999), -EVERY])
def test_ageing_that_makes_no_sense_is_refused_and_changes_nothing(bench: Bench, every: timedelta) -> None:
    bench.store.set_ageing(QUEUE, EVERY)
    with pytest.raises(ControlError, match="ageing"):
        bench.store.set_ageing(QUEUE, every)
    with pytest.raises(ControlError, match="does not exist"):
        bench.store.set_ageing("nope", EVERY)
    assert bench.store.settings(QUEUE).ageing == EVERY


def test_I3_under_a_stream_of_urgent_jobs_the_old_one_still_comes() -> None:
    """What ageing is for: without it, it never would."""

    def hours_until_it_runs(every: timedelta | None) -> int | None:
        clock = MemoryClock()
        store = MemoryStore([QUEUE], clock=clock)
        store.set_ageing(QUEUE, every)
        [old] = store.enqueue([NewJob(QUEUE, {}, priority=8)])
        for hour in range(48):
            store.enqueue([NewJob(QUEUE, {}, priority=3)] * 2)
            if old.id in ids(store.claim(QUEUE, 2, "w", LEASE).jobs):
                return hour
            clock.advance(timedelta(hours=1))
        return None

    assert hours_until_it_runs(None) is None
    assert hours_until_it_runs(timedelta(hours=1)) == 5
