"""Subscriptions: handshake, limits of lifetime, duplicates, renewal; and the delivery of notifications."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.fake_graph.checks import Checks
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CHANNEL, CHAT, DRIVER, TEAM, TENANT
from local.fake_graph.state import DISPATCH as DISPATCH_ID
from tests.fake_graph.conftest import DISPATCH, SCHEMAS, Client, Webhook, error_code

INBOX = f"/users/{DISPATCH}/mailFolders('inbox')/messages"
MAIL = b"From: a@elsewhere.example\r\nTo: dispatch@fleet.example\r\nSubject: s\r\n\r\ntext\r\n"


def within(minutes: float) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def wanted(webhook: Webhook, resource: str = INBOX, minutes: float = 60, **more: Any) -> dict[str, Any]:
    return {
        "changeType": "created",
        "notificationUrl": webhook.url,
        "resource": resource,
        "expirationDateTime": within(minutes),
        "clientState": "state-of-ours",
        **more,
    }


@pytest.mark.usefixtures("no_violations")
def test_creation_shakes_hands_with_both_addresses(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    created = app.post("/subscriptions", wanted(webhook, lifecycleNotificationUrl=f"{webhook.url}/lifecycle?code=1"))
    assert created.status_code == 201
    assert [path.partition("?")[0] for path in webhook.handshakes] == [
        "/api/webhooks/graph", "/api/webhooks/graph/lifecycle",
    ]  # fmt: skip
    assert "?code=1&validationToken=" in webhook.handshakes[1]
    assert "%20" in webhook.handshakes[0]
    body = created.json()
    assert (body["clientState"], body["resource"]) == ("state-of-ours", INBOX)
    assert app.get(f"/subscriptions/{body['id']}").json()["clientState"] is None
    assert [item["id"] for item in app.get("/subscriptions").json()["value"]] == [body["id"]]
    assert [item["id"] for item in graph.subscriptions()] == [body["id"]]


@pytest.mark.usefixtures("no_violations")
@pytest.mark.parametrize(
    "answer",
    [
        lambda token: (200, "text/html", token),
        lambda token: (202, "text/plain", token),
        lambda token: (200, "text/plain", token.replace(" ", "%20")),
        lambda _: (404, "text/plain", ""),
    ],
    ids=["html", "202", "encoded", "404"],
)
def test_a_wrong_handshake_creates_nothing(graph: FakeGraph, app: Client, webhook: Webhook, answer: Any) -> None:
    webhook.shake = answer
    refused = app.post("/subscriptions", wanted(webhook))
    assert (refused.status_code, error_code(refused)) == (400, "ValidationError")
    assert "Subscription validation request failed" in refused.json()["error"]["message"]
    assert graph.subscriptions() == []


@pytest.mark.usefixtures("no_violations")
def test_an_address_that_nobody_serves_creates_nothing(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    webhook.url = "http://127.0.0.1:9/api"
    assert error_code(app.post("/subscriptions", wanted(webhook))) == "ValidationError"


def test_what_a_subscription_may_not_be(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    chat = f"/chats/{CHAT}/messages"
    for body in (
        wanted(webhook, minutes=10_090),
        wanted(webhook, chat, 4_330, lifecycleNotificationUrl=webhook.url),
        wanted(webhook, chat, 90),
        wanted(webhook, minutes=-1),
        wanted(webhook, clientState="x" * 129),
        wanted(webhook, changeType="moved"),
        wanted(webhook, "/planets"),
        wanted(webhook, notificationUrl="http://app.example/api"),
        wanted(webhook, expirationDateTime="tomorrow"),
        {"changeType": "created"},
    ):
        assert app.post("/subscriptions", body).status_code == 400, body
    assert graph.subscriptions() == []
    assert len(graph.violations()) == 10
    unknown = app.post("/subscriptions", wanted(webhook, "/chats/19:none@thread.v2/messages", 59))
    assert (unknown.status_code, error_code(unknown)) == (404, "ResourceNotFound")


@pytest.mark.usefixtures("no_violations")
def test_the_same_resource_twice_is_a_conflict(app: Client, webhook: Webhook) -> None:
    first = app.post("/subscriptions", wanted(webhook)).json()["id"]
    # The same mailbox and folder in other words.
    again = app.post("/subscriptions", wanted(webhook, f"users/{DISPATCH_ID}/mailFolders/inbox/messages"))
    assert (again.status_code, error_code(again)) == (409, "Conflict")
    assert f"<{first}>" in again.json()["error"]["message"]
    assert app.post("/subscriptions", wanted(webhook, changeType="created,updated")).status_code == 201


@pytest.mark.usefixtures("no_violations")
def test_renewal_reauthorisation_and_deletion(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    created = app.post("/subscriptions", wanted(webhook, minutes=5)).json()
    path = f"/subscriptions/{created['id']}"
    soonest = datetime.fromisoformat(created["expirationDateTime"]) - datetime.now(UTC)
    assert soonest > timedelta(minutes=44)
    renewed = app.call("PATCH", path, {"expirationDateTime": within(600)}).json()
    assert renewed["expirationDateTime"] > created["expirationDateTime"]
    graph.control("POST", "clock", {"ahead": 601})
    assert app.post(f"{path}/reauthorize").status_code == 204
    assert app.call("DELETE", path).status_code == 204
    gone = app.call("PATCH", path, {"expirationDateTime": within(600)})
    assert (gone.status_code, error_code(gone)) == (404, "ResourceNotFound")


def test_a_lifecycle_address_cannot_be_added(app: Client, webhook: Webhook) -> None:
    path = f"/subscriptions/{app.post('/subscriptions', wanted(webhook)).json()['id']}"
    assert app.call("PATCH", path, {"lifecycleNotificationUrl": webhook.url}).status_code == 400


@pytest.mark.usefixtures("no_violations")
def test_mails_and_messages_are_notified_together(
    graph: FakeGraph, app: Client, user: Client, webhook: Webhook
) -> None:
    ids = [
        app.post("/subscriptions", wanted(webhook, resource, 59)).json()["id"]
        for resource in (INBOX, f"/chats/{CHAT}/messages", f"/teams/{TEAM}/channels/{CHANNEL}/messages")
    ]
    graph.set_automatic_delivery(False)
    graph.arrive_mail(DISPATCH, MAIL)
    root = graph.arrive_chat_message(DRIVER, "x", team=TEAM, channel=CHANNEL)
    graph.arrive_chat_message(DRIVER, "y", team=TEAM, channel=CHANNEL, replyTo=root)
    own = user.post(f"/chats/{CHAT}/messages", {"body": {"content": "von uns selbst"}}).json()["id"]
    (report,) = graph.deliver()
    assert (report["status"], len(report["items"])) == (202, 4)
    (post,) = webhook.posts
    assert Checks(SCHEMAS).answer_fault("ChangeNotificationCollection", post) is None
    mail, first, reply, chat = post["value"]
    assert [item["subscriptionId"] for item in (mail, first, chat)] == [ids[0], ids[2], ids[1]]
    mail_id = graph.mailbox(DISPATCH)[0]["immutableId"]
    assert mail["resource"] == f"Users/{DISPATCH_ID}/Messages/{mail_id}"
    assert mail["resourceData"]["id"] == mail_id
    assert mail["resourceData"]["@odata.type"] == "#Microsoft.Graph.Message"
    assert (mail["changeType"], mail["clientState"], mail["tenantId"]) == ("created", "state-of-ours", TENANT)
    assert chat["resource"] == f"chats('{CHAT}')/messages('{own}')"
    assert reply["resource"].startswith(f"teams('{TEAM}')/channels('{CHANNEL}')/messages('{root}')/replies('")
    assert graph.deliver() == []


@pytest.mark.usefixtures("no_violations")
def test_ids_are_plain_unless_asked_otherwise(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    app.prefer = ""
    app.post("/subscriptions", wanted(webhook))
    graph.arrive_mail(DISPATCH, MAIL)
    (item,) = webhook.wait_for(1)
    assert item["resourceData"]["id"] == graph.mailbox(DISPATCH)[0]["id"]


@pytest.mark.usefixtures("no_violations")
def test_updates_and_deletions_go_to_those_who_want_them(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    app.post("/subscriptions", wanted(webhook, changeType="updated,deleted"))
    mail = graph.arrive_mail(DISPATCH, MAIL)
    graph.set_automatic_delivery(False)
    app.call("PATCH", f"/users/{DISPATCH}/messages/{mail}", {"isRead": True})
    app.call("DELETE", f"/users/{DISPATCH}/messages/{mail}")
    graph.deliver()
    assert [item["changeType"] for item in webhook.items()] == ["updated", "deleted"]


@pytest.mark.usefixtures("no_violations")
def test_events_contacts_and_drives_are_told_as_they_change(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    """The change type of a drive is always `updated`, and nothing says what in it has changed."""
    drive = app.get(f"/users/{DISPATCH}/drive").json()["id"]
    every = "created,updated,deleted"
    for resource, kinds in (
        (f"users/{DISPATCH}/events", every),
        (f"users/{DISPATCH}/contacts", every),
        (f"/users/{DISPATCH}/drive/root", "updated"),
        (f"drives/{drive}/root", "updated"),
    ):
        assert app.post("/subscriptions", wanted(webhook, resource, changeType=kinds)).status_code == 201
    graph.set_automatic_delivery(False)
    folder = graph.control("POST", "contact-folders", {"user": DISPATCH, "name": "Drivers"})["id"]
    event = graph.put_event(DISPATCH, subject="Tour 7")
    graph.put_event(DISPATCH, id=event, subject="Tour 8")
    graph.put_event(DISPATCH, type="occurrence", seriesMasterId=event)
    graph.control("POST", "events/delete", {"user": DISPATCH, "id": event})
    contact = graph.put_contact(DISPATCH, displayName="Zoë", parentFolderId=folder)
    graph.control("POST", "contact-folders/delete", {"user": DISPATCH, "id": folder})
    file = graph.put_drive_item(DISPATCH, name="a")
    graph.control("POST", "drive-items/delete", {"owner": DISPATCH, "id": file})
    graph.deliver()
    (post,) = webhook.posts
    assert Checks(SCHEMAS).answer_fault("ChangeNotificationCollection", post) is None
    of_event, of_contact = f"Users/{DISPATCH_ID}/Events/{event}", f"Users/{DISPATCH_ID}/Contacts/{contact}"
    of_drive = ("updated", f"users/{DISPATCH}/drive/root")
    of_other = ("updated", f"drives/{drive}/root")
    assert [(item["changeType"], item["resource"]) for item in post["value"]] == [
        ("created", of_event), ("updated", of_event), ("deleted", of_event),
        ("created", of_contact), ("deleted", of_contact),
        of_drive, of_other, of_drive, of_other,
    ]  # fmt: skip
    first, second, _, third = [item["resourceData"] for item in post["value"][:4]]
    assert (first["@odata.type"], first["@odata.id"], first["id"]) == ("#Microsoft.Graph.Event", of_event, event)
    assert third["@odata.type"] == "#Microsoft.Graph.Contact"
    assert first["@odata.etag"] != second["@odata.etag"]
    assert [item["resourceData"] for item in post["value"][5:]] == [{"@odata.type": "#Microsoft.Graph.DriveItem"}] * 4


def test_a_drive_has_no_creations_and_no_resource_data(app: Client, webhook: Webhook) -> None:
    drive = f"users/{DISPATCH}/drive/root"
    assert app.post("/subscriptions", wanted(webhook, drive, changeType="created")).status_code == 400
    rich: dict[str, Any] = {"changeType": "updated", "includeResourceData": True, "encryptionCertificateId": "1"}
    refused = app.post("/subscriptions", wanted(webhook, drive, **rich))
    assert refused.status_code == 400 and "no resource data" in refused.text


def test_a_failed_delivery_is_retried_until_it_succeeds(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    app.post("/subscriptions", wanted(webhook))
    statuses = iter([503, 500])
    webhook.answer = lambda _: next(statuses, 202)
    graph.arrive_mail(DISPATCH, MAIL)
    webhook.wait_for(3)
    assert webhook.posts[0] == webhook.posts[1] == webhook.posts[2]
    deliveries = graph.control("GET", "deliveries")
    assert [result["status"] for result in deliveries][:2] == [503, 500]


def test_a_slow_answer_is_no_delivery(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    app.post("/subscriptions", wanted(webhook))
    graph.set_automatic_delivery(False)
    graph.arrive_mail(DISPATCH, MAIL)
    released = time.monotonic() + 3.2

    def late(_: dict[str, Any]) -> int:
        while time.monotonic() < released:
            time.sleep(0.05)
        return 202

    webhook.answer = late
    (report,) = graph.deliver()
    assert (report["status"], report["seconds"] >= 3) == (None, True)
    webhook.answer = lambda _: 202
    (again,) = graph.deliver()
    assert (again["status"], again["items"]) == (202, report["items"])


def test_duplicates_forgeries_and_disorder_on_demand(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    app.post("/subscriptions", wanted(webhook))
    graph.set_automatic_delivery(False)
    for _ in range(5):
        graph.arrive_mail(DISPATCH, MAIL)
    (report,) = graph.deliver(duplicates=2, forge=1, shuffle=True)
    assert report["items"] == webhook.posts[0]["value"]
    genuine = [item for item in webhook.items() if item["clientState"] == "state-of-ours"]
    (forged,) = [item for item in webhook.items() if item["clientState"] != "state-of-ours"]
    assert (len(genuine), len({item["id"] for item in genuine})) == (7, 5)
    assert forged["resourceData"]["id"] not in {item["resourceData"]["id"] for item in genuine}
    graph.arrive_mail(DISPATCH, MAIL)
    graph.arrive_mail(DISPATCH, MAIL)
    assert len(graph.deliver(batch=False)) == 2


def test_an_expired_subscription_is_gone(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    created = app.post("/subscriptions", wanted(webhook)).json()
    graph.control("POST", "expire-subscription", {"subscription": created["id"]})
    graph.arrive_mail(DISPATCH, MAIL)
    assert app.get(f"/subscriptions/{created['id']}").status_code == 404
    assert graph.deliver() == []


def test_lifecycle_notifications(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    body = wanted(webhook, f"/chats/{CHAT}/messages", 600, lifecycleNotificationUrl=webhook.url)
    subscription = app.post("/subscriptions", body).json()["id"]
    call = {"subscription": subscription, "event": "reauthorizationRequired"}
    assert graph.control("POST", "lifecycle", call)["status"] == 202
    graph.control("POST", "lifecycle", call | {"event": "subscriptionRemoved"})
    assert [item["lifecycleEvent"] for item in webhook.items()] == ["reauthorizationRequired", "subscriptionRemoved"]
    assert "resource" not in webhook.items()[0]
    assert graph.subscriptions() == []


def test_subscribing_needs_the_permission_to_read(graph: FakeGraph, user: Client, webhook: Webhook) -> None:
    refused = user.post("/subscriptions", wanted(webhook))
    assert (refused.status_code, len(graph.violations())) == (403, 1)


def test_a_drive_tells_of_updates_only(app: Client, webhook: Webhook) -> None:
    drive = f"/users/{DISPATCH}/drive/root"
    assert app.post("/subscriptions", wanted(webhook, drive)).status_code == 400
    assert app.post("/subscriptions", wanted(webhook, drive, changeType="updated")).status_code == 201


@pytest.mark.usefixtures("no_violations")
def test_quotas_refuse_with_403_and_name_the_limit(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    graph.control("POST", "subscription-quotas", {"mailbox": 2, "organization": 1})
    assert app.post("/subscriptions", wanted(webhook)).status_code == 201
    assert app.post("/subscriptions", wanted(webhook, f"/users/{DISPATCH}/events")).status_code == 201
    refused = app.post("/subscriptions", wanted(webhook, f"/users/{DISPATCH}/contacts"))
    assert refused.status_code == 403
    assert "limit of 2" in refused.json()["error"]["message"]
    assert app.post("/subscriptions", wanted(webhook, f"/chats/{CHAT}/messages", 50)).status_code == 201
    channel = f"/teams/{TEAM}/channels/{CHANNEL}/messages"
    assert app.post("/subscriptions", wanted(webhook, channel, 50)).status_code == 403


@pytest.mark.usefixtures("no_violations")
def test_an_application_has_one_subscription_of_a_chat(app: Client, webhook: Webhook) -> None:
    chat = f"/chats/{CHAT}/messages"
    assert app.post("/subscriptions", wanted(webhook, chat, 50)).status_code == 201
    assert app.post("/subscriptions", wanted(webhook, chat, 50, changeType="updated")).status_code == 403


def test_a_patch_must_renew_or_move(app: Client, webhook: Webhook) -> None:
    path = f"/subscriptions/{app.post('/subscriptions', wanted(webhook)).json()['id']}"
    assert app.call("PATCH", path, {"clientState": "another"}).status_code == 400
    assert app.call("PATCH", path, {"encryptionCertificateId": "c"}).status_code == 400
    assert app.call("PATCH", path, {"notificationUrl": webhook.url + "/moved"}).status_code == 200
    assert webhook.handshakes[-1].startswith("/api/webhooks/graph/moved?")
    webhook.shake = lambda _: (500, "text/plain", "")
    assert error_code(app.call("PATCH", path, {"notificationUrl": webhook.url})) == "ValidationError"


def test_renewing_and_reauthorising_must_be_ten_minutes_apart(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    path = f"/subscriptions/{app.post('/subscriptions', wanted(webhook)).json()['id']}"
    assert app.post(f"{path}/reauthorize").status_code == 204
    assert app.call("PATCH", path, {"expirationDateTime": within(600)}).status_code == 400
    graph.control("POST", "clock", {"ahead": 600})
    assert app.call("PATCH", path, {"expirationDateTime": within(600)}).status_code == 200
    assert app.post(f"{path}/reauthorize").status_code == 400


@pytest.mark.usefixtures("no_violations")
def test_the_right_to_deliver_is_asked_for_and_what_waited_is_delivered(
    graph: FakeGraph, app: Client, webhook: Webhook
) -> None:
    body = wanted(webhook, INBOX, 6000, lifecycleNotificationUrl=webhook.url)
    path = f"/subscriptions/{app.post('/subscriptions', body).json()['id']}"
    graph.control("POST", "clock", {"ahead": 46 * 60})
    assert webhook.wait_for(1)[0]["lifecycleEvent"] == "reauthorizationRequired"
    graph.control("POST", "clock", {"ahead": 61 * 60})
    graph.arrive_mail(DISPATCH, MAIL)
    assert len(webhook.items()) == 1
    assert app.post(f"{path}/reauthorize").status_code == 204
    assert webhook.wait_for(2)[1]["changeType"] == "created"


@pytest.mark.usefixtures("no_violations")
def test_what_waits_too_long_is_missed(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    body = wanted(webhook, INBOX, 6000, lifecycleNotificationUrl=webhook.url)
    assert app.post("/subscriptions", body).status_code == 201
    graph.control("POST", "clock", {"ahead": 2 * 3600})
    webhook.wait_for(1)
    graph.arrive_mail(DISPATCH, MAIL)
    graph.control("POST", "clock", {"ahead": 7 * 3600})
    assert [item["lifecycleEvent"] for item in webhook.wait_for(2)] == ["reauthorizationRequired", "missed"]
