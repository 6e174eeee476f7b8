from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest

from shared.engine.context import Context
from shared.engine.job import Completed, ErrorClass, Job, JobState, Lease, Settlement
from shared.engine.relay import MOST_WAKE_UPS
from shared.engine.timers import turn
from tests.unit.engine.bench import QUEUE, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_relay_sends_what_is_missing_and_no_more(bench: Bench) -> None:
    bench.transport.down = True
    bench.enqueue(40)
    bench.transport.down = False
    assert bench.relay.run() == 3
    assert bench.relay.run() == 0
    assert [jobs for jobs, _ in bench.wake_ups()] == [16, 16, 16]


def test_the_relay_does_not_count_messages_that_nobody_can_receive(bench: Bench) -> None:
    bench.transport.down = True
    bench.enqueue()
    bench.transport.down = False
    bench.transport.send(QUEUE, "{}", timedelta(minutes=10))
    assert bench.relay.run() == 1


def test_the_relay_makes_due_jobs_ready(bench: Bench) -> None:
    bench.enqueue(3, delay=timedelta(days=8))
    assert bench.relay.run() == 0
    bench.clock.advance(timedelta(days=8))
    assert bench.relay.run() == 1 and bench.states() == ["ready"] * 3


def test_the_relay_bounds_what_it_sends(bench: Bench) -> None:
    bench.transport.down = True
    bench.enqueue(2000)
    bench.transport.down = False
    assert bench.relay.run() == MOST_WAKE_UPS


def test_a_storage_fault_does_not_stop_the_relay(bench: Bench) -> None:
    bench.transport.down = True
    bench.enqueue()
    assert bench.relay.run() == 0
    bench.transport.down = False
    assert bench.relay.run() == 1


def test_the_rescue_takes_back_what_its_worker_left(bench: Bench) -> None:
    bench.enqueue(2)
    bench.store.claim(QUEUE, 1, "host-9", timedelta(seconds=45))
    assert bench.rescue.run() == 0
    bench.clock.advance(timedelta(seconds=46))
    bench.wake_ups()
    assert bench.rescue.run() == 1
    record = bench.store.jobs(QUEUE)[0]
    assert record.state is JobState.SCHEDULED and record.attempts[0].worker == "host-9"
    assert record.attempts[0].error_class is ErrorClass.WORKER_LOST
    [(_, delay)] = bench.wake_ups()
    assert timedelta(seconds=1) <= delay <= timedelta(seconds=1.25)


def test_a_job_whose_lease_is_renewed_while_the_rescue_looks_at_it_stays_with_its_worker(bench: Bench) -> None:
    """A host that stood still wakes between the rescue's look and its settlement."""
    bench.enqueue()
    [job] = bench.store.claim(QUEUE, 1, "host-9", timedelta(seconds=45)).jobs
    bench.clock.advance(timedelta(seconds=46))
    expired = bench.store.expired

    def renewed_after_the_look(limit: int) -> list[Job]:
        found = expired(limit)
        bench.store.renew([Lease(job.id, job.lease_token)], timedelta(seconds=45))
        return found

    bench.store.expired = renewed_after_the_look  # type: ignore[method-assign]
    assert bench.rescue.run() == 0
    assert bench.states() == ["active"]
    assert bench.store.settle([Settlement(job.id, job.lease_token, Completed())]).lost == ()


def test_a_job_that_kills_its_worker_every_time_ends_as_a_dead_letter_and_the_others_end_well(bench: Bench) -> None:
    class KilledError(BaseException):
        pass

    killer = bench.enqueue(20)[7]

    def handler(job: Job, payload: Any, context: Context) -> None:
        if job.id == killer:
            raise KilledError

    bench.handler = handler
    while bench.store.get(killer).state is not JobState.DEAD:  # type: ignore[union-attr]
        with contextlib.suppress(KilledError):
            bench.worker.run(QUEUE, 20)
        bench.clock.advance(timedelta(minutes=1))
        bench.rescue.run()
    bench.worker.run(QUEUE, 20)
    assert sorted(bench.states()) == ["completed"] * 19 + ["dead"]
    assert [job.attempt for job in bench.store.jobs(QUEUE)] == [1] * 7 + [6] + [1] * 12
    assert bench.wake_ups("dead-letter") == [(1, timedelta())]


def test_one_host_at_a_time_has_a_timer(bench: Bench) -> None:
    with turn(bench.store, "relay", timedelta(minutes=1)) as mine:
        assert mine
        with turn(bench.store, "relay", timedelta(minutes=1)) as other:
            assert not other
    with turn(bench.store, "relay", timedelta(minutes=1)) as mine:
        assert mine
        bench.clock.advance(timedelta(minutes=2))
        with turn(bench.store, "relay", timedelta(minutes=1)) as other:
            assert other


def test_a_timer_that_fails_gives_its_turn_back(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError), turn(bench.store, "relay", timedelta(minutes=1)):
        raise ZeroDivisionError
    with turn(bench.store, "relay", timedelta(minutes=1)) as mine:
        assert mine
