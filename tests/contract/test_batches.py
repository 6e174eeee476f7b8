"""What every Store promises about batches and their callbacks; on PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from shared.engine.errors import EnqueueError
from shared.engine.job import (
    BatchRecord,
    Cancelled,
    Completed,
    Dead,
    Debounce,
    ErrorClass,
    Job,
    JobState,
    NewJob,
    Retry,
    Settlement,
    Singleton,
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

CALLBACKS = "outlook-outbound"
CALLBACK = NewJob(CALLBACKS, {"report": True}, priority=2)
HOUR = timedelta(hours=1)


def create(bench: Bench, jobs: int | Sequence[NewJob], callback: NewJob | None = CALLBACK) -> tuple[UUID, list[UUID]]:
    asked = [NewJob(QUEUE, {"n": n}) for n in range(jobs)] if isinstance(jobs, int) else jobs
    batch_id, made = bench.store.create_batch(asked, callback)
    return batch_id, [each.id for each in made]


def batch(bench: Bench, batch_id: UUID) -> BatchRecord:
    found = bench.store.batch(batch_id)
    assert found is not None
    return found


def counts(bench: Bench, batch_id: UUID) -> tuple[int, int, int, int, int]:
    """total, completed, dead, cancelled, pending"""
    found = batch(bench, batch_id)
    return found.total, found.completed, found.dead, found.cancelled, found.pending


def test_a_batch_counts_every_end_once_and_then_calls_back(bench: Bench) -> None:
    batch_id, jobs = create(bench, 4)
    assert counts(bench, batch_id) == (4, 0, 0, 0, 4)
    assert all(record(bench, job_id).batch_id == batch_id for job_id in jobs)
    done, retried, dead, cancelled = claim(bench)
    assert (done.batch_id, ids([done, retried, dead, cancelled])) == (batch_id, jobs)
    assert finish(bench, done) == {}
    settle(bench, retried, Retry(LOST, timedelta()))
    settle(bench, dead, Dead(REFUSED))
    settle(bench, cancelled, Cancelled())
    assert counts(bench, batch_id) == (4, 1, 1, 1, 1) and batch(bench, batch_id).finished_at is None
    assert claim(bench, queue=CALLBACKS) == []
    [again] = claim(bench)
    assert finish(bench, again) == {CALLBACKS: 1}
    found = batch(bench, batch_id)
    assert counts(bench, batch_id) == (4, 2, 1, 1, 0) and found.finished_at is not None
    [callback] = claim(bench, queue=CALLBACKS)
    assert (callback.id, callback.priority, callback.correlation_id) == (found.callback_id, 2, str(batch_id))
    assert callback.batch_id is None
    finish(bench, callback)
    assert claim(bench, queue=CALLBACKS) == []


def test_a_callback_keeps_its_own_correlation_id(bench: Bench) -> None:
    create(bench, 1, NewJob(CALLBACKS, {}, correlation_id="trip-7"))
    finish(bench, *claim(bench))
    [callback] = claim(bench, queue=CALLBACKS)
    assert callback.correlation_id == "trip-7"


def test_a_batch_without_a_callback_just_finishes(bench: Bench) -> None:
    batch_id, _ = create(bench, 1, None)
    assert finish(bench, *claim(bench)) == {}
    found = batch(bench, batch_id)
    assert found.finished_at is not None and found.callback_id is None


def test_an_empty_batch_finishes_at_once(bench: Bench) -> None:
    batch_id, jobs = create(bench, 0)
    assert jobs == [] and counts(bench, batch_id) == (0, 0, 0, 0, 0)
    assert batch(bench, batch_id).finished_at is not None
    assert ids(claim(bench, queue=CALLBACKS)) == [batch(bench, batch_id).callback_id]


def test_an_unknown_batch_is_none(bench: Bench) -> None:
    assert bench.store.batch(uuid4()) is None


@pytest.mark.parametrize("order", ["cancel", "clear", "expire", "dependency"])
def test_an_end_by_order_or_by_deadline_counts(bench: Bench, order: str) -> None:
    [other] = [made.id for made in bench.store.enqueue([NewJob("dead-letter", {})])]
    asked = NewJob(QUEUE, {}, expires_in=HOUR, depends_on=(other,) if order == "dependency" else ())
    batch_id, [job_id] = create(bench, [asked])
    match order:
        case "cancel":
            bench.store.cancel(job_id)
        case "clear":
            bench.store.clear(QUEUE, QUEUE, [JobState.READY], 10)
        case "expire":
            bench.pass_time(2 * HOUR)
            assert bench.store.expire_due(10) == 1
        case "dependency":
            bench.store.cancel(other)
    dies = order in ("expire", "dependency")
    assert counts(bench, batch_id) == (1, 0, int(dies), int(not dies), 0)
    assert len(claim(bench, queue=CALLBACKS)) == 1


def test_a_batch_of_jobs_that_cannot_run_ends_once_all_are_in(bench: Bench) -> None:
    [failed] = enqueue(bench)
    [job] = claim(bench)
    settle(bench, job, Dead(REFUSED))
    batch_id, (doomed, going_on) = create(bench, [NewJob(QUEUE, {}, depends_on=(failed,)), NewJob(QUEUE, {})])
    assert record(bench, doomed).error_class is ErrorClass.DEPENDENCY
    assert counts(bench, batch_id) == (2, 0, 1, 0, 1) and claim(bench, queue=CALLBACKS) == []
    [job] = claim(bench)
    assert job.id == going_on and finish(bench, job) == {CALLBACKS: 1}


def test_only_jobs_that_it_made_are_members(bench: Bench) -> None:
    enqueue(bench, idempotency_key="k", unique=Singleton("s"))
    batch_id, made = bench.store.create_batch(
        [
            NewJob(QUEUE, {}, idempotency_key="k"),
            NewJob(QUEUE, {}, unique=Singleton("s")),
            NewJob(QUEUE, {}, idempotency_key="mine"),
            NewJob(QUEUE, {}, idempotency_key="mine"),
        ],
        CALLBACK,
    )
    assert [each.created for each in made] == [False, False, True, False]
    assert counts(bench, batch_id) == (1, 0, 0, 0, 1)
    assert finish(bench, *claim(bench)) == {CALLBACKS: 1}


def test_a_member_that_is_replaced_counts_as_cancelled(bench: Bench) -> None:
    batch_id, _ = create(bench, [NewJob(QUEUE, {}, unique=Debounce("k", HOUR)) for _ in range(2)])
    assert counts(bench, batch_id) == (2, 0, 0, 1, 1) and claim(bench, queue=CALLBACKS) == []
    [in_its_place] = enqueue(bench, unique=Debounce("k", HOUR), batch_id=batch_id)
    assert counts(bench, batch_id) == (3, 0, 0, 2, 1) and claim(bench, queue=CALLBACKS) == []
    assert state(bench, in_its_place) is JobState.SCHEDULED
    bench.pass_time(2 * HOUR)
    finish(bench, *claim(bench))
    assert counts(bench, batch_id) == (3, 1, 0, 2, 0)


def test_a_batch_comes_whole_or_not_at_all(bench: Bench) -> None:
    enqueue(bench, unique=Singleton("s"))
    for wrong in (NewJob("nope", {}), NewJob(QUEUE, {}, depends_on=(uuid4(),)), NewJob(QUEUE, {}, priority=11)):
        with pytest.raises(EnqueueError):
            bench.store.create_batch([NewJob(QUEUE, {}), wrong], CALLBACK)
    with pytest.raises(EnqueueError, match=r"nope|does not exist"):
        bench.store.create_batch([NewJob(QUEUE, {})], NewJob("nope", {}))
    assert len(claim(bench)) == 1 and claim(bench, queue=CALLBACKS) == []


@pytest.mark.parametrize(
    "options",
    [{"unique": Singleton("s")}, {"depends_on": (uuid4(),)}, {"batch_id": uuid4()}, {"priority": 11}],
    ids=["unique", "depends on", "batch", "priority"],
)
def test_a_callback_that_may_not_be_stored_in_the_end_is_refused_at_once(
    bench: Bench, options: dict[str, object]
) -> None:
    with pytest.raises(EnqueueError, match=r"callback|priority"):
        create(bench, 1, NewJob(CALLBACKS, {}, **options))  # type: ignore[arg-type]
    assert claim(bench) == []


# ------------------------------------------------------------------ joining later


def test_follow_ups_that_join_keep_their_batch_open(bench: Bench) -> None:
    batch_id, [job_id] = create(bench, 1)
    [job] = claim(bench)
    follow_ups = tuple(NewJob(QUEUE, {"n": n}, batch_id=batch_id) for n in range(2))
    outsider = NewJob(QUEUE, {"n": 9}, priority=10)
    settle(bench, job, Completed(follow_ups=(*follow_ups, outsider)))
    assert job.id == job_id and counts(bench, batch_id) == (3, 1, 0, 0, 2)
    first, second = claim(bench, 2)
    finish(bench, first)
    assert claim(bench, queue=CALLBACKS) == []
    finish(bench, second)
    assert len(claim(bench, queue=CALLBACKS)) == 1


def test_jobs_join_a_batch_until_it_has_finished(bench: Bench) -> None:
    batch_id, _ = create(bench, 1)
    enqueue(bench, batch_id=batch_id)
    assert counts(bench, batch_id) == (2, 0, 0, 0, 2)
    assert finish(bench, *claim(bench)) == {CALLBACKS: 1}
    for wrong in (batch_id, uuid4()):
        with pytest.raises(EnqueueError, match="batch_id"):
            bench.store.enqueue([NewJob(QUEUE, {}), NewJob(QUEUE, {}, batch_id=wrong)])
    assert claim(bench) == [] and counts(bench, batch_id) == (2, 2, 0, 0, 0)


def test_a_redriven_member_is_none_any_more(bench: Bench) -> None:
    batch_id, [job_id] = create(bench, 1)
    [job] = claim(bench)
    settle(bench, job, Dead(REFUSED))
    again = bench.store.redrive(job_id, "ann")
    assert again is not None and record(bench, again.id).batch_id is None
    finish(bench, *claim(bench))
    assert counts(bench, batch_id) == (1, 0, 1, 0, 0) and len(claim(bench, queue=CALLBACKS)) == 1


def test_a_callback_to_a_paused_queue_wakes_nobody_and_is_kept(bench: Bench) -> None:
    create(bench, 1)
    bench.store.pause(CALLBACKS)
    assert finish(bench, *claim(bench)) == {}
    bench.store.resume(CALLBACKS)
    assert len(claim(bench, queue=CALLBACKS)) == 1


def test_batches_keep_their_counts_apart(bench: Bench) -> None:
    one, [first, _] = create(bench, 2)
    two, [other] = create(bench, 1)
    jobs = {job.id: job for job in claim(bench)}
    finish(bench, jobs[first], jobs[other])
    assert counts(bench, one) == (2, 1, 0, 0, 1) and counts(bench, two) == (1, 1, 0, 0, 0)
    assert state(bench, batch(bench, two).callback_id or other) is JobState.READY


def test_members_that_end_at_once_call_back_once(bench: Bench) -> None:
    batch_id, _ = create(bench, 12)
    running = claim(bench, 12)

    def finish_two(n: int) -> int:
        mine: list[Job] = running[2 * n : 2 * n + 2]
        settled = bench.store.settle([Settlement(job.id, job.lease_token, Completed()) for job in mine])
        return settled.freed.get(CALLBACKS, 0)

    assert sum(at_once(6, finish_two)) == 1
    assert counts(bench, batch_id) == (12, 12, 0, 0, 0) and len(claim(bench, queue=CALLBACKS)) == 1


def test_a_large_batch_comes_in_one_call(bench: Bench) -> None:
    batch_id, jobs = create(bench, 1000)
    assert len(set(jobs)) == 1000 and counts(bench, batch_id) == (1000, 0, 0, 0, 1000)
    assert bench.store.clear(QUEUE, QUEUE, [JobState.READY], 1000) == 1000
    assert counts(bench, batch_id) == (1000, 0, 0, 1000, 0) and len(claim(bench, queue=CALLBACKS)) == 1
