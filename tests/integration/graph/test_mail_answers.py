"""Replies, forwards and shared mailboxes against the fake Graph: one mail in the thread, whatever happens."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from shared.engine.job import ErrorClass
from shared.handlers.mail_payload import Mail
from tests.integration.graph.conftest import DISPATCH, DRIVER, SERVICE, Wired, base64_of

QUESTION = (
    b"From: Alex Driver <alex.driver@fleet.example>\r\nTo: dispatch@fleet.example, queue@fleet.example\r\n"
    b"Cc: other@customer.example\r\nSubject: Gate 7?\r\nMessage-ID: <q7@fleet.example>\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>Which gate?</p>\r\n'
    b"--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=plan.txt\r\n\r\nplan\r\n--b--\r\n"
)


def answer(wired: Wired, action: str, **more: Any) -> Mail:
    original = wired.graph.arrive_mail(DISPATCH, QUESTION)
    payload = {"from": DISPATCH, "body": "Gate <7>.\nBe there.", "original": {"messageId": original, "action": action}}
    return Mail.model_validate(payload | more)


def sent(wired: Wired) -> dict[str, Any]:
    (mail,) = wired.graph.mailbox(DISPATCH, "sentitems")
    return mail


def addresses(mail: dict[str, Any], field: str) -> list[str]:
    return [recipient["emailAddress"]["address"] for recipient in mail[field]]


def test_a_reply_goes_to_the_sender_in_the_thread_with_the_quoted_text(wired: Wired) -> None:
    run = wired.run("outlook-outbound", answer(wired, "reply", headers={"x-tour": "7"}, categories=["Tour"]))
    assert run.result is not None and run.result["outcome"] == "sent"
    mail = sent(wired)
    (question,) = wired.graph.mailbox(DISPATCH, "inbox")
    assert mail["conversationId"] == question["conversationId"] == wired.log.only.thread_id
    assert addresses(mail, "toRecipients") == [DRIVER] and addresses(mail, "ccRecipients") == []
    assert mail["subject"] == "RE: Gate 7?"
    content = mail["body"]["content"]
    assert "Gate &lt;7&gt;.<br>Be there." in content and "Which gate?" in content
    assert "fleet-queue-" not in content, "the placeholder is gone"
    assert {"name": "x-tour", "value": "7"} in mail["internetMessageHeaders"]
    assert mail["categories"] == ["Tour"]
    assert len(wired.graph.mailbox(DRIVER, "inbox")) == 1
    assert (list(wired.log.only.recipients), wired.log.only.subject) == ([DRIVER], "RE: Gate 7?")


def test_a_reply_to_all_goes_to_all_but_the_mailbox(wired: Wired) -> None:
    wired.run("outlook-outbound", answer(wired, "replyAll"))
    assert addresses(sent(wired), "toRecipients") == [DRIVER, SERVICE]
    assert addresses(sent(wired), "ccRecipients") == ["other@customer.example"]


def test_a_forward_has_the_originals_files_and_ours_and_may_have_a_subject_of_its_own(wired: Wired) -> None:
    files = [{"name": "ours.txt", "contentBytes": base64_of(b"ours")}]
    wired.run("outlook-outbound", answer(wired, "forward", to=[SERVICE], subject="Look", attachments=files))
    assert sent(wired)["subject"] == "Look"
    assert [item["name"] for item in sent(wired)["attachments"]] == ["plan.txt", "ours.txt"]
    assert len(wired.graph.mailbox(SERVICE, "inbox")) == 1


#: createForward, list, change, attach twice, send, confirmation.
STEPS = [(number, when) for number in range(1, 8) for when in ("before", "after")]


@pytest.mark.parametrize(("number", "when"), STEPS)
def test_a_worker_killed_at_any_request_leaves_one_forward_and_no_draft(
    wired: Wired, number: int, when: Literal["before", "after"]
) -> None:
    files = [{"name": f"{n}.bin", "contentBytes": base64_of(bytes([n]))} for n in range(2)]
    payload = answer(wired, "forward", to=[SERVICE], attachments=files)
    wired.session.kill_at = (number, when)
    run = wired.run("outlook-outbound", payload)
    assert run.classes == [ErrorClass.WORKER_LOST]
    assert [item["name"] for item in sent(wired)["attachments"]] == ["plan.txt", "0.bin", "1.bin"]
    assert sent(wired)["body"]["content"].count("Be there.") == 1
    assert wired.graph.mailbox(DISPATCH, "drafts") == []
    assert len(wired.graph.mailbox(SERVICE, "inbox")) == 1


@pytest.mark.parametrize("kind", ["lose-answer", "reset"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/createReply$"), ("PATCH", "/messages/"), ("POST", "/send$")])
def test_a_lost_answer_of_any_step_leaves_one_reply_and_no_draft(
    wired: Wired, kind: str, method: str, path: str
) -> None:
    payload = answer(wired, "reply")
    wired.graph.add_fault(kind, method=method, path=path)
    wired.run("outlook-outbound", payload)
    assert sent(wired)["body"]["content"].count("Be there.") == 1
    assert wired.graph.mailbox(DISPATCH, "drafts") == []
    assert len(wired.graph.mailbox(DRIVER, "inbox")) == 1


def test_a_persons_own_draft_in_the_thread_is_left_alone(wired: Wired) -> None:
    payload = answer(wired, "reply")
    assert payload.original is not None
    wired.mail.create_answer(DISPATCH, payload.original.message_id, "reply", {"comment": "by hand"})
    wired.session.kill_at = (1, "after")
    wired.run("outlook-outbound", payload)
    (draft,) = wired.graph.mailbox(DISPATCH, "drafts")
    assert "by hand" in draft["body"]["content"]


def test_an_original_that_is_gone_is_told_and_never_retried(wired: Wired) -> None:
    payload = answer(wired, "reply", original={"messageId": "AAkgone=", "action": "reply"})
    run = wired.run("outlook-outbound", payload)
    assert run.dead is not None and run.dead.failure.error_class is ErrorClass.VALIDATION
    assert run.attempts == []


def test_deferred_between_its_steps_a_reply_is_found_again(wired: Wired) -> None:
    wired.refuse_every = 2
    files = [{"name": "ours.txt", "contentBytes": base64_of(b"ours")}]
    run = wired.run("outlook-outbound", answer(wired, "reply", attachments=files))
    assert run.deferrals >= 1
    assert [item["name"] for item in sent(wired)["attachments"]] == ["ours.txt"]
    assert wired.graph.mailbox(DISPATCH, "drafts") == []


def test_a_mail_is_sent_for_a_shared_mailbox_from_the_senders_own(wired: Wired) -> None:
    wired.graph.control("POST", "send-as", {"user": DISPATCH, "mailbox": "fleet@fleet.example"})
    sender = {"address": "fleet@fleet.example", "sender": DISPATCH}
    run = wired.run(
        "outlook-outbound", Mail.model_validate({"from": sender, "to": [DRIVER], "subject": "s", "body": "b"})
    )
    assert run.result is not None
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    assert received["from"]["emailAddress"]["address"] == "fleet@fleet.example"
    assert received["sender"]["emailAddress"]["address"] == DISPATCH
    record = wired.log.only
    assert (record.sender, record.account) == ("fleet@fleet.example", DISPATCH)


def test_without_the_right_to_send_as_the_job_dies_as_an_auth_failure(wired: Wired) -> None:
    sender = {"address": "fleet@fleet.example", "sender": DISPATCH}
    mail = Mail.model_validate({"from": sender, "to": [DRIVER], "subject": "s", "body": "b"})
    run = wired.run("outlook-outbound", mail)
    assert run.dead is not None and run.dead.failure.error_class is ErrorClass.AUTH


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_mail_that_is_not_kept_leaves_sent_items_and_is_sent_once_all_the_same(
    wired: Wired, number: int, when: Literal["before", "after"]
) -> None:
    wired.session.kill_at = (number, when)
    payload = {"from": DISPATCH, "to": [DRIVER], "subject": "s", "body": "b", "saveToSentItems": False}
    wired.run("outlook-outbound", Mail.model_validate(payload))
    assert wired.graph.mailbox(DISPATCH, "sentitems") == []
    assert len(wired.graph.mailbox(DISPATCH, "deleteditems")) == 1
    assert len(wired.graph.mailbox(DRIVER, "inbox")) == 1


def test_a_mail_that_is_not_kept_is_in_the_log_before_it_leaves_sent_items(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds it in Deleted Items takes it for one that came in, unless the log has it as sent."""
    left: list[list[str]] = []
    monkeypatch.setattr(wired.mail, "move", lambda *_: left.append([key[2] for key in wired.log.rows]))
    payload = {"from": DISPATCH, "to": [DRIVER], "subject": "s", "body": "b", "saveToSentItems": False}
    run = wired.run("outlook-outbound", Mail.model_validate(payload))
    assert run.result is not None and left == [[run.result["message_id"]]]


def test_a_mail_between_drafts_and_sent_items_is_not_sent_again_after_a_kill(wired: Wired) -> None:
    """Graph took the send, and for a while neither a search nor a look at the id finds the mail."""
    wired.session.kill_at = (2, "after")

    def hide() -> None:
        wired.graph.add_fault("status", method="GET", path="/messages/", status=404)
        wired.graph.add_fault("status", method="GET", path="/messages$", status=200, body={"value": []})

    run = wired.run(
        "outlook-outbound", Mail.model_validate({"from": DISPATCH, "to": [DRIVER], "subject": "s", "body": "b"}),
        between=hide,
    )  # fmt: skip
    assert run.classes == [ErrorClass.WORKER_LOST]
    assert run.result is not None and run.result["confirmed"] is False
    assert run.result["internet_message_id"]
    assert len(wired.graph.mailbox(DRIVER, "inbox")) == 1
