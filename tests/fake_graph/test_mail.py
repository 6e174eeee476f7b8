"""Mailboxes: drafts, sending, finding by an extended property, attachments, MIME."""

from __future__ import annotations

import base64
from email.message import EmailMessage
from typing import Any

import pytest
import requests

from local.fake_graph.process import FakeGraph
from local.fake_graph.state import DISPATCH as DISPATCH_ID
from local.process import wait_until
from tests.fake_graph.conftest import DISPATCH, DRIVER, Client, error_code

MESSAGES = f"/users/{DISPATCH}/messages"
PROPERTY = "String {66f5a359-4659-4830-9070-00047ec6ac6e} Name JobId"


def to(*addresses: str) -> list[dict[str, Any]]:
    return [{"emailAddress": {"address": address}} for address in addresses]


def message(**more: Any) -> dict[str, Any]:
    body = {"contentType": "HTML", "content": "<p>Grüße &amp; Küsse</p>"}
    return {"subject": "Termin", "body": body, "toRecipients": to(DRIVER), **more}


def find(value: str, name: str = PROPERTY) -> str:
    return f"singleValueExtendedProperties/Any(ep: ep/id eq '{name}' and ep/value eq '{value}')"


def attachment(content: bytes, name: str = "a.txt", **more: Any) -> dict[str, Any]:
    encoded = base64.b64encode(content).decode()
    kind = {"@odata.type": "#microsoft.graph.fileAttachment"}
    return kind | {"name": name, "contentType": "text/plain", "contentBytes": encoded, **more}


@pytest.mark.usefixtures("no_violations")
def test_a_draft_is_sent_and_arrives(graph: FakeGraph, app: Client) -> None:
    draft = app.post(
        MESSAGES,
        message(
            bccRecipients=to("queue@fleet.example", "outside@elsewhere.example"),
            internetMessageHeaders=[{"name": "x-job", "value": "7"}],
            singleValueExtendedProperties=[{"id": PROPERTY, "value": "job-7"}],
            attachments=[attachment(b"text")],
        ),
    )
    assert draft.status_code == 201
    assert draft.json()["isDraft"] is True
    assert "singleValueExtendedProperties" not in draft.json()
    sent = app.post(f"{MESSAGES}/{draft.json()['id']}/send")
    assert (sent.status_code, sent.content, sent.headers["content-length"]) == (202, b"", "0")
    (kept,) = graph.mailbox(DISPATCH)
    assert (kept["folder"], kept["isDraft"], kept["immutableId"]) == ("sentitems", False, draft.json()["id"])
    for recipient in (DRIVER, "queue@fleet.example"):
        (arrived,) = graph.mailbox(recipient, "inbox")
        assert arrived["internetMessageId"] == kept["internetMessageId"]
        assert arrived["isRead"] is False
        assert arrived["bccRecipients"] == []
        assert arrived["singleValueExtendedProperties"] == []
        assert arrived["internetMessageHeaders"] == [{"name": "x-job", "value": "7"}]
        assert [item["name"] for item in arrived["attachments"]] == ["a.txt"]
        assert arrived["bodyPreview"] == "Grüße & Küsse"


def test_the_immutable_id_outlives_sending_and_the_plain_one_does_not(graph: FakeGraph, app: Client) -> None:
    immutable = app.post(MESSAGES, message()).json()["id"]
    app.prefer = ""
    listed = app.get(MESSAGES).json()["value"]
    plain = listed[0]["id"]
    assert plain != immutable
    assert app.get(f"{MESSAGES}/{plain}").status_code == 200
    assert app.post(f"{MESSAGES}/{plain}/send").status_code == 202
    gone = app.get(f"{MESSAGES}/{plain}")
    assert (gone.status_code, error_code(gone)) == (404, "ErrorItemNotFound")
    assert app.get(f"{MESSAGES}/{immutable}").status_code == 200
    app.prefer = 'IdType="ImmutableId"'
    answer = app.get(f"{MESSAGES}/{immutable}")
    assert answer.headers["Preference-Applied"] == 'IdType="ImmutableId"'
    assert answer.json()["id"] == immutable


def test_sending_twice_is_refused(graph: FakeGraph, app: Client) -> None:
    draft = app.post(MESSAGES, message()).json()["id"]
    assert [app.post(f"{MESSAGES}/{draft}/send").status_code for _ in range(2)] == [202, 400]
    assert len(graph.mailbox(DRIVER)) == 1


