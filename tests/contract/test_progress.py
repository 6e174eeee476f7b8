"""What every Store promises about what a handler has saved; on PostgreSQL and in memory."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from shared.engine.job import Completed, Dead, Deferred, JobState, Outcome, Released, Retry, Settlement
from tests.contract.bench import LOST, QUEUE, REFUSED, Bench, claim, enqueue, finish, record, settle, state

HOUR = timedelta(hours=1)
SAVED = {"page": 3, "link": "Grüße 🚚", "done": [1, 2]}


def test_what_was_saved_is_seen_and_replaces_what_was_there(bench: Bench) -> None:
    [job_id] = enqueue(bench)
    [job] = claim(bench)
    assert job.progress is None and record(bench, job_id).progress is None
    assert bench.store.save_progress(job.id, job.lease_token, {"page": 1, "only": "here"})
    assert bench.store.save_progress(job.id, job.lease_token, SAVED)
    assert record(bench, job_id).progress == SAVED
    finish(bench, job)
    assert record(bench, job_id).progress == SAVED


@pytest.mark.parametrize(
    "outcome",
    [Retry(LOST, timedelta()), Retry(LOST, HOUR), Deferred(HOUR), Released()],
    ids=["retry at once", "retry later", "deferred", "released"],
)
def test_the_next_attempt_has_it(bench: Bench, outcome: Outcome) -> None:
    [job_id] = enqueue(bench)
    [job] = claim(bench)
    assert bench.store.save_progress(job.id, job.lease_token, SAVED)
    settle(bench, job, outcome)
    assert record(bench, job_id).progress == SAVED
    if state(bench, job_id) is JobState.SCHEDULED:
        bench.make_due(job_id)
    [job] = claim(bench)
    assert job.progress == SAVED


def test_it_survives_a_lost_worker(bench: Bench) -> None:
    [job_id] = enqueue(bench)
    [job] = claim(bench)
    assert bench.store.save_progress(job.id, job.lease_token, SAVED)
    bench.expire(job_id)
    [lost] = bench.store.expired(10)
    assert lost.progress == SAVED
    bench.store.settle([Settlement(lost.id, lost.lease_token, Retry(LOST, timedelta()))], only_expired=True)
    [again] = claim(bench)
    assert again.progress == SAVED


def test_it_survives_waiting(bench: Bench) -> None:
    """Wherever a job goes, what it saved goes with it."""
    [job_id] = enqueue(bench, limit_key="chat:1")
    [job] = claim(bench)
    assert bench.store.save_progress(job.id, job.lease_token, SAVED)
    blocked = Settlement(job.id, job.lease_token, Retry(LOST, timedelta()), block=HOUR)
    assert bench.store.settle([blocked]).lost == () and claim(bench) == []
    assert state(bench, job_id) is JobState.WAITING and record(bench, job_id).progress == SAVED
    bench.pass_time(HOUR + timedelta(seconds=1))
    bench.store.open_due(10)
    [again] = claim(bench)
    assert again.progress == SAVED


def test_a_stale_token_saves_nothing(bench: Bench) -> None:
    [job_id] = enqueue(bench)
    [job] = claim(bench)
    assert not bench.store.save_progress(job.id, uuid4(), SAVED)
    assert not bench.store.save_progress(uuid4(), job.lease_token, SAVED)
    settle(bench, job, Released())
    assert not bench.store.save_progress(job.id, job.lease_token, SAVED)
    [job] = claim(bench)
    settle(bench, job, Completed())
    assert not bench.store.save_progress(job.id, job.lease_token, SAVED)
    assert record(bench, job_id).progress is None


def test_a_redriven_job_starts_with_it(bench: Bench) -> None:
    enqueue(bench)
    [job] = claim(bench)
    assert bench.store.save_progress(job.id, job.lease_token, SAVED)
    settle(bench, job, Dead(REFUSED))
    made = bench.store.redrive(job.id, "ann")
    assert made is not None and record(bench, made.id).progress == SAVED
    [again] = claim(bench)
    assert again.id == made.id and again.progress == SAVED and again.attempts == ()
    assert again.queue == QUEUE
