"""outlook-outbound against the fake Graph: one mail, whatever happens on the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import pytest

from shared.engine.context import Context
from shared.engine.errors import LeaseLostError, UncertainError
from shared.engine.job import Attempt, ErrorClass, Job
from shared.graph.mail import MailState
from shared.handlers.mail_payload import Mail
from tests.integration.graph.conftest import DISPATCH, DRIVER, Run, Wired, base64_of

BIG = base64_of(b"x" * 1_200_000)


def mail(**more: Any) -> Mail:
    payload = {"from": DISPATCH, "to": [DRIVER], "subject": "Tour 7", "body": "Starts at six."} | more
    return Mail.model_validate(payload)


def big_mail() -> Mail:
    """Too large for one request: a draft, three attachments, a send, a confirmation."""
    return mail(attachments=[{"name": f"{n}.bin", "contentBytes": BIG} for n in range(3)])


def mails(wired: Wired) -> list[dict[str, Any]]:
    return wired.graph.mailbox(DRIVER, "inbox")


def test_a_mail_arrives_with_all_its_parts(wired: Wired) -> None:
    run = wired.run(
        "outlook-outbound",
        mail(
            to=[{"address": DRIVER, "name": "Alex Driver"}, DRIVER.upper()],
            bcc=["queue@fleet.example"],
            replyTo=[DISPATCH],
            subject='Grüße "x\\y" \u263a',
            body='<p>He said "x\\y"\nand\ttab \u2028 <img src="cid:map"></p>',
            bodyType="html",
            importance="high",
            headers={"x-tour": "7"},
            attachments=[
                {"name": "Route.txt", "contentType": "text/plain", "contentBytes": base64_of(b"A to B")},
                {"name": "map.png", "contentBytes": base64_of(b"p"), "isInline": True, "contentId": "map"},
            ],
        ),
    )
    (received,) = mails(wired)
    assert received["subject"] == 'Grüße "x\\y" \u263a'
    assert received["body"]["content"] == '<p>He said "x\\y"\nand\ttab \u2028 <img src="cid:map"></p>'
    assert received["importance"] == "high"
    assert len(received["toRecipients"]) == 1
    assert run.result is not None
    assert run.result["outcome"] == "sent"
    assert run.result["confirmed"] is True
    [sent] = wired.graph.mailbox(DISPATCH, "sentitems")
    assert (run.result["read_back"], run.result["sent_at"]) == (False, sent["sentDateTime"])
    assert run.result["internet_message_id"]
    record = wired.log.only
    assert (record.direction, record.account, record.external_id) == ("out", DISPATCH, run.result["message_id"])
    assert [attachment.name for attachment in record.attachments] == ["Route.txt", "map.png"]
    assert len(wired.graph.mailbox("queue@fleet.example", "inbox")) == 1


def test_request_ids_of_all_calls_are_kept_on_the_attempt(wired: Wired) -> None:
    run = wired.run("outlook-outbound", mail())
    calls = run.details["graph_calls"]
    assert [(call["method"], call["path"], call["status"]) for call in calls] == [
        ("POST", "/users/{user}/messages", 201),
        ("POST", "/users/{user}/messages/{message}/send", 202),
        ("GET", "/users/{user}/messages/{message}", 200),
    ]
    assert all(call["request_id"] and call["client_request_id"] for call in calls)
    assert len({call["client_request_id"] for call in calls}) == 3


STEPS = [(number, when) for number in range(1, 7) for when in ("before", "after")]


@pytest.mark.parametrize(("number", "when"), STEPS)
def test_a_worker_killed_at_any_request_leaves_exactly_one_mail(
    wired: Wired, number: int, when: Literal["before", "after"]
) -> None:
    wired.session.kill_at = (number, when)
    run = wired.run("outlook-outbound", big_mail())
    assert run.classes == [ErrorClass.WORKER_LOST]
    (received,) = mails(wired)
    assert len(received["attachments"]) == 3
    assert len(wired.graph.mailbox(DISPATCH)) == 1
    assert len(wired.log.rows) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_while_it_records_leaves_exactly_one_mail(
    wired: Wired, when: Literal["before", "after"]
) -> None:
    wired.log.kill = when
    wired.run("outlook-outbound", mail())
    assert len(mails(wired)) == 1
    assert len(wired.log.rows) == 1


@pytest.mark.parametrize("kind", ["lose-answer", "reset"])
def test_a_lost_answer_to_the_send_leaves_one_mail(wired: Wired, kind: str) -> None:
    wired.graph.add_fault(kind, path="/send$")
    run = wired.run("outlook-outbound", mail())
    assert run.classes == [ErrorClass.UNCERTAIN]
    assert len(mails(wired)) == 1
    assert run.attempts[0].details["graph_calls"][-1]["status"] is None


def test_a_send_that_times_out_is_read_back_before_another(wired: Wired) -> None:
    wired.graph.add_fault("delay", path="/send$", seconds=3)
    run = wired.run("outlook-outbound", mail())
    assert run.classes == [ErrorClass.UNCERTAIN]
    assert len(mails(wired)) == 1
    [sent] = wired.graph.mailbox(DISPATCH, "sentitems")
    assert run.result is not None
    assert (run.result["read_back"], run.result["sent_at"]) == (True, sent["sentDateTime"])


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_of_the_send_is_read_back_before_another(wired: Wired, status: int) -> None:
    wired.graph.add_fault("status", path="/send$", status=status)
    run = wired.run("outlook-outbound", mail())
    assert run.classes == [ErrorClass.UNCERTAIN]
    assert len(mails(wired)) == 1
    assert len(wired.graph.mailbox(DISPATCH)) == 1


def test_a_worker_that_has_lost_its_job_sends_no_mail(wired: Wired) -> None:
    """The first attempt's answer was lost; the second loses its lease while it looks for what the first has done."""
    first = Job(uuid4(), "outlook-outbound", "", 1, 5, uuid4())
    run = Run(first)
    wired.graph.add_fault("status", path="/send$", status=503)
    handler = wired.handler("outlook-outbound")
    with pytest.raises(UncertainError):
        handler(first, mail(), Context(saver=run.save, permits=wired._permit))
    now = datetime.now(UTC)
    failed = Attempt(1, now, now, "w", "failed", ErrorClass.UNCERTAIN)
    second = replace(run.job, attempt=2, attempts=(failed,), lease_token=uuid4())
    context = Context(saver=run.save, permits=wired._permit)
    find = wired.mail.find_by_job

    def taken_over_meanwhile(*args: Any, **more: Any) -> list[MailState]:
        context.lease_lost.set()
        return find(*args, **more)

    wired.mail.find_by_job = taken_over_meanwhile  # type: ignore[method-assign]
    with pytest.raises(LeaseLostError):
        handler(second, mail(), context)
    assert mails(wired) == [] and len(wired.sent()) == 1


