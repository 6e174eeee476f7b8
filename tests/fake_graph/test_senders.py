"""Beside a person's posts: the Bot Framework connector, workflows, the activity feed, quotes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CHANNEL, CHAT, CLIENT, DRIVER, SECRET, TEAM, TENANT
from tests.fake_graph.conftest import DISPATCH, Client, error_code

CARD = {"type": "AdaptiveCard", "version": "1.4", "body": []}
CARD_TYPE = "application/vnd.microsoft.card.adaptive"
TEXT = {"type": "message", "text": "Hallo", "textFormat": "xml"}


@pytest.fixture
def bot(graph: FakeGraph, session: requests.Session) -> Client:
    """The connector with a bot's token."""
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET}
    form["scope"] = "https://api.botframework.com/.default"
    answer = session.post(f"{graph.authority}/{TENANT}/oauth2/v2.0/token", data=form, timeout=10).json()
    return Client(graph, session, answer["access_token"])


def call(bot: Client, method: str, path: str, body: Any = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {bot.token}"}
    return bot.session.request(method, f"{bot.graph.bot_url}/v3/{path}", json=body, headers=headers, timeout=10)


class TestBot:
    @pytest.mark.usefixtures("no_violations")
    def test_it_posts_reads_members_and_starts_threads(self, graph: FakeGraph, bot: Client) -> None:
        posted = call(bot, "POST", f"conversations/{CHAT}/activities", TEXT)
        assert posted.status_code == 201
        assert [one["id"] for one in graph.chat_messages(CHAT)] == [posted.json()["id"]]
        member = call(bot, "GET", f"conversations/{CHAT}/members/{DRIVER}").json()
        assert member == {"id": f"29:{DRIVER}", "name": "Alex Driver", "aadObjectId": DRIVER}
        thread = {"isGroup": True, "channelData": {"channel": {"id": CHANNEL}}, "activity": TEXT}
        started = call(bot, "POST", "conversations", thread).json()
        reply = call(bot, "POST", f"conversations/{started['id']}/activities", TEXT).json()
        root, answer = graph.channel_messages(TEAM, CHANNEL)
        assert (root["id"], answer["id"], answer["replyToId"]) == (started["activityId"], reply["id"], root["id"])

    @pytest.mark.parametrize(
        "activity",
        [
            {"type": "typing"},
            {"type": "message"},
            TEXT | {"importance": "urgent"},
            TEXT | {"from": {"id": "28:other"}},
            TEXT | {"attachments": [{"contentType": CARD_TYPE, "content": "{}"}]},
            TEXT | {"attachments": [{"contentType": "reference", "contentUrl": "https://x.example"}]},
            TEXT | {"entities": [{"type": "mention", "text": "<at>A</at>", "mentioned": {"id": DRIVER}}]},
            TEXT | {"entities": [{"type": "mention", "text": "<at>A</at>", "mentioned": {"id": f"29:{DRIVER}"}}]},
        ],
    )
    def test_it_refuses_what_is_no_message(self, graph: FakeGraph, bot: Client, activity: dict[str, Any]) -> None:
        assert call(bot, "POST", f"conversations/{CHAT}/activities", activity).status_code == 400
        assert len(graph.violations()) == 1
        assert graph.chat_messages(CHAT) == []

    def test_size_roster_and_token(self, graph: FakeGraph, bot: Client, app: Client) -> None:
        large = call(bot, "POST", f"conversations/{CHAT}/activities", TEXT | {"text": "x" * 52_000})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "MessageSizeTooBig")
        graph.control("POST", "bot", {"missingIn": [CHAT]})
        refused = call(bot, "POST", f"conversations/{CHAT}/activities", TEXT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "BotNotInConversationRoster")
        assert call(app, "POST", f"conversations/{CHAT}/activities", TEXT).status_code == 401
        assert bot.get(f"/chats/{CHAT}").status_code == 401

    @pytest.mark.usefixtures("no_violations")
    def test_its_published_limit_per_conversation(self, graph: FakeGraph, bot: Client) -> None:
        graph.control("POST", "limits", {"on": True})
        statuses = [call(bot, "POST", f"conversations/{CHAT}/activities", TEXT).status_code for _ in range(8)]
        assert statuses == [201] * 7 + [429]


