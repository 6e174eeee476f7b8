"""What every Store promises about jobs that wait for others; on PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from shared.engine.errors import EnqueueError
from shared.engine.job import (
    Cancellation,
    Cancelled,
    Completed,
    Dead,
    Enqueued,
    ErrorClass,
    IfDependencyFails,
    Job,
    JobState,
    NewJob,
    OrderingKey,
    Outcome,
    Placed,
    Retry,
    Settlement,
)
from tests.contract.bench import (
    LOST,
    QUEUE,
    REFUSED,
    Bench,
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

#: What depends goes to a queue of its own, so that a claim takes the one kind or the other.
LATER = "outlook-outbound"
HOUR = timedelta(hours=1)
DIE, CANCEL, RUN = IfDependencyFails.DIE, IfDependencyFails.CANCEL, IfDependencyFails.RUN
FAILS: list[Outcome] = [Dead(REFUSED), Cancelled()]


def named(value: object) -> str | None:
    return type(value).__name__.lower() if isinstance(value, Outcome) else None


def after(bench: Bench, others: Iterable[UUID], rule: IfDependencyFails = DIE, **options: object) -> UUID:
    return made_after(bench, others, rule, **options).id


def made_after(bench: Bench, others: Iterable[UUID], rule: IfDependencyFails = DIE, **options: object) -> Enqueued:
    job = NewJob(LATER, {}, depends_on=tuple(others), if_dependency_fails=rule, **options)  # type: ignore[arg-type]
    return bench.store.enqueue([job])[0]


def end(bench: Bench, job_id: UUID, outcome: Outcome) -> None:
    """Run the best job of its queue, which is this one, to its end."""
    [job] = claim(bench, 1, record(bench, job_id).queue)
    assert job.id == job_id and settle(bench, job, outcome)


# ------------------------------------------------------------------ until all have completed


def test_a_job_waits_until_all_that_it_depends_on_have_completed(bench: Bench) -> None:
    first, second = enqueue(bench, 2)
    made = made_after(bench, (first, second))
    assert made.created and not made.due
    waiting = record(bench, made.id)
    assert waiting.state is JobState.WAITING and set(waiting.depends_on) == {first, second}
    assert claim(bench, queue=LATER) == [] and bench.store.runnable(10) == {QUEUE: 2}
    end(bench, first, Completed())
    assert record(bench, made.id).depends_on == (second,) and claim(bench, queue=LATER) == []
    [job] = claim(bench)
    assert finish(bench, job) == {LATER: 1}
    assert (record(bench, made.id).state, record(bench, made.id).depends_on) == (JobState.READY, ())
    assert ids(claim(bench, queue=LATER)) == [made.id]


def test_a_retry_is_no_end(bench: Bench) -> None:
    [first] = enqueue(bench)
    job_id = after(bench, [first])
    for delay in (timedelta(), HOUR):
        end(bench, first, Retry(LOST, delay))
        bench.open_all()
        assert state(bench, job_id) is JobState.WAITING


def test_a_chain_runs_link_by_link(bench: Bench) -> None:
    first = after(bench, ())
    second = after(bench, [first])
    third = after(bench, [second])
    for job_id in (first, second, third):
        found = claim(bench, queue=LATER)
        assert ids(found) == [job_id]
        finish(bench, *found)


def test_a_diamond_joins_again(bench: Bench) -> None:
    top = after(bench, ())
    left, right = after(bench, [top]), after(bench, [top])
    bottom = after(bench, [left, right])
    end(bench, top, Completed())
    sides = claim(bench, queue=LATER)
    assert set(ids(sides)) == {left, right}
    assert finish(bench, *sides) == {LATER: 1}, "both ended in one step"
    assert ids(claim(bench, queue=LATER)) == [bottom]


def test_a_long_chain_dies_with_its_first(bench: Bench) -> None:
    """Longer than a call stack: step by step."""
    chain = [after(bench, ())]
    for _ in range(500):
        chain.append(after(bench, chain[-1:]))
    assert bench.store.cancel(chain[0]) is Cancellation.CANCELLED
    assert bench.store.clear(LATER, LATER, [JobState.WAITING], 1000) == 0
    assert set(states(bench, chain[1::50])) == {JobState.DEAD}


@pytest.mark.parametrize("outcome", [Completed(), Cancelled()], ids=named)
def test_more_jobs_than_one_transaction_bears_depend_on_one(bench: Bench, outcome: Outcome) -> None:
    [first] = enqueue(bench)
    asked = [NewJob(LATER, {}, depends_on=(first,), if_dependency_fails=CANCEL) for _ in range(1200)]
    dependents = [made.id for made in bench.store.enqueue(asked)]
    bench.store.open_due(1000)  # they are known to be committed
    end(bench, first, outcome)
    while bench.store.open_due(1000) >= 1000:
        pass
    expected = JobState.READY if isinstance(outcome, Completed) else JobState.CANCELLED
    assert bench.store.clear(LATER, LATER, [JobState.WAITING], 2000) == 0
    assert set(states(bench, dependents[::100])) == {expected}


def test_many_jobs_depend_on_one(bench: Bench) -> None:
    [first] = enqueue(bench)
    dependents = [after(bench, [first]) for _ in range(20)]
    [job] = claim(bench)
    assert finish(bench, job) == {LATER: 20}
    assert sorted(ids(claim(bench, 30, LATER))) == sorted(dependents)


def test_what_has_completed_already_is_not_waited_for(bench: Bench) -> None:
    [first] = enqueue(bench)
    end(bench, first, Completed())
    made = made_after(bench, [first])
    assert made.due and ids(claim(bench, queue=LATER)) == [made.id]


def test_a_dependency_named_twice_is_one(bench: Bench) -> None:
    [first] = enqueue(bench)
    job_id = after(bench, [first, first])
    end(bench, first, Completed())
    assert ids(claim(bench, queue=LATER)) == [job_id]


def test_an_unknown_dependency_refuses_the_whole_call(bench: Bench) -> None:
    unknown = uuid4()
    with pytest.raises(EnqueueError, match=f"depends_on: job {unknown} is not known"):
        bench.store.enqueue([NewJob(LATER, {}), NewJob(LATER, {}, depends_on=(unknown,))])
    assert claim(bench, queue=LATER) == []


def test_a_job_that_waits_for_others_and_for_its_time_waits_for_both(bench: Bench) -> None:
    [first] = enqueue(bench)
    job_id = after(bench, [first], delay=2 * HOUR)
    assert state(bench, job_id) is JobState.WAITING
    end(bench, first, Completed())
    assert state(bench, job_id) is JobState.SCHEDULED
    bench.pass_time(3 * HOUR)
    assert ids(claim(bench, queue=LATER)) == [job_id]


def test_a_job_whose_time_has_come_while_it_waited_is_ready(bench: Bench) -> None:
    [first] = enqueue(bench)
    job_id = after(bench, [first], delay=HOUR)
    bench.pass_time(2 * HOUR)
    bench.store.promote_due(10)
    assert state(bench, job_id) is JobState.WAITING and claim(bench, queue=LATER) == []
    end(bench, first, Completed())
    assert ids(claim(bench, queue=LATER)) == [job_id]


def test_a_waiting_job_takes_orders_and_its_deadline(bench: Bench) -> None:
    [first] = enqueue(bench)
    cancelled, late, left = after(bench, [first]), after(bench, [first], expires_in=HOUR), after(bench, [first])
    assert bench.store.retry_now(left) is None
    assert bench.store.reschedule(left, 1, None) == Placed(LATER, JobState.WAITING)
    assert bench.store.cancel(cancelled) is Cancellation.CANCELLED
    bench.pass_time(2 * HOUR)
    assert bench.store.expire_due(10) == 1
    assert record(bench, late).error_class is ErrorClass.EXPIRED
    end(bench, first, Completed())
    assert ids(claim(bench, queue=LATER)) == [left]


def test_a_job_that_waits_for_others_is_put_off_and_brought_forward(bench: Bench) -> None:
    [first] = enqueue(bench)
    put_off, brought_forward = after(bench, [first]), after(bench, [first], delay=2 * HOUR)
    now = record(bench, first).enqueued_at
    assert bench.store.reschedule(put_off, None, now + HOUR) == Placed(LATER, JobState.WAITING)
    assert bench.store.reschedule(brought_forward, None, now) == Placed(LATER, JobState.WAITING)
    end(bench, first, Completed())
    assert states(bench, (put_off, brought_forward)) == [JobState.SCHEDULED, JobState.READY]
    assert ids(claim(bench, queue=LATER)) == [brought_forward]
    bench.pass_time(2 * HOUR)
    assert ids(claim(bench, queue=LATER)) == [put_off]


def test_a_job_that_waits_for_others_does_not_stand_in_its_ordering_key(bench: Bench) -> None:
    [first] = enqueue(bench)
    lane = OrderingKey("trip-7")
    job_id = after(bench, [first], lane=lane)
    [quick] = [made.id for made in bench.store.enqueue([NewJob(LATER, {}, lane=lane)])]
    [job] = claim(bench, queue=LATER)
    assert job.id == quick, "it would wait for nothing"
    end(bench, first, Completed())
    assert claim(bench, queue=LATER) == []
    finish(bench, job)
    assert ids(claim(bench, queue=LATER)) == [job_id]


# ------------------------------------------------------------------ when one fails


def check_failed(bench: Bench, job_id: UUID, rule: IfDependencyFails, first: UUID) -> None:
    """The job has ended as its rule says, or may run."""
    ended = record(bench, job_id)
    failed = record(bench, first).state.value
    match rule:
        case IfDependencyFails.RUN:
            assert ended.state is JobState.READY and job_id in ids(claim(bench, queue=LATER))
        case IfDependencyFails.CANCEL:
            assert (ended.state, ended.error_class, ended.attempt) == (JobState.CANCELLED, None, 0)
            assert ended.result == {"reason": f"job {first}, which it depends on, ended as {failed}"}
        case IfDependencyFails.DIE:
            assert (ended.state, ended.error_class, ended.attempt) == (JobState.DEAD, ErrorClass.DEPENDENCY, 0)
            assert ended.error_message == f"job {first}, which it depends on, ended as {failed}"
    assert ended.depends_on == ()


@pytest.mark.parametrize("rule", [DIE, CANCEL, RUN])
@pytest.mark.parametrize("outcome", FAILS, ids=named)
def test_what_becomes_of_a_job_when_its_dependency_fails(
    bench: Bench, outcome: Outcome, rule: IfDependencyFails
) -> None:
    [first] = enqueue(bench)
    job_id = after(bench, [first], rule)
    end(bench, first, outcome)
    check_failed(bench, job_id, rule, first)
    letters = len(claim(bench, queue="dead-letter"))
    assert letters == isinstance(outcome, Dead) + (rule is DIE)


@pytest.mark.parametrize("rule", [DIE, CANCEL, RUN])
@pytest.mark.parametrize("outcome", FAILS, ids=named)
def test_what_becomes_of_a_job_whose_dependency_failed_before_it_came(
    bench: Bench, outcome: Outcome, rule: IfDependencyFails
) -> None:
    [first, going_on] = enqueue(bench, 2)
    end(bench, first, outcome)
    made = made_after(bench, [first], rule)
    assert made.created and made.due == (rule is RUN)
    check_failed(bench, made.id, rule, first)
    both = after(bench, [going_on, first], rule)
    assert (state(bench, both) is JobState.WAITING) == (rule is RUN)


@pytest.mark.parametrize("rule", [DIE, CANCEL])
def test_a_job_is_not_kept_waiting_for_the_rest_when_one_has_failed(bench: Bench, rule: IfDependencyFails) -> None:
    first, second = enqueue(bench, 2)
    job_id = after(bench, [first, second], rule)
    end(bench, first, Dead(REFUSED))
    check_failed(bench, job_id, rule, first)
    end(bench, second, Completed())
    check_failed(bench, job_id, rule, first)
    assert bench.store.repair() == 0


def test_a_job_that_runs_all_the_same_waits_for_the_rest(bench: Bench) -> None:
    first, second = enqueue(bench, 2)
    job_id = after(bench, [first, second], RUN)
    end(bench, first, Dead(REFUSED))
    assert state(bench, job_id) is JobState.WAITING
    end(bench, second, Completed())
    assert ids(claim(bench, queue=LATER)) == [job_id]


def test_a_failure_goes_through_the_whole_chain(bench: Bench) -> None:
    [first] = enqueue(bench)
    second = after(bench, [first], DIE)
    third = after(bench, [second], CANCEL)
    fourth = after(bench, [third], DIE)
    fifth = after(bench, [fourth], RUN)
    end(bench, first, Dead(REFUSED))
    expected = [JobState.DEAD, JobState.CANCELLED, JobState.DEAD, JobState.READY]
    assert [state(bench, job_id) for job_id in (second, third, fourth, fifth)] == expected
    assert "ended as cancelled" in (record(bench, fourth).error_message or "")
    assert ids(claim(bench, queue=LATER)) == [fifth]


def test_an_order_that_ends_a_job_reaches_its_dependents(bench: Bench) -> None:
    first, second = enqueue(bench, 2)
    [scheduled] = enqueue(bench, delay=HOUR, expires_in=2 * HOUR)
    waits = [after(bench, [job_id], CANCEL) for job_id in (first, second, scheduled)]
    assert bench.store.cancel(first)
    assert bench.store.clear(QUEUE, QUEUE, [JobState.READY], 10) == 1
    bench.pass_time(3 * HOUR)
    assert bench.store.expire_due(10) == 1
    assert [state(bench, job_id) for job_id in waits] == [JobState.CANCELLED] * 3


def test_a_redriven_job_that_died_of_its_dependency_runs(bench: Bench) -> None:
    [first] = enqueue(bench)
    job_id = after(bench, [first])
    end(bench, first, Dead(REFUSED))
    again = bench.store.redrive(job_id, "ann")
    assert again is not None and ids(claim(bench, queue=LATER)) == [again.id]


# ------------------------------------------------------------------ at once


def test_dependencies_that_end_at_once_let_their_job_go_once(bench: Bench) -> None:
    firsts = enqueue(bench, 6)
    job_id = after(bench, firsts)
    running = claim(bench, 6)

    def finish_one(n: int) -> int:
        job: Job = running[n]
        return sum(bench.store.settle([Settlement(job.id, job.lease_token, Completed())]).freed.values())

    assert sum(at_once(6, finish_one)) <= 1
    bench.open_all()
    assert ids(claim(bench, queue=LATER)) == [job_id]


def test_a_dependency_that_ends_while_its_dependent_comes_is_not_missed(bench: Bench) -> None:
    firsts = enqueue(bench, 12)
    running = claim(bench, 12)
    dependents: list[UUID] = []

    def work(n: int) -> None:
        for index, job in enumerate(running):
            if n == 0:
                finish(bench, job)
            else:
                dependents.append(after(bench, [firsts[index]]))

    at_once(2, work)
    bench.open_all()
    assert sorted(ids(claim(bench, 20, LATER))) == sorted(dependents)
