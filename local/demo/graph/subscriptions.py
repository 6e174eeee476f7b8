"""Part 6: what is declared is watched, whatever becomes of a subscription."""

from __future__ import annotations

from local.demo import samples
from local.demo.report import Report
from local.demo.world import World
from shared import bootstrap

STEP = 6
EVENTS = f"users/{samples.DISPATCH}/events"
CHAT = f"chats/{samples.CHAT}/messages"


def play(world: World, report: Report) -> None:
    """Declare, let Graph remove one, declare no longer; each ends in what should be there, and nothing more."""
    report.heading(STEP, "Subscriptions: declared once, kept, made anew when Graph removes one")
    world.sql("select queue.watch(%s, sync_user => %s)", CHAT, samples.DISPATCH)
    bootstrap.watched_resources().watch(EVENTS)
    report.wait(STEP, "a calendar and a chat, declared in SQL and Python: subscriptions", [1, 1], lambda: _made(world))
    removed = _id(world, EVENTS)
    world.graph.control("POST", "lifecycle", {"subscription": removed, "event": "subscriptionRemoved"})
    report.wait(STEP, "removed by Graph, and there again", True, lambda: _id(world, EVENTS) not in ("", removed))
    gaps = "select reason from queue.notification_gaps where resource = %s order by recorded_at"
    report.wait(
        STEP,
        "gaps recorded, each for one sync",
        ["new", "removed"],
        lambda: [row[0] for row in world.sql(gaps, EVENTS)],
    )
    world.graph.control("POST", "lifecycle", {"subscription": _id(world, EVENTS), "event": "missed"})
    report.wait(STEP, "gaps after Graph missed some", 3, lambda: len(world.sql(gaps, EVENTS)))
    bootstrap.watched_resources().unwatch(EVENTS)
    report.wait(STEP, "the calendar's, no longer declared", [0, 1], lambda: _made(world))
    status = "select declared - covered, failing, strays from queue.subscription_status"
    report.expect(STEP, "not watched, failing, or nobody's", (0, 0, 0), world.sql(status)[0])


def _made(world: World) -> list[int]:
    return [sum(one["resource"].strip("/") == path for one in world.graph.subscriptions()) for path in (EVENTS, CHAT)]


def _id(world: World, path: str) -> str:
    return next((str(one["id"]) for one in world.graph.subscriptions() if one["resource"] == path), "")
