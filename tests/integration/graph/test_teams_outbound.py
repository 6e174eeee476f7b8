"""teams-outbound against the fake Graph: one message, whatever happens on the way."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import pytest

from shared.engine.job import FOUND_NOTHING, ErrorClass
from shared.graph.client import GraphClient
from shared.graph.teams import TeamsClient
from shared.handlers.teams_payload import TeamsMessage
from tests.integration.graph.conftest import CHANNEL, CHAT, DRIVER_ID, SERVICE, TEAM, Wired, base64_of

FILE = {"id": "4dcc1a8b-5e1c-4f9b-8f0a-0f4a5d7f2a11", "name": "tour.pdf", "contentUrl": "https://x.example/tour.pdf"}
CARD = {"type": "AdaptiveCard", "version": "1.5", "body": [{"type": "TextBlock", "text": "Tour 7 ✓"}]}


def message(**more: Any) -> TeamsMessage:
    payload = {"chatId": CHAT, "content": "Tour 7 starts."} | more
    return TeamsMessage.model_validate({name: value for name, value in payload.items() if value is not None})


def test_a_text_is_shown_as_typed(wired: Wired) -> None:
    typed = 'He said "x\\y"\n<img src=x onerror=1> <at id="0">All</at> &lt;b&gt; \u2028\ttab  two'
    wired.run("teams-outbound", message(content=typed))
    (posted,) = wired.graph.chat_messages(CHAT)
    assert "&lt;img src=x onerror=1&gt; &lt;at id=" in posted["body"]["content"]
    assert "&amp;lt;b&amp;gt;" in posted["body"]["content"]
    assert "<br>" in posted["body"]["content"]
    assert posted["mentions"] == []
    assert posted["from"]["user"]["displayName"] == "Fleet Queue"


def test_a_message_with_mention_card_file_and_importance(wired: Wired) -> None:
    run = wired.run(
        "teams-outbound",
        message(
            content='<p>Hello <at id="0">Alex Driver</at></p>',
            contentType="html",
            importance="urgent",
            mentions=[{"id": 0, "userId": DRIVER_ID, "name": "Alex Driver"}],
            attachments=[FILE],
            card=CARD,
        ),
    )
    (posted,) = wired.graph.chat_messages(CHAT)
    assert posted["importance"] == "urgent"
    assert posted["mentions"][0]["mentioned"]["user"]["id"] == DRIVER_ID
    assert [a["contentType"] for a in posted["attachments"]] == [
        "reference",
        "application/vnd.microsoft.card.adaptive",
    ]
    assert json.loads(posted["attachments"][1]["content"]) == CARD
    assert run.result is not None
    assert run.result["message_id"] == posted["id"]
    assert run.details["marker_kept"] is True


def test_a_channel_message_and_a_reply_to_it(wired: Wired) -> None:
    channel = {"chatId": None, "teamId": TEAM, "channelId": CHANNEL}
    root = wired.run("teams-outbound", message(**channel))
    assert root.result is not None
    wired.run("teams-outbound", message(**channel, replyToId=root.result["message_id"], content="Reply"))
    first, second = wired.graph.channel_messages(TEAM, CHANNEL)
    assert second["replyToId"] == first["id"]
    threads = {record.thread_id for record in wired.log.rows.values()}
    assert threads == {f"{CHANNEL}/{first['id']}"}


def test_it_is_recorded_as_the_caller_wrote_it(wired: Wired) -> None:
    run = wired.run("teams-outbound", message(content="Tour 7 <now>"))
    record = wired.log.only
    assert (record.direction, record.channel, record.sender) == ("out", "teams", SERVICE)
    assert (record.body, record.text, record.body_type) == ("Tour 7 <now>", "Tour 7 <now>", "text")
    assert run.result is not None
    assert record.external_id == f"{CHAT}/{run.result['message_id']}"
    assert record.job_id == run.job.id


def test_a_quote_stands_in_front_of_the_reply_in_a_chat(wired: Wired) -> None:
    asked = wired.graph.arrive_chat_message(DRIVER_ID, "Which gate?", chat=CHAT)
    run = wired.run("teams-outbound", message(replyToId=asked, content="Gate 3"))
    _, reply = wired.graph.chat_messages(CHAT)
    assert json.loads(reply["attachments"][0]["content"])["messageId"] == asked
    assert reply["body"]["content"].endswith("</span>Gate 3")
    assert run.details["marker_kept"] is True
    assert wired.log.only.thread_id == CHAT


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_at_a_quote_leaves_exactly_one(wired: Wired, when: Literal["before", "after"]) -> None:
    asked = wired.graph.arrive_chat_message(DRIVER_ID, "Which gate?", chat=CHAT)
    wired.session.kill_at = (1, when)
    run = wired.run("teams-outbound", message(replyToId=asked, content="Gate 3"))
    assert run.result is not None and run.result["read_back"] is (when == "after")
    assert len(wired.graph.chat_messages(CHAT)) == 2


@pytest.mark.parametrize(
    ("place", "kind", "identity"),
    [
        ({}, "everyone", {"id": CHAT, "conversationIdentityType": "chat"}),
        ({"chatId": None, "teamId": TEAM, "channelId": CHANNEL}, "channel", {"id": CHANNEL}),
        ({"chatId": None, "teamId": TEAM, "channelId": CHANNEL}, "team", {"id": TEAM}),
    ],
)
def test_a_whole_chat_channel_or_team_is_mentioned(
    wired: Wired, place: dict[str, Any], kind: str, identity: dict[str, Any]
) -> None:
    mention = [{"id": 0, "kind": kind, "name": "All"}]
    wired.run("teams-outbound", message(**place, content='<at id="0">All</at>', contentType="html", mentions=mention))
    (posted,) = posted_in(wired, place)
    assert identity.items() <= posted["mentions"][0]["mentioned"]["conversation"].items()


def test_html_is_sent_and_recorded_without_what_teams_does_not_render(wired: Wired) -> None:
    wired.run("teams-outbound", message(content="<b onclick=x>Tour</b><script>alert(1)</script>", contentType="html"))
    (posted,) = wired.graph.chat_messages(CHAT)
    assert posted["body"]["content"].endswith("</span><b>Tour</b>")
    assert (wired.log.only.body, wired.log.only.text) == ("<b>Tour</b>", "Tour")


def test_an_image_stands_in_the_text_and_can_be_read_from_graph(wired: Wired) -> None:
    content = b"\x89PNG\r\n\x1a\n" + b"x" * 40_000
    image = {"contentId": "map", "contentType": "image/png", "contentBytes": base64_of(content)}
    run = wired.run(
        "teams-outbound", message(content='<p><img src="cid:map" alt="Map"></p>', contentType="html", images=[image])
    )
    (posted,) = wired.graph.chat_messages(CHAT)
    source = re.search(r'src="([^"]+)"', posted["body"]["content"])
    assert source is not None and "/hostedContents/" in source[1]
    token = wired.app_tokens.token()
    answer = wired.session.get(source[1], headers={"Authorization": f"Bearer {token}"})
    assert (answer.content, answer.headers["Content-Type"]) == (content, "image/png")
    assert run.details["marker_kept"] is True
    (kept,) = wired.log.only.attachments
    assert (kept.kind, kept.size, kept.is_inline) == ("hostedContent", len(content), True)


IMAGE = {"contentId": "i", "contentType": "image/gif", "contentBytes": base64_of(b"GIF89a" + b"x" * 50)}
PLACES: list[dict[str, Any]] = [
    {},
    {"images": [IMAGE]},
    {"card": CARD, "content": ""},
    {"chatId": None, "teamId": TEAM, "channelId": CHANNEL},
]


def posted_in(wired: Wired, where: dict[str, Any]) -> list[dict[str, Any]]:
    return wired.graph.channel_messages(TEAM, CHANNEL) if "teamId" in where else wired.graph.chat_messages(CHAT)


@pytest.mark.parametrize("where", PLACES, ids=["chat", "image", "card", "channel"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_at_the_post_leaves_exactly_one_message(
    wired: Wired, where: dict[str, Any], when: Literal["before", "after"]
) -> None:
    wired.session.kill_at = (1, when)
    run = wired.run("teams-outbound", message(**where))
    assert run.classes == [ErrorClass.WORKER_LOST]
    assert len(posted_in(wired, where)) == 1
    assert len(wired.log.rows) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_while_it_records_leaves_exactly_one_message(
    wired: Wired, when: Literal["before", "after"]
) -> None:
    wired.log.kill = when
    wired.run("teams-outbound", message())
    assert len(wired.graph.chat_messages(CHAT)) == 1
    assert len(wired.log.rows) == 1


def test_a_reply_whose_answer_is_lost_is_found_in_its_thread(wired: Wired) -> None:
    channel = {"chatId": None, "teamId": TEAM, "channelId": CHANNEL}
    root = wired.run("teams-outbound", message(**channel))
    assert root.result is not None
    wired.graph.add_fault("lose-answer", method="POST", path="/replies$")
    run = wired.run("teams-outbound", message(**channel, replyToId=root.result["message_id"]))
    assert run.classes == [ErrorClass.UNCERTAIN]
    assert run.result is not None and run.result["read_back"] is True
    assert len(wired.graph.channel_messages(TEAM, CHANNEL)) == 2


@pytest.mark.parametrize("kind", ["lose-answer", "reset", "bad-json", "empty"])
def test_a_broken_or_lost_answer_to_a_post_is_uncertain_and_leaves_one_message(wired: Wired, kind: str) -> None:
    fault: dict[str, Any] = {"status": 201} if kind in ("bad-json", "empty") else {}
    wired.graph.add_fault(kind, method="POST", path="/messages$", **fault)
    run = wired.run("teams-outbound", message())
    assert run.classes == [ErrorClass.UNCERTAIN]
    assert len(wired.graph.chat_messages(CHAT)) == 1


def test_a_lost_answer_that_cannot_be_looked_for_ends_as_uncertain_and_a_redrive_finds_it(wired: Wired) -> None:
    wired.graph.add_fault("lose-answer", method="POST", path="/messages$")
    wired.graph.add_fault("status", method="GET", path="/messages", status=500, times=1000)
    run = wired.run("teams-outbound", message())
    assert run.dead is not None and run.dead.failure.error_class is ErrorClass.UNCERTAIN
    assert run.classes == [ErrorClass.UNCERTAIN, *[ErrorClass.NETWORK] * 5]
    wired.graph.clear_faults()
    again = wired.run("teams-outbound", message(), redrive_of=run.job)
    assert again.result is not None and again.result["read_back"] is True
    assert len(wired.graph.chat_messages(CHAT)) == 1


def test_each_look_that_finds_nothing_is_kept_on_its_attempt(wired: Wired) -> None:
    wired.graph.add_fault("status", method="POST", path="/messages$", status=503, times=1000)
    run = wired.run("teams-outbound", message())
    assert run.dead is not None and run.dead.failure.error_class is ErrorClass.UNCERTAIN
    assert [FOUND_NOTHING in attempt.details for attempt in run.attempts] == [False, True, True, True, True]
    assert run.details[FOUND_NOTHING] is True


def test_the_read_back_looks_past_the_first_page(wired: Wired) -> None:
    wired.graph.add_fault("lose-answer", method="POST", path="/messages$")

    def others_talk() -> None:
        for number in range(60):
            wired.graph.arrive_chat_message(DRIVER_ID, f"talk {number}", chat=CHAT)

    run = wired.run("teams-outbound", message(), between=others_talk)
    assert run.result is not None and run.result["read_back"] is True
    assert len(wired.graph.chat_messages(CHAT)) == 61


def test_two_equal_messages_of_two_jobs_are_both_sent(wired: Wired) -> None:
    wired.run("teams-outbound", message())
    wired.session.kill_at = (wired.session.number + 1, "before")
    wired.run("teams-outbound", message())
    assert len(wired.graph.chat_messages(CHAT)) == 2


def test_429_waits_as_long_as_graph_says(wired: Wired) -> None:
    wired.graph.add_fault("status", path="/messages$", status=429, headers={"Retry-After": "2"})
    run = wired.run("teams-outbound", message())
    assert run.classes == [ErrorClass.RATE_LIMIT]
    assert run.delays[0].total_seconds() >= 2
    assert run.attempts[0].details["graph_calls"][0]["status"] == 429


def test_404_on_a_send_is_never_retried(wired: Wired) -> None:
    run = wired.run("teams-outbound", message(chatId="19:nowhere@thread.v2"))
    assert run.dead is not None
    assert run.dead.failure.error_class is ErrorClass.VALIDATION
    assert run.attempts == []


def test_a_claims_challenge_costs_one_new_token_and_no_second_message(wired: Wired) -> None:
    wired.graph.add_fault("claims-challenge", method="POST", path="/messages$")
    run = wired.run("teams-outbound", message())
    assert run.attempts == []
    assert [call["status"] for call in run.details["graph_calls"]] == [401, 201]
    assert len(wired.graph.chat_messages(CHAT)) == 1


def test_app_only_chat_posts_end_as_a_permanent_error_after_one_token_refresh(wired: Wired) -> None:
    reader = GraphClient(wired.session, wired.app_tokens, wired.graph.graph_url)
    wired.teams = TeamsClient(reader, reader, lambda: None)
    run = wired.run("teams-outbound", message())
    assert run.dead is not None
    assert run.dead.failure.error_class is ErrorClass.AUTH
    assert run.classes == [ErrorClass.AUTH]
    assert len(wired.sent("POST", "/messages")) == 4
    assert {"import purposes" in violation["message"] for violation in wired.graph.violations()} == {True}
    wired.graph.reset()


def test_without_a_sign_in_a_job_waits_and_the_remedy_names_the_command(wired: Wired) -> None:
    wired.store.caches.clear()
    run = wired.run("teams-outbound", message())
    assert run.parked is not None
    assert run.parked.needs == SERVICE
    assert "`./dev sign-in --account queue@fleet.example`" in run.parked.remedy
    assert wired.graph.chat_messages(CHAT) == []
