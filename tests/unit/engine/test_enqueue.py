from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.engine.enqueue import LARGEST_PAYLOAD_BYTES
from shared.engine.errors import EnqueueError, PayloadError, QueueClosedError, StoreUnavailableError, UnknownQueueError
from shared.engine.job import JobState, NewJob
from tests.unit.engine.bench import QUEUE, Bench

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_enqueue_stores_the_job_and_wakes_a_worker(bench: Bench) -> None:
    made = bench.producer.enqueue(QUEUE, {"n": 1}, priority=3, correlation_id="trip-7")
    record = bench.store.get(made.id)
    assert record is not None and (record.priority, record.correlation_id) == (3, "trip-7")
    assert bench.wake_ups() == [(1, timedelta())]


@pytest.mark.parametrize("text", ["x" * 48_000, "x" * 49_153, "x" * 1_000_000, "\U0001f69a" * 20_000])
def test_a_job_of_any_size_travels_as_a_small_wake_up(bench: Bench, text: str) -> None:
    made = bench.producer.enqueue(QUEUE, {"text": text})
    record = bench.store.get(made.id)
    assert record is not None and record.payload == {"text": text}
    assert [len(body) < 100 and body.isascii() for _, body, _ in bench.transport.sent] == [True]


def test_a_bulk_sends_one_wake_up_for_sixteen_jobs(bench: Bench) -> None:
    bench.producer.enqueue_many([NewJob(QUEUE, {})] * 40)
    assert bench.wake_ups() == [(16, timedelta()), (16, timedelta()), (8, timedelta())]


def test_a_large_bulk_sends_its_wake_ups_at_once(bench: Bench) -> None:
    bench.producer.enqueue_many([NewJob(QUEUE, {})] * 1000)
    sent = bench.wake_ups()
    assert len(sent) == 63 and sum(jobs for jobs, _ in sent) == 1000


def test_a_bulk_over_several_queues_wakes_each(bench: Bench) -> None:
    bench.producer.enqueue_many([NewJob(QUEUE, {}), NewJob("mails", {}), NewJob(QUEUE, {})])
    assert bench.wake_ups() == [(2, timedelta())] and bench.wake_ups("mails") == [(1, timedelta())]


def test_a_known_idempotency_key_wakes_nobody(bench: Bench) -> None:
    bench.producer.enqueue(QUEUE, {}, idempotency_key="k")
    bench.wake_ups()
    assert not bench.producer.enqueue(QUEUE, {}, idempotency_key="k").created
    assert bench.wake_ups() == []


def test_a_short_delay_is_a_delayed_wake_up_and_a_long_one_the_relays(bench: Bench) -> None:
    bench.producer.enqueue(QUEUE, {}, delay=timedelta(seconds=20))
    bench.producer.enqueue(QUEUE, {}, delay=timedelta(days=9))
    assert bench.wake_ups() == [(1, timedelta(seconds=20))]


def test_storage_that_is_away_costs_no_enqueue(bench: Bench) -> None:
    bench.transport.down = True
    made = bench.producer.enqueue(QUEUE, {})
    record = bench.store.get(made.id)
    assert record is not None and record.state is JobState.READY


def test_a_database_that_goes_away_after_the_commit_costs_no_enqueue(bench: Bench) -> None:
    bench.store.failures["settings"] = 1
    assert len(bench.producer.enqueue_many([NewJob(QUEUE, {})] * 2)) == 2


def test_a_database_that_is_away_is_told(bench: Bench) -> None:
    bench.store.failures["enqueue"] = 1
    with pytest.raises(StoreUnavailableError):
        bench.producer.enqueue(QUEUE, {})
    assert bench.wake_ups() == []


def test_nothing_to_enqueue_is_nothing(bench: Bench) -> None:
    assert bench.producer.enqueue_many([]) == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"priority": 0}, "priority"),
        ({"priority": 11}, "priority"),
        ({"priority": True}, "priority"),
        ({"run_at": datetime(2026, 1, 1)}, "runAt"),
        ({"run_at": datetime(2026, 1, 1, tzinfo=UTC), "delay": timedelta(1)}, "runAt"),
        ({"delay": timedelta(seconds=-1)}, "delay"),
        ({"delay": timedelta(days=100_000)}, "delay"),
        ({"expires_at": datetime(2026, 1, 1)}, "expiresAt"),
        ({"expires_at": NEW_YEAR, "run_at": NEW_YEAR}, "expiresAt"),
        ({"expires_at": NEW_YEAR, "expires_in": timedelta(1)}, "expiresAt"),
        ({"expires_in": timedelta()}, "expiresIn"),
        ({"expires_in": timedelta(1), "delay": timedelta(1)}, "expiresIn"),
        ({"expires_in": timedelta(days=100_000)}, "expiresIn"),
        ({"idempotency_key": ""}, "idempotencyKey"),
        ({"idempotency_key": "x" * 201}, "idempotencyKey"),
        ({"idempotency_key": "a\nb"}, "idempotencyKey"),
        ({"correlation_id": "a\x00b"}, "correlationId"),
        ({"payload": {"bad": 1}}, "bad"),
        ({"payload": {"x": float("nan")}}, "payload"),
        ({"payload": {"x": {1, 2}}}, "payload"),
        ({"payload": {"x": "y" * LARGEST_PAYLOAD_BYTES}}, "payload"),
    ],
)
def test_a_wrong_request_names_the_field_and_stores_nothing(bench: Bench, options: dict[str, Any], field: str) -> None:
    payload = options.pop("payload", {})
    with pytest.raises(PayloadError) as caught:
        bench.producer.enqueue(QUEUE, payload, **options)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert str(caught.value).startswith(field) and bench.states() == []


def test_unknown_and_closed_queues_say_what_to_do(bench: Bench) -> None:
    with pytest.raises(UnknownQueueError, match="the queues are: alerts, closed"):
        bench.producer.enqueue("x" * 500, {})
    with pytest.raises(QueueClosedError, match="it has no worker"):
        bench.producer.enqueue("closed", {})


def test_one_wrong_job_in_a_bulk_stores_none(bench: Bench) -> None:
    with pytest.raises(EnqueueError):
        bench.producer.enqueue_many([NewJob(QUEUE, {}), NewJob("closed", {})])
    assert bench.states() == []


def test_redrive_goes_through(bench: Bench) -> None:
    made = bench.producer.enqueue(QUEUE, {})
    bench.store.cancel(made.id)
    assert bench.producer.redrive(made.id, "ann") is None
    bench.store.enqueue([NewJob(QUEUE, {"bad": 1})])
    bench.worker.run(QUEUE, 1)
    bench.wake_ups()
    dead = bench.store.jobs(QUEUE)[1]
    again = bench.producer.redrive(dead.id, "ann")
    assert again is not None and bench.wake_ups() == [(1, timedelta())]
