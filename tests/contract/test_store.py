"""What every Store promises; the same tests on PostgreSQL and in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from shared.engine.context import Context
from shared.engine.control import CLEARABLE
from shared.engine.errors import ControlError, EnqueueError
from shared.engine.job import (
    TRANSITIONS,
    Cancellation,
    Claimed,
    Completed,
    Dead,
    Debounce,
    Deferred,
    ErrorClass,
    Failure,
    Job,
    JobState,
    Lease,
    NewJob,
    OnDead,
    OrderingKey,
    Released,
    Renewal,
    Retry,
    Settled,
    Settlement,
    Singleton,
    SingletonPolicy,
)
from tests.contract.bench import (
    LEASE,
    LOST,
    NO_LEASE,
    QUEUE,
    REFUSED,
    Bench,
    claim,
    enqueue,
    ids,
    record,
    settle,
    state,
    states,
    worker,
)

# ------------------------------------------------------------------ enqueue


def test_an_enqueued_job_is_ready_and_keeps_what_was_asked(bench: Bench) -> None:
    [made] = bench.store.enqueue([NewJob(QUEUE, {"text": "Grüße 🚚"}, priority=3, correlation_id="trip-7")])
    record = bench.store.get(made.id)
    assert record is not None and made.created and made.due
    assert (record.state, record.priority, record.attempt) == (JobState.READY, 3, 0)
    assert record.payload == {"text": "Grüße 🚚"} and record.correlation_id == "trip-7"


def test_a_delayed_job_is_scheduled_and_cannot_be_claimed(bench: Bench) -> None:
    [made] = bench.store.enqueue([NewJob(QUEUE, {}, delay=timedelta(days=8))])
    assert not made.due and state(bench, made.id) is JobState.SCHEDULED
    assert claim(bench) == []


def test_a_due_job_is_claimed_without_waiting_for_the_relay(bench: Bench) -> None:
    [job_id] = enqueue(bench, delay=timedelta(days=8))
    bench.make_due(job_id)
    assert [job.id for job in claim(bench)] == [job_id]


def test_the_same_idempotency_key_returns_the_same_job(bench: Bench) -> None:
    first, again = (bench.store.enqueue([NewJob(QUEUE, {"n": n}, idempotency_key="order-1")])[0] for n in (1, 2))
    assert first.created and not again.created and first.id == again.id
    assert [job.payload for job in claim(bench)] != []


def test_the_same_key_twice_in_one_call_makes_one_job(bench: Bench) -> None:
    made = bench.store.enqueue([NewJob(QUEUE, {"n": n}, idempotency_key="k") for n in range(3)])
    assert [m.created for m in made] == [True, False, False] and len({m.id for m in made}) == 1
    assert len(claim(bench)) == 1


def test_an_idempotency_key_belongs_to_its_queue_and_outlives_the_job(bench: Bench) -> None:
    [job_id] = enqueue(bench, idempotency_key="k")
    [job] = claim(bench)
    assert settle(bench, job, Completed())
    [again] = bench.store.enqueue([NewJob(QUEUE, {}, idempotency_key="k")])
    [other] = bench.store.enqueue([NewJob("outlook-outbound", {}, idempotency_key="k")])
    assert (again.id, again.created) == (job_id, False) and other.created


@pytest.mark.parametrize("queue", ["attachments", "webhooks", 'x"; drop table queue.job;--'])
def test_a_closed_or_unknown_queue_refuses_and_stores_nothing_of_the_call(bench: Bench, queue: str) -> None:
    with pytest.raises(EnqueueError, match=r"takes no jobs|does not exist"):
        bench.store.enqueue([NewJob(QUEUE, {}), NewJob(queue, {})])
    assert claim(bench) == []


def test_what_jsonb_cannot_hold_is_replaced_and_nothing_else(bench: Bench) -> None:
    text = 'a\u0000b \\u0000 \ud83d "q" \u2028'
    [made] = bench.store.enqueue([NewJob(QUEUE, {"text": text})])
    record = bench.store.get(made.id)
    assert record is not None
    assert record.payload == {"text": 'a\ufffdb \\u0000 \ufffd "q" \u2028'}


# ------------------------------------------------------------------ claim


def test_I3_the_best_job_is_claimed_first(bench: Bench) -> None:
    [low] = enqueue(bench, priority=8)
    [normal_1] = enqueue(bench, priority=5)
    [normal_2] = enqueue(bench, priority=5)
    [critical] = enqueue(bench, priority=1)
    assert [claim(bench, 1)[0].id for _ in range(4)] == [critical, normal_1, normal_2, low]


def test_I3_a_bulk_keeps_its_order_within_a_claim(bench: Bench) -> None:
    ids = enqueue(bench, 50)
    assert [job.id for job in claim(bench, 50)] == ids


def test_I3_an_earlier_due_job_goes_first_whenever_it_was_enqueued(bench: Bench) -> None:
    [later] = enqueue(bench, delay=timedelta(days=7))
    bench.make_due(later)
    [job] = claim(bench, 1)
    assert settle(bench, job, Retry(LOST, timedelta()))
    [now] = enqueue(bench)
    assert [job.id for job in claim(bench)] == [later, now]


def test_a_claim_takes_no_more_than_asked_and_each_job_once(bench: Bench) -> None:
    enqueue(bench, 7)
    first, second, third = claim(bench, 3), claim(bench, 3), claim(bench, 3)
    assert [len(first), len(second), len(third)] == [3, 3, 1]
    assert len({job.id for job in (*first, *second, *third)}) == 7


def test_a_claim_takes_only_its_queue(bench: Bench) -> None:
    enqueue(bench)
    assert claim(bench, queue="outlook-outbound") == []


def test_a_paused_queue_gives_nothing_and_loses_nothing(bench: Bench) -> None:
    [job_id] = enqueue(bench)
    assert bench.store.pause(QUEUE) and not bench.store.pause(QUEUE)
    assert bench.store.settings(QUEUE).paused
    assert claim(bench) == [] and bench.store.runnable(10) == {}
    [late] = bench.store.enqueue([NewJob(QUEUE, {})])
    assert late.created and not late.due, "nobody is to be woken for it"
    assert [state(bench, x) for x in (job_id, late.id)] == [JobState.READY] * 2
    assert bench.store.resume(QUEUE) and not bench.store.resume(QUEUE)
    assert [job.id for job in claim(bench)] == [job_id, late.id]


def test_a_pause_lets_running_jobs_end(bench: Bench) -> None:
    enqueue(bench, 2)
    [job] = claim(bench, 1)
    bench.store.pause(QUEUE)
    settlements = [Settlement(job.id, job.lease_token, Completed())]
    assert bench.store.settle_and_claim(settlements, QUEUE, 1, "worker-1", LEASE) == (Settled(), Claimed())
    assert state(bench, job.id) is JobState.COMPLETED


def test_an_unknown_queue_cannot_be_paused_resumed_or_cleared(bench: Bench) -> None:
    for order in (bench.store.pause, bench.store.resume):
        with pytest.raises(ControlError, match='queue "nope" does not exist'):
            order("nope")
    with pytest.raises(ControlError, match="does not exist"):
        bench.store.clear("nope", "nope", CLEARABLE, 10)


def test_I4_the_first_claim_is_attempt_one(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    assert job.attempt == 1 and job.attempts == ()


# ------------------------------------------------------------------ settle


def test_I2_a_stale_token_settles_nothing(bench: Bench) -> None:
    enqueue(bench)
    [stale] = claim(bench)
    bench.expire(stale.id)
    rescue = Settlement(stale.id, stale.lease_token, Retry(LOST, timedelta()))
    assert bench.store.settle([rescue], only_expired=True).lost == ()
    [fresh] = claim(bench)
    assert not settle(bench, stale, Completed({"by": "stale"}))
    assert settle(bench, fresh, Completed({"by": "fresh"}))
    assert not settle(bench, fresh, Completed({"by": "twice"}))
    record = bench.store.get(fresh.id)
    assert record is not None and record.result == {"by": "fresh"}


def test_I2_the_rescue_cannot_take_a_renewed_lease(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    bench.expire(job.id)
    [expired] = bench.store.expired(10)
    assert bench.store.renew([Lease(job.id, job.lease_token)], timedelta(days=30)) == Renewal()
    rescue = Settlement(expired.id, expired.lease_token, Retry(LOST, timedelta()))
    assert bench.store.settle([rescue], only_expired=True).lost == (job.id,)
    assert settle(bench, job, Completed())


def test_renewing_a_lost_lease_tells_so(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    assert bench.store.renew([Lease(job.id, uuid4())], LEASE) == Renewal(lost=(job.id,))
    assert bench.store.renew([Lease(uuid4(), job.lease_token)], LEASE).lost != ()
    assert bench.store.expired(10) == []


def test_I1_completed_dead_and_cancelled_jobs_stay_to_be_seen(bench: Bench) -> None:
    done, dead, cancelled = enqueue(bench, 3)
    first, second = claim(bench, 2)
    settle(bench, first, Completed({"id": "m-1"}))
    settle(bench, second, Dead(REFUSED))
    assert bench.store.cancel(cancelled)
    assert [state(bench, x) for x in (done, dead, cancelled)] == [
        JobState.COMPLETED,
        JobState.DEAD,
        JobState.CANCELLED,
    ]


def test_I5_every_attempt_is_kept_with_its_failure(bench: Bench) -> None:
    [job_id] = enqueue(bench)
    for n in range(3):
        [job] = claim(bench)
        assert settle(bench, job, Retry(Failure(ErrorClass.NETWORK, f"refused {n}"), timedelta(days=1)), call=n)
        bench.make_due(job_id)
    [job] = claim(bench)
    assert settle(bench, job, Completed(), request_id="r-4")
    record = bench.store.get(job_id)
    assert record is not None and record.attempt == 4
    assert [a.message for a in record.attempts] == ["refused 0", "refused 1", "refused 2", None]
    assert [a.number for a in record.attempts] == [1, 2, 3, 4]
    assert [a.error_class for a in record.attempts] == [ErrorClass.NETWORK] * 3 + [None]
    assert record.attempts[0].details == {"call": 0} and record.attempts[3].details == {"request_id": "r-4"}
    assert all(a.started_at <= a.finished_at and a.worker == "worker-1" for a in record.attempts)
    assert job.failures(ErrorClass.NETWORK) == 3 and job.may_have_taken_effect


def test_I4_release_and_deferral_do_not_count_as_attempts(bench: Bench) -> None:
    [job_id] = enqueue(bench)
    [job] = claim(bench)
    assert settle(bench, job, Released())
    [job] = claim(bench)
    assert job.attempt == 1
    assert settle(bench, job, Deferred(timedelta(days=1), "no permit"))
    assert state(bench, job_id) is JobState.SCHEDULED
    bench.make_due(job_id)
    [job] = claim(bench)
    assert job.attempt == 1 and job.attempts == ()


def test_a_retry_without_delay_is_ready_at_once(bench: Bench) -> None:
    [job_id] = enqueue(bench)
    [job] = claim(bench)
    assert settle(bench, job, Retry(Failure(ErrorClass.AUTH, "401"), timedelta()))
    assert state(bench, job_id) is JobState.READY
    [job] = claim(bench)
    assert job.attempt == 2 and job.attempts[0].error_class is ErrorClass.AUTH


def test_a_dead_job_makes_one_dead_letter_job(bench: Bench) -> None:
    enqueue(bench, correlation_id="trip-7")
    [job] = claim(bench)
    assert settle(bench, job, Dead(REFUSED), status=400)
    record = bench.store.get(job.id)
    assert record is not None
    assert (record.error_class, record.error_message) == (ErrorClass.VALIDATION, "chatId: unknown")
    [letter] = claim(bench, queue="dead-letter")
    assert "deadLetterId" in letter.payload


def test_a_dead_dead_letter_job_makes_no_further_one(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    settle(bench, job, Dead(REFUSED))
    [letter] = claim(bench, queue="dead-letter")
    assert settle(bench, letter, Dead(REFUSED))
    assert claim(bench, queue="dead-letter") == []


def test_I6_follow_ups_come_with_the_settlement_or_not_at_all(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    follow_up = NewJob("outlook-outbound", {"n": 2})
    stale = Settlement(job.id, uuid4(), Completed(follow_ups=(follow_up,)))
    assert bench.store.settle([stale]).lost == (job.id,)
    assert claim(bench, queue="outlook-outbound") == []
    assert settle(bench, job, Completed(follow_ups=(follow_up, follow_up)))
    assert len(claim(bench, queue="outlook-outbound")) == 2


@pytest.mark.parametrize("jobs", [1, 3])
def test_I6_a_follow_up_that_only_the_store_knows_to_be_wrong_fails_its_attempt_and_no_other(
    bench: Bench, jobs: int
) -> None:
    [holder] = [made.id for made in bench.store.enqueue([NewJob("outlook-outbound", {}, unique=Singleton("s"))])]
    asked = enqueue(bench, jobs)
    refused = NewJob("outlook-outbound", {}, unique=Singleton("s", SingletonPolicy.REJECT))

    def handler(job: Job, payload: Any, context: Context) -> Completed:
        return Completed(follow_ups=(refused,)) if job.id == asked[0] else Completed({"done": True})

    report = worker(bench, handler).run(QUEUE, jobs)
    assert report.ran == jobs and report.lost == []
    assert states(bench, asked) == [JobState.SCHEDULED] + [JobState.COMPLETED] * (jobs - 1)
    [attempt] = record(bench, asked[0]).attempts
    assert attempt.error_class is ErrorClass.UNKNOWN and str(holder) in (attempt.message or "")


def test_I6_in_a_batch_of_settlements_a_refused_follow_up_settles_none(bench: Bench) -> None:
    asked = enqueue(bench, 2)
    jobs = claim(bench)
    refused = NewJob("outlook-outbound", {}, depends_on=(uuid4(),))
    outcomes = [Completed(follow_ups=(refused,)), Completed()]
    settlements = [Settlement(job.id, job.lease_token, end) for job, end in zip(jobs, outcomes, strict=True)]
    with pytest.raises(EnqueueError, match=r"depends_on: job .* is not known"):
        bench.store.settle(settlements)
    assert states(bench, asked) == [JobState.ACTIVE] * 2


def test_settle_and_claim_settles_and_takes_the_next(bench: Bench) -> None:
    first, second = enqueue(bench, 2)
    [job] = claim(bench, 1)
    settlements = [Settlement(job.id, job.lease_token, Completed()), Settlement(uuid4(), uuid4(), Completed())]
    settled, claimed = bench.store.settle_and_claim(settlements, QUEUE, 1, "worker-1", LEASE)
    assert (settled.lost, ids(claimed.jobs)) == ((settlements[1].job_id,), [second])
    assert state(bench, first) is JobState.COMPLETED
    assert bench.store.settle_and_claim([], QUEUE, 1, "worker-1", LEASE) == (Settled(), Claimed())


def test_one_bad_settlement_does_not_cost_the_others(bench: Bench) -> None:
    enqueue(bench, 3)
    jobs = claim(bench, 3)
    settlements = [Settlement(job.id, job.lease_token, Completed()) for job in jobs]
    settlements[1] = replace(settlements[1], lease_token=uuid4())
    assert bench.store.settle(settlements).lost == (jobs[1].id,)
    assert [state(bench, job.id) for job in jobs] == [JobState.COMPLETED, JobState.ACTIVE, JobState.COMPLETED]


# ------------------------------------------------------------------ the rest


def test_only_expired_leases_are_expired(bench: Bench) -> None:
    one, _ = enqueue(bench, 2)
    claim(bench, 2)
    assert bench.store.expired(10) == []
    bench.expire(one)
    assert one in {job.id for job in bench.store.expired(10)}


def test_promote_due_makes_ready_what_is_due(bench: Bench) -> None:
    job_id, _ = enqueue(bench, 1, delay=timedelta(days=7)) + enqueue(bench, 1, delay=timedelta(days=3000))
    assert bench.store.promote_due(10) == 0
    bench.make_due(job_id)
    assert bench.store.promote_due(10) == 1
    assert state(bench, job_id) is JobState.READY


def test_runnable_counts_ready_jobs_up_to_a_cap(bench: Bench) -> None:
    enqueue(bench, 5)
    claim(bench, 1)
    assert bench.store.runnable(10) == {QUEUE: 4}
    assert bench.store.runnable(3) == {QUEUE: 3}


def test_cancel_ends_waiting_jobs_and_asks_running_ones_to_stop(bench: Bench) -> None:
    active, ready = enqueue(bench, 2)
    [scheduled] = enqueue(bench, delay=timedelta(days=7))
    claim(bench, 1)
    assert [bench.store.cancel(x) for x in (active, ready, scheduled, uuid4(), ready)] == [
        Cancellation.REQUESTED,
        Cancellation.CANCELLED,
        Cancellation.CANCELLED,
        None,
        None,
    ]
    assert [state(bench, x) for x in (active, ready, scheduled)] == [
        JobState.ACTIVE,
        JobState.CANCELLED,
        JobState.CANCELLED,
    ]


def test_redrive_makes_one_new_job_linked_to_the_dead_one(bench: Bench) -> None:
    [job_id] = enqueue(bench, priority=2, correlation_id="trip-7")
    assert bench.store.redrive(job_id, "ann") is None
    [job] = claim(bench)
    settle(bench, job, Dead(REFUSED))
    made = bench.store.redrive(job_id, "ann")
    assert made is not None and made.created and bench.store.redrive(job_id, "ann") is None
    record = bench.store.get(made.id)
    assert record is not None and record.redrive_of == job_id
    assert (record.state, record.attempt, record.priority, record.correlation_id) == (JobState.READY, 0, 2, "trip-7")


def test_a_redrive_of_a_redrive_marks_its_effect_as_the_first_did_and_knows_whether_it_may_have_happened(
    bench: Bench,
) -> None:
    [first] = enqueue(bench)
    last = first
    open_since = None
    for failure in (REFUSED, LOST, REFUSED):
        [job] = claim(bench)
        assert job.effect_id == first and job.effect_since == open_since
        settle(bench, job, Dead(failure))
        record = bench.store.get(job.id)
        assert record is not None
        open_since = open_since or (record.attempts[0].started_at if failure is LOST else None)
        made = bench.store.redrive(last, "ann")
        assert made is not None
        last = made.id
    [job] = claim(bench)
    assert job.may_have_taken_effect and job.attempts == ()


def test_an_unreadable_message_is_buried_once(bench: Bench) -> None:
    assert bench.store.bury(QUEUE, "not\x00 JSON", "unreadable", "m-1")
    assert not bench.store.bury(QUEUE, "not\x00 JSON", "unreadable", "m-1")
    assert len(claim(bench, queue="dead-letter")) == 1


def test_a_poisoned_job_is_tracked_as_dead_once(bench: Bench) -> None:
    job_id = bench.store.bury_job(NewJob(QUEUE, {"n": 1}), "the host gave up", "m-1")
    assert job_id is not None and state(bench, job_id) is JobState.DEAD
    assert bench.store.bury_job(NewJob(QUEUE, {"n": 1}), "the host gave up", "m-1") is None
    assert claim(bench) == [] and len(claim(bench, queue="dead-letter")) == 1
    assert bench.store.redrive(job_id, "ann") is not None


def test_a_poisoned_copy_of_a_job_with_a_key_of_its_own_is_that_job(bench: Bench) -> None:
    """Its effect must not be repeated by a redrive of the copy."""
    [job_id] = enqueue(bench, idempotency_key="trip-7")
    copy = NewJob(QUEUE, {"n": 0}, idempotency_key="trip-7")
    assert bench.store.bury_job(copy, "the host gave up", "m-1") is None
    assert state(bench, job_id) is JobState.READY and claim(bench, queue="dead-letter") == []
    buried = bench.store.bury_job(NewJob(QUEUE, {}, idempotency_key="trip-8"), "the host gave up", "m-2")
    assert buried is not None and state(bench, buried) is JobState.DEAD
    [again] = bench.store.enqueue([NewJob(QUEUE, {}, idempotency_key="trip-8")])
    assert (again.id, again.created) == (buried, False)


def test_a_poisoned_job_never_runs_whatever_it_asked_for(bench: Bench) -> None:
    [other] = enqueue(bench)
    batch_id, _ = bench.store.create_batch([NewJob(QUEUE, {})], None)
    for number, options in enumerate(
        (
            {"unique": Debounce("d", timedelta(hours=1))},
            {"unique": Singleton("s")},
            {"delay": timedelta(hours=1)},
            {"depends_on": (other,)},
            {"batch_id": batch_id},
            {"lane": OrderingKey("o", OnDead.BLOCK)},
        )
    ):
        poisoned = NewJob(QUEUE, {}, **options)  # type: ignore[arg-type]
        buried = bench.store.bury_job(poisoned, "the host gave up", f"m-{number}")
        assert buried is not None
        found = bench.store.get(buried)
        assert found is not None
        assert (found.state, found.error_class, found.attempt) == (JobState.DEAD, ErrorClass.WORKER_LOST, 0)
        assert found.error_message == "the host gave up"
    batch = bench.store.batch(batch_id)
    assert batch is not None and (batch.total, batch.dead) == (1, 0)
    [after] = enqueue(bench, lane=OrderingKey("o"))
    bench.pass_time(timedelta(hours=2))
    assert {other, after} <= set(ids(claim(bench)))
    assert len(claim(bench, queue="dead-letter")) == 6


def test_a_timer_has_one_turn_at_a_time(bench: Bench) -> None:
    token = bench.store.take_turn("relay", timedelta(minutes=1))
    assert token is not None and bench.store.take_turn("relay", timedelta(minutes=1)) is None
    assert bench.store.take_turn("rescue", timedelta(minutes=1)) is not None
    bench.store.end_turn("relay", uuid4())
    assert bench.store.take_turn("relay", timedelta(minutes=1)) is None
    bench.store.end_turn("relay", token)
    assert bench.store.take_turn("relay", NO_LEASE) is not None
    assert bench.store.take_turn("relay", timedelta(minutes=1)) is not None


def test_every_state_is_reached_only_as_drawn() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert all(not TRANSITIONS[s] for s in (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED))
