"""The helpers for developers: a handler run by the real worker, what was enqueued, and everything until it is done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shared.engine.context import Context
from shared.engine.errors import PayloadError, QueueClosedError, RateLimitedError, RejectedError
from shared.engine.job import (
    Completed,
    Deferred,
    ErrorClass,
    IfDependencyFails,
    Job,
    JobState,
    NewJob,
    OnDead,
    OrderingKey,
    Singleton,
)
from shared.handlers.registry import QUEUES
from shared.testing import MemoryEngine
from tests.threads import at_once

TEAMS = "teams-outbound"
MAILS = "outlook-outbound"


def message(content: str = "on my way", chat: str = "19:dispatch@thread.v2") -> dict[str, Any]:
    return {"chatId": chat, "content": content}


def mail(subject: str = "Trip 7") -> dict[str, Any]:
    return {"from": "dispatch@example.com", "to": ["driver@example.com"], "subject": subject, "body": "Start"}


class Script:
    """A handler that does one thing after another; the last one for ever."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.payloads: list[Any] = []

    def __call__(self, job: Job, payload: Any, context: Context) -> Completed | Deferred | None:
        self.payloads.append(payload)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        assert step is None or isinstance(step, Completed | Deferred)
        return step


def engine(**handlers: Any) -> MemoryEngine:
    return MemoryEngine(handlers={name.replace("_", "-"): handler for name, handler in handlers.items()})


# run_job


def test_a_job_runs_as_a_worker_runs_it_with_its_payload_parsed() -> None:
    handler = Script(Completed({"messageId": "1"}))
    job = engine(teams_outbound=handler).run_job(TEAMS, message("Truck 7"))
    assert (job.state, job.result) == (JobState.COMPLETED, {"messageId": "1"})
    assert handler.payloads[0].content == "Truck 7"
    assert [attempt.outcome for attempt in job.attempts] == ["completed"]


def test_retries_run_too_on_a_clock_that_moves_by_their_delays() -> None:
    bench = engine(teams_outbound=Script(RateLimitedError("slow down", retry_after=timedelta(seconds=90)), None))
    started_at = bench.clock()
    job = bench.run_job(TEAMS, message())
    assert [attempt.error_class for attempt in job.attempts] == [ErrorClass.RATE_LIMIT, None]
    assert bench.clock() - started_at >= timedelta(seconds=90)


def test_a_job_that_fails_for_good_is_returned_with_every_failure() -> None:
    job = engine(teams_outbound=Script(RuntimeError("a bug"))).run_job(TEAMS, message())
    assert (job.state, job.error_class) == (JobState.DEAD, ErrorClass.UNKNOWN)
    assert len(job.attempts) == 6
    assert all("a bug" in (attempt.message or "") for attempt in job.attempts)


def test_a_deferral_counts_no_attempt() -> None:
    job = engine(teams_outbound=Script(Deferred(timedelta(hours=2)), None)).run_job(TEAMS, message())
    assert (job.state, len(job.attempts)) == (JobState.COMPLETED, 1)


def test_what_a_producer_refuses_is_refused_here() -> None:
    bench = engine()
    with pytest.raises(PayloadError, match="content is empty"):
        bench.run_job(TEAMS, {"chatId": "19:dispatch@thread.v2"})
    closed = next(spec.name for spec in QUEUES.values() if spec.closed)
    with pytest.raises(QueueClosedError):
        bench.run_job(closed, {})


def test_its_follow_ups_are_enqueued_and_not_run() -> None:
    follow_up = NewJob(MAILS, mail())
    bench = engine(teams_outbound=Script(Completed(follow_ups=(follow_up, NewJob(TEAMS, message("next"))))))
    bench.run_job(TEAMS, message())
    assert bench.assert_enqueued(MAILS).state is JobState.READY
    assert bench.assert_enqueued(TEAMS, {"content": "next"}).state is JobState.READY


def test_a_handler_of_the_registry_gets_the_services() -> None:
    class Services:
        service_account = "dispatch@example.com"

        def __getattr__(self, name: str) -> Any:
            raise RejectedError(f"no {name} here")

    job = MemoryEngine(services=Services()).run_job(TEAMS, message())
    assert job.state is JobState.DEAD
    assert "here" in (job.error_message or "")


