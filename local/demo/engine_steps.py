"""What the engine can do beyond sending once: limits, schedules, batches, pause and cancel."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from local.demo.report import Report
from local.demo.steps import chat, mail, words
from local.demo.world import World
from shared import bootstrap
from shared.engine.job import NewJob
from shared.engine.ports import Limits, Rate
from shared.handlers.registry import QUEUES

LIMIT = 5


def schedule(world: World, report: Report) -> Callable[[], None]:
    """A schedule for every minute; returns what to look at when a minute has begun."""
    text = "It is a new minute"
    bootstrap.schedules().put("demo", "teams-outbound", chat(text), "* * * * *", time_zone="Europe/Berlin")

    def afterwards() -> None:
        report.heading(11, "A schedule made for every minute, in Europe/Berlin")
        report.wait(11, "it fired by itself", True, lambda: world.chat_count(text) >= 1)
        bootstrap.schedules().delete("demo")
        made = world.count("select count(*) from queue.idempotency where key like 'schedule:%%'")
        report.wait(
            11, "minutes it fired in, messages sent", f"{made}, {made}", lambda: f"{made}, {world.chat_count(text)}"
        )

    return afterwards


def limits(world: World, report: Report) -> None:
    report.heading(8, f"At most {LIMIT} a second are to be let through; 15 messages for 15 chats")
    declared = QUEUES["teams-outbound"].limits
    control = bootstrap.control()
    control.set_limits("teams-outbound", Limits(rate=Rate(LIMIT, timedelta(seconds=1)), concurrency=3))
    made = bootstrap.producer().enqueue_many(
        [NewJob("teams-outbound", chat(f"limited {n}", of)) for n, of in enumerate(world.make_chats(15))]
    )
    ids = [one.id for one in made]
    ended = "select count(*) from queue.jobs where id = any(%s) and state = 'completed'"
    report.wait(8, "messages sent", 15, lambda: world.count(ended, ids))
    starts = "select started_at, finished_at from queue.job_tracking where id = any(%s) order by 1"
    runs = [(start, end) for start, end in world.sql(starts, ids)]
    most = most_within(timedelta(seconds=1), [start for start, _ in runs])
    report.judge(8, "most that started in any second", f"at most {LIMIT}", str(most), ok=most <= LIMIT)
    at_once = max(sum(start <= moment < end for start, end in runs) for moment, _ in runs)
    report.judge(8, "most that ran at once, over all workers", "at most 3", str(at_once), ok=at_once <= 3)
    control.set_limits("teams-outbound", declared)


def batch(world: World, report: Report) -> None:
    report.heading(9, "A batch of 10 with a callback")
    jobs = [NewJob("teams-outbound", chat(f"batch {n}", of)) for n, of in enumerate(world.make_chats(10))]
    batch_id, _ = bootstrap.producer().enqueue_batch(jobs, NewJob("teams-outbound", chat("The batch is through")))
    report.wait(9, "its callback was sent", 1, lambda: world.chat_count("The batch is through"))
    record = bootstrap.producer().batch(batch_id)
    counts = (record.total, record.completed, record.pending) if record is not None else ()
    report.expect(9, "jobs, completed, pending", "10, 10, 0", words(counts))


def control(world: World, report: Report) -> None:
    report.heading(10, "A job is cancelled, and a queue is paused")
    control, producer = bootstrap.control(), bootstrap.producer()
    cancelled = producer.enqueue("teams-outbound", chat("never to be sent"), delay=timedelta(minutes=1)).id
    control.cancel(cancelled)
    report.expect(10, "the cancelled job is", "cancelled", world.job(cancelled)["state"])
    control.pause("outlook-outbound")
    paused = producer.enqueue("outlook-outbound", mail("Not before the queue goes on")).id
    through = producer.enqueue("teams-outbound", chat("past the paused queue")).id
    report.wait(10, "a later job of another queue", "completed", lambda: world.job(through)["state"])
    report.expect(10, "the job of the paused queue", "ready", world.job(paused)["state"])
    control.resume("outlook-outbound")
    report.wait(10, "after the queue was resumed", "completed", lambda: world.job(paused)["state"])
    sent = world.sent("Not before the queue goes on"), world.chat_count("never to be sent")
    report.expect(10, "its mails, and messages of the cancelled job", "1, 0", words(sent))


def most_within(window: timedelta, moments: list[datetime]) -> int:
    """The most of these moments (in order) that any half-open window holds."""
    return max(sum(first <= moment < first + window for moment in moments) for first in moments)
