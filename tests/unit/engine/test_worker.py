from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from local.process import wait_until
from shared.engine.context import Context
from shared.engine.errors import (
    AuthError,
    JobCancelledError,
    LeaseLostError,
    NetworkError,
    ParkedError,
    RateLimitedError,
    RejectedError,
    StoreUnavailableError,
)
from shared.engine.heartbeat import LONGEST_RUN
from shared.engine.job import (
    Cancellation,
    Completed,
    Deferred,
    ErrorClass,
    Job,
    JobState,
    NewJob,
    Released,
    Renewal,
    Settlement,
)
from shared.engine.worker import RELEASE_PAUSE, TIME_BUDGET
from shared.handlers.registry import QUEUES
from shared.http_session import TOTAL_SECONDS
from tests.unit.engine.bench import QUEUE, Bench

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def raising(error: BaseException) -> Any:
    def handler(job: Job, payload: Any, context: Context) -> None:
        raise error

    return handler


def test_a_wake_up_runs_its_number_of_jobs_best_first(bench: Bench) -> None:
    bench.enqueue(3, priority=8)
    [critical] = bench.enqueue(1, priority=1)
    report = bench.worker.run(QUEUE, 2)
    assert (report.ran, report.left) == (2, 0)
    assert bench.ran[0].id == critical
    assert bench.states() == ["completed", "ready", "ready", "completed"]


def test_a_spare_wake_up_finds_nothing_and_ends(bench: Bench) -> None:
    report = bench.worker.run(QUEUE, 16)
    assert (report.ran, report.left, report.lost) == (0, 0, [])


def test_a_used_up_time_budget_leaves_the_rest_of_the_wake_up(bench: Bench) -> None:
    bench.enqueue(5)
    report = bench.worker.run(QUEUE, 5, time_budget=timedelta())
    assert (report.ran, report.left) == (1, 4)


def test_the_handler_gets_the_payload_and_its_result_is_kept(bench: Bench) -> None:
    bench.handler = lambda job, payload, context: Completed({"got": payload["n"]})
    [job_id] = bench.enqueue()
    bench.worker.run(QUEUE, 1)
    record = bench.store.get(job_id)
    assert record is not None and record.result == {"got": 0}


def test_a_failure_is_retried_with_a_delayed_wake_up(bench: Bench) -> None:
    bench.handler = raising(NetworkError("connection refused"))
    bench.enqueue()
    bench.wake_ups()
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["scheduled"]
    [(jobs, delay)] = bench.wake_ups()
    assert jobs == 1 and timedelta(seconds=1) <= delay <= timedelta(seconds=1.25)


def test_a_retry_due_after_30_seconds_is_left_to_the_relay(bench: Bench) -> None:
    bench.handler = raising(RateLimitedError("slow down", retry_after=timedelta(minutes=5)))
    bench.enqueue()
    bench.wake_ups()
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["scheduled"] and bench.wake_ups() == []


@pytest.mark.parametrize(
    ("asked", "closed"), [(timedelta(minutes=5), timedelta(minutes=5)), (None, timedelta(minutes=1))]
)
def test_a_429_holds_back_the_jobs_of_its_key_until_its_time_and_no_others(
    bench: Bench, asked: timedelta | None, closed: timedelta
) -> None:
    """`closed`: what the peer asked for, or else the wait before the first retry."""
    bench.store.enqueue([NewJob(QUEUE, {"n": n}, limit_key=key) for n, key in enumerate(["m:1", "m:1", "m:2"])])

    def handler(job: Job, payload: Any, context: Context) -> None:
        if job.attempt == 1 and payload["n"] == 0:
            raise RateLimitedError("slow down", retry_after=asked)

    bench.handler = handler
    first, second, other = (job.id for job in bench.store.jobs(QUEUE))
    bench.worker.run(QUEUE, 3)
    assert [job.id for job in bench.ran] == [first, other]
    bench.clock.advance(closed - timedelta(seconds=1))
    bench.relay.run()
    bench.worker.run(QUEUE, 3)
    assert len(bench.ran) == 2
    bench.clock.advance(closed / 2)  # beyond what the wait is stretched by
    bench.relay.run()
    bench.worker.run(QUEUE, 3)
    assert {job.id for job in bench.ran[2:]} == {first, second} and bench.states() == ["completed"] * 3


