"""What every Store promises about singleton, debounce and throttle keys; on PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest

from shared.engine.errors import ControlError, EnqueueError
from shared.engine.job import (
    Completed,
    Dead,
    Debounce,
    Enqueued,
    Job,
    JobState,
    NewJob,
    Retry,
    Singleton,
    SingletonPolicy,
    Throttle,
    Unique,
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
)
from tests.threads import at_once

OTHER = "outlook-outbound"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SLACK = timedelta(seconds=30)
REJECT = Singleton("report", SingletonPolicy.REJECT)
RETURN = Singleton("report")
REPLACE = Singleton("report", SingletonPolicy.REPLACE_SCHEDULED)
DEBOUNCE = Debounce("report", HOUR)
THROTTLE = Throttle("report", HOUR)
LIVE = (JobState.SCHEDULED, JobState.WAITING, JobState.READY, JobState.ACTIVE)


def named(rule: Unique) -> str:
    return rule.policy.value if isinstance(rule, Singleton) else type(rule).__name__.lower()


def add(bench: Bench, unique: Unique, **options: object) -> Enqueued:
    [made] = bench.store.enqueue([NewJob(QUEUE, {}, unique=unique, **options)])  # type: ignore[arg-type]
    return made


def run(bench: Bench, job_id: UUID) -> Job:
    """Claim this job, giving back nothing: it is the best of its queue."""
    [job] = claim(bench, 1)
    assert job.id == job_id
    return job


def a_job_in(bench: Bench, wanted: JobState, unique: Unique) -> UUID:
    """A job with the key, brought to the state."""
    options: dict[str, object] = {"priority": 1}
    if wanted is JobState.WAITING:
        [other] = bench.store.enqueue([NewJob(OTHER, {})])
        options["depends_on"] = (other.id,)
    elif wanted is JobState.SCHEDULED and not isinstance(unique, Debounce):
        options["delay"] = 2 * HOUR
    job_id = add(bench, unique, **options).id
    if isinstance(unique, Debounce) and wanted not in (JobState.SCHEDULED, JobState.WAITING):
        assert bench.store.retry_now(job_id)
    match wanted:
        case JobState.ACTIVE:
            run(bench, job_id)
        case JobState.COMPLETED:
            finish(bench, run(bench, job_id))
        case JobState.DEAD:
            settle(bench, run(bench, job_id), Dead(REFUSED))
        case JobState.CANCELLED:
            assert bench.store.cancel(job_id)
    assert state(bench, job_id) is wanted
    return job_id


def meets(rule: Unique, existing: JobState) -> str:
    """What a second job with the key comes to: `new`, `existing`, `replaces` or `refused`."""
    match rule:
        case Throttle():
            return "existing"
        case Debounce():
            return "replaces" if existing is JobState.SCHEDULED else "new"
        case Singleton(policy=policy):
            if existing not in LIVE:
                return "new"
            if policy is SingletonPolicy.REJECT:
                return "refused"
            replaces = policy is SingletonPolicy.REPLACE_SCHEDULED and existing is JobState.SCHEDULED
            return "replaces" if replaces else "existing"


# ------------------------------------------------------------------ every rule × every state


@pytest.mark.parametrize("existing", list(JobState))
@pytest.mark.parametrize("rule", [REJECT, RETURN, REPLACE, DEBOUNCE, THROTTLE], ids=named)
def test_what_a_second_job_with_the_key_meets(bench: Bench, rule: Unique, existing: JobState) -> None:
    first = a_job_in(bench, existing, rule)
    before = record(bench, first)
    verdict = meets(rule, existing)
    if verdict == "refused":
        with pytest.raises(EnqueueError, match=f"singletonKey.*{first}"):
            add(bench, rule)
        assert record(bench, first) == before
        return
    second = add(bench, rule)
    if verdict == "existing":
        assert (second.id, second.created, second.replaced) == (first, False, None)
    else:
        assert second.created and second.id != first
        assert second.replaced == (first if verdict == "replaces" else None)
    if verdict == "replaces":
        after = record(bench, first)
        assert (after.state, after.result) == (JobState.CANCELLED, {"replacedBy": str(second.id)})
    else:
        assert record(bench, first) == before


@pytest.mark.parametrize("rule", [REJECT, RETURN, REPLACE, DEBOUNCE, THROTTLE], ids=named)
def test_a_key_belongs_to_its_queue_its_kind_and_its_text(bench: Bench, rule: Unique) -> None:
    add(bench, rule)
    others: list[Unique] = [Singleton("other"), Debounce("other", HOUR), Throttle("other", HOUR)]
    for kind in (RETURN, DEBOUNCE, THROTTLE):
        if type(kind) is not type(rule):
            others.append(kind)
    assert all(add(bench, other).created for other in others)
    [elsewhere] = bench.store.enqueue([NewJob(OTHER, {}, unique=rule)])
    assert elsewhere.created


# ------------------------------------------------------------------ singleton


def test_a_refused_job_stores_nothing_of_its_call(bench: Bench) -> None:
    add(bench, RETURN, delay=HOUR)
    with pytest.raises(EnqueueError, match="singletonKey"):
        bench.store.enqueue([NewJob(QUEUE, {}), NewJob(QUEUE, {}, unique=REJECT), NewJob(OTHER, {}, unique=REJECT)])
    assert claim(bench) == [] and claim(bench, queue=OTHER) == []


def test_a_refused_call_takes_back_what_it_replaced(bench: Bench) -> None:
    scheduled = add(bench, Singleton("a"), delay=HOUR).id
    add(bench, Singleton("b"))
    jobs = [NewJob(QUEUE, {}, unique=Singleton("a", SingletonPolicy.REPLACE_SCHEDULED))]
    jobs.append(NewJob(QUEUE, {}, unique=Singleton("b", SingletonPolicy.REJECT)))
    with pytest.raises(EnqueueError):
        bench.store.enqueue(jobs)
    assert state(bench, scheduled) is JobState.SCHEDULED


@pytest.mark.parametrize("rule", [RETURN, REPLACE, THROTTLE], ids=named)
def test_twice_in_one_call_the_second_meets_the_first(bench: Bench, rule: Unique) -> None:
    first, second = bench.store.enqueue([NewJob(QUEUE, {"n": n}, unique=rule) for n in range(2)])
    assert first.created and not second.created and first.id == second.id
    assert ids(claim(bench)) == [first.id]


def test_twice_in_one_call_is_refused_once_for_all(bench: Bench) -> None:
    with pytest.raises(EnqueueError, match="singletonKey"):
        bench.store.enqueue([NewJob(QUEUE, {}, unique=REJECT)] * 2)
    assert claim(bench) == []


def test_a_singleton_runs_again_after_the_first_has_ended(bench: Bench) -> None:
    first = add(bench, REJECT).id
    finish(bench, run(bench, first))
    second = add(bench, REJECT)
    assert second.created and ids(claim(bench)) == [second.id]


def test_a_singleton_s_retry_is_still_the_singleton(bench: Bench) -> None:
    first = add(bench, RETURN).id
    settle(bench, run(bench, first), Retry(LOST, timedelta()))
    assert add(bench, RETURN).id == first


def test_a_singleton_can_follow_itself(bench: Bench) -> None:
    first = add(bench, REJECT).id
    job = run(bench, first)
    assert settle(bench, job, Completed(follow_ups=(NewJob(QUEUE, {"next": True}, unique=REJECT),)))
    [following] = claim(bench)
    assert following.id != first


def test_the_replacement_is_as_it_was_asked_for(bench: Bench) -> None:
    add(bench, REPLACE, delay=HOUR)
    second = add(bench, REPLACE, delay=2 * HOUR, priority=2)
    third = add(bench, REPLACE)
    assert (second.due, third.due, third.replaced) == (False, True, second.id)
    assert ids(claim(bench)) == [third.id]


def test_an_idempotency_key_is_looked_at_first(bench: Bench) -> None:
    first = add(bench, REJECT, idempotency_key="k")
    again = add(bench, REJECT, idempotency_key="k")
    assert first.created and (again.id, again.created) == (first.id, False)
    finish(bench, run(bench, first.id))
    last = add(bench, REJECT, idempotency_key="k")
    assert (last.id, last.created) == (first.id, False)


def test_a_redrive_meets_the_live_job_with_its_singleton_key(bench: Bench) -> None:
    first = a_job_in(bench, JobState.DEAD, REPLACE)
    second = add(bench, RETURN, delay=HOUR)
    with pytest.raises(ControlError, match=f"singletonKey.*{second.id}"):
        bench.store.redrive(first, "ann")
    assert bench.store.cancel(second.id)
    again = bench.store.redrive(first, "ann")
    assert again is not None and add(bench, RETURN).id == again.id, "the new job has the key"


@pytest.mark.parametrize("rule", [REPLACE, DEBOUNCE], ids=named)
def test_a_job_that_was_tried_and_may_have_been_sent_is_not_replaced(bench: Bench, rule: Unique) -> None:
    first = a_job_in(bench, JobState.READY, rule)
    assert settle(bench, run(bench, first), Retry(LOST, HOUR))
    before = record(bench, first)
    second = add(bench, rule)
    assert second.replaced is None and record(bench, first) == before
    assert second.created == (rule is DEBOUNCE)


def test_a_redriven_job_that_may_have_been_sent_is_not_replaced(bench: Bench) -> None:
    first = a_job_in(bench, JobState.READY, REPLACE)
    assert settle(bench, run(bench, first), Dead(LOST))
    again = bench.store.redrive(first, "ann")
    assert again is not None
    assert bench.store.reschedule(again.id, None, record(bench, again.id).enqueued_at + HOUR)
    assert (add(bench, REPLACE).id, state(bench, again.id)) == (again.id, JobState.SCHEDULED)


# ------------------------------------------------------------------ debounce


def test_a_debounced_job_runs_when_no_other_has_come_for_its_window(bench: Bench) -> None:
    first = add(bench, DEBOUNCE)
    bench.pass_time(40 * MINUTE)
    second = add(bench, DEBOUNCE)
    assert not first.due and not second.due and second.replaced == first.id
    bench.pass_time(40 * MINUTE)
    assert claim(bench) == [], "the window began again"
    bench.pass_time(21 * MINUTE)
    assert ids(claim(bench)) == [second.id]
    third = add(bench, DEBOUNCE)
    assert third.created and third.replaced is None


def test_a_debounced_job_waits_no_longer_than_it_may(bench: Bench) -> None:
    rule = Debounce("report", HOUR, at_most=2 * HOUR)
    last = add(bench, rule)
    for _ in range(3):
        bench.pass_time(35 * MINUTE)
        following = add(bench, rule)
        assert following.replaced == last.id
        last = following
    bench.pass_time(16 * MINUTE)
    assert ids(claim(bench)) == [last.id], "two hours after the first, ten minutes after the last"
    following = add(bench, rule)
    waits = record(bench, following.id).run_at - record(bench, following.id).enqueued_at
    assert waits > HOUR - SLACK, "a new run begins"


def test_a_debounced_job_that_was_brought_forward_is_not_replaced(bench: Bench) -> None:
    first = add(bench, DEBOUNCE)
    bench.store.retry_now(first.id)
    second = add(bench, DEBOUNCE)
    assert second.created and second.replaced is None
    assert ids(claim(bench)) == [first.id]


def test_debounced_twice_in_one_call_the_second_takes_the_place_of_the_first(bench: Bench) -> None:
    first, second = bench.store.enqueue([NewJob(QUEUE, {"n": n}, unique=DEBOUNCE) for n in range(2)])
    assert first.created and second.replaced == first.id and state(bench, first.id) is JobState.CANCELLED


def test_a_debounced_job_has_no_other_time(bench: Bench) -> None:
    [other] = enqueue(bench)
    when = record(bench, other).enqueued_at + timedelta(days=1)
    for options in ({"delay": HOUR}, {"run_at": when}):
        with pytest.raises(EnqueueError, match="run_at"):
            add(bench, DEBOUNCE, **options)
    assert ids(claim(bench)) == [other]


# ------------------------------------------------------------------ throttle


def test_a_throttled_job_is_made_once_a_window_counted_from_the_first(bench: Bench) -> None:
    first = add(bench, THROTTLE)
    finish(bench, run(bench, first.id))
    bench.pass_time(40 * MINUTE)
    second = add(bench, THROTTLE)
    assert (second.id, second.created) == (first.id, False)
    bench.pass_time(21 * MINUTE)
    third = add(bench, THROTTLE)
    assert third.created
    assert (add(bench, THROTTLE).id, claim(bench, 1)[0].id) == (third.id, third.id)


# ------------------------------------------------------------------ at once


def enqueue_at_once(bench: Bench, unique: Unique) -> list[Enqueued | str]:
    def add_one(n: int) -> Enqueued | str:
        try:
            return add(bench, unique) if n % 2 else bench.store.enqueue([NewJob(QUEUE, {"n": n}, unique=unique)])[0]
        except EnqueueError as error:
            return str(error)

    return at_once(6, add_one)


@pytest.mark.parametrize("rule", [RETURN, REPLACE, THROTTLE], ids=named)
def test_of_many_at_once_one_is_made(bench: Bench, rule: Unique) -> None:
    answers = [answer for answer in enqueue_at_once(bench, rule) if isinstance(answer, Enqueued)]
    assert len(answers) == 6 and sum(answer.created for answer in answers) == 1
    assert len({answer.id for answer in answers}) == 1 and len(claim(bench)) == 1


def test_of_many_at_once_all_but_one_are_refused(bench: Bench) -> None:
    answers = enqueue_at_once(bench, REJECT)
    assert sum(isinstance(answer, Enqueued) for answer in answers) == 1 and len(claim(bench)) == 1


def test_of_many_debounced_at_once_one_is_left(bench: Bench) -> None:
    answers = [answer for answer in enqueue_at_once(bench, DEBOUNCE) if isinstance(answer, Enqueued)]
    assert len(answers) == 6 and all(answer.created for answer in answers)
    left = [answer.id for answer in answers if state(bench, answer.id) is JobState.SCHEDULED]
    assert len(left) == 1 and len({answer.replaced for answer in answers}) == 6


def test_calls_with_the_same_keys_in_another_order_do_not_block_each_other(bench: Bench) -> None:
    jobs = [NewJob(QUEUE, {"n": n}, unique=Singleton(f"key-{n}")) for n in range(12)]
    call: Callable[[int], list[Enqueued]] = lambda n: bench.store.enqueue(jobs if n % 2 else jobs[::-1])  # noqa: E731
    answers = at_once(4, call)
    assert sum(made.created for each in answers for made in each) == 12 and len(claim(bench, 20)) == 12