def test_a_slow_transport_leaves_a_draft_for_a_while(graph: FakeGraph, app: Client) -> None:
    graph.control("POST", "transport", {"seconds": 0.3})
    draft = app.post(MESSAGES, message()).json()["id"]
    assert app.post(f"{MESSAGES}/{draft}/send").status_code == 202
    assert app.get(f"{MESSAGES}/{draft}").json()["isDraft"] is True
    assert app.post(f"{MESSAGES}/{draft}/send").status_code == 400
    assert wait_until(lambda: app.get(f"{MESSAGES}/{draft}").json()["isDraft"] is False, 5)
    assert len(graph.mailbox(DRIVER)) == 1


@pytest.mark.usefixtures("no_violations")
def test_a_message_is_found_by_its_extended_property_in_all_folders(graph: FakeGraph, app: Client) -> None:
    ids = []
    for number in range(3):
        marks = [{"id": PROPERTY, "value": f"Job-{number}"}]
        ids.append(app.post(MESSAGES, message(singleValueExtendedProperties=marks)).json()["id"])
    app.post(f"{MESSAGES}/{ids[1]}/send")
    found = app.get(MESSAGES, filter=find("job-1"), select="id,isDraft").json()["value"]
    assert [(item["id"], item["isDraft"]) for item in found] == [(ids[1], False)]
    assert set(found[0]) == {"id", "isDraft", "@odata.etag"}
    folder = f"/users/{DISPATCH_ID}/mailFolders('sentitems')/messages"
    assert len(app.get(folder, filter=find("Job-1")).json()["value"]) == 1
    assert app.get(folder.replace("sentitems", "drafts"), filter=find("Job-1")).json()["value"] == []
    # The name is compared exactly, its GUID without case or braces.
    assert app.get(MESSAGES, filter=find("Job-1", PROPERTY.replace("JobId", "jobid"))).json()["value"] == []
    assert app.get(MESSAGES, filter=find("Job'1".replace("'", "''"))).json()["value"] == []


@pytest.mark.usefixtures("no_violations")
def test_expand_shows_the_extended_property_that_is_asked_for(app: Client) -> None:
    other = PROPERTY.replace("JobId", "Other")
    marks = [{"id": PROPERTY, "value": "1"}, {"id": other, "value": "2"}]
    draft = app.post(MESSAGES, message(singleValueExtendedProperties=marks)).json()["id"]
    expand = f"singleValueExtendedProperties($filter=id eq '{PROPERTY}'),attachments"
    shown = app.get(f"{MESSAGES}/{draft}", expand=expand, select="subject").json()
    assert shown["singleValueExtendedProperties"] == [{"id": PROPERTY, "value": "1"}]
    assert shown["attachments"] == []
    assert "body" not in shown


@pytest.mark.usefixtures("no_violations")
def test_lists_are_filtered_ordered_and_paged(app: Client) -> None:
    for number in range(5):
        app.post(MESSAGES, message(subject=f"s{number}"))
    listed = app.get(MESSAGES, orderby="subject desc", top="2", filter="isDraft eq true", count="true").json()
    assert [item["subject"] for item in listed["value"]] == ["s4", "s3"]
    assert listed["@odata.count"] == 5
    pages = [listed]
    while "@odata.nextLink" in pages[-1]:
        path = pages[-1]["@odata.nextLink"].removeprefix(app.graph.graph_url)
        pages.append(app.call("GET", path).json())
    assert [item["subject"] for page in pages for item in page["value"]] == ["s4", "s3", "s2", "s1", "s0"]
    query = {"filter": "subject eq 's1' and from/emailAddress/address eq 'dispatch@fleet.example'"}
    assert [item["subject"] for item in app.get(MESSAGES, **query).json()["value"]] == ["s1"]
    assert app.get(MESSAGES, filter="receivedDateTime lt 2020-01-01T00:00:00Z").json()["value"] == []


