"""What the payload of a mail takes and refuses, and the JSON that Graph gets of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from shared.handlers.mail_message import answer_changes, build_message
from shared.handlers.mail_payload import CARRIED_BYTES, Mail
from tests.unit.handlers.test_payloads import MAIL, problems


def attachment(**more: Any) -> dict[str, Any]:
    return {"name": "a.txt", "contentType": "text/plain", "contentBytes": "YQ=="} | more


MAIL_REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"to": []}, "payload", "at least one address"),
    ({"to": ["a@x.example", "bad@@x", " "]}, "payload.to.1.address", "name@example.com"),
    ({"to": ["a@x.example\r\nBcc: c@x.example"]}, "payload.to.0.address", "mail address"),
    ({"to": ["a@x.example, c@x.example"]}, "payload.to.0.address", "mail address"),
    ({"to": "a@x.example"}, "payload.to", "array"),
    ({"to": [{"address": "a@x.example", "name": "A\nB"}]}, "payload.to.0.name", "one line"),
    ({"cc": [None]}, "payload.cc.0", ""),
    ({"from": "nobody"}, "payload.from.address", "mail address"),
    ({"from": {"address": "a@x.example", "sender": "nobody"}}, "payload.from.sender", "mail address"),
    ({"subject": None}, "payload", "no subject"),
    ({"original": {"messageId": "AAk=", "action": "forward"}, "to": []}, "payload", "at least one address"),
    ({"original": {"messageId": "..", "action": "reply"}}, "payload.original.messageId", "no id"),
    ({"original": {"messageId": "AAk=", "action": "answer"}}, "payload.original.action", "forward"),
    ({"subject": "Hi\r\nBcc: x@example.com"}, "payload.subject", "one line"),
    ({"subject": "a=?UTF-8?Q?=0A?=Bcc: x@example.com"}, "payload.subject", "one line"),
    ({"subject": "a =?UTF-8?Q?=0A?= Bcc"}, "payload.subject", "one line"),
    ({"subject": "x" * 256}, "payload.subject", "255"),
    ({"subject": "a\u2028b"}, "payload.subject", "one line"),
    ({"body": "x" * 1_000_001}, "payload.body", "attachment"),
    ({"bodyType": "markdown"}, "payload.bodyType", "html"),
    ({"headers": {"Bcc": "x"}}, "payload.headers", "x-"),
    ({"headers": {"x-a": "1\r\nBcc: y"}}, "payload.headers", "one line"),
    ({"headers": {"x-a\n": "1"}}, "payload.headers", "x-"),
    ({"headers": {"x-a": "1", "X-A": "2"}}, "payload.headers", "twice"),
    ({"headers": {f"x-{n}": "1" for n in range(6)}}, "payload.headers", "5"),
    ({"attachments": [{"name": "a", "content_bytes": "YQ=="}]}, "payload.attachments.0.content_bytes", "contentBytes"),
    ({"attachments": [attachment(contentBytes=None)]}, "payload.attachments.0", "contentBytes (base64) or its blob"),
    ({"attachments": [attachment(blob="attachments/a")]}, "payload.attachments.0", "one of the two"),
    ({"attachments": [attachment(contentBytes="@@@")]}, "payload.attachments.0.contentBytes", "base64"),
    ({"attachments": [attachment(name="a\r\nb")]}, "payload.attachments.0.name", "one line"),
    ({"attachments": [attachment(isInline=True)]}, "payload.attachments.0", "contentId"),
    ({"extra": 1}, "payload.extra", "not known: remove it"),
]


@pytest.mark.parametrize(("change", "field", "text"), MAIL_REFUSALS)
def test_a_wrong_mail_is_refused_by_field(change: dict[str, Any], field: str, text: str) -> None:
    found = problems("outlook-outbound", MAIL | change)
    assert (field, True) in [(name, text in message) for name, message in found]


def test_every_bad_recipient_is_named_by_its_index_at_once() -> None:
    found = problems("outlook-outbound", MAIL | {"to": ["ok@x.example", "bad@@x", " "], "cc": ["", "ok@x.example"]})
    assert [field for field, _ in found] == ["payload.to.1.address", "payload.to.2.address", "payload.cc.0.address"]
    assert not [message for _, message in found if "bad@@x" in message]


@pytest.mark.parametrize(
    ("blob", "good"),
    [
        ("attachments/tours/7/route.pdf", True),
        ("attachments/Gr\u00fc\u00dfe 7.pdf", True),
        ("https://evil.example/a.pdf", False),
        ("http://169.254.169.254/latest", False),
        ("//evil.example/a", False),
        ("attachments", False),
        ("attachments/", False),
        ("attachments/../secrets/a", False),
        ("attachments/a//b", False),
        ("attachments/a\\b", False),
        ("attachments/a\nb", False),
        ("Attachments/a", False),
        ("azure--x/a", False),
        ("$root/a", False),
        ("attachments/" + "x" * 1025, False),
    ],
)
def test_a_blob_is_named_and_never_an_address(blob: str, good: bool) -> None:
    payload = MAIL | {"attachments": [{"name": "a.pdf", "blob": blob}]}
    if good:
        assert Mail.model_validate(payload).attachments[0].blob == blob
    else:
        assert problems("outlook-outbound", payload)[0][0] == "payload.attachments.0.blob"


@pytest.mark.parametrize("size", [0, 1, 2, 3_000_000, CARRIED_BYTES])
def test_what_the_payload_carries_is_counted_in_bytes(size: int) -> None:
    content = base64.b64encode(b"x" * size).decode()
    carried = Mail.model_validate(MAIL | {"attachments": [attachment(contentBytes=content)]})
    assert carried.attachments[0].carried == size


def test_more_than_a_payload_carries_is_refused_with_the_way_out() -> None:
    half = base64.b64encode(b"x" * (CARRIED_BYTES // 2 + 1)).decode()
    found = problems("outlook-outbound", MAIL | {"attachments": [attachment(contentBytes=half)] * 2})
    assert "put large files into blob storage" in found[0][1]


def test_an_address_is_sent_to_once_in_its_most_visible_place() -> None:
    mail = MAIL | {"to": ["a@x.example", "A@X.EXAMPLE"], "cc": ["b@x.example", "A@x.example"], "bcc": ["B@x.example"]}
    message = build_message(Mail.model_validate(mail))
    fields = ("toRecipients", "ccRecipients", "bccRecipients")
    assert [[r["emailAddress"]["address"] for r in message[field]] for field in fields] == [
        ["a@x.example"], ["b@x.example"], [],
    ]  # fmt: skip


def test_the_mailbox_is_the_senders_where_one_is_named() -> None:
    mail = Mail.model_validate(MAIL | {"from": {"address": "fleet@x.example", "sender": "a@x.example"}})
    message = build_message(mail)
    assert mail.mailbox == "a@x.example"
    assert message["from"]["emailAddress"]["address"] == "fleet@x.example"
    assert message["sender"]["emailAddress"]["address"] == "a@x.example"
    assert "from" not in build_message(Mail.model_validate(MAIL))


@pytest.mark.parametrize(
    ("body", "body_type", "draft_type", "expected"),
    [
        ("a < b\r\nc", "text", "html", "<div>a &lt; b<br>c</div>old"),
        ("<b>a</b>", "html", "HTML", "<div><b>a</b></div>old"),
        ("<b>a</b> & b", "html", "text", "<div>a & b</div>old"),
        ("a < b", "text", "text", "<div>a < b</div>old"),
    ],
)
def test_our_text_takes_the_place_of_the_placeholder(body: str, body_type: str, draft_type: str, expected: str) -> None:
    mail = Mail.model_validate(MAIL | {"body": body, "bodyType": body_type})
    changes = answer_changes(mail, {"contentType": draft_type, "content": "<div>HERE</div>old"}, "HERE")
    assert changes["body"]["content"] == expected
    assert changes["subject"] == "s"


def test_a_draft_that_lost_the_placeholder_has_our_text_first() -> None:
    changes = answer_changes(Mail.model_validate(MAIL), {"contentType": "html", "content": "old"}, "HERE")
    assert changes["body"]["content"] == "bold"
