"""The fake Graph's upload sessions, drafts of replies, and non-delivery reports."""

from __future__ import annotations

import base64
import email
from typing import Any

import pytest
import requests

from local.fake_graph.process import FakeGraph
from tests.fake_graph.conftest import DISPATCH, DRIVER, Client, error_code

MESSAGES = f"/users/{DISPATCH}/messages"
SIZE = 4_000_000
HALF = SIZE // 2


@pytest.fixture
def draft(app: Client) -> str:
    return str(
        app.post(MESSAGES, {"subject": "s", "toRecipients": [{"emailAddress": {"address": DRIVER}}]}).json()["id"]
    )


@pytest.fixture
def url(app: Client, draft: str) -> str:
    return str(begin(app, draft).json()["uploadUrl"])


def begin(app: Client, draft: str, size: int = SIZE) -> requests.Response:
    item = {"attachmentType": "file", "name": "a.bin", "size": size}
    return app.post(f"{MESSAGES}/{draft}/attachments/createUploadSession", {"AttachmentItem": item})


def put(session: requests.Session, url: str, start: int, content: bytes, **headers: str) -> requests.Response:
    content_range = f"bytes {start}-{start + len(content) - 1}/{SIZE}"
    return session.put(url, data=content, headers={"Content-Range": content_range} | headers, timeout=20)


def test_chunks_in_order_make_an_attachment(app: Client, session: requests.Session, draft: str, url: str) -> None:
    first = put(session, url, 0, b"a" * HALF)
    assert (first.status_code, first.json()["nextExpectedRanges"]) == (200, [str(HALF)])
    assert session.get(url, timeout=20).json()["nextExpectedRanges"] == [str(HALF)]
    last = put(session, url, HALF, b"b" * HALF)
    assert last.status_code == 201 and "/Attachments('" in last.headers["Location"]
    (item,) = app.get(f"{MESSAGES}/{draft}/attachments").json()["value"]
    assert base64.b64decode(item["contentBytes"]) == b"a" * HALF + b"b" * HALF
    assert session.get(url, timeout=20).status_code == 404
    assert app.graph.violations() == []


def test_a_chunk_out_of_order_is_416_and_no_violation(app: Client, session: requests.Session, url: str) -> None:
    put(session, url, 0, b"a" * HALF)
    assert put(session, url, 0, b"a" * HALF).status_code == 416
    assert app.graph.violations() == []


def test_a_token_on_an_upload_url_is_401_and_a_violation(app: Client, session: requests.Session, url: str) -> None:
    assert put(session, url, 0, b"a", Authorization=f"Bearer {app.token}").status_code == 401
    assert len(app.graph.violations()) == 1


def test_a_chunk_of_four_megabytes_is_too_large(app: Client, session: requests.Session, draft: str) -> None:
    large = begin(app, draft, 5_000_000).json()["uploadUrl"]
    headers = {"Content-Range": f"bytes 0-{4 * 1024 * 1024 - 1}/5000000"}
    assert session.put(large, data=b"a" * (4 * 1024 * 1024), headers=headers, timeout=20).status_code == 413
    assert len(app.graph.violations()) == 1


def test_a_cut_chunk_is_kept_in_part(app: Client, session: requests.Session, url: str) -> None:
    app.graph.control("POST", "uploads", {"cutAfter": 10})
    with pytest.raises(requests.ConnectionError):
        put(session, url, 0, b"a" * HALF)
    assert session.get(url, timeout=20).json()["nextExpectedRanges"] == ["10"]


def test_sessions_end_when_they_are_cancelled_or_expire(app: Client, session: requests.Session, draft: str) -> None:
    one, other = (begin(app, draft).json()["uploadUrl"] for _ in range(2))
    assert session.delete(one, timeout=20).status_code == 204
    assert session.get(one, timeout=20).status_code == 404
    assert app.graph.control("POST", "uploads", {"expire": True}) == {"expired": 1}
    assert session.get(other, timeout=20).status_code == 404


def test_a_small_file_gets_no_session(app: Client, draft: str) -> None:
    assert error_code(begin(app, draft, 2_999_999)) == "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"


def test_the_token_of_an_upload_url_is_in_no_record(app: Client, session: requests.Session, url: str) -> None:
    put(session, url, 0, b"a" * HALF)
    assert url.partition("authtoken=")[2] not in str(app.graph.requests())


def test_a_reply_takes_a_comment_or_a_body_and_no_extended_properties(app: Client, draft: str) -> None:
    body = {"contentType": "text", "content": "x"}
    both = {"comment": "c", "message": {"body": body}}
    marked = {"message": {"singleValueExtendedProperties": [{"id": "String 0x1042", "value": "v"}]}}
    for refused in (both, marked, {"text": "c"}):
        assert app.post(f"{MESSAGES}/{draft}/createReply", refused).status_code == 400
    assert (
        app.post(f"{MESSAGES}/{draft}/createReply", {"comment": "<c>"}).json()["body"]["content"].count("&lt;c&gt;")
        == 1
    )


def test_a_non_delivery_report_has_exchanges_form(app: Client, graph: FakeGraph) -> None:
    to: list[dict[str, Any]] = [{"emailAddress": {"address": address}} for address in ("nobody@fleet.example", DRIVER)]
    message = {"subject": "Ä", "toRecipients": to, "body": {"contentType": "text", "content": "b"}}
    app.post(f"/users/{DISPATCH}/sendMail", {"message": message})
    (sent,) = graph.mailbox(DISPATCH, "sentitems")
    (report,) = graph.mailbox(DISPATCH, "inbox")
    assert report["subject"] == "Undeliverable: Ä"
    headers = {header["name"].lower() for header in report["internetMessageHeaders"]}
    assert {"x-ms-exchange-message-is-ndr", "in-reply-to", "auto-submitted"} <= headers
    parsed = email.message_from_bytes(app.get(f"{MESSAGES}/{report['id']}/$value").content)
    assert parsed.get_content_type() == "multipart/report" and parsed["In-Reply-To"] == sent["internetMessageId"]
    kinds = [part.get_content_type() for part in parsed.get_payload() if isinstance(part, email.message.Message)]
    assert kinds == ["multipart/alternative", "message/delivery-status", "message/rfc822"]
    assert len(graph.mailbox(DRIVER, "inbox")) == 1