@pytest.mark.usefixtures("no_violations")
def test_attachments_are_added_listed_read_and_deleted(graph: FakeGraph, app: Client) -> None:
    draft = app.post(MESSAGES, message()).json()["id"]
    path = f"{MESSAGES}/{draft}/attachments"
    added = app.post(path, attachment(b"\x00\xff", "ü.bin", contentType="application/octet-stream"))
    assert (added.status_code, added.json()["size"]) == (201, 2)
    inline = app.post(path, attachment(b"gif", isInline=True, contentId="logo")).json()
    assert app.get(f"{MESSAGES}/{draft}").json()["hasAttachments"] is True
    listed = app.get(path, select="id,name").json()["value"]
    assert [item["name"] for item in listed] == ["ü.bin", "a.txt"]
    assert base64.b64decode(app.get(f"{path}/{added.json()['id']}").json()["contentBytes"]) == b"\x00\xff"
    raw = app.get(f"{path}/{added.json()['id']}/$value")
    assert (raw.content, raw.headers["content-type"]) == (b"\x00\xff", "application/octet-stream")
    assert app.call("DELETE", f"{path}/{added.json()['id']}").status_code == 204
    # An inline image alone does not count.
    assert app.get(f"{MESSAGES}/{draft}").json()["hasAttachments"] is False
    assert inline["contentId"] == "logo"


def test_an_attachment_of_3_mb_is_too_large(app: Client) -> None:
    draft = app.post(MESSAGES, message()).json()["id"]
    answer = app.post(f"{MESSAGES}/{draft}/attachments", attachment(bytes(3 * 1024 * 1024)))
    assert (answer.status_code, app.graph.violations()) == (413, [])


@pytest.mark.usefixtures("no_violations")
def test_patch_delete_and_move(graph: FakeGraph, app: Client) -> None:
    path = f"{MESSAGES}/{app.post(MESSAGES, message()).json()['id']}"
    etag = app.get(path).json()["@odata.etag"]
    changed = app.call("PATCH", path, {"subject": "neu", "isRead": True}).json()
    assert changed["subject"] == "neu"
    assert changed["@odata.etag"] != etag
    moved = app.post(f"{path}/move", {"destinationId": "inbox"})
    assert (moved.status_code, graph.mailbox(DISPATCH)[0]["folder"]) == (201, "inbox")
    assert app.call("DELETE", path).status_code == 204
    assert graph.mailbox(DISPATCH)[0]["folder"] == "deleteditems"
    assert app.call("DELETE", path).status_code == 204
    assert app.get(path).status_code == 404


def test_a_sent_message_keeps_its_text(app: Client) -> None:
    path = f"{MESSAGES}/{app.post(MESSAGES, message()).json()['id']}"
    app.post(f"{path}/send")
    assert app.call("PATCH", path, {"subject": "neu"}).status_code == 400
    assert app.call("PATCH", path, {"categories": ["rot"]}).json()["categories"] == ["rot"]


@pytest.mark.usefixtures("no_violations")
def test_send_mail_sends_and_saves(graph: FakeGraph, app: Client) -> None:
    sent = app.post(f"/users/{DISPATCH}/sendMail", {"message": message()})
    assert (sent.status_code, sent.content) == (202, b"")
    unsaved = app.post(f"/users/{DISPATCH}/sendMail", {"message": message(), "saveToSentItems": False})
    assert unsaved.status_code == 202
    assert len(graph.mailbox(DISPATCH, "sentitems")) == 1
    assert len(graph.mailbox(DRIVER, "inbox")) == 2


def test_send_mail_takes_base64_mime(graph: FakeGraph, app: Client) -> None:
    mime = EmailMessage()
    mime["From"], mime["To"], mime["Subject"] = DISPATCH, DRIVER, "Überfällig"
    mime.set_content("Text")
    path = f"/users/{DISPATCH}/sendMail"
    plain = {"Content-Type": "text/plain"}
    assert app.call("POST", path, data=base64.b64encode(mime.as_bytes()), headers=plain).status_code == 202
    (arrived,) = graph.mailbox(DRIVER)
    assert (arrived["subject"], arrived["body"]["contentType"]) == ("Überfällig", "text")
    refused = app.call("POST", path, data=b"no base64!", headers=plain)
    assert error_code(refused) == "ErrorMimeContentInvalidBase64String"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"toRecipients": []}, 400, "ErrorInvalidRecipients"),
        ({"toRecipients": to("nobody")}, 400, "ErrorInvalidRecipients"),
        ({"from": to(DRIVER)[0]}, 403, "ErrorSendAsDenied"),
    ],
)
def test_what_cannot_be_sent_stays_a_draft(
    graph: FakeGraph, app: Client, change: dict[str, Any], status: int, code: str
) -> None:
    draft = app.post(MESSAGES, message(**change)).json()["id"]
    answer = app.post(f"{MESSAGES}/{draft}/send")
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert graph.mailbox(DISPATCH)[0]["isDraft"] is True
    assert graph.mailbox(DRIVER) == []