def test_without_services_the_failure_says_what_to_give() -> None:
    job = MemoryEngine().run_job(TEAMS, message())
    assert "give MemoryEngine(services=…)" in (job.error_message or "")


def test_a_job_that_nothing_would_start_is_told() -> None:
    bench = engine(teams_outbound=Script(None))
    bench.control.pause(TEAMS)
    with pytest.raises(AssertionError, match=r"does not end: teams-outbound ready: .*on my way"):
        bench.run_job(TEAMS, message())


def test_a_handler_sees_that_its_job_was_cancelled() -> None:
    def cancelled_in_the_middle(job: Job, payload: Any, context: Context) -> None:
        bench.control.cancel(job.id)
        bench.heartbeat.beat()
        context.checkpoint()

    bench = engine(teams_outbound=cancelled_in_the_middle)
    assert bench.run_job(TEAMS, message()).state is JobState.CANCELLED


# drain


def test_drain_runs_what_is_due_later_and_what_comes_of_it_until_nothing_is_left() -> None:
    bench = engine(
        teams_outbound=Script(Completed(follow_ups=(NewJob(MAILS, mail()),))),
        outlook_outbound=Script(RuntimeError("once"), None),
    )
    first = bench.producer.enqueue(TEAMS, message(), delay=timedelta(days=8))
    ended = bench.drain()
    assert [(job.queue, job.state) for job in ended] == [(TEAMS, JobState.COMPLETED), (MAILS, JobState.COMPLETED)]
    assert ended[0].id == first.id
    assert bench.drain() == []


def test_drain_keeps_the_limits_of_the_registry() -> None:
    bench = engine(teams_outbound=Script(None))
    started_at = bench.clock()
    bench.producer.enqueue_many([NewJob(TEAMS, message(str(n))) for n in range(4)])
    assert len(bench.drain()) == 4
    rate = QUEUES[TEAMS].limits.key_rate
    assert rate is not None
    assert bench.clock() - started_at >= 3 * rate.window


def test_drain_ends_batches_dependencies_and_dead_letters() -> None:
    bench = engine(teams_outbound=Script(RejectedError("no such chat")), outlook_outbound=Script(None))
    first = bench.producer.enqueue(TEAMS, message())
    bench.producer.enqueue(MAILS, mail("after"), depends_on=[first.id], if_dependency_fails=IfDependencyFails.RUN)
    bench.producer.enqueue_batch([NewJob(MAILS, mail("member"))], callback=NewJob(MAILS, mail("all done")))
    by_subject = {job.payload.get("subject"): job.state for job in bench.drain() if job.queue == MAILS}
    assert by_subject == dict.fromkeys(("after", "member", "all done"), JobState.COMPLETED)
    assert [letter.message for letter in bench.store.letters] == ["no such chat"]


def test_drain_leaves_the_jobs_of_a_paused_queue() -> None:
    bench = engine(teams_outbound=Script(None), outlook_outbound=Script(None))
    bench.producer.enqueue(TEAMS, message())
    bench.producer.enqueue(MAILS, mail())
    bench.control.pause(TEAMS)
    assert [job.queue for job in bench.drain()] == [MAILS]


def test_drain_ends_what_passes_its_deadline() -> None:
    bench = engine(teams_outbound=Script(None))
    bench.producer.enqueue(TEAMS, message(), delay=timedelta(hours=1), expires_in=timedelta(minutes=70))
    bench.control.pause(TEAMS)
    assert [job.error_class for job in bench.drain() if job.queue == TEAMS] == [ErrorClass.EXPIRED]


def test_drain_names_what_nothing_lets_go() -> None:
    bench = engine(teams_outbound=Script(RejectedError("refused")))
    lane = OrderingKey("trip-7", OnDead.BLOCK)
    for content in ("first", "second"):
        bench.producer.enqueue(TEAMS, message(content), lane=lane)
    with pytest.raises(AssertionError, match=r"left:\n  teams-outbound waiting: .*second.*trip-7"):
        bench.drain()


