"""Every handler that sends or receives, through the running host, and what it said to Graph meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from local.demo import samples, steps
from tests.acceptance.system import System, wait_for
from tests.fake_graph.openapi import DESCRIPTION, fault_of, load_description

TEAM = "bbbbbbbb-0000-4000-8000-000000000001"
CHANNEL = "19:alerts@thread.tacv2"
CARD = {"type": "AdaptiveCard", "version": "1.5", "body": [{"type": "TextBlock", "text": "Tyre at 1.8 bar"}]}


def send_of_every_kind(system: System) -> dict[str, Any]:
    """A chat message, a channel message, a reply to it, and a mail with an attachment; the channel message's id."""
    tag = system.tag
    channel = {"teamId": TEAM, "channelId": CHANNEL}
    mention = {"id": 0, "userId": samples.DRIVER_ID, "name": "Alex"}
    html = f'<b>{tag}</b> <at id="0">Alex</at> – gate 3 &amp; 4 🚧'
    chat = system.enqueue(
        "teams-outbound",
        system.message(html, contentType="html", importance="high", mentions=[mention], card=CARD),
    )
    post = system.enqueue("teams-outbound", {**channel, "content": f"{tag} in the channel"})
    mail = system.enqueue("outlook-outbound", steps.mail(f"{tag} papers", attachment=b"%PDF-1.4 trip 7\n"))
    wait_for(lambda: [system.state(job) for job in (chat, post, mail)], ["completed"] * 3)
    [(message_id,)] = system.sql("select result ->> 'message_id' from queue.jobs where id = %s", post)
    reply = system.enqueue("teams-outbound", {**channel, "replyToId": message_id, "content": f"{tag} in reply"})
    wait_for(lambda: system.state(reply), "completed")
    return {"chat": chat, "post": message_id, "mail": mail, "reply": reply}


def receive_of_every_kind(system: System) -> None:
    """A mail with pictures and a file, and a chat message with a mention, through Graph's notifications."""
    stored = "select count(*) from queue.communication_logs where direction = 'in' and recorded_at > %s"
    [(before,)] = system.sql("select clock_timestamp()")
    mime = samples.mail_with_picture_and_report().replace(b"zoe-1", system.tag.encode())  # its Message-ID
    system.graph.arrive_mail(samples.DISPATCH, mime)
    system.graph.control(
        "POST", "chat-messages",
        {"chat": samples.CHAT, "from": samples.DRIVER_ID, **samples.chat_message_with_mention()},
    )  # fmt: skip
    wait_for(lambda: system.count(stored, before), 2)


def test_what_is_sent_arrives_and_is_recorded(system: System) -> None:
    made = send_of_every_kind(system)
    [shown] = system.graph.chat_messages(system.chat)
    assert [mention["mentionText"] for mention in shown["mentions"]] == ["Alex"]
    assert len(shown["attachments"]) == 1 and shown["importance"] == "high"
    channel = [m for m in system.graph.channel_messages(TEAM, CHANNEL) if system.tag in m["body"]["content"]]
    assert [(m["id"] == made["post"], m["replyToId"] == made["post"]) for m in channel] == [
        (True, False),
        (False, True),
    ]
    assert system.sent(f"{system.tag} papers") == "1, trip 7.pdf"
    logged = system.sql(
        "select channel, count(*) from queue.communication_logs"
        " where direction = 'out' and concat(subject, ' ', body) ~ %s group by 1 order by 1",
        rf"\m{system.tag}\M",
    )
    assert logged == [("outlook", 1), ("teams", 3)]


def test_what_arrives_is_stored_once_with_its_attachments(system: System) -> None:
    receive_of_every_kind(system)
    rows = system.sql(
        "select c.channel, count(distinct c.id), count(a.id) from queue.communication_logs c"
        " left join queue.attachments a on a.communication_id = c.id"
        " where c.direction = 'in' group by c.id, c.channel, c.recorded_at order by c.recorded_at desc limit 2"
    )
    assert sorted(rows) == [("outlook", 1, 2), ("teams", 1, 0)]


def test_every_request_conforms_to_microsofts_description(system: System) -> None:
    if not DESCRIPTION.is_file():
        pytest.skip(f"the OpenAPI description is not at hand ({DESCRIPTION})")
    send_of_every_kind(system)
    receive_of_every_kind(system)
    wait_for(system.unfinished, 0)
    entries = [entry for entry in system.graph.requests() if entry["path"].startswith("/v1.0/")]
    seen = {(entry["method"], entry["path"].rsplit("/", 1)[-1]) for entry in entries}
    assert {("POST", "messages"), ("POST", "replies"), ("POST", "send"), ("GET", "attachments")} <= seen
    description = load_description()
    assert [fault for entry in entries if (fault := fault_of(description, entry))] == []
