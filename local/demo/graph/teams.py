"""Part 2: one payload, four senders, and what a lost answer leaves."""

from __future__ import annotations

from typing import Any

from local.demo import samples
from local.demo.report import Report
from local.demo.world import World, plain
from shared import bootstrap
from shared.engine.errors import PayloadError

STEP = 2
TEAM = "bbbbbbbb-0000-4000-8000-000000000001"
CHANNEL = "19:alerts@thread.tacv2"
CARD = {"type": "AdaptiveCard", "version": "1.4", "body": [{"type": "TextBlock", "text": "Gate 3"}]}
TOPIC = {"value": "Trip 7", "webUrl": "https://teams.microsoft.com/l/entity/app/trips"}


def play(world: World, report: Report) -> None:
    """A message by each sender, each once though answers are lost, and what a sender cannot do."""
    report.heading(STEP, "Teams: a person, a bot, a workflow and the activity feed send; answers are lost")
    world.fault(path=r"/messages$", kind="lose-answer")
    world.fault(path=r"/activities$", kind="lose-answer")
    world.fault(path=r"/sendActivityNotification$", kind="lose-answer")
    for payload in _messages():
        bootstrap.producer().enqueue("teams-outbound", payload)
    sent = "select count(*) from queue.communication_logs where text like '%trip 7 by the%'"
    report.wait(STEP, "recorded in communication_logs, whoever sent it", 4, lambda: world.count(sent))
    report.expect(STEP, "by the service account: HTML without its script, mention, card", 1, _by_account(world))
    report.expect(STEP, "by the bot, its lost answer read back as the application", 1, _by(world, "Fleet Queue Bot"))
    report.expect(STEP, "by the workflow, a card in the channel", 1, _by(world, "Workflows"))
    report.expect(STEP, "in the driver's activity feed, sent twice and shown once", [2], _in_feed(world))
    report.expect(STEP, "urgent by a bot", "refused: importance", _refusal())


def _messages() -> list[dict[str, Any]]:
    chat = {"chatId": samples.CHAT}
    mention = {"id": 0, "userId": samples.DRIVER_ID, "name": "Alex"}
    html = 'News of trip 7 by the account <at id="0">Alex</at><script>alert(1)</script>'
    return [
        chat | {"content": html, "contentType": "html", "mentions": [mention], "card": CARD, "importance": "high"},
        chat | {"content": "News of trip 7 by the bot", "sender": "bot"},
        {"workflow": "alerts", "content": "News of trip 7 by the workflow"},
        {"userIds": [samples.DRIVER_ID], "topic": TOPIC, "content": "News of trip 7 by the activity feed"},
    ]


def _by_account(world: World) -> int:
    return sum(
        plain(one["body"]["content"]) == "News of trip 7 by the account Alex" and len(one["mentions"]) == 1
        for one in world.graph.chat_messages(samples.CHAT)
    )


def _by(world: World, name: str) -> int:
    seen = world.graph.chat_messages(samples.CHAT) + world.graph.channel_messages(TEAM, CHANNEL)
    return sum((one["from"]["application"] or {}).get("displayName") == name for one in seen)


def _in_feed(world: World) -> list[int]:
    return [one["times"] for one in world.graph.activity(samples.DRIVER)]


def _refusal() -> str:
    try:
        bootstrap.producer().enqueue(
            "teams-outbound", {"chatId": samples.CHAT, "content": "x", "sender": "bot", "importance": "urgent"}
        )
    except PayloadError as error:
        return "refused: importance" if "importance: a bot" in str(error) else str(error)
    return "taken"