@pytest.mark.parametrize("fault", [{"kind": "status-after", "status": 504}, {"kind": "lose-answer"}], ids=str)
def test_504_though_the_mail_was_sent_makes_one_mail(wired: Wired, fault: dict[str, Any]) -> None:
    """Every try would be delivered and answered so: there must be one try."""
    wired.graph.add_fault(**fault, path="/send$", times=5)
    run = wired.run("outlook-outbound", mail())
    assert run.classes == [ErrorClass.UNCERTAIN]
    assert run.result is not None and run.result["confirmed"] is True
    assert len(mails(wired)) == 1
    assert len(wired.sent()) == 1


def test_a_mail_still_in_transport_is_not_sent_again(wired: Wired) -> None:
    wired.graph.control("POST", "transport", {"seconds": 1})
    wired.graph.add_fault("lose-answer", path="/send$")

    def wait_for_transport() -> None:
        # As the engine's back-off would: the first look comes while the mail is still under way.
        if len(wired.sent()) > 1:
            wired.graph.control("POST", "transport", {"seconds": 0})
            _until(lambda: bool(mails(wired)))

    run = wired.run("outlook-outbound", mail(), between=wait_for_transport)
    assert run.classes == [ErrorClass.UNCERTAIN, ErrorClass.UNCERTAIN]
    assert len(mails(wired)) == 1


def test_a_lost_answer_to_the_draft_makes_no_second_draft(wired: Wired) -> None:
    wired.graph.add_fault("lose-answer", method="POST", path="/messages$")
    wired.run("outlook-outbound", mail())
    assert len(wired.graph.mailbox(DISPATCH)) == 1


def test_a_lost_answer_to_an_attachment_attaches_it_once(wired: Wired) -> None:
    wired.graph.add_fault("lose-answer", method="POST", path="/attachments$")
    wired.run("outlook-outbound", big_mail())
    (received,) = mails(wired)
    assert len(received["attachments"]) == 3


def test_429_waits_as_long_as_graph_says_and_sends_the_same_draft(wired: Wired) -> None:
    wired.graph.add_fault("status", path="/send$", status=429, headers={"retry-after": "2"})
    run = wired.run("outlook-outbound", mail())
    assert run.classes == [ErrorClass.RATE_LIMIT]
    assert 2 <= run.delays[0].total_seconds() <= 2.5
    assert len(wired.graph.mailbox(DISPATCH)) == 1


def test_a_refused_recipient_is_never_retried(wired: Wired) -> None:
    wired.graph.add_fault("status", path="/send$", status=400)
    run = wired.run("outlook-outbound", mail())
    assert run.dead is not None
    assert run.dead.failure.error_class is ErrorClass.VALIDATION
    assert run.attempts == []


def test_404_on_the_draft_of_an_unknown_mailbox_is_never_retried(wired: Wired) -> None:
    run = wired.run("outlook-outbound", mail(**{"from": "nobody@fleet.example"}))
    assert run.dead is not None
    assert run.dead.failure.error_class is ErrorClass.VALIDATION
    assert run.attempts == []


def test_202_with_retry_after_is_taken_as_sent(wired: Wired) -> None:
    wired.graph.add_fault("status", path="/send$", status=202, headers={"Retry-After": "1"})
    run = wired.run("outlook-outbound", mail())
    assert run.result is not None
    assert run.result["outcome"] == "sent"
    assert len(wired.sent()) == 1


def test_a_failed_confirmation_does_not_send_again(wired: Wired) -> None:
    wired.graph.add_fault("status", method="GET", path="/messages/", status=503)
    run = wired.run("outlook-outbound", mail())
    assert run.result is not None
    assert run.result["confirmed"] is False
    assert "503" in run.details["not_confirmed"]
    assert len(mails(wired)) == 1


def _until(condition: Any) -> None:
    from local.process import wait_until

    assert wait_until(condition, 10)
