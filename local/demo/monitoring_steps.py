"""The step of the demo about what an operator sees: an alert by a threshold of its own, and figures."""

from __future__ import annotations

from local.demo.report import Report
from local.demo.world import World
from shared import bootstrap
from shared.monitoring.rules import Threshold

QUEUE = "teams-outbound"
STATE = (
    "select case when resolved_at is null then 'open' else 'resolved' end from queue.queue_alerts"
    " where alert_key = 'dead-letters:teams-outbound'"
)


def monitoring(world: World, report: Report, step: int = 12) -> None:
    report.heading(step, "An operator lowers a threshold, and is told at the next look")
    bootstrap.thresholds().set("dead-letters", QUEUE, Threshold(0, None), "demo")
    bootstrap.alert_watch().run()  # or the timer's, within the minute
    report.wait(
        step, "alerts of the rule dead-letters", "open", lambda: ", ".join(state for (state,) in world.sql(STATE))
    )
    bootstrap.thresholds().reset("dead-letters", QUEUE)
    now = {queue.queue: queue for queue in bootstrap.statistics().overview()}[QUEUE]
    ended = now.recent.completed if now.recent else 0
    report.judge(step, f"{QUEUE}: jobs completed in the last five minutes", "some", str(ended), ok=ended > 0)