def test_a_rejected_job_dies_at_once_and_the_dead_letter_queue_is_woken(bench: Bench) -> None:
    bench.handler = raising(RejectedError("chat unknown", details={"status": 404}))
    [job_id] = bench.enqueue()
    bench.worker.run(QUEUE, 1)
    record = bench.store.get(job_id)
    assert record is not None and record.state is JobState.DEAD
    assert record.attempts[0].details == {"status": 404}
    assert bench.wake_ups("dead-letter") == [(1, timedelta())]


def test_a_job_without_what_it_needs_is_put_off_and_counts_no_attempt(bench: Bench) -> None:
    parked = ParkedError(
        "nobody is signed in", needs="a@b.c", remedy="sign in", urgent=True, pause=timedelta(minutes=1)
    )
    bench.handler = raising(parked)
    [job_id] = bench.enqueue()
    before = bench.store.get(job_id)
    bench.worker.run(QUEUE, 1)
    record = bench.store.get(job_id)
    assert before is not None and record is not None
    assert (record.state, record.attempt, record.attempts) == (JobState.SCHEDULED, 0, ())
    assert timedelta(minutes=1) <= record.run_at - before.run_at <= timedelta(minutes=1.3)


def test_whoever_hears_of_a_parked_job_says_for_how_long_it_is_put_off(bench: Bench) -> None:
    parked = ParkedError("x", needs="a@b.c", remedy="y", urgent=True, pause=timedelta(minutes=1))
    heard: list[tuple[Job, ParkedError]] = []

    def hear(job: Job, error: ParkedError) -> timedelta:
        heard.append((job, error))
        return timedelta(hours=1)

    bench.worker._on_parked = hear
    bench.handler = raising(parked)
    [job_id] = bench.enqueue()
    before = bench.store.get(job_id)
    bench.worker.run(QUEUE, 1)
    record = bench.store.get(job_id)
    assert [(job.id, error) for job, error in heard] == [(job_id, parked)]
    assert before is not None and record is not None
    assert record.run_at - before.run_at >= timedelta(hours=1)


def test_an_auth_failure_is_retried_once_at_once(bench: Bench) -> None:
    bench.handler = raising(AuthError("401"))
    bench.enqueue()
    bench.worker.run(QUEUE, 5)
    assert len(bench.ran) == 2 and bench.states() == ["dead"]


def test_an_unexpected_exception_is_classed_unknown_and_costs_nothing_else(bench: Bench) -> None:
    bench.enqueue(3)

    def handler(job: Job, payload: Any, context: Context) -> None:
        if payload["n"] == 1:
            raise KeyError("missing")

    bench.handler = handler
    bench.worker.run(QUEUE, 3)
    assert bench.states() == ["completed", "scheduled", "completed"]
    failed = bench.store.jobs(QUEUE)[1].attempts[0]
    assert failed.error_class is ErrorClass.UNKNOWN and failed.message == "KeyError: 'missing'"


def test_a_payload_that_does_not_validate_dies_without_running(bench: Bench) -> None:
    bench.store.enqueue([NewJob(QUEUE, {"bad": True})])
    bench.worker.run(QUEUE, 1)
    assert bench.ran == [] and bench.states() == ["dead"]


