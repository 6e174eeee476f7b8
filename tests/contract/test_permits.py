"""What every Store promises to handlers that count their requests: what a start took is theirs, and a job that was
deferred for want of permits starts with them in hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shared.engine.context import Context
from shared.engine.errors import ControlError, LimitReachedError
from shared.engine.job import Completed, Deferred, Job, JobState, Released, Retry
from shared.engine.ports import Limits, Rate
from tests.contract.bench import LOST, QUEUE, Bench, claim, enqueue, ids, look, record, settle, state, worker

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
#: A window and the slot more that a start is counted for.
PAST_AN_HOUR = timedelta(minutes=64)


def hourly(limit: int, cost: int = 1) -> Limits:
    return Limits(rate=Rate(limit, HOUR), job_cost=cost)


def defer_for(bench: Bench, job: Job, permits: int) -> None:
    assert settle(bench, job, Deferred(MINUTE, "the queue's rate is used up", permits))


def test_a_job_knows_what_its_start_took(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(9, cost=3))
    enqueue(bench, 2)
    assert [job.permits for job in claim(bench, 1)] == [3]
    bench.store.set_limits(QUEUE, Limits(concurrency=5))
    assert [job.permits for job in claim(bench, 1)] == [0], "no rate, nothing taken"


def test_I10_a_job_that_was_deferred_for_permits_starts_with_them_in_hand(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(4))
    enqueue(bench)
    [job] = claim(bench)
    assert bench.store.take_permits(QUEUE, 2, 0) is None
    assert bench.store.take_permits(QUEUE, 2, 1) is not None, "one is left"
    defer_for(bench, job, 3)
    bench.pass_time(PAST_AN_HOUR)
    [again] = claim(bench)
    assert (again.id, again.permits, again.attempt) == (job.id, 3, 1)
    assert bench.store.take_permits(QUEUE, 1) is None
    assert bench.store.take_permits(QUEUE, 1) is not None, "three and one are all"


def test_I10_nothing_behind_it_takes_what_it_waits_for(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(4))
    [first] = enqueue(bench, priority=1)
    [job] = claim(bench)
    assert bench.store.take_permits(QUEUE, 1) is None
    defer_for(bench, job, 3)
    behind = enqueue(bench, 3)
    bench.pass_time(2 * MINUTE)
    refused = look(bench)
    assert refused.jobs == () and state(bench, first) is JobState.READY, "two are free, and it needs three"
    assert refused.wait is not None and HOUR - 4 * MINUTE <= refused.wait <= PAST_AN_HOUR
    bench.pass_time(PAST_AN_HOUR)
    assert ids(claim(bench)) == [first, behind[0]], "three for it and one for the next"


def test_one_that_is_worse_than_what_starts_waits_its_turn(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(4))
    [late] = enqueue(bench, priority=9)
    [job] = claim(bench)
    defer_for(bench, job, 4)
    better = enqueue(bench, 2)
    bench.pass_time(2 * MINUTE)
    assert ids(claim(bench)) == better
    bench.pass_time(PAST_AN_HOUR)
    assert ids(claim(bench)) == [late]


def test_with_a_limit_key_the_same_holds(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(4, HOUR), key_concurrency=1))
    [first] = enqueue(bench, limit_key="chat:1", priority=1)
    [job] = claim(bench)
    defer_for(bench, job, 4)
    enqueue(bench, limit_key="chat:2")
    bench.pass_time(2 * MINUTE)
    assert claim(bench) == []
    bench.pass_time(PAST_AN_HOUR)
    assert ids(claim(bench)) == [first]
    assert bench.store.repair() == 0


def test_when_the_rate_falls_below_what_it_waits_for_all_of_the_rate_is_enough(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(10))
    enqueue(bench)
    [job] = claim(bench)
    defer_for(bench, job, 8)
    bench.store.set_limits(QUEUE, hourly(2))
    bench.pass_time(PAST_AN_HOUR)
    assert [job.permits for job in claim(bench)] == [2]


def test_a_job_given_back_before_its_start_still_waits_for_them_and_a_retry_does_not(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(9))
    enqueue(bench)
    [job] = claim(bench)
    defer_for(bench, job, 3)
    bench.pass_time(PAST_AN_HOUR)
    [job] = claim(bench)
    assert settle(bench, job, Released())
    [job] = claim(bench)
    assert job.permits == 3
    assert settle(bench, job, Retry(LOST, MINUTE))
    bench.pass_time(2 * MINUTE)
    assert [job.permits for job in claim(bench)] == [1]


def test_more_at_once_than_the_rate_is_refused_by_name_whatever_is_paid(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(3, cost=2))
    with pytest.raises(ControlError, match=f'permits: 4 at once are asked for, the rate of queue "{QUEUE}" is 3'):
        bench.store.take_permits(QUEUE, 2, 2)
    with pytest.raises(ControlError, match="permits: at least 1"):
        Context().take_permits(0)


@pytest.mark.parametrize(("limit", "cost", "at_once"), [(1, 1, 1), (2, 2, 1), (3, 2, 3), (3, 1, 3)])
def test_a_handler_that_counts_its_requests_gets_on_where_a_job_costs_the_whole_rate(
    bench: Bench, limit: int, cost: int, at_once: int
) -> None:
    """Three jobs of three steps, beside each other: each start gets at least one step on (I10 holds meanwhile)."""
    bench.store.set_limits(QUEUE, hourly(limit, cost))
    used = 0

    def handler(job: Job, payload: Any, context: Context) -> Completed:
        nonlocal used
        for step in range((job.progress or {}).get("steps", 0), 3):
            context.take_permits(at_once)
            used += at_once
            context.save(steps=step + 1)
        return Completed()

    jobs = enqueue(bench, 3)
    for _ in range(30):
        used = 0
        worker(bench, handler).run(QUEUE, 10)
        assert used <= limit
        if all(state(bench, job_id) is JobState.COMPLETED for job_id in jobs):
            break
        bench.pass_time(PAST_AN_HOUR)
        bench.store.promote_due(100)
    else:
        raise AssertionError(f"they do not get on: {[record(bench, job_id) for job_id in jobs]}")


def test_the_start_s_permits_are_used_before_others_are_asked_for() -> None:
    asked: list[tuple[int, int]] = []

    def refuse(n: int, paid: int) -> timedelta | None:
        asked.append((n, paid))
        return MINUTE if len(asked) == 2 else None

    context = Context(permits=refuse, paid=3)
    context.take_permits(2)
    assert asked == []
    context.take_permits(3)
    assert asked == [(2, 1)]
    with pytest.raises(LimitReachedError) as caught:
        context.take_permits(4)
    assert asked[-1] == (4, 0) and (caught.value.wait, caught.value.permits) == (MINUTE, 4)
