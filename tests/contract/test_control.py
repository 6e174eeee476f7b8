"""What every Store promises about cancelling, rescheduling, clearing and deadlines; on PostgreSQL and in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from shared.engine.control import CLEARABLE
from shared.engine.errors import ControlError, EnqueueError
from shared.engine.job import (
    Cancellation,
    Cancelled,
    Completed,
    Dead,
    Deferred,
    ErrorClass,
    JobState,
    Lease,
    NewJob,
    Outcome,
    Placed,
    Released,
    Renewal,
    Retry,
    Settlement,
)
from tests.contract.bench import LEASE, LOST, QUEUE, REFUSED, Bench, claim, enqueue, settle, state

# ------------------------------------------------------------------ cancel


def test_a_request_to_stop_comes_with_the_renewal_and_only_to_its_holder(bench: Bench) -> None:
    enqueue(bench, 2)
    stopped, other = claim(bench, 2)
    assert bench.store.cancel(stopped.id) is Cancellation.REQUESTED
    assert bench.store.cancel(stopped.id) is Cancellation.REQUESTED
    record = bench.store.get(stopped.id)
    assert record is not None and record.stop_requested_at is not None and record.state is JobState.ACTIVE
    leases = [Lease(job.id, job.lease_token) for job in (stopped, other)]
    assert bench.store.renew(leases, LEASE) == Renewal(asked_to_stop=(stopped.id,))
    assert bench.store.renew([Lease(stopped.id, uuid4())], LEASE) == Renewal(lost=(stopped.id,))


def test_a_job_that_stopped_when_asked_is_cancelled_with_its_attempt(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    bench.store.cancel(job.id)
    assert settle(bench, job, Cancelled("stopped by ann"), step=2)
    record = bench.store.get(job.id)
    assert record is not None and record.finished_at is not None
    assert (record.state, record.attempt, record.error_class) == (JobState.CANCELLED, 1, None)
    [attempt] = record.attempts
    assert (attempt.outcome, attempt.message, attempt.details) == ("cancelled", "stopped by ann", {"step": 2})
    assert claim(bench, queue="dead-letter") == [] and bench.store.redrive(job.id, "ann") is None


@pytest.mark.parametrize(
    ("outcome", "ends", "counted"),
    [
        (Completed({"sent": True}), JobState.COMPLETED, 1),
        (Dead(REFUSED), JobState.DEAD, 1),
        (Retry(LOST, timedelta()), JobState.CANCELLED, 1),
        (Retry(LOST, timedelta(days=1)), JobState.CANCELLED, 1),
        (Deferred(timedelta(days=1)), JobState.CANCELLED, 0),
        (Released(), JobState.CANCELLED, 0),
    ],
    ids=["completed", "dead", "retry at once", "retry later", "deferred", "released"],
)
def test_a_job_that_was_asked_to_stop_does_not_run_again_whatever_its_handler_does(
    bench: Bench, outcome: Outcome, ends: JobState, counted: int
) -> None:
    enqueue(bench)
    [job] = claim(bench)
    bench.store.cancel(job.id)
    assert settle(bench, job, outcome)
    record = bench.store.get(job.id)
    assert record is not None and record.stop_requested_at is None
    assert (record.state, record.attempt, len(record.attempts)) == (ends, counted, counted)


def test_I2_a_stale_token_cannot_cancel(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    assert bench.store.settle([Settlement(job.id, uuid4(), Cancelled())]).lost == (job.id,)
    assert state(bench, job.id) is JobState.ACTIVE


# ------------------------------------------------------------------ reschedule, retry now, clear


def test_a_ready_job_gets_another_priority(bench: Bench) -> None:
    first, second = enqueue(bench, 2)
    assert bench.store.reschedule(second, 1, None) == Placed(QUEUE, JobState.READY)
    assert [job.id for job in claim(bench)] == [second, first]


def test_a_ready_job_is_put_off_and_brought_back(bench: Bench) -> None:
    [job_id] = enqueue(bench, correlation_id="trip-7")
    record = bench.store.get(job_id)
    assert record is not None
    later = record.enqueued_at + timedelta(days=3)
    assert bench.store.reschedule(job_id, None, later) == Placed(QUEUE, JobState.SCHEDULED)
    record = bench.store.get(job_id)
    assert record is not None and (record.run_at, record.correlation_id) == (later, "trip-7")
    assert claim(bench) == []
    assert bench.store.reschedule(job_id, 2, None) == Placed(QUEUE, JobState.SCHEDULED)
    assert bench.store.reschedule(job_id, None, record.enqueued_at) == Placed(QUEUE, JobState.READY)
    [job] = claim(bench)
    assert (job.id, job.priority) == (job_id, 2)


def test_only_ready_and_scheduled_jobs_are_rescheduled(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    assert bench.store.reschedule(job.id, 1, None) is None and bench.store.retry_now(job.id) is None
    settle(bench, job, Completed())
    assert bench.store.reschedule(job.id, 1, None) is None and bench.store.retry_now(job.id) is None
    assert bench.store.reschedule(uuid4(), 1, None) is None and bench.store.retry_now(uuid4()) is None


def test_a_reschedule_that_makes_no_sense_is_refused(bench: Bench) -> None:
    [job_id] = enqueue(bench, expires_in=timedelta(days=1))
    record = bench.store.get(job_id)
    assert record is not None and record.expires_at is not None
    for priority, run_at in ((0, None), (11, None), (None, None), (1, record.expires_at)):
        with pytest.raises(ControlError, match=r"priority|deadline"):
            bench.store.reschedule(job_id, priority, run_at)
    assert bench.store.get(job_id) == record


def test_retry_now_runs_a_scheduled_job_and_keeps_its_attempts(bench: Bench) -> None:
    [first_run] = enqueue(bench, delay=timedelta(days=9))
    assert bench.store.retry_now(first_run) == Placed(QUEUE, JobState.READY)
    assert bench.store.retry_now(first_run) is None
    [job] = claim(bench)
    assert settle(bench, job, Retry(LOST, timedelta(days=1)))
    assert bench.store.retry_now(first_run) == Placed(QUEUE, JobState.READY)
    [job] = claim(bench)
    assert job.attempt == 2 and len(job.attempts) == 1


def test_clear_cancels_what_waits_and_nothing_else(bench: Bench) -> None:
    enqueue(bench, 3)
    [running] = claim(bench, 1)
    enqueue(bench, 2, delay=timedelta(days=9))
    [other] = bench.store.enqueue([NewJob("outlook-outbound", {})])
    assert [bench.store.clear(QUEUE, QUEUE, CLEARABLE, 3) for _ in range(3)] == [3, 1, 0]
    assert claim(bench) == [] and bench.store.runnable(10) == {"outlook-outbound": 1}
    assert [state(bench, x) for x in (running.id, other.id)] == [JobState.ACTIVE, JobState.READY]
    assert settle(bench, running, Completed())


def test_clear_takes_only_the_states_asked_for(bench: Bench) -> None:
    [ready] = enqueue(bench)
    [scheduled] = enqueue(bench, delay=timedelta(days=9))
    assert bench.store.clear(QUEUE, QUEUE, [JobState.SCHEDULED], 10) == 1
    assert [state(bench, x) for x in (ready, scheduled)] == [JobState.READY, JobState.CANCELLED]
    assert bench.store.clear(QUEUE, QUEUE, [JobState.READY], 10) == 1


@pytest.mark.parametrize(
    ("confirm", "states"),
    [("", CLEARABLE), ("teams", CLEARABLE), (QUEUE, []), (QUEUE, [JobState.READY, JobState.ACTIVE])],
)
def test_clear_without_its_confirmation_or_of_other_states_is_refused(
    bench: Bench, confirm: str, states: list[JobState]
) -> None:
    [job_id] = enqueue(bench)
    with pytest.raises(ControlError, match=r"confirm|states"):
        bench.store.clear(QUEUE, confirm, states, 10)
    assert state(bench, job_id) is JobState.READY


# ------------------------------------------------------------------ deadlines


def test_a_job_keeps_its_deadline_wherever_it_goes(bench: Bench) -> None:
    [job_id] = enqueue(bench, expires_in=timedelta(days=2))
    record = bench.store.get(job_id)
    assert record is not None
    deadline = record.enqueued_at + timedelta(days=2)
    [job] = claim(bench)
    settle(bench, job, Retry(LOST, timedelta(days=1)))
    assert bench.store.retry_now(job_id)
    bench.store.reschedule(job_id, None, deadline - timedelta(hours=1))
    bench.store.reschedule(job_id, None, record.enqueued_at)
    [job] = claim(bench)
    settle(bench, job, Deferred(timedelta(hours=1)))
    assert bench.store.retry_now(job_id)
    [job] = claim(bench)
    settle(bench, job, Completed())
    record = bench.store.get(job_id)
    assert record is not None and (record.state, record.expires_at) == (JobState.COMPLETED, deadline)


def test_an_expired_job_is_not_handed_out_and_does_not_use_up_the_claim(bench: Bench) -> None:
    late = enqueue(bench, 3, priority=1, expires_in=timedelta(days=1), correlation_id="trip-7")
    for job_id in late:
        bench.pass_deadline(job_id)
    fresh = enqueue(bench, 2)
    in_time = enqueue(bench, 1, priority=9, expires_in=timedelta(days=1))
    assert [job.id for job in claim(bench, 3)] == fresh + in_time
    for job_id in late:
        record = bench.store.get(job_id)
        assert record is not None and record.expires_at is not None and record.finished_at is not None
        assert (record.state, record.error_class, record.attempt) == (JobState.DEAD, ErrorClass.EXPIRED, 0)
        assert f"{record.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" in (record.error_message or "")
    letters = claim(bench, queue="dead-letter")
    assert len(letters) == 3 and {letter.correlation_id for letter in letters} <= {"trip-7", None}


def test_a_deadline_ends_jobs_that_nobody_claims(bench: Bench) -> None:
    [ready] = enqueue(bench, expires_in=timedelta(days=1))
    [scheduled] = enqueue(bench, delay=timedelta(days=20), expires_in=timedelta(days=21))
    [no_deadline] = enqueue(bench, delay=timedelta(days=20))
    bench.store.pause(QUEUE)
    assert bench.store.expire_due(10) == 0
    bench.pass_deadline(ready)
    assert bench.store.expire_due(10) == 1
    for _ in range(3):
        if state(bench, scheduled) is JobState.SCHEDULED:
            bench.pass_deadline(scheduled)
            bench.store.expire_due(10)
    assert [state(bench, x) for x in (ready, scheduled)] == [JobState.DEAD] * 2
    assert state(bench, no_deadline) is JobState.SCHEDULED


def test_a_running_job_has_started_and_does_not_expire(bench: Bench) -> None:
    [job_id] = enqueue(bench, expires_in=timedelta(days=1))
    [job] = claim(bench)
    bench.pass_deadline(job_id)
    assert bench.store.expire_due(10) == 0 and claim(bench) == []
    assert settle(bench, job, Completed())


@pytest.mark.parametrize("delay", [timedelta(), timedelta(days=40)], ids=["at once", "later"])
def test_a_retry_after_the_deadline_is_dead_at_once(bench: Bench, delay: timedelta) -> None:
    [job_id] = enqueue(bench, expires_in=timedelta(days=1))
    [job] = claim(bench)
    if not delay:
        bench.pass_deadline(job_id)
    assert settle(bench, job, Retry(LOST, delay))
    record = bench.store.get(job_id)
    assert record is not None and (record.state, record.error_class) == (JobState.DEAD, ErrorClass.EXPIRED)
    assert [a.error_class for a in record.attempts] == [ErrorClass.WORKER_LOST] and record.attempt == 1
    assert "deadline" in (record.error_message or "") and (record.error_message or "").endswith("gone")
    assert len(claim(bench, queue="dead-letter")) == 1
    made = bench.store.redrive(job_id, "ann")
    assert made is not None
    [again] = claim(bench)
    assert again.may_have_taken_effect, "the attempt before the deadline may have reached the outside world"
    record = bench.store.get(made.id)
    assert record is not None and record.expires_at is None, "whoever redrives has decided anew"


def test_a_retry_before_the_deadline_is_a_retry(bench: Bench) -> None:
    [job_id] = enqueue(bench, expires_in=timedelta(days=2))
    [job] = claim(bench)
    assert settle(bench, job, Retry(LOST, timedelta(days=1)))
    assert state(bench, job_id) is JobState.SCHEDULED


def test_a_dead_letter_job_that_expires_makes_no_further_one(bench: Bench) -> None:
    [made] = bench.store.enqueue([NewJob("dead-letter", {}, expires_in=timedelta(days=1))])
    bench.pass_deadline(made.id)
    assert bench.store.expire_due(10) == 1 and claim(bench, queue="dead-letter") == []


@pytest.mark.parametrize(
    "options",
    [
        {"expires_in": timedelta(days=1), "expires_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"expires_in": timedelta()},
        {"expires_in": timedelta(days=1), "delay": timedelta(days=1)},
        {"expires_at": datetime(2030, 1, 1, tzinfo=UTC), "run_at": datetime(2030, 1, 1, tzinfo=UTC)},
    ],
    ids=["both", "no time", "delay as long", "run_at as late"],
)
def test_a_deadline_that_makes_no_sense_is_refused(bench: Bench, options: dict[str, object]) -> None:
    with pytest.raises(EnqueueError, match="expires_at"):
        bench.store.enqueue([NewJob(QUEUE, {}, **options)])  # type: ignore[arg-type]
    assert claim(bench) == []