def test_a_job_of_a_newer_release_waits_for_its_workers_and_dies_when_none_come(bench: Bench) -> None:
    """While a deployment is under way, new producers and old workers share the queue."""
    bench.store.enqueue([NewJob(QUEUE, {"newer": True})])
    for _ in range(60):
        bench.worker.run(QUEUE, 1)
        [waiting] = bench.store.jobs(QUEUE)
        assert (waiting.state, waiting.attempt) == (JobState.SCHEDULED, 0)
        bench.clock.advance(RELEASE_PAUSE)
        bench.relay.run()
    bench.clock.advance(timedelta(seconds=1))
    bench.worker.run(QUEUE, 1)
    [dead] = bench.store.jobs(QUEUE)
    assert (bench.ran, dead.state) == ([], JobState.DEAD)
    assert dead.attempts[-1].message == "newer: it is not known"


def test_a_deferral_keeps_the_attempt_and_wakes_later(bench: Bench) -> None:
    bench.handler = lambda job, payload, context: Deferred(timedelta(seconds=9), "no permit")
    [job_id] = bench.enqueue()
    bench.wake_ups()
    bench.worker.run(QUEUE, 1)
    record = bench.store.get(job_id)
    assert record is not None and (record.attempt, record.state) == (0, JobState.SCHEDULED)
    assert bench.wake_ups() == [(1, timedelta(seconds=9))]


def test_follow_ups_are_made_and_woken(bench: Bench) -> None:
    bench.handler = lambda job, payload, context: Completed(follow_ups=(NewJob("mails", {"m": 1}),) * 2)
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    assert len(bench.store.jobs("mails")) == 2 and bench.wake_ups("mails") == [(2, timedelta())]


def test_a_follow_up_that_cannot_be_stored_fails_the_attempt_and_not_the_settlement(bench: Bench) -> None:
    bench.handler = lambda job, payload, context: Completed(follow_ups=(NewJob("closed", {}),))
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["scheduled"]
    assert "it has no worker" in (bench.store.jobs(QUEUE)[0].attempts[0].message or "")


def test_a_result_that_is_not_json_fails_the_attempt_and_not_the_settlement(bench: Bench) -> None:
    bench.handler = lambda job, payload, context: Completed({"when": timedelta()})
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["scheduled"]


