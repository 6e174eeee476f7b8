"""What every Store promises about a queue's own retry delays, and that workers and rescues go by them."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import psycopg
import pytest

from shared.engine.backoff import RETRY_POLICIES, RetryPolicy
from shared.engine.context import Context
from shared.engine.errors import ControlError, NetworkError
from shared.engine.job import ErrorClass, Job, JobState
from shared.engine.rescue import Rescue
from tests.contract.bench import QUEUE, Bench, claim, enqueue, producer, record, worker

HOUR = timedelta(hours=1)
OWN = {ErrorClass.NETWORK: RetryPolicy((7200, 7200)), ErrorClass.WORKER_LOST: RetryPolicy(())}


def fail(job: Job, payload: Any, context: Context) -> None:
    raise NetworkError("reset")


def test_a_queue_has_delays_of_its_own_for_the_classes_that_are_named(bench: Bench) -> None:
    assert bench.store.settings(QUEUE).retries == {}
    bench.store.set_retries(QUEUE, OWN)
    assert bench.store.settings(QUEUE).retries == OWN
    bench.store.set_retries(QUEUE, {})
    assert bench.store.settings(QUEUE).retries == {}


def test_a_worker_goes_by_them(bench: Bench) -> None:
    bench.store.set_retries(QUEUE, OWN)
    [job_id] = enqueue(bench)
    for _ in range(2):
        worker(bench, fail).run(QUEUE, 1)
        waiting = record(bench, job_id)
        assert waiting.state is JobState.SCHEDULED and waiting.run_at >= bench.now() + HOUR
        bench.pass_time(4 * HOUR)
        bench.store.promote_due(10)
    worker(bench, fail).run(QUEUE, 1)
    dead = record(bench, job_id)
    assert (dead.state, dead.error_class, dead.attempt) == (JobState.DEAD, ErrorClass.NETWORK, 3)
    assert RETRY_POLICIES[ErrorClass.NETWORK].retries > 2, "the table would have gone on"


def test_a_rescue_goes_by_them(bench: Bench) -> None:
    bench.store.set_retries(QUEUE, OWN)
    [job_id] = enqueue(bench)
    claim(bench)
    bench.expire(job_id)
    assert Rescue(bench.store, producer(bench), Random(7)).run() == 1
    assert (record(bench, job_id).state, record(bench, job_id).error_class) == (JobState.DEAD, ErrorClass.WORKER_LOST)


@pytest.mark.parametrize(
    ("retries", "named"),
    [
        ({ErrorClass.NETWORK: RetryPolicy((1, -1))}, r"retries\.network\[1\]"),
        ({ErrorClass.TIMEOUT: RetryPolicy((float("nan"),))}, r"retries\.timeout\[0\]"),
        ({ErrorClass.AUTH: RetryPolicy((1e9,))}, r"retries\.auth\[0\]"),
        ({ErrorClass.EXPIRED: RetryPolicy((1,))}, r"retries\.expired"),
        ({ErrorClass.DEPENDENCY: RetryPolicy(())}, r"retries\.dependency"),
    ],
    ids=["negative", "no number", "too long", "expired", "dependency"],
)
def test_delays_that_make_no_sense_are_refused_by_name_and_change_nothing(
    bench: Bench, retries: dict[ErrorClass, RetryPolicy], named: str
) -> None:
    bench.store.set_retries(QUEUE, OWN)
    with pytest.raises(ControlError, match=named):
        bench.store.set_retries(QUEUE, retries)
    with pytest.raises(ControlError, match="does not exist"):
        bench.store.set_retries("nope", OWN)
    assert bench.store.settings(QUEUE).retries == OWN


@pytest.mark.parametrize(
    "text", ['{"network": 5}', '{"network": ["a"]}', '{"network": [-1]}', '{"network": [1e9]}', '{"nope": []}', "[]"]
)
def test_sql_refuses_what_no_worker_could_read(sql: psycopg.Connection, text: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="retry_delays"):
        sql.execute("select queue.set_retry_delays(%s, %s)", (QUEUE, text))
    with pytest.raises(psycopg.errors.CheckViolation, match="retry_delays"):
        sql.execute("update queue.queue_settings set retry_delays = %s where queue = %s", (text, QUEUE))
