"""Chats and channels: who may post, what a message must be, replies, lists, images."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests

from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CHANNEL, CHAT, DISPATCH, DRIVER, SERVICE_ACCOUNT, TEAM
from tests.fake_graph.conftest import Client, error_code, sign_in

CHAT_PATH = f"/chats/{CHAT}/messages"
CHANNEL_PATH = f"/teams/{TEAM}/channels/{CHANNEL}/messages"


def text(content: str = "Hallo") -> dict[str, Any]:
    return {"body": {"content": content}}


def html(content: str, **more: Any) -> dict[str, Any]:
    return {"body": {"contentType": "html", "content": content}, **more}


@pytest.mark.usefixtures("no_violations")
def test_a_user_posts_to_a_chat_and_reads_it(graph: FakeGraph, user: Client, app: Client) -> None:
    posted = user.post(CHAT_PATH, {"body": {"content": "Hallo 🚚"}, "importance": "urgent"})
    assert posted.status_code == 201
    message = posted.json()
    assert message["from"]["user"]["id"] == SERVICE_ACCOUNT
    assert message["id"].isdigit()
    assert message["etag"] == message["id"]
    assert (message["chatId"], message["importance"]) == (CHAT, "urgent")
    read = app.get(f"{CHAT_PATH}/{message['id']}")
    assert read.json()["body"] == {"contentType": "text", "content": "Hallo 🚚"}
    assert [item["id"] for item in graph.chat_messages(CHAT)] == [message["id"]]
    assert user.get(f"/chats/{CHAT}").json()["topic"] == "Dispatch"


@pytest.mark.parametrize("path", [CHAT_PATH, CHANNEL_PATH])
def test_an_app_only_token_may_not_post(graph: FakeGraph, app: Client, path: str) -> None:
    refused = app.post(path, text())
    assert (refused.status_code, error_code(refused)) == (401, "Unauthorized")
    expected = "Message POST is allowed in application-only context only for import purposes"
    assert refused.json()["error"]["message"] == expected
    assert len(graph.violations()) == 1


@pytest.mark.usefixtures("no_violations")
def test_only_members_post_and_read(graph: FakeGraph, user: Client) -> None:
    graph.control("POST", "chats", {"id": "19:other@thread.v2", "topic": None, "members": [DISPATCH, DRIVER]})
    for answer in (user.post("/chats/19:other@thread.v2/messages", text()), user.get("/chats/19:other@thread.v2")):
        assert (answer.status_code, error_code(answer)) == (403, "Forbidden")
    team = {"id": "t1", "displayName": "T", "channels": [{"id": "c1", "displayName": "C"}], "members": [DRIVER]}
    graph.control("POST", "teams", team)
    assert user.post("/teams/t1/channels/c1/messages", text()).status_code == 403
    assert user.post("/chats/19:none@thread.v2/messages", text()).status_code == 404
    assert user.post(f"/teams/{TEAM}/channels/none/messages", text()).status_code == 404


@pytest.mark.usefixtures("no_violations")
def test_chat_lists_are_newest_first_and_paged(user: Client) -> None:
    ids = [user.post(CHAT_PATH, text(str(number))).json()["id"] for number in range(5)]
    assert ids == sorted(set(ids))
    first = user.get(CHAT_PATH, top="2", orderby="createdDateTime desc").json()
    assert [item["id"] for item in first["value"]] == [ids[4], ids[3]]
    second = user.call("GET", first["@odata.nextLink"].removeprefix(user.graph.graph_url)).json()
    assert [item["id"] for item in second["value"]] == [ids[2], ids[1]]
    oldest = user.get(CHAT_PATH).json()["value"][-1]["lastModifiedDateTime"]
    newer = user.get(CHAT_PATH, filter=f"lastModifiedDateTime gt {oldest}").json()["value"]
    assert ids[0] not in [item["id"] for item in newer]


@pytest.mark.parametrize("query", [{"top": "51"}, {"top": "abc"}, {"orderby": "createdDateTime"}, {"select": "id"}])
def test_chat_lists_take_only_what_graph_takes(user: Client, query: dict[str, str]) -> None:
    assert error_code(user.get(CHAT_PATH, **query)) == "BadRequest"
    assert len(user.graph.violations()) == 1


@pytest.mark.usefixtures("no_violations")
def test_channel_messages_and_replies(graph: FakeGraph, user: Client, app: Client) -> None:
    root = user.post(CHANNEL_PATH, text("Frage")).json()
    reply = user.post(f"{CHANNEL_PATH}/{root['id']}/replies", text("Antwort"))
    assert reply.status_code == 201
    assert reply.json()["replyToId"] == root["id"]
    assert reply.json()["channelIdentity"] == {"teamId": TEAM, "channelId": CHANNEL}
    assert [item["id"] for item in app.get(CHANNEL_PATH).json()["value"]] == [root["id"]]
    (expanded,) = app.get(CHANNEL_PATH, expand="replies").json()["value"]
    assert [item["body"]["content"] for item in expanded["replies"]] == ["Antwort"]
    replies = f"{CHANNEL_PATH}/{root['id']}/replies"
    assert [item["id"] for item in app.get(replies).json()["value"]] == [reply.json()["id"]]
    assert app.get(f"{replies}/{reply.json()['id']}").json()["body"]["content"] == "Antwort"
    assert app.get(f"{CHANNEL_PATH}/{root['id']}").json()["body"]["content"] == "Frage"
    assert len(graph.channel_messages(TEAM, CHANNEL)) == 2
    assert user.post(f"{CHANNEL_PATH}/1/replies", text()).status_code == 404


@pytest.mark.usefixtures("no_violations")
def test_a_message_of_more_than_28_kb_is_refused(user: Client) -> None:
    assert user.post(CHAT_PATH, text("x" * 27_000)).status_code == 201
    refused = user.post(CHAT_PATH, text("x" * 29_000))
    assert (refused.status_code, error_code(refused)) == (413, "RequestEntityTooLarge")


@pytest.mark.usefixtures("no_violations")
def test_mentions_and_cards(user: Client) -> None:
    mentioned = {"user": {"id": DRIVER, "displayName": "Alex", "userIdentityType": "aadUser"}}
    mentions = [{"id": 0, "mentionText": "Alex", "mentioned": mentioned}]
    posted = user.post(CHAT_PATH, html('<at id="0">Alex</at> bitte', mentions=mentions))
    assert posted.status_code == 201
    assert posted.json()["mentions"][0]["mentioned"]["user"]["id"] == DRIVER
    card = json.dumps({"type": "AdaptiveCard", "version": "1.5", "body": []})
    attachments = [{"id": "c1", "contentType": "application/vnd.microsoft.card.adaptive", "content": card}]
    posted = user.post(CHAT_PATH, html('<attachment id="c1"></attachment>', attachments=attachments))
    assert posted.json()["attachments"][0]["content"] == card


CARD = {"id": "c1", "contentType": "application/vnd.microsoft.card.adaptive"}


@pytest.mark.parametrize(
    "body",
    [
        html('<at id="0">Alex</at>'),
        html("Alex", mentions=[{"id": 0, "mentionText": "Alex"}]),
        html('<attachment id="c1"></attachment>'),
        html('<attachment id="c1"></attachment>', attachments=[CARD | {"content": "no json"}]),
        html('<img src="../hostedContents/1/$value">'),
        html('<img src="../hostedContents/1/$value">', hostedContents=[
            {"@microsoft.graph.temporaryId": "1", "contentBytes": "%", "contentType": "image/png"},
        ]),
    ],
)  # fmt: skip
def test_what_a_message_may_not_be(graph: FakeGraph, user: Client, body: dict[str, Any]) -> None:
    assert error_code(user.post(CHAT_PATH, body)) == "BadRequest"
    assert graph.chat_messages(CHAT) == []
    assert len(graph.violations()) == 1


@pytest.mark.usefixtures("no_violations")
@pytest.mark.parametrize("path", [CHAT_PATH, CHANNEL_PATH])
def test_hosted_contents_are_kept_and_named(user: Client, app: Client, path: str) -> None:
    image = {
        "@microsoft.graph.temporaryId": "1",
        "contentBytes": base64.b64encode(b"PNG" * 20_000).decode(),
        "contentType": "image/png",
    }
    posted = user.post(path, html('<img src="../hostedContents/1/$value">', hostedContents=[image])).json()
    url = posted["body"]["content"].removeprefix('<img src="').removesuffix('">')
    content = app.call("GET", url.removeprefix(app.graph.graph_url))
    assert (content.content, content.headers["content-type"]) == (b"PNG" * 20_000, "image/png")
    if path == CHAT_PATH:
        (listed,) = app.get(f"{path}/{posted['id']}/hostedContents").json()["value"]
        assert f"/hostedContents/{listed['id']}/" in url


@pytest.mark.usefixtures("no_violations")
def test_a_colleague_posts_by_control(graph: FakeGraph, session: requests.Session, app: Client) -> None:
    chat_id = graph.arrive_chat_message(DRIVER, "Bin da", chat=CHAT)
    assert app.get(f"{CHAT_PATH}/{chat_id}").json()["from"]["user"]["displayName"] == "Alex Driver"
    root = graph.arrive_chat_message(DRIVER, "<p>Panne</p>", content_type="html", team=TEAM, channel=CHANNEL)
    graph.arrive_chat_message(DISPATCH, "Hilfe kommt", team=TEAM, channel=CHANNEL, replyTo=root)
    assert [item["replyToId"] for item in graph.channel_messages(TEAM, CHANNEL)] == [None, root]
    driver = Client(graph, session, sign_in(graph, session, DRIVER)["access_token"])
    assert driver.post(CHAT_PATH, text()).status_code == 201