def test_an_arriving_mail_is_parsed(graph: FakeGraph, app: Client) -> None:
    mime = EmailMessage()
    mime["From"], mime["To"] = "Jürgen <kunde@elsewhere.example>", f"{DISPATCH}, b@elsewhere.example"
    mime["Subject"], mime["Message-ID"] = "Anfrage 🚚", "<abc@elsewhere.example>"
    mime["Date"] = "Tue, 24 Nov 2026 10:00:00 +0100"
    mime.set_content("plain text")
    mime.add_alternative('<p>Hallo</p><img src="cid:logo">', subtype="html")
    html = mime.get_payload(1)
    assert isinstance(html, EmailMessage)
    html.add_related(b"GIF89a", "image", "gif", cid="<logo>", disposition="inline", filename="logo.gif")
    mime.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Ölwechsel.pdf")
    inner = EmailMessage()
    inner["Subject"] = "weitergeleitet"
    inner.set_content("innen")
    mime.add_attachment(inner)
    mail_id = graph.arrive_mail(DISPATCH, mime.as_bytes())
    inbox = f"/users/{DISPATCH}/mailFolders/inbox/messages"
    (listed,) = app.get(inbox).json()["value"]
    assert (listed["subject"], listed["isRead"], listed["isDraft"]) == ("Anfrage 🚚", False, False)
    assert listed["from"]["emailAddress"] == {"name": "Jürgen", "address": "kunde@elsewhere.example"}
    assert listed["sentDateTime"] == "2026-11-24T09:00:00Z"
    assert listed["internetMessageId"] == "<abc@elsewhere.example>"
    assert listed["body"]["contentType"] == "html"
    assert listed["hasAttachments"] is True
    attachments = app.get(f"{MESSAGES}/{mail_id}/attachments").json()["value"]
    assert [(item["name"], item["isInline"]) for item in attachments] == [
        ("logo.gif", True), ("Ölwechsel.pdf", False), ("weitergeleitet", False),
    ]  # fmt: skip
    assert attachments[0]["contentId"] == "logo"
    assert attachments[2]["@odata.type"] == "#microsoft.graph.itemAttachment"
    value = app.get(f"{MESSAGES}/{mail_id}/attachments/{attachments[2]['id']}/$value")
    assert b"Subject: weitergeleitet" in value.content
    app.prefer = 'outlook.body-content-type="text"'
    assert app.get(f"{MESSAGES}/{mail_id}").json()["body"] == {"contentType": "text", "content": "Hallo"}
    mime_again = app.get(f"{MESSAGES}/{mail_id}/$value")
    assert b"Message-ID: <abc@elsewhere.example>" in mime_again.content


def test_unknown_users_and_messages(app: Client) -> None:
    assert error_code(app.get("/users/nobody@fleet.example/messages")) == "Request_ResourceNotFound"
    assert error_code(app.get(f"{MESSAGES}/AAMkAD")) == "ErrorItemNotFound"


def test_folders_are_listed(app: Client) -> None:
    app.post(MESSAGES, message())
    folders = app.get(f"/users/{DISPATCH}/mailFolders").json()["value"]
    counts = {folder["displayName"]: folder["totalItemCount"] for folder in folders}
    assert counts["Drafts"] == 1
    assert app.graph.violations() == []
    drafts = next(folder["id"] for folder in folders if folder["displayName"] == "Drafts")
    assert len(app.get(f"/users/{DISPATCH}/mailFolders/{drafts}/messages").json()["value"]) == 1


def refused(response: requests.Response) -> tuple[int, str]:
    return response.status_code, error_code(response)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"internetMessageHeaders": [{"name": "Priority", "value": "1"}]}, "InvalidInternetMessageHeader"),
        ({"singleValueExtendedProperties": [{"id": "JobId", "value": "1"}]}, "ErrorInvalidProperty"),
        ({"attachments": [attachment(b"x") | {"contentBytes": "%%%"}]}, "RequestBodyRead"),
    ],
)
def test_what_a_draft_may_not_hold(app: Client, change: dict[str, Any], code: str) -> None:
    assert refused(app.post(MESSAGES, message(**change))) == (400, code)
    assert len(app.graph.violations()) == 1
