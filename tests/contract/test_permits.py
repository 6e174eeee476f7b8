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


def test_I10_a_job_that_was_deferred_for_permits_starts_with_them_in_hand(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(4))
    enqueue(bench)
    [job] = claim(bench)
    assert job.permits == 0
    assert bench.store.take_permits(QUEUE, 2) is None
    assert bench.store.take_permits(QUEUE, 2) is not None, "one is left"
    defer_for(bench, job, 2)
    bench.pass_time(PAST_AN_HOUR)
    [again] = claim(bench)
    assert (again.id, again.permits, again.attempt) == (job.id, 2, 1)
    assert bench.store.take_permits(QUEUE, 1) is None
    assert bench.store.take_permits(QUEUE, 1) is not None, "its cost, its two and this one are all"


def test_I10_nothing_behind_it_takes_what_it_waits_for(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(4))
    [first] = enqueue(bench, priority=1)
    [job] = claim(bench)
    assert bench.store.take_permits(QUEUE, 1) is None
    defer_for(bench, job, 2)
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
    defer_for(bench, job, 3)
    better = enqueue(bench, 2)
    bench.pass_time(2 * MINUTE)
    assert ids(claim(bench)) == better
    bench.pass_time(PAST_AN_HOUR)
    assert ids(claim(bench)) == [late]


def test_with_a_limit_key_the_same_holds(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, Limits(rate=Rate(4, HOUR), key_concurrency=1))
    [first] = enqueue(bench, limit_key="chat:1", priority=1)
    [job] = claim(bench)
    defer_for(bench, job, 3)
    enqueue(bench, limit_key="chat:2")
    bench.pass_time(2 * MINUTE)
    assert claim(bench) == []
    bench.pass_time(PAST_AN_HOUR)
    assert ids(claim(bench)) == [first]
    assert bench.store.repair() == 0


def test_when_the_rate_falls_below_what_it_waits_for_it_starts_without_and_is_told(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(10))
    enqueue(bench)
    [job] = claim(bench)
    defer_for(bench, job, 8)
    bench.store.set_limits(QUEUE, hourly(2))
    bench.pass_time(PAST_AN_HOUR)
    assert [job.permits for job in claim(bench)] == [0]
    with pytest.raises(ControlError, match="permits"):
        bench.store.take_permits(QUEUE, 8)


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
    assert [job.permits for job in claim(bench)] == [0]


def test_what_no_start_could_have_is_refused_by_name_and_what_is_free_is_granted(bench: Bench) -> None:
    bench.store.set_limits(QUEUE, hourly(3, cost=2))
    enqueue(bench)
    assert len(claim(bench)) == 1
    assert bench.store.take_permits(QUEUE, 1) is None
    assert bench.store.take_permits(QUEUE, 1) is not None
    with pytest.raises(ControlError, match=f'permits: 2 at once, besides the 2 .* rate of queue "{QUEUE}", 3'):
        bench.store.take_permits(QUEUE, 2)
    bench.pass_time(PAST_AN_HOUR)
    assert bench.store.take_permits(QUEUE, 3) is None, "a job that runs for longer than a window may have all"
    with pytest.raises(ControlError, match="permits: at least 1"):
        Context().take_permits(0)


def counting(n: int, used: list[int]) -> Any:
    """A handler of three steps with `n` requests each beyond its cost; it goes on where it was."""

    def handler(job: Job, payload: Any, context: Context) -> Completed:
        for step in range((job.progress or {}).get("steps", 0), 3):
            context.take_permits(n)
            used.append(n)
            context.save(steps=step + 1)
        return Completed()

    return handler


@pytest.mark.parametrize(("limit", "cost", "at_once"), [(2, 1, 1), (3, 2, 1), (3, 1, 2), (4, 1, 2)])
def test_a_handler_that_takes_permits_gets_on_however_many_compete(
    bench: Bench, limit: int, cost: int, at_once: int
) -> None:
    """Three jobs of three steps, beside each other; I10 holds meanwhile."""
    bench.store.set_limits(QUEUE, hourly(limit, cost))
    jobs = enqueue(bench, 3)
    for _ in range(30):
        used: list[int] = []
        worker(bench, counting(at_once, used)).run(QUEUE, 10)
        assert sum(used) <= limit
        if all(state(bench, job_id) is JobState.COMPLETED for job_id in jobs):
            break
        bench.pass_time(PAST_AN_HOUR)
    else:
        raise AssertionError(f"they do not get on: {[record(bench, job_id) for job_id in jobs]}")


def test_where_a_job_costs_the_whole_rate_a_handler_that_takes_permits_is_told_and_does_not_go_round(
    bench: Bench,
) -> None:
    bench.store.set_limits(QUEUE, hourly(2, cost=2))
    [job_id] = enqueue(bench)
    for _ in range(8):
        worker(bench, counting(1, [])).run(QUEUE, 10)
        bench.pass_time(PAST_AN_HOUR)
    dead = record(bench, job_id)
    assert dead.state is JobState.DEAD and "permits: 1 at once, besides the 2" in (dead.error_message or "")


def test_what_the_start_took_is_used_before_more_is_asked_for() -> None:
    asked: list[int] = []

    def refuse_the_second(n: int) -> timedelta | None:
        asked.append(n)
        return MINUTE if len(asked) == 2 else None

    context = Context(permits=refuse_the_second, paid=3)
    context.take_permits(2)
    assert asked == []
    context.take_permits(3)
    assert asked == [2], "one was in hand"
    with pytest.raises(LimitReachedError) as caught:
        context.take_permits(4)
    assert asked == [2, 4] and (caught.value.wait, caught.value.permits) == (MINUTE, 4)
