"""Part 1: who the product is to Microsoft 365."""

from __future__ import annotations

from local.demo import steps
from local.demo.report import Report
from local.demo.world import World
from shared import bootstrap

STEP = 1
TEXT = "Sent before anybody had signed in"
OPEN_ALERTS = "select count(*) from queue.queue_alerts where alert_key like 'identity:%' and resolved_at is null"


def play(world: World, report: Report) -> None:
    """A job waits for a sign-in, and goes on by itself after it; everything else needs that sign-in."""
    report.heading(STEP, "Who the product is: a message is due, and nobody has signed in")
    job_id = bootstrap.producer().enqueue("teams-outbound", steps.chat(TEXT)).id

    def state() -> str:
        job = world.job(job_id)
        return f"{job['state']}, {job['attempt']}"

    report.wait(STEP, "its job waits: state, attempts that it has cost", "scheduled, 0", state)
    report.expect(STEP, "alerts that say how to sign in", 1, world.count(OPEN_ALERTS))
    steps.sign_in(world, report, STEP)
    report.wait(STEP, "the job went on by itself: state, attempts", "completed, 1", state)
    report.expect(STEP, "messages in the chat", 1, world.chat_count(TEXT))
    report.expect(STEP, "alerts still open", 0, world.count(OPEN_ALERTS))