def test_notes_of_the_handler_are_kept_on_failed_attempts_too(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> None:
        context.note(request_id="r-1")
        raise NetworkError("reset", details={"status": 502})

    bench.handler = handler
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    assert bench.store.jobs(QUEUE)[0].attempts[0].details == {"request_id": "r-1", "status": 502}


def test_I2_a_handler_that_lost_its_lease_settles_nothing(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> None:
        bench.clock.advance(timedelta(minutes=2))
        bench.rescue.run()
        bench.heartbeat.beat()
        with pytest.raises(LeaseLostError):
            context.checkpoint()
        context.checkpoint()

    bench.handler = handler
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    [record] = bench.store.jobs(QUEUE)
    assert record.state is JobState.SCHEDULED
    assert [a.error_class for a in record.attempts] == [ErrorClass.WORKER_LOST]


def test_I2_a_late_result_is_refused_after_a_takeover_and_told(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> Completed:
        bench.clock.advance(timedelta(minutes=2))
        bench.rescue.run()
        return Completed({"late": True})

    bench.handler = handler
    bench.enqueue()
    report = bench.worker.run(QUEUE, 1)
    assert [job.id for job in report.lost] == [job.id for job in bench.ran]
    assert bench.store.jobs(QUEUE)[0].result is None


def test_a_heartbeat_keeps_a_long_job(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> None:
        for _ in range(6):
            bench.clock.advance(timedelta(seconds=30))
            bench.heartbeat.beat()
            assert bench.rescue.run() == 0
        context.checkpoint()

    bench.handler = handler
    bench.enqueue()
    assert bench.worker.run(QUEUE, 1).lost == [] and bench.states() == ["completed"]


def test_a_heartbeat_keeps_the_whole_batch_while_one_of_its_jobs_takes_long(bench: Bench) -> None:
    bench.store.queues[QUEUE] = type(bench.store.queues[QUEUE])(QUEUE, claim_batch=3)

    def handler(job: Job, payload: Any, context: Context) -> None:
        for _ in range(4):
            bench.clock.advance(timedelta(seconds=30))
            bench.heartbeat.beat()
            assert bench.rescue.run() == 0

    bench.handler = handler
    bench.enqueue(3)
    assert bench.worker.run(QUEUE, 3).lost == []
    assert bench.states() == ["completed"] * 3 and len(bench.ran) == 3


def test_I2_a_job_whose_lease_was_lost_while_it_waited_in_a_batch_does_not_run(bench: Bench) -> None:
    bench.store.queues[QUEUE] = type(bench.store.queues[QUEUE])(QUEUE, claim_batch=2)

    def handler(job: Job, payload: Any, context: Context) -> None:
        bench.clock.advance(timedelta(minutes=2))
        assert bench.rescue.run() == 2
        bench.heartbeat.beat()

    bench.handler = handler
    first, _ = bench.enqueue(2)
    bench.worker.run(QUEUE, 2)
    assert [job.id for job in bench.ran] == [first]
    assert bench.states() == ["scheduled"] * 2


def test_a_beat_that_misses_the_database_is_made_up_by_the_next(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> None:
        bench.store.failures["renew"] = 1
        bench.heartbeat.beat()
        bench.heartbeat.beat()
        context.checkpoint()

    bench.handler = handler
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["completed"]


def test_the_heartbeat_thread_renews_by_itself(bench: Bench) -> None:
    renewed = threading.Event()
    renew = bench.store.renew

    def recording(leases: Any, lease: timedelta) -> Any:
        renewed.set()
        return renew(leases, lease)

    bench.store.renew = recording  # type: ignore[method-assign]
    bench.store.queues[QUEUE] = type(bench.store.queues[QUEUE])(QUEUE, lease=timedelta(seconds=0.03))
    bench.handler = lambda job, payload, context: None if renewed.wait(10) else pytest.fail("no beat came")
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    bench.heartbeat.stop()
    assert bench.states() == ["completed"]


def test_a_short_lease_that_begins_beside_a_long_one_is_renewed_in_its_own_time(bench: Bench) -> None:
    long_one, short_one = Job(uuid4(), QUEUE, "", 1, 5, uuid4()), Job(uuid4(), QUEUE, "", 1, 5, uuid4())
    renewed = threading.Event()

    def recording(leases: Any, lease: timedelta) -> Renewal:
        if short_one.id in [held.job_id for held in leases]:
            renewed.set()
        return Renewal()

    bench.store.renew = recording  # type: ignore[method-assign]
    with bench.heartbeat.keep(long_one, timedelta(hours=1), threading.Event(), threading.Event()):
        waiting = wait_until(lambda: len(bench.heartbeat._changed._waiters) == 1, 5)  # type: ignore[attr-defined]
        assert waiting, "the thread waits for the long lease"
        with bench.heartbeat.keep(short_one, timedelta(seconds=0.03), threading.Event(), threading.Event()):
            assert renewed.wait(5)
    bench.heartbeat.stop()


def test_a_hanging_handler_is_given_up_before_the_host_gives_up_on_the_function() -> None:
    host = json.loads((ROOT / "host.json").read_text())
    hours, minutes, seconds = map(int, host["functionTimeout"].split(":"))
    timeout = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    assert TIME_BUDGET + LONGEST_RUN + timedelta(seconds=TOTAL_SECONDS) < timeout


def test_no_invocation_waits_for_a_thread_with_as_many_as_the_page_on_azure_asks_for() -> None:
    """Waiting counts toward functionTimeout, and the longest run leaves no time for it."""
    host = json.loads((ROOT / "host.json").read_text())["extensions"]["queues"]
    at_once = host["batchSize"] + host["newBatchThreshold"]
    page = (ROOT / "infra" / "README.md").read_text()
    rows = re.findall(r"^\| ([\w ,]+) \| (\d+)[^|]*\| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    sized = {plan: (int(functions), int(messages), int(threads)) for plan, functions, messages, threads in rows}
    assert {plan: functions for plan, (functions, _, _) in sized.items()} == {
        "Flex Consumption": 1,
        "Premium, Dedicated": 2 * len(QUEUES),
    }
    for functions, messages, threads in sized.values():
        assert messages == functions * at_once <= threads
    longest = TIME_BUDGET.total_seconds() + LONGEST_RUN.total_seconds() + TOTAL_SECONDS
    assert f"That is {longest:.0f} s" in page and f"= {at_once} for each queue function" in page


def test_a_handler_that_hangs_loses_its_lease_by_itself(bench: Bench) -> None:
    bench.heartbeat._longest_run = -1.0

    def handler(job: Job, payload: Any, context: Context) -> None:
        bench.heartbeat.beat()
        assert context.lease_lost.is_set()
        context.checkpoint()

    bench.handler = handler
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["active"]


def test_I4_a_graceful_stop_ends_the_running_job_and_gives_the_rest_back(bench: Bench) -> None:
    bench.store.queues[QUEUE] = type(bench.store.queues[QUEUE])(QUEUE, claim_batch=3)
    bench.enqueue(4)
    bench.wake_ups()
    bench.handler = lambda job, payload, context: bench.worker.stop()
    report = bench.worker.run(QUEUE, 4)
    assert (report.ran, report.left) == (1, 1)
    assert bench.states() == ["completed", "ready", "ready", "ready"]
    assert [job.attempt for job in bench.store.jobs(QUEUE)] == [1, 0, 0, 0]
    assert bench.wake_ups() == [(1, timedelta())] * 2
    assert bench.worker.run(QUEUE, 4).left == 4


def test_a_settlement_that_meets_a_failing_database_is_tried_again(bench: Bench) -> None:
    bench.enqueue(2)
    bench.handler = lambda job, payload, context: bench.store.failures.update(settle_and_claim=1, settle=2)
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["completed", "ready"]


def test_I7_a_settlement_that_cannot_be_made_keeps_the_wake_up(bench: Bench) -> None:
    bench.enqueue()
    bench.handler = lambda job, payload, context: bench.store.failures.update(settle=9)
    with pytest.raises(StoreUnavailableError):
        bench.worker.run(QUEUE, 1)
    assert bench.states() == ["active"]


def test_a_job_settled_by_someone_else_meanwhile_is_reported_lost(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> None:
        bench.store.settle([Settlement(job.id, job.lease_token, Released())])

    bench.handler = handler
    bench.enqueue()
    assert len(bench.worker.run(QUEUE, 1).lost) == 1


def test_a_running_job_that_is_cancelled_stops_at_its_next_checkpoint(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> None:
        context.checkpoint()
        context.note(step=1)
        assert bench.store.cancel(job.id) is Cancellation.REQUESTED
        context.checkpoint()  # nobody has told this worker yet
        bench.heartbeat.beat()
        with pytest.raises(JobCancelledError):
            context.checkpoint()
        context.checkpoint()

    bench.handler = handler
    bench.enqueue()
    bench.wake_ups()
    assert bench.worker.run(QUEUE, 1).lost == []
    [record] = bench.store.jobs(QUEUE)
    assert (record.state, record.attempt, record.error_class) == (JobState.CANCELLED, 1, None)
    assert [(a.outcome, a.message, a.details) for a in record.attempts] == [
        ("cancelled", "asked to stop while it ran", {"step": 1})
    ]
    assert bench.wake_ups() == [] and bench.store.letters == []


def test_a_cancelled_job_whose_handler_never_looks_completes(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> Completed:
        bench.store.cancel(job.id)
        bench.heartbeat.beat()
        return Completed({"sent": True})

    bench.handler = handler
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["completed"] and bench.store.jobs(QUEUE)[0].result == {"sent": True}


def test_a_cancelled_job_that_fails_is_not_retried_but_keeps_its_failure(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> None:
        bench.store.cancel(job.id)
        raise NetworkError("reset")

    bench.handler = handler
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    [record] = bench.store.jobs(QUEUE)
    assert record.state is JobState.CANCELLED
    assert [a.error_class for a in record.attempts] == [ErrorClass.NETWORK]


def test_a_cancelled_job_whose_worker_dies_is_not_run_again(bench: Bench) -> None:
    bench.enqueue()
    [job] = bench.store.claim(QUEUE, 1, "host-2", timedelta(seconds=45)).jobs
    bench.store.cancel(job.id)
    bench.clock.advance(timedelta(minutes=2))
    assert bench.rescue.run() == 1 and bench.states() == ["cancelled"]


def test_a_lost_lease_is_told_before_a_request_to_stop(bench: Bench) -> None:
    def handler(job: Job, payload: Any, context: Context) -> None:
        context.stop_requested.set()
        context.lease_lost.set()
        context.checkpoint()

    bench.handler = handler
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["active"]


def test_a_job_past_its_deadline_does_not_run_and_costs_the_next_one_nothing(bench: Bench) -> None:
    bench.enqueue(3, expires_in=timedelta(minutes=5), priority=1)
    bench.enqueue(2)
    bench.clock.advance(timedelta(minutes=5))
    report = bench.worker.run(QUEUE, 2)
    assert (report.ran, report.left) == (2, 0)
    assert bench.states() == ["dead"] * 3 + ["completed"] * 2
    assert [job.error_class for job in bench.store.jobs(QUEUE)[:3]] == [ErrorClass.EXPIRED] * 3


def test_a_retry_after_the_deadline_dies_at_once(bench: Bench) -> None:
    bench.handler = raising(RateLimitedError("slow down", retry_after=timedelta(minutes=9)))
    bench.enqueue(expires_in=timedelta(minutes=5))
    bench.worker.run(QUEUE, 1)
    [record] = bench.store.jobs(QUEUE)
    assert (record.state, record.error_class) == (JobState.DEAD, ErrorClass.EXPIRED)
    assert "2026-01-05T08:05:00Z" in (record.error_message or "") and "slow down" in (record.error_message or "")
    assert [a.error_class for a in record.attempts] == [ErrorClass.RATE_LIMIT]


def test_a_job_that_started_in_time_may_end_after_its_deadline(bench: Bench) -> None:
    bench.handler = lambda job, payload, context: bench.clock.advance(timedelta(minutes=9))
    bench.enqueue(expires_in=timedelta(minutes=5))
    bench.worker.run(QUEUE, 1)
    assert bench.states() == ["completed"]


def test_a_paused_queue_costs_a_wake_up_one_look(bench: Bench) -> None:
    bench.enqueue()
    bench.store.pause(QUEUE)
    bench.store.failures["claim"] = 1
    report = bench.worker.run(QUEUE, 1)
    assert (report.ran, report.left) == (0, 0) and bench.states() == ["ready"]


def test_of_two_leases_of_a_job_in_one_process_the_newer_is_kept(bench: Bench) -> None:
    """The first attempt hangs; the rescue gave its job back, and another wake-up of the same host has claimed it."""
    length = timedelta(seconds=45)
    bench.enqueue()
    [stale] = bench.store.claim(QUEUE, 1, "host-1", length).jobs
    bench.clock.advance(timedelta(minutes=2))
    assert bench.rescue.run() == 1
    bench.clock.advance(timedelta(minutes=2))
    [fresh] = bench.store.claim(QUEUE, 1, "host-1", length).jobs
    lost, kept, stop = threading.Event(), threading.Event(), threading.Event()
    with bench.heartbeat.keep(stale, length, lost, stop), bench.heartbeat.keep(fresh, length, kept, stop):
        bench.heartbeat.beat()
    assert lost.is_set() and not kept.is_set()
