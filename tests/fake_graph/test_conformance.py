"""Recorded requests and answers against a slice of Microsoft's OpenAPI description, where that is at hand."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from openapi_core import OpenAPI
from openapi_core.templating.paths.exceptions import PathNotFound

from local.certificate import self_signed
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CHANNEL, CHAT, DRIVER, TEAM
from shared.graph.rich import read_certificate
from tests.fake_graph.conftest import DISPATCH, Client, Webhook
from tests.fake_graph.openapi import DESCRIPTION, Recorded, fault_of, load_description, post_fault
from tests.fake_graph.test_subscriptions import MAIL, wanted, within

MESSAGES = f"/users/{DISPATCH}/messages"
PROPERTY = "String {66f5a359-4659-4830-9070-00047ec6ac6e} Name JobId"


@pytest.fixture(scope="module")
def description() -> OpenAPI:
    if not DESCRIPTION.is_file():
        pytest.skip(f"the OpenAPI description is not at hand ({DESCRIPTION})")
    return load_description()


def mail_session(app: Client, user: Client, webhook: Webhook) -> None:
    file = {"@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentType": "text/plain"}
    file["contentBytes"] = base64.b64encode(b"text").decode()
    message = {
        "subject": "s",
        "body": {"contentType": "html", "content": "<p>x</p>"},
        "importance": "high",
        "toRecipients": [{"emailAddress": {"address": "alex.driver@fleet.example", "name": "Alex"}}],
        "internetMessageHeaders": [{"name": "x-job", "value": "1"}],
        "singleValueExtendedProperties": [{"id": PROPERTY, "value": "1"}],
        "attachments": [file],
    }
    draft = app.post(MESSAGES, message).json()["id"]
    app.post(f"{MESSAGES}/{draft}/attachments", file)
    app.get(f"{MESSAGES}/{draft}", select="id,subject", expand="attachments")
    app.get(f"{MESSAGES}/{draft}", expand=f"singleValueExtendedProperties($filter=id eq '{PROPERTY}')")
    attachments = app.get(f"{MESSAGES}/{draft}/attachments").json()["value"]
    app.get(f"{MESSAGES}/{draft}/attachments", select="id,name,microsoft.graph.fileAttachment/contentId")
    app.get(f"{MESSAGES}/{draft}/attachments/{attachments[0]['id']}")
    app.get(f"{MESSAGES}/{draft}/attachments/{attachments[0]['id']}", expand="microsoft.graph.itemattachment/item")
    app.get(f"{MESSAGES}/{draft}/attachments/{attachments[0]['id']}/$value")
    app.call("DELETE", f"{MESSAGES}/{draft}/attachments/{attachments[1]['id']}")
    item = {"attachmentType": "file", "name": "b.bin", "size": 3_000_000, "contentType": "text/plain"}
    app.post(f"{MESSAGES}/{draft}/attachments/createUploadSession", {"AttachmentItem": item})
    app.call("PATCH", f"{MESSAGES}/{draft}", {"subject": "t"})
    app.post(f"{MESSAGES}/{draft}/send")
    app.post(f"/users/{DISPATCH}/sendMail", {"message": message, "saveToSentItems": True})
    mark = f"singleValueExtendedProperties/Any(ep: ep/id eq '{PROPERTY}' and ep/value eq '1')"
    app.get(MESSAGES, filter=mark, select="id,isDraft", top="5")
    arrived = app.graph.arrive_mail(DISPATCH, MAIL)
    app.get(f"/users/{DISPATCH}/mailFolders/inbox/messages", orderby="receivedDateTime desc")
    app.get(f"/users/{DISPATCH}/mailFolders")
    app.post(f"{MESSAGES}/{arrived}/move", {"destinationId": "deleteditems"})
    app.call("DELETE", f"{MESSAGES}/{arrived}")
    app.get(f"{MESSAGES}/{arrived}")


def teams_session(app: Client, user: Client, webhook: Webhook) -> None:
    mentioned = {"user": {"id": DRIVER, "displayName": "Alex", "userIdentityType": "aadUser"}}
    message = {
        "body": {"contentType": "html", "content": '<at id="0">Alex</at>'},
        "importance": "urgent",
        "mentions": [{"id": 0, "mentionText": "Alex", "mentioned": mentioned}],
    }
    app.get(f"/chats/{CHAT}")
    for path in (f"/chats/{CHAT}/messages", f"/teams/{TEAM}/channels/{CHANNEL}/messages"):
        posted = user.post(path, message).json()["id"]
        user.post(path, {"body": {"content": "x"}})
        app.get(path, top="1")
        app.get(f"{path}/{posted}")
    app.get(f"/chats/{CHAT}/messages", orderby="createdDateTime desc")
    channel = f"/teams/{TEAM}/channels/{CHANNEL}/messages"
    reply = user.post(f"{channel}/{posted}/replies", message).json()["id"]
    app.get(f"{channel}/{posted}/replies")
    app.get(f"{channel}/{posted}/replies/{reply}")
    app.get(channel, expand="replies")
    user.get("/chats/19:none@thread.v2")


def activity_session(app: Client, user: Client, webhook: Webhook) -> None:
    body = {
        "activityType": "systemDefault",
        "chainId": 7,
        "previewText": {"content": "x"},
        "templateParameters": [{"name": "systemDefaultText", "value": "x"}],
    }
    text = {"topic": {"source": "text", "value": "t", "webUrl": "https://teams.example/l"}}
    app.post(f"/users/{DRIVER}/teamwork/sendActivityNotification", body | text)
    people = {"@odata.type": "#microsoft.graph.aadUserNotificationRecipient", "userId": DRIVER}
    app.post("/teamwork/sendActivityNotificationToRecipients", body | text | {"recipients": [people]})
    chat = {"topic": {"source": "entityUrl", "value": f"https://graph.microsoft.com/v1.0/chats/{CHAT}"}}
    members = {"@odata.type": "#microsoft.graph.chatMembersNotificationRecipient", "chatId": CHAT}
    app.post(f"/chats/{CHAT}/sendActivityNotification", body | chat | {"recipient": members})
    team = {"topic": {"source": "entityUrl", "value": f"https://graph.microsoft.com/v1.0/teams/{TEAM}"}}
    members = {"@odata.type": "#microsoft.graph.teamMembersNotificationRecipient", "teamId": TEAM}
    app.post(f"/teams/{TEAM}/sendActivityNotification", body | team | {"recipient": members})


def subscription_session(app: Client, user: Client, webhook: Webhook) -> None:
    body = wanted(webhook, f"/chats/{CHAT}/messages", 600, lifecycleNotificationUrl=webhook.url)
    subscription = app.post("/subscriptions", body).json()["id"]
    app.post("/subscriptions", body)
    app.get("/subscriptions")
    app.get(f"/subscriptions/{subscription}", select="id")
    app.call("PATCH", f"/subscriptions/{subscription}", {"expirationDateTime": within(700)})
    app.graph.control("POST", "clock", {"ahead": 601})
    app.post(f"/subscriptions/{subscription}/reauthorize")
    for resource in ("events", "contacts", "drive/root"):
        kinds = "updated" if resource == "drive/root" else "created,deleted"
        app.post("/subscriptions", wanted(webhook, f"users/{DISPATCH}/{resource}", changeType=kinds))
    app.call("DELETE", f"/subscriptions/{subscription}")
    app.call("DELETE", f"/subscriptions/{subscription}")


def delta_session(app: Client, user: Client, webhook: Webhook) -> None:
    graph = app.graph
    folder = graph.control("POST", "contact-folders", {"user": DISPATCH, "name": "Drivers"})["id"]
    times = {name: {"dateTime": "2026-12-01T08:00:00", "timeZone": "UTC"} for name in ("start", "end")}
    gone = [graph.put_contact(DISPATCH, displayName="a"), graph.put_event(DISPATCH, **times)]
    file = graph.put_drive_item(DISPATCH, name="a")
    window = {"startDateTime": "2026-01-01T00:00:00Z", "endDateTime": "2027-01-01T00:00:00Z"}
    links = []
    for n in range(12):
        graph.put_contact(DISPATCH, displayName="b", emailAddresses=[{"address": "b@c.example", "name": "B"}])
        graph.put_contact(DISPATCH, displayName="c", parentFolderId=folder)
        graph.put_event(
            DISPATCH, start=times["start"], end={"dateTime": f"2026-12-01T{9 + n:02d}:00:00", "timeZone": "UTC"}
        )
        graph.put_drive_item(DISPATCH, name=f"f{n}")
        app.graph.arrive_mail(DISPATCH, MAIL)
        graph.arrive_chat_message("alex.driver@fleet.example", "x", chat=CHAT)
        graph.arrive_chat_message("alex.driver@fleet.example", "x", team=TEAM, channel=CHANNEL)
    drive = app.get(f"/users/{DISPATCH}/drive", select="id").json()["id"]
    since = "lastModifiedDateTime gt 2026-01-01T00:00:00Z and lastModifiedDateTime lt 2036-01-01T00:00:00Z"
    app.get(f"/users/{DISPATCH}/chats/getAllMessages", top="5", filter=since)
    app.get(f"/teams/{TEAM}/channels/getAllMessages", top="5", filter=since)
    for path, query in (
        (f"/users/{DISPATCH}/mailFolders/delta", {}),
        (f"/users/{DISPATCH}/mailFolders/inbox/messages/delta", {"$select": "id,subject"}),
        (f"/users/{DISPATCH}/calendarView/delta", window),
        (f"/users/{DISPATCH}/contacts/delta", {}),
        (f"/users/{DISPATCH}/contactFolders/delta", {}),
        (f"/users/{DISPATCH}/contactFolders/{folder}/contacts/delta", {}),
        (f"/drives/{drive}/root/delta", {"$top": "5"}),
    ):
        page = app.call("GET", path, params=query).json()
        while "@odata.nextLink" in page:
            page = app.call("GET", page["@odata.nextLink"].removeprefix(graph.graph_url)).json()
        links.append(page["@odata.deltaLink"].removeprefix(graph.graph_url))
    graph.control("POST", "contacts/delete", {"user": DISPATCH, "id": gone[0]})
    graph.control("POST", "events/delete", {"user": DISPATCH, "id": gone[1]})
    graph.control("POST", "drive-items/delete", {"owner": DISPATCH, "id": file})
    for link in links:
        app.call("GET", link)
    graph.expire_deltas()
    for link in links:
        app.call("GET", link)


def rich_session(app: Client, user: Client, webhook: Webhook) -> None:
    public = read_certificate(self_signed()).public
    body = wanted(
        webhook, f"/chats/{CHAT}/messages", 600, lifecycleNotificationUrl=webhook.url, includeResourceData=True,
        encryptionCertificate=public.base64, encryptionCertificateId=public.id,
    )  # fmt: skip
    subscription = app.post("/subscriptions", body).json()["id"]
    other = read_certificate(self_signed()).public
    change = {"encryptionCertificate": other.base64, "encryptionCertificateId": other.id}
    app.call("PATCH", f"/subscriptions/{subscription}", change | {"expirationDateTime": within(700)})
    app.get(f"/subscriptions/{subscription}")


def notified_session(app: Client, user: Client, webhook: Webhook) -> None:
    """Everything that can be subscribed to changes, with and without its data."""
    graph = app.graph
    public = read_certificate(self_signed()).public
    encrypted = {"encryptionCertificate": public.base64, "encryptionCertificateId": public.id}
    of_user = {name: f"users/{DISPATCH}/{name}" for name in ("messages", "events", "contacts", "drive/root")}
    channel = f"teams/{TEAM}/channels/{CHANNEL}/messages"
    for resource in (*of_user.values(), f"chats/{CHAT}/messages", channel):
        kinds = "updated" if resource.endswith("root") else "created,updated,deleted"
        body = wanted(webhook, resource, changeType=kinds, lifecycleNotificationUrl=webhook.url)
        subscription = app.post("/subscriptions", body).json()["id"]
    for resource in (of_user["messages"], of_user["events"], of_user["contacts"]):
        body = wanted(webhook, f"{resource}?$select=id", changeType="deleted,created", includeResourceData=True)
        app.post("/subscriptions", body | encrypted)
    graph.set_automatic_delivery(False)
    graph.arrive_mail(DISPATCH, MAIL)
    graph.arrive_chat_message("alex.driver@fleet.example", "x", chat=CHAT)
    graph.arrive_chat_message("alex.driver@fleet.example", "x", team=TEAM, channel=CHANNEL)
    event, contact = graph.put_event(DISPATCH), graph.put_contact(DISPATCH)
    file = graph.put_drive_item(DISPATCH, name="a")
    for kind, owner, gone in (("events", "user", event), ("contacts", "user", contact), ("drive-items", "owner", file)):
        graph.control("POST", f"{kind}/delete", {owner: DISPATCH, "id": gone})
    graph.deliver()
    graph.control("POST", "lifecycle", {"subscription": subscription, "event": "reauthorizationRequired"})


def error_session(app: Client, user: Client, webhook: Webhook) -> None:
    app.graph.add_fault("status", status=429, headers={"Retry-After": "2"})
    app.get(MESSAGES)
    app.graph.add_fault("status", status=503, headers={"Retry-After": "2"})
    app.get(MESSAGES)
    app.graph.add_fault("claims-challenge")
    app.get(MESSAGES)


@pytest.mark.parametrize(
    "session_of",
    [
        mail_session, teams_session, activity_session, subscription_session, rich_session, delta_session,
        notified_session, error_session,
    ],
)  # fmt: skip
def test_recorded_requests_and_answers_conform(
    graph: FakeGraph,
    app: Client,
    user: Client,
    webhook: Webhook,
    description: OpenAPI,
    session_of: Callable[[Client, Client, Webhook], None],
) -> None:
    session_of(app, user, webhook)
    entries = [entry for entry in graph.requests() if entry["path"].startswith("/v1.0/")]
    assert len(entries) >= 3
    assert [fault for entry in entries if (fault := fault_of(description, entry))] == []
    assert [fault for post in webhook.posts if (fault := post_fault(post))] == []
    assert graph.violations() == []


def test_the_check_finds_what_is_wrong(graph: FakeGraph, app: Client, description: OpenAPI) -> None:
    app.post(MESSAGES, {"subject": "s"})
    entry = graph.requests()[-1]
    assert fault_of(description, entry) is None
    assert fault_of(description, entry | {"body": {"subject": 1}}) is not None
    assert fault_of(description, entry | {"answer": {"subject": 1}}) is not None
    assert fault_of(description, entry | {"status": 202}) is not None
    assert post_fault({"value": [{"planet": "x"}]}) is not None
    with pytest.raises(PathNotFound):
        description.validate_request(Recorded(entry | {"path": "/v1.0/planets"}))
