"""Notifications with resource data: Graph's conditions, encryption for the subscription's certificate, and tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import requests

from local.certificate import self_signed
from local.fake_graph.checks import Checks
from local.fake_graph.process import FakeGraph
from local.fake_graph.rich import CONFIGURATION_PATH, PUBLISHER
from local.fake_graph.state import CHANNEL, CHAT, CLIENT, DRIVER, TEAM, TENANT
from shared.graph.rich import EncryptionCertificates, read_certificate
from tests.fake_graph.conftest import DISPATCH, SCHEMAS, Client, Webhook

CHATS = f"/chats/{CHAT}/messages"
CERTIFICATE = read_certificate(self_signed())
OURS = EncryptionCertificates(CERTIFICATE)


def wanted(webhook: Webhook, resource: str = CHATS, minutes: float = 59, **more: Any) -> dict[str, Any]:
    expiry = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    return {
        "changeType": "created,updated,deleted",
        "notificationUrl": webhook.url,
        "lifecycleNotificationUrl": webhook.url,
        "resource": resource,
        "expirationDateTime": expiry,
        "clientState": "state-of-ours",
        "includeResourceData": True,
        "encryptionCertificate": CERTIFICATE.public.base64,
        "encryptionCertificateId": CERTIFICATE.public.id,
    } | more


def test_what_a_subscription_with_resource_data_may_not_be(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    mail, selected = f"/users/{DISPATCH}/messages", f"/users/{DISPATCH}/messages?$select=subject"
    refused = [
        wanted(webhook, encryptionCertificate=None),
        wanted(webhook, encryptionCertificateId=None),
        wanted(webhook, encryptionCertificateId="x" * 129),
        wanted(webhook, encryptionCertificate="bm90aGluZw=="),
        wanted(webhook, encryptionCertificate=read_certificate_of_1024_bits()),
        wanted(webhook, f"{CHATS}?$select=body"),
        wanted(webhook, mail),
        wanted(webhook, selected, minutes=1_500),
        wanted(webhook, minutes=4_330),
    ]
    for body in refused:
        assert app.post("/subscriptions", body).status_code == 400, body
    assert graph.subscriptions() == []
    assert len(graph.violations()) == len(refused)
    assert app.post("/subscriptions", wanted(webhook, selected, minutes=1_430)).status_code == 201
    assert app.post("/subscriptions", wanted(webhook, minutes=4_310)).status_code == 201


def read_certificate_of_1024_bits() -> str:
    pem = self_signed(bits=1024)
    return "".join(pem[: pem.index("-----END")].splitlines()[1:])


@pytest.mark.usefixtures("no_violations")
def test_a_message_arrives_encrypted_and_vouched_for(
    graph: FakeGraph, app: Client, webhook: Webhook, session: requests.Session
) -> None:
    app.post("/subscriptions", wanted(webhook))
    graph.set_automatic_delivery(False)
    message = graph.arrive_chat_message(DRIVER, "Tür 7 🚚", chat=CHAT)
    graph.deliver()
    (post,) = webhook.posts
    assert Checks(SCHEMAS).answer_fault("ChangeNotificationCollection", post) is None
    (item,) = post["value"]
    read = app.get(f"{CHATS}/{message}").json()
    assert OURS.decrypt(item["encryptedContent"]) | {"@odata.context": read["@odata.context"]} == read
    configuration = session.get(graph.authority + CONFIGURATION_PATH, timeout=5).json()
    listed = session.get(configuration["jwks_uri"], timeout=5).json()["keys"]
    (token,) = post["validationTokens"]
    key = next(jwt.PyJWK(key, "RS256").key for key in listed if key["kid"] == jwt.get_unverified_header(token)["kid"])
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=CLIENT)
    assert (claims["appid"], claims["iss"]) == (PUBLISHER, f"https://sts.windows.net/{TENANT}/")


@pytest.mark.usefixtures("no_violations")
def test_a_mail_brings_what_the_subscription_selects(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    app.post("/subscriptions", wanted(webhook, f"/users/{DISPATCH}/messages?$select=subject,from"))
    graph.set_automatic_delivery(False)
    graph.arrive_mail(DISPATCH, b"From: a@b.example\r\nTo: dispatch@fleet.example\r\nSubject: Tor\r\n\r\nx\r\n")
    graph.deliver()
    (item,) = webhook.items()
    resource = OURS.decrypt(item["encryptedContent"])
    assert {"id", "subject", "from"} == {name for name in resource if not name.startswith("@")}
    assert resource["id"] == item["resourceData"]["id"]


@pytest.mark.usefixtures("no_violations")
def test_a_batch_without_resource_data_has_no_tokens(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    app.post("/subscriptions", wanted(webhook, includeResourceData=False))
    graph.set_automatic_delivery(False)
    graph.arrive_chat_message(DRIVER, "x", chat=CHAT)
    graph.deliver()
    assert "validationTokens" not in webhook.posts[0]
    assert "encryptedContent" not in webhook.items()[0]


@pytest.mark.usefixtures("no_violations")
def test_a_patch_changes_the_certificate(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    path = f"/subscriptions/{app.post('/subscriptions', wanted(webhook)).json()['id']}"
    other = read_certificate(self_signed())
    body = {"encryptionCertificate": other.public.base64, "encryptionCertificateId": other.public.id}
    body["expirationDateTime"] = wanted(webhook)["expirationDateTime"]
    assert app.call("PATCH", path, body).status_code == 200
    graph.set_automatic_delivery(False)
    graph.arrive_chat_message(DRIVER, "x", chat=CHAT)
    graph.deliver()
    content = webhook.items()[0]["encryptedContent"]
    assert EncryptionCertificates(other).decrypt(content)["body"]["content"] == "x"


@pytest.mark.usefixtures("no_violations")
def test_edits_deletions_and_their_undoing_are_told(graph: FakeGraph, app: Client, webhook: Webhook) -> None:
    app.post("/subscriptions", wanted(webhook, f"/teams/{TEAM}/channels/{CHANNEL}/messages"))
    graph.set_automatic_delivery(False)
    root = graph.arrive_chat_message(DRIVER, "one", team=TEAM, channel=CHANNEL)
    place = {"team": TEAM, "channel": CHANNEL, "message": root}
    graph.control("POST", "chat-messages/edit", place | {"content": "two"})
    graph.control("POST", "chat-messages/delete", place)
    graph.control("POST", "chat-messages/restore", place)
    graph.deliver()
    told = [(item["changeType"], OURS.decrypt(item["encryptedContent"])) for item in webhook.items()]
    assert [(change, message["body"]["content"], bool(message["deletedDateTime"])) for change, message in told] == [
        ("created", "one", False), ("updated", "two", False), ("deleted", "", True), ("updated", "two", False),
    ]  # fmt: skip
    assert len({message["etag"] for _, message in told}) == 4


def test_wrong_tokens_and_contents_come_on_demand_and_go_with_a_reset(
    graph: FakeGraph, app: Client, webhook: Webhook
) -> None:
    app.post("/subscriptions", wanted(webhook))
    graph.set_automatic_delivery(False)
    assert graph.control("POST", "rich", {"token": "audience", "content": "signature", "version": "2.0"})
    graph.arrive_chat_message(DRIVER, "x", chat=CHAT)
    graph.deliver()
    claims = jwt.decode(webhook.posts[0]["validationTokens"][0], options={"verify_signature": False})
    assert (claims["aud"] == CLIENT, claims["azp"], claims["ver"]) == (False, PUBLISHER, "2.0")
    with pytest.raises(Exception, match="signed"):
        OURS.decrypt(webhook.items()[0]["encryptedContent"])
    with pytest.raises(RuntimeError, match="token must be one of"):
        graph.control("POST", "rich", {"token": "forged"})
    graph.reset()
    assert graph.control("POST", "rich", {})["token"] == "none"
