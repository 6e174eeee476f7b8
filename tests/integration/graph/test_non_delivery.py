"""Mails that do not arrive: the report comes into the sender's inbox, and is shown on the job that sent the mail."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from shared.engine.job import ErrorClass
from shared.handlers.mail_payload import Mail
from shared.handlers.outlook_inbound import MailReference
from shared.handlers.services import Communication
from shared.postgres.communications import PostgresCommunications
from shared.postgres.delivery_failures import PostgresDeliveryFailures
from shared.postgres.pool import Database
from tests.integration.graph.conftest import DISPATCH, DRIVER, Wired

GONE = "gone@customer.example"


def mail(*to: str) -> Mail:
    return Mail.model_validate({"from": DISPATCH, "to": list(to), "subject": "Tour 7 für Änne", "body": "b"})


def take_in_reports(wired: Wired) -> list[dict[str, Any]]:
    """As Graph's notifications would: each mail of the sender's inbox; returns them."""
    reports = wired.graph.mailbox(DISPATCH, "inbox")
    for report in reports:
        resource = f"users/{DISPATCH}/messages/{report['immutableId']}"
        wired.run("outlook-inbound", MailReference.model_validate({"resource": resource}))
    return reports


class Late:
    """A log that has not stored yet what it was given."""

    kill = None

    def __init__(self) -> None:
        self.messages: list[Communication] = []

    def record(self, message: Communication) -> bool:
        self.messages.append(message)
        return True


@pytest.fixture
def stored(wired: Wired, database: Database) -> PostgresDeliveryFailures:
    wired.log = PostgresCommunications(database)  # type: ignore[assignment]
    failures = PostgresDeliveryFailures(database)
    wired.failures = failures  # type: ignore[assignment]
    return failures


def test_an_unknown_address_of_the_tenant_is_shown_on_the_job(wired: Wired, stored: PostgresDeliveryFailures) -> None:
    run = wired.run("outlook-outbound", mail(DRIVER, "nobody@fleet.example"))
    (report,) = take_in_reports(wired)
    assert report["subject"] == "Undeliverable: Tour 7 für Änne"
    (failure,) = stored.of_job(run.job.id)
    assert (failure.recipient, failure.status) == ("nobody@fleet.example", "5.1.10")
    assert "RecipientNotFound" in failure.diagnostic
    assert len(wired.graph.mailbox(DRIVER, "inbox")) == 1


def test_a_servers_refusal_of_several_recipients_is_told_for_each(
    wired: Wired, stored: PostgresDeliveryFailures
) -> None:
    for address, status in ((GONE, "5.2.2"), ("other@customer.example", "5.7.1")):
        refusal = {"address": address, "status": status, "diagnostic": f"550 {status} refused"}
        wired.graph.control("POST", "undeliverable", refusal)
    run = wired.run("outlook-outbound", mail(GONE, "other@customer.example", "fine@customer.example"))
    take_in_reports(wired)
    assert [(f.recipient, f.status) for f in stored.of_job(run.job.id)] == [
        (GONE, "5.2.2"), ("other@customer.example", "5.7.1"),
    ]  # fmt: skip


def test_a_report_that_is_taken_in_twice_counts_once(
    wired: Wired, stored: PostgresDeliveryFailures, sql: psycopg.Connection
) -> None:
    wired.run("outlook-outbound", mail("nobody@fleet.example"))
    take_in_reports(wired)
    take_in_reports(wired)
    assert sql.execute("select count(*) from queue.delivery_failures").fetchone() == (1,)


def test_a_report_that_comes_before_the_mail_is_recorded_is_shown_all_the_same(
    wired: Wired, stored: PostgresDeliveryFailures
) -> None:
    log, late = wired.log, Late()
    wired.log = late  # type: ignore[assignment]
    run = wired.run("outlook-outbound", mail("nobody@fleet.example"))
    wired.log = log
    take_in_reports(wired)
    assert stored.of_job(run.job.id) == []
    (sent,) = late.messages
    log.record(sent)
    assert [failure.status for failure in stored.of_job(run.job.id)] == ["5.1.10"]


def test_a_worker_killed_while_it_takes_a_report_in_loses_and_doubles_nothing(
    wired: Wired, stored: PostgresDeliveryFailures
) -> None:
    run = wired.run("outlook-outbound", mail("nobody@fleet.example"))
    for number in range(1, 5):
        wired.session.number = 0
        wired.session.kill_at = (number, "after")
        take_in_reports(wired)
    assert len(stored.of_job(run.job.id)) == 1


@pytest.mark.parametrize(("status", "classes"), [(404, []), (503, [ErrorClass.NETWORK])])
def test_a_report_that_cannot_be_read_is_read_again_or_gone(
    wired: Wired, stored: PostgresDeliveryFailures, status: int, classes: list[ErrorClass]
) -> None:
    job = wired.run("outlook-outbound", mail("nobody@fleet.example")).job
    (report,) = wired.graph.mailbox(DISPATCH, "inbox")
    wired.graph.add_fault("status", path=r"/\$value$", status=status)
    resource = f"users/{DISPATCH}/messages/{report['immutableId']}"
    run = wired.run("outlook-inbound", MailReference.model_validate({"resource": resource}))
    assert run.dead is None and run.classes == classes
    assert len(stored.of_job(job.id)) == len(classes)


def test_a_report_of_a_mail_that_is_not_ours_is_an_ordinary_mail(
    wired: Wired, stored: PostgresDeliveryFailures, sql: psycopg.Connection
) -> None:
    message = {"subject": "by hand", "toRecipients": [{"emailAddress": {"address": "nobody@fleet.example"}}]}
    draft = wired.mail.create_draft(DISPATCH, message, "not-a-job")
    wired.mail.send_draft(DISPATCH, draft.id)
    take_in_reports(wired)
    row = sql.execute("select count(*) from queue.communication_logs where direction = 'in'").fetchone()
    assert row == (1,)
    assert sql.execute("select count(*) from queue.undelivered").fetchone() == (0,)