class TestWorkflow:
    @pytest.mark.usefixtures("no_violations")
    def test_it_posts_a_message_for_each_card(self, graph: FakeGraph, session: requests.Session) -> None:
        card = {"contentType": CARD_TYPE, "contentUrl": None, "content": CARD}
        url = graph.control("POST", "workflows", {"name": "two words", "chat": CHAT})["url"]
        for address in (graph.alerts_workflow, url):
            answer = session.post(address, json={"type": "message", "attachments": [card, card]}, timeout=10)
            assert (answer.status_code, answer.content) == (202, b"")
        assert len(graph.channel_messages(TEAM, CHANNEL)) == len(graph.chat_messages(CHAT)) == 2
        shown = graph.chat_messages(CHAT)[0]
        assert json.loads(shown["attachments"][0]["content"]) == CARD
        assert shown["from"]["application"]["displayName"] == "Workflows"

    def test_signature_size_and_schema(self, graph: FakeGraph, session: requests.Session) -> None:
        def post(url: str, body: Any) -> int:
            return session.post(url, json=body, timeout=10).status_code

        good = {"type": "message", "attachments": [{"contentType": CARD_TYPE, "content": CARD}]}
        assert post(graph.alerts_workflow + "x", good) == 401
        assert post(graph.alerts_workflow.replace("alerts", "none"), good) == 404
        assert post(graph.alerts_workflow, good | {"summary": "x" * 29_000}) == 413
        assert graph.violations() == []
        for bad in ({"text": "x"}, {"type": "message", "attachments": [{"contentType": CARD_TYPE, "content": "{}"}]}):
            assert post(graph.alerts_workflow, bad) == 400
        assert len(graph.violations()) == 2


NOTICE = {
    "topic": {"source": "text", "value": "t", "webUrl": "https://teams.example/l"},
    "activityType": "systemDefault",
    "chainId": 7,
    "previewText": {"content": "x"},
    "templateParameters": [{"name": "systemDefaultText", "value": "x"}],
}


class TestActivityFeed:
    @pytest.mark.usefixtures("no_violations")
    def test_one_of_a_chain_takes_the_place_of_the_one_before(self, graph: FakeGraph, app: Client) -> None:
        path = f"/users/{DRIVER}/teamwork/sendActivityNotification"
        assert app.post(path, NOTICE).status_code == 204
        assert app.post(path, NOTICE | {"previewText": {"content": "y"}}).status_code == 204
        assert app.post(path, NOTICE | {"chainId": 8}).status_code == 204
        seen = graph.activity(DRIVER)
        assert [(one["previewText"]["content"], one["times"]) for one in seen] == [("y", 2), ("x", 1)]
        assert graph.activity(DISPATCH) == []

    @pytest.mark.parametrize(
        "change",
        [
            {"topic": {"source": "text", "value": "t"}},
            {"topic": {"source": "entityUrl", "value": "https://x.example"}},
            {"activityType": "undeclared"},
            {"templateParameters": []},
            {"chainId": "7"},
            {"title": "x"},
            {"topic": None},
        ],
    )
    def test_a_wrong_notification_is_refused(self, graph: FakeGraph, app: Client, change: dict[str, Any]) -> None:
        assert error_code(app.post(f"/users/{DRIVER}/teamwork/sendActivityNotification", NOTICE | change))
        assert len(graph.violations()) == 1
        assert graph.activity(DRIVER) == []

    def test_recipients_are_named_by_their_types(self, graph: FakeGraph, app: Client) -> None:
        wrong: dict[str, Any] = {"recipient": {"@odata.type": "#microsoft.graph.chatMembersNotificationRecipient"}}
        assert app.post(f"/chats/{CHAT}/sendActivityNotification", NOTICE | wrong).status_code == 400
        everybody = {"recipients": [{"userId": DRIVER}]}
        assert app.post("/teamwork/sendActivityNotificationToRecipients", NOTICE | everybody).status_code == 400
        assert app.post("/users/nobody/teamwork/sendActivityNotification", NOTICE).status_code == 404


def test_a_reply_with_quote_is_a_persons(graph: FakeGraph, user: Client, app: Client) -> None:
    asked = graph.arrive_chat_message(DRIVER, "Welches Tor?", chat=CHAT)
    body = {"messageIds": [asked], "replyMessage": {"body": {"content": "Tor 3"}}}
    posted = user.post(f"/chats/{CHAT}/messages/replyWithQuote", body)
    assert posted.status_code == 201
    reference = json.loads(posted.json()["attachments"][0]["content"])
    assert (reference["messageId"], reference["messagePreview"]) == (asked, "Welches Tor?")
    assert graph.violations() == []
    assert app.post(f"/chats/{CHAT}/messages/replyWithQuote", body).status_code == 401
    assert user.post(f"/chats/{CHAT}/messages/replyWithQuote", body | {"messageIds": ["1"]}).status_code == 404
    assert user.post(f"/chats/{CHAT}/messages/replyWithQuote", body | {"messageIds": []}).status_code == 400
