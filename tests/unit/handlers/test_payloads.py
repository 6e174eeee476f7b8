"""What the payload models refuse, and that the refusal names the field and the remedy but not the value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.engine.errors import PayloadError
from shared.handlers.loading import parse_payload
from shared.handlers.outlook_inbound import address as mail_address
from shared.handlers.teams_html import as_html
from shared.handlers.teams_inbound import address as chat_address
from shared.handlers.teams_payload import TeamsMessage

MAIL: dict[str, Any] = {"from": "a@x.example", "to": ["b@x.example"], "subject": "s", "body": "b"}
CHAT: dict[str, Any] = {"chatId": "19:a@thread.v2", "content": "hello"}


def problems(queue: str, payload: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(PayloadError) as caught:
        parse_payload(queue, json.dumps(payload))
    return [(problem.field, problem.message) for problem in caught.value.problems]


def test_refusals_do_not_repeat_what_was_sent() -> None:
    found = problems("outlook-outbound", MAIL | {"to": ["secret value"], "subject": "secret\nvalue"})
    assert "secret" not in str(found)


TEAMS_REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"chatId": None}, "payload", "chatId, or teamId and channelId"),
    ({"teamId": "t", "channelId": "c"}, "payload", "chatId stands alone"),
    ({"chatId": ".."}, "payload.chatId", "no id"),
    ({"chatId": "a\nb"}, "payload.chatId", "no id"),
    ({"content": "  "}, "payload", "content is empty"),
    ({"content": "<p>&nbsp;</p>", "contentType": "html"}, "payload", "content is empty"),
    ({"content": "x" * 29_000}, "payload", "more than the 28672"),
    ({"content": "\U0001f69a" * 7_200}, "payload", "more than the 28672"),
    ({"importance": "critical"}, "payload.importance", "urgent"),
    ({"mentions": [{"id": 0, "userId": "u", "name": "n"}]}, "payload", "contentType"),
    ({"content": '<at id="0">A</at>', "contentType": "html"}, "payload", "same ids"),
    (
        {"content": "x", "contentType": "html", "mentions": [{"id": 0, "userId": "u", "name": "n"}]},
        "payload",
        "same ids",
    ),
    ({"card": {"type": "Other"}}, "payload.card", "AdaptiveCard"),
    (
        {"attachments": [{"id": "1", "name": "n", "contentUrl": "http://x"}]},
        "payload.attachments.0.contentUrl",
        "https",
    ),
    ({"chat_id": "x"}, "payload.chat_id", "did you mean chatId?"),
]


@pytest.mark.parametrize(("change", "field", "text"), TEAMS_REFUSALS)
def test_a_wrong_teams_message_is_refused_by_field(change: dict[str, Any], field: str, text: str) -> None:
    payload = {name: value for name, value in (CHAT | change).items() if value is not None}
    found = problems("teams-outbound", payload)
    assert (field, True) in [(name, text in message) for name, message in found]


def test_text_is_escaped_once() -> None:
    assert as_html('<at id="0">All</at> &lt; "x"\r\ny') == '&lt;at id="0"&gt;All&lt;/at&gt; &amp;lt; "x"<br>y'


def test_the_place_may_be_a_channel() -> None:
    message = TeamsMessage.model_validate({"teamId": "t", "channelId": "c", "replyToId": "1", "content": "x"})
    assert message.place.thread_id("2") == "c/1"


@pytest.mark.parametrize(
    ("resource", "thread", "message"),
    [
        ("chats('19:a@thread.v2')/messages('16')", "19:a@thread.v2", "16"),
        ("/chats/19:a@thread.v2/messages/16", "19:a@thread.v2", "16"),
        ("chats/19%3Aa%40thread.v2/messages/16", "19:a@thread.v2", "16"),
        ("teams('t')/channels('19:c@thread.tacv2')/messages('1')", "19:c@thread.tacv2/1", "1"),
        ("teams('t')/channels('19:c@thread.tacv2')/messages('1')/replies('2')", "19:c@thread.tacv2/1", "2"),
    ],
)
def test_both_spellings_of_a_chat_messages_path_are_read(resource: str, thread: str, message: str) -> None:
    place, message_id = chat_address(resource)
    assert (place.thread_id(message_id), message_id) == (thread, message)


@pytest.mark.parametrize(
    ("resource", "user", "message"),
    [
        ("Users/u-1/Messages/AAk=", "u-1", "AAk="),
        ("users('a@x.example')/messages('AAk=')", "a@x.example", "AAk="),
        ("users/u/mailFolders('inbox')/messages/AAk=", "u", "AAk="),
        ("users/u/mailFolders/inbox/messages/AAk=", "u", "AAk="),
    ],
)
def test_both_spellings_of_a_mails_path_are_read(resource: str, user: str, message: str) -> None:
    assert mail_address(resource) == (user, message)


@pytest.mark.parametrize(
    "resource",
    ["", "users/u", "users/../messages/x", "users/u/messages/..", "https://evil.example/users/u/messages/m",
     "users/u/messages/a/b", "users/u/messages/%2e%2e", "users//messages/m", "me/messages/m"],
)  # fmt: skip
def test_other_paths_are_refused(resource: str) -> None:
    assert "not the path" in (found := problems("outlook-inbound", {"resource": resource})[0][1]) or "none" in found
    problems("teams-inbound", {"resource": resource})
