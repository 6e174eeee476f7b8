from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.engine.backoff import RetryPolicy
from shared.engine.control import CLEARED_AT_ONCE, Control
from shared.engine.errors import ControlError
from shared.engine.job import Cancellation, Deferred, ErrorClass, JobState, NewJob, OrderingKey, Placed, Settlement
from tests.unit.engine.bench import QUEUE, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def control(bench: Bench) -> Control:
    return Control(bench.store, bench.producer)


def test_a_paused_queue_costs_no_wake_up_and_loses_nothing(bench: Bench, control: Control) -> None:
    assert control.pause(QUEUE) and not control.pause(QUEUE)
    bench.enqueue(3)
    bench.enqueue(1, delay=timedelta(seconds=5))
    bench.clock.advance(timedelta(minutes=5))
    bench.wake_ups()
    assert bench.relay.run() == 0 and bench.wake_ups() == []
    assert bench.states() == ["ready"] * 4


def test_enqueueing_into_a_paused_queue_wakes_nobody(bench: Bench, control: Control) -> None:
    control.pause(QUEUE)
    bench.enqueue(3)
    assert bench.wake_ups() == []


def test_resume_wakes_for_what_is_runnable_and_for_what_came_due(bench: Bench, control: Control) -> None:
    control.pause(QUEUE)
    bench.enqueue(3)
    bench.enqueue(1, delay=timedelta(days=1))
    bench.enqueue(1, delay=timedelta(days=9))
    bench.store.enqueue([NewJob("mails", {})])
    bench.clock.advance(timedelta(days=2))
    assert control.resume(QUEUE)
    assert bench.wake_ups() == [(4, timedelta())] and bench.wake_ups("mails") == []
    bench.worker.run(QUEUE, 4)
    assert bench.states() == ["completed"] * 4 + ["scheduled"]


def test_resume_of_a_running_or_an_empty_queue_wakes_nobody(bench: Bench, control: Control) -> None:
    assert not control.resume(QUEUE)
    control.pause(QUEUE)
    assert control.resume(QUEUE) and not bench.transport.sent


def test_a_job_with_a_deadline_dies_in_a_paused_queue(bench: Bench, control: Control) -> None:
    control.pause(QUEUE)
    bench.enqueue(2, expires_in=timedelta(minutes=5))
    bench.enqueue(1, delay=timedelta(minutes=7), expires_in=timedelta(minutes=8))
    bench.clock.advance(timedelta(minutes=5))
    assert bench.relay.run() == 1, "the wake-up for the dead letters"
    assert bench.states() == ["dead", "dead", "scheduled"]
    bench.clock.advance(timedelta(minutes=3))
    bench.relay.run()
    assert bench.states() == ["dead"] * 3 and len(bench.store.letters) == 3


def test_cancel_says_what_became_of_it(bench: Bench, control: Control, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    answers: list[Any] = []
    bench.handler = lambda job, payload, context: answers.append(control.cancel(job.id))
    running, waiting = bench.enqueue(2)
    bench.worker.run(QUEUE, 1)
    answers += [control.cancel(waiting), control.cancel(waiting), control.cancel(running)]
    assert answers == [Cancellation.REQUESTED, Cancellation.CANCELLED, None, None]
    asked = [record for record in caplog.records if record.message == "job.cancel_asked"]
    assert [record.__dict__["answer"] for record in asked] == ["requested", "cancelled"]


def test_what_becomes_ready_is_woken_and_what_does_not_is_not(bench: Bench, control: Control) -> None:
    [job_id] = bench.enqueue()
    bench.wake_ups()
    assert control.reschedule(job_id, run_at=bench.clock() + timedelta(days=1)) == Placed(QUEUE, JobState.SCHEDULED)
    assert bench.wake_ups() == []
    assert control.reschedule(job_id, run_at=bench.clock()) == Placed(QUEUE, JobState.READY)
    assert bench.wake_ups() == [(1, timedelta())]
    control.reschedule(job_id, run_at=bench.clock() + timedelta(days=1))
    assert control.retry_now(job_id) == Placed(QUEUE, JobState.READY) and control.retry_now(job_id) is None
    assert bench.wake_ups() == [(1, timedelta())]


def test_a_job_that_leaves_its_place_in_an_ordering_key_wakes_for_the_next(bench: Bench, control: Control) -> None:
    first, second = bench.enqueue(2, lane=OrderingKey("trip-7"))
    lease = timedelta(seconds=45)
    [job] = bench.store.claim(QUEUE, 2, "w", lease).jobs
    bench.store.settle([Settlement(job.id, job.lease_token, Deferred(timedelta(minutes=1)))])
    assert job.id == first and bench.store.claim(QUEUE, 2, "w", lease).jobs == ()
    bench.wake_ups()
    assert control.reschedule(second, priority=1) == Placed(QUEUE, JobState.WAITING) and bench.wake_ups() == []
    placed = control.reschedule(first, run_at=bench.clock() + timedelta(days=1))
    assert placed == Placed(QUEUE, JobState.SCHEDULED, freed=1) and bench.wake_ups() == [(1, timedelta())]
    assert [job.id for job in bench.store.claim(QUEUE, 2, "w", lease).jobs] == [second]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "priority, run_at"),
        ({"priority": 0}, "priority"),
        ({"priority": True}, "priority"),
        ({"run_at": datetime(2026, 1, 1)}, "run_at"),
        ({"run_at": datetime(2027, 1, 1, tzinfo=UTC)}, "run_at"),
    ],
)
def test_a_reschedule_that_makes_no_sense_changes_nothing(
    bench: Bench, control: Control, options: dict[str, Any], field: str
) -> None:
    [job_id] = bench.enqueue(expires_in=timedelta(days=1))
    before = bench.store.get(job_id)
    with pytest.raises(ControlError, match=f"^{field}: "):
        control.reschedule(job_id, **options)
    assert bench.store.get(job_id) == before


def test_clear_goes_on_until_nothing_waits(bench: Bench, control: Control) -> None:
    bench.store.enqueue([NewJob(QUEUE, {})] * (2 * CLEARED_AT_ONCE))
    bench.store.enqueue([NewJob("mails", {})])
    with pytest.raises(ControlError, match="repeat the name"):
        control.clear(QUEUE, "mails")
    assert control.clear(QUEUE, QUEUE) == 2 * CLEARED_AT_ONCE
    assert set(bench.states()) == {"cancelled"} and bench.store.runnable(9) == {"mails": 1}
    assert control.clear(QUEUE, QUEUE) == 0


def test_ageing_and_retry_delays_are_set_and_logged(
    bench: Bench, control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    every, retries = timedelta(minutes=10), {ErrorClass.NETWORK: RetryPolicy((1, 5))}
    with caplog.at_level(logging.WARNING):
        control.set_ageing(QUEUE, every)
        control.set_retries(QUEUE, retries)
    settings = bench.store.settings(QUEUE)
    assert (settings.ageing, settings.retries) == (every, retries)
    assert [record.message for record in caplog.records] == ["queue.ageing_set", "queue.retries_set"]


def test_ageing_and_retry_delays_that_make_no_sense_are_refused_by_name(bench: Bench, control: Control) -> None:
    with pytest.raises(ControlError, match="ageing: it must be"):
        control.set_ageing(QUEUE, timedelta())
    with pytest.raises(ControlError, match=r"^retries\.network\[0\]: "):
        control.set_retries(QUEUE, {ErrorClass.NETWORK: RetryPolicy((-1,))})
    assert (bench.store.settings(QUEUE).ageing, bench.store.settings(QUEUE).retries) == (None, {})
