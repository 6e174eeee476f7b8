"""Part 5: a message comes in with its notification, is edited and deleted, is found by its words, and is told of."""

from __future__ import annotations

from local.demo import samples
from local.demo.report import Report
from local.demo.world import World
from shared import bootstrap

STEP = 5
TEXTS = "select coalesce(string_agg(text, ', ' order by text), '') from queue.communication_logs where thread_id = %s"
EVENTS = """
select coalesce(string_agg(e.kind, ', ' order by e.position), '')
  from queue.outgoing_events e join queue.communication_logs m on m.id = e.communication_id
 where m.thread_id = %s
"""
SYNCED = """
select count(*) from queue.notification_gaps g join queue.job_tracking j on j.id = g.job_id
 where g.resource = ltrim(%s, '/') and j.state = 'completed'
"""


def play(world: World, report: Report) -> None:
    report.heading(STEP, "Receiving: resource data, edits, deletions, and an event for each")
    graph = world.graph
    (chat,) = world.make_chats(1)
    resource = f"/chats/{chat}/messages"
    bootstrap.watched_resources().watch(resource, include_resource_data=True, sync_user=samples.DRIVER_ID)
    report.wait(
        STEP,
        "subscriptions to the chat that bring the messages along, encrypted for our certificate",
        1,
        lambda: sum(one["includeResourceData"] and chat in one["resource"] for one in graph.subscriptions()),
    )
    # Later it would find what the dropped batch told of, and rightly store it.
    report.wait(STEP, "syncs of the chat for the time before them, ended", 1, lambda: world.count(SYNCED, resource))
    graph.set_automatic_delivery(True)
    message = graph.arrive_chat_message(samples.DRIVER_ID, "Brake warning on truck 12", chat=chat)
    report.wait(STEP, "decrypted and stored", "Brake warning on truck 12", lambda: text_of(world, TEXTS, chat))
    report.expect(STEP, "requests to Graph for it", 0, len(world.requests("GET", f"/messages/{message}$")))

    graph.control("POST", "rich", {"token": "audience"})
    graph.arrive_chat_message(samples.DRIVER_ID, "vouched for another app", chat=chat)
    alert = "select count(*) from queue.queue_alerts where alert_key = 'resource-data:suspicious'"
    report.wait(STEP, "alerts for a batch whose token is for another app", 1, lambda: world.count(alert))
    graph.control("POST", "rich", {"token": "none"})

    place = {"chat": chat, "message": message}
    graph.control("POST", "chat-messages/edit", place | {"content": "Brake warning on truck 13"})
    report.wait(STEP, "after an edit; nothing of the dropped batch", "Brake warning on truck 13",
                lambda: text_of(world, TEXTS, chat))  # fmt: skip
    found = "select count(*) from queue.search_messages('\"brake warning\" 13 -12')"
    report.expect(STEP, "messages that its words find", 1, world.count(found))
    graph.control("POST", "chat-messages/delete", place)
    report.wait(
        STEP,
        "events for the fleet application, each once",
        "message.received, message.edited, message.deleted",
        lambda: text_of(world, EVENTS, chat),
    )
    bootstrap.watched_resources().unwatch(resource)


def text_of(world: World, statement: str, chat: str) -> str:
    return str(world.sql(statement, chat)[0][0])
