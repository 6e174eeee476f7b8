"""The inbound handlers against the fake Graph: each message kept once, with all that belongs to it."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Any

import pytest

from shared.engine.job import ErrorClass
from shared.graph.client import GraphClient
from shared.graph.delegated_tokens import DelegatedTokens
from shared.graph.teams import TeamsClient
from shared.graph.token_cache import CacheCipher
from shared.handlers.mail_payload import Mail
from shared.handlers.outlook_inbound import MailReference
from shared.handlers.teams_inbound import ChatMessageReference
from shared.handlers.teams_payload import TeamsMessage
from shared.sealing import KeyRing
from tests.integration.graph.conftest import CHANNEL, CHAT, DISPATCH, DRIVER, DRIVER_ID, SERVICE, TEAM, Wired


def chat_reference(message_id: str, change_type: str = "created") -> ChatMessageReference:
    return ChatMessageReference.model_validate(
        {"resource": f"chats('{CHAT}')/messages('{message_id}')", "changeType": change_type}
    )


def mail_reference(message_id: str, user: str = DISPATCH, change_type: str = "created") -> MailReference:
    return MailReference.model_validate({"resource": f"Users/{user}/Messages/{message_id}", "changeType": change_type})


def real_mail() -> bytes:
    mail = EmailMessage()
    mail["From"] = "Zoë Łukasik <zoe@customer.example>"
    mail["To"] = f"Dispatch <{DISPATCH}>"
    mail["Cc"] = DRIVER
    mail["Subject"] = "Lieferung verspätet 🚚"
    mail["Message-ID"] = "<late-1@customer.example>"
    mail["X-Tour"] = "7"
    mail.set_content("Fallback")
    mail.add_alternative('<p>Später: <b>8 Uhr</b><img src="cid:map"></p><script>x()</script>', subtype="html")
    html = mail.get_payload()[1]  # type: ignore[index]
    html.add_related(b"\x89PNG", "image", "png", cid="<map>", filename="map.png", disposition="inline")  # type: ignore[union-attr]
    mail.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="Lieferschein.pdf")
    return mail.as_bytes()


def test_a_mail_is_stored_with_headers_attachments_and_both_keys(wired: Wired) -> None:
    message_id = wired.graph.arrive_mail(DISPATCH, real_mail())
    run = wired.run("outlook-inbound", mail_reference(message_id))
    assert run.result == {"outcome": "stored"}
    record = wired.log.only
    assert (record.direction, record.sender, record.subject) == (
        "in",
        "zoe@customer.example",
        "Lieferung verspätet 🚚",
    )
    assert record.internet_message_id == "<late-1@customer.example>"
    assert record.thread_id
    assert record.text == "Später: 8 Uhr"
    assert DISPATCH in record.recipients and DRIVER in record.recipients
    assert {(a.name, a.is_inline, a.kind) for a in record.attachments} == {
        ("map.png", True, "file"),
        ("Lieferschein.pdf", False, "file"),
    }
    assert any(header["name"].lower() == "x-tour" for header in record.raw["headers"])


def test_a_mail_with_only_inline_images_has_its_attachments_recorded(wired: Wired) -> None:
    wired.run(
        "outlook-outbound",
        Mail.model_validate(
            {"from": DISPATCH, "to": [DRIVER], "subject": "s", "body": '<img src="cid:a">', "bodyType": "html",
             "attachments": [{"name": "a.png", "contentBytes": "YQ==", "isInline": True, "contentId": "a"}]}
        ),
    )  # fmt: skip
    wired.log.rows.clear()
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    wired.run("outlook-inbound", mail_reference(received["id"], DRIVER))
    assert [attachment.name for attachment in wired.log.only.attachments] == ["a.png"]
    assert wired.log.only.text == ""


def test_every_mail_request_asks_for_immutable_ids(wired: Wired) -> None:
    message_id = wired.graph.arrive_mail(DISPATCH, real_mail())
    wired.run("outlook-inbound", mail_reference(message_id))
    requests = [r for r in wired.graph.requests() if "/messages" in r["path"] and "/v1.0/" in r["path"]]
    assert len(requests) == 2
    for request in requests:
        headers = {name.lower(): value for name, value in request["headers"].items()}
        assert 'IdType="ImmutableId"' in headers["prefer"]


def test_our_own_sent_copy_is_left_to_the_outbound_handler(wired: Wired) -> None:
    sent = wired.run(
        "outlook-outbound",
        Mail.model_validate({"from": DISPATCH, "to": [DRIVER], "subject": "s", "body": "b"}),
    )
    assert sent.result is not None
    run = wired.run("outlook-inbound", mail_reference(sent.result["message_id"]))
    assert run.result == {"outcome": "own"}
    assert len(wired.log.rows) == 1


def test_the_recipients_copy_of_our_mail_is_news(wired: Wired) -> None:
    wired.run(
        "outlook-outbound",
        Mail.model_validate({"from": DISPATCH, "to": [DRIVER], "subject": "s", "body": "b"}),
    )
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    run = wired.run("outlook-inbound", mail_reference(received["id"], DRIVER))
    assert run.result == {"outcome": "stored"}


def test_a_passing_copy_that_answers_404_is_closed_as_gone_after_a_few_looks(wired: Wired) -> None:
    run = wired.run("outlook-inbound", mail_reference("AAkALgpassing"))
    assert run.classes == [ErrorClass.NETWORK, ErrorClass.NETWORK]
    assert run.result == {"outcome": "unknown"}
    assert run.dead is None


def test_a_message_that_comes_late_is_stored_on_the_next_look(wired: Wired) -> None:
    message_id = wired.graph.arrive_chat_message(DRIVER_ID, "Hello", chat=CHAT)
    wired.graph.add_fault("status", method="GET", path="/messages/", status=404)
    run = wired.run("teams-inbound", chat_reference(message_id))
    assert run.classes == [ErrorClass.NETWORK]
    assert run.result == {"outcome": "stored"}


def test_a_chat_message_is_stored_with_mention_emoji_and_attachment(wired: Wired) -> None:
    content = (
        '<p>Hi <at id="0">Fleet Dispatch</at> <emoji id="truck" alt="🚚" title="Truck"></emoji>&nbsp;late</p>'
        '<attachment id="f1"></attachment>'
    )
    message_id = wired.graph.arrive_chat_message(
        DRIVER_ID,
        content,
        content_type="html",
        chat=CHAT,
        mentions=[
            {"id": 0, "mentionText": "Fleet Dispatch", "mentioned": {"user": {"id": DRIVER_ID, "displayName": "x"}}}
        ],
        attachments=[{"id": "f1", "contentType": "reference", "contentUrl": "https://x.example/a", "name": "a.pdf"}],
    )
    run = wired.run("teams-inbound", chat_reference(message_id))
    assert run.result == {"outcome": "stored"}
    record = wired.log.only
    assert record.text == "Hi Fleet Dispatch 🚚 late"
    assert record.sender == DRIVER_ID
    assert record.external_id == f"{CHAT}/{message_id}"
    assert record.raw["mentions"][0]["mentionText"] == "Fleet Dispatch"
    assert [(a.external_id, a.kind, a.name) for a in record.attachments] == [("f1", "reference", "a.pdf")]
    assert wired.run("teams-inbound", chat_reference(message_id)).result == {"outcome": "unchanged"}
    assert len(wired.log.rows) == 1


def test_a_message_of_only_an_image_is_stored_with_empty_text(wired: Wired) -> None:
    message_id = wired.graph.arrive_chat_message(
        DRIVER_ID,
        '<div><img src="../hostedContents/1/$value"></div>',
        content_type="html",
        chat=CHAT,
        hostedContents=[{"@microsoft.graph.temporaryId": "1", "contentBytes": "YQ==", "contentType": "image/png"}],
    )
    wired.run("teams-inbound", chat_reference(message_id))
    record = wired.log.only
    assert record.text == ""
    assert [(a.kind, a.is_inline) for a in record.attachments] == [("hosted", True)]


def test_a_reply_in_a_channel_is_kept_in_its_thread(wired: Wired) -> None:
    root = wired.graph.arrive_chat_message(DRIVER_ID, "Root", team=TEAM, channel=CHANNEL)
    reply = wired.graph.arrive_chat_message(DRIVER_ID, "Reply", team=TEAM, channel=CHANNEL, replyTo=root)
    resource = f"teams('{TEAM}')/channels('{CHANNEL}')/messages('{root}')/replies('{reply}')"
    wired.run("teams-inbound", ChatMessageReference.model_validate({"resource": resource, "changeType": "created"}))
    assert wired.log.only.thread_id == f"{CHANNEL}/{root}"
    assert wired.log.only.text == "Reply"


def test_our_own_chat_message_is_ignored_so_that_nothing_answers_itself(wired: Wired) -> None:
    sent = wired.run("teams-outbound", TeamsMessage.model_validate({"chatId": CHAT, "content": "x"}))
    assert sent.result is not None
    run = wired.run("teams-inbound", chat_reference(sent.result["message_id"]))
    assert run.result == {"outcome": "own"}
    assert len(wired.log.rows) == 1


def test_messages_come_in_although_the_stored_sign_in_does_not_open(wired: Wired) -> None:
    cipher = CacheCipher(KeyRing(bytes(32)))
    tokens = DelegatedTokens(wired.application, wired.session, account=SERVICE, store=wired.store, cipher=cipher)
    graph = GraphClient(wired.session, wired.app_tokens, wired.graph.graph_url)
    wired.teams = TeamsClient(graph, graph, tokens.user_id)
    message_id = wired.graph.arrive_chat_message(DRIVER_ID, "Hello", chat=CHAT)
    assert wired.run("teams-inbound", chat_reference(message_id)).result == {"outcome": "stored"}


def test_a_deleted_message_is_noted_without_waiting_for_it(wired: Wired) -> None:
    run = wired.run("teams-inbound", chat_reference("1600000000000", "deleted"))
    assert run.attempts == []
    assert run.result == {"outcome": "unknown"}
    assert wired.log.deleted == [f"{CHAT}/1600000000000"]


@pytest.mark.parametrize("fault", [{"kind": "html", "status": 503}, {"kind": "bad-json", "status": 200}])
def test_html_in_a_503_and_broken_json_are_passing_failures_of_a_read(wired: Wired, fault: dict[str, Any]) -> None:
    message_id = wired.graph.arrive_chat_message(DRIVER_ID, "Hello", chat=CHAT)
    wired.graph.add_fault(method="GET", path="/messages/", **fault)
    run = wired.run("teams-inbound", chat_reference(message_id))
    assert run.classes == [ErrorClass.NETWORK]
    assert run.result == {"outcome": "stored"}


def test_a_token_that_graph_drops_in_the_middle_is_renewed_once(wired: Wired) -> None:
    message_id = wired.graph.arrive_chat_message(DRIVER_ID, "Hello", chat=CHAT)
    wired.run("teams-inbound", chat_reference(message_id))
    wired.graph.control("POST", "expire-tokens")
    run = wired.run("teams-inbound", chat_reference(message_id))
    assert run.attempts == []
    assert [call["status"] for call in run.details["graph_calls"]] == [401, 200]