def test_drain_names_what_is_due_too_late() -> None:
    bench = engine(teams_outbound=Script(None))
    bench.producer.enqueue(TEAMS, message(), delay=timedelta(days=2))
    with pytest.raises(AssertionError, match=r"scheduled: .*run_at 2026-01-07"):
        bench.drain(within=timedelta(days=1))


def test_jobs_that_enqueue_each_other_for_ever_end_the_test() -> None:
    again = Completed(follow_ups=(NewJob(MAILS, mail("again")),))
    bench = engine(outlook_outbound=Script(again))
    bench.producer.enqueue(MAILS, mail("first"))
    with pytest.raises(AssertionError, match=r"more than 50 attempts, and these jobs are left:\n.*again"):
        bench.drain(most_attempts=50)


def test_no_thread_is_left_behind() -> None:
    import threading

    before = threading.active_count()
    for _ in range(3):
        engine(teams_outbound=Script(None)).run_job(TEAMS, message())
    assert threading.active_count() == before


# assert_enqueued


def test_a_job_is_found_by_a_part_of_its_payload_and_its_options() -> None:
    bench = engine()
    bench.producer.enqueue(TEAMS, message("other"))
    made = bench.producer.enqueue(
        TEAMS, message() | {"mentions": [{"id": 0, "userId": "u", "name": "Ann"}], "content": '<at id="0">Ann</at>',
                            "contentType": "html"},
        priority=2, correlation_id="trip-7", idempotency_key="k",
    )  # fmt: skip
    found = bench.assert_enqueued(
        TEAMS, {"mentions": [{"name": "Ann"}]}, priority=2, correlation_id="trip-7", idempotency_key="k"
    )
    assert found.id == made.id
    run_at = bench.clock() + timedelta(hours=1)
    later = bench.producer.enqueue(TEAMS, message("later"), run_at=run_at)
    assert bench.assert_enqueued(TEAMS, run_at=run_at).id == later.id


def test_jobs_that_have_ended_are_found_too() -> None:
    bench = engine(teams_outbound=Script(None))
    job = bench.run_job(TEAMS, message())
    assert bench.assert_enqueued(TEAMS, {"content": "on my way"}).id == job.id


@pytest.mark.parametrize(
    "wrong",
    [{"content": "On my way"}, {"contents": "on my way"}, {"content": {"text": "on my way"}}, {"chatId": None}],
)
def test_another_payload_is_none(wrong: dict[str, Any]) -> None:
    bench = engine()
    bench.producer.enqueue(TEAMS, message())
    with pytest.raises(AssertionError, match="no job was enqueued in teams-outbound with"):
        bench.assert_enqueued(TEAMS, wrong)
    bench.assert_not_enqueued(TEAMS, wrong)


def test_the_error_names_what_was_asked_and_what_was_enqueued() -> None:
    bench = engine()
    with pytest.raises(AssertionError, match="no job was enqueued in teams-outbound; enqueued: nothing"):
        bench.assert_enqueued(TEAMS)
    bench.producer.enqueue(MAILS, mail(), unique=Singleton("daily"))
    with pytest.raises(AssertionError) as raised:
        bench.assert_enqueued(TEAMS, {"content": "späť"}, priority=1)
    assert str(raised.value).startswith(
        'no job was enqueued in teams-outbound with {"content": "späť"}, priority=1; enqueued:\n'
        '  outlook-outbound ready: {"from": "dispatch@example.com"'
    )


def test_a_long_list_is_cut() -> None:
    bench = engine()
    bench.producer.enqueue_many([NewJob(TEAMS, message("x" * 1000)) for _ in range(25)])
    with pytest.raises(AssertionError, match=r"x…\n  and 5 more$"):
        bench.assert_not_enqueued(TEAMS)


def test_a_queue_that_does_not_exist_is_named() -> None:
    with pytest.raises(AssertionError, match=r'queue "teams" does not exist; the queues are: .*teams-outbound'):
        engine().assert_enqueued("teams")


def test_producers_of_several_threads_share_it() -> None:
    bench = engine(teams_outbound=Script(None))
    at_once(4, lambda n: bench.producer.enqueue(TEAMS, message(str(n), chat=f"19:{n}@thread.v2")))
    assert len(bench.drain()) == 4
