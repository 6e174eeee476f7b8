"""Non-delivery reports: whom a mail of ours did not reach, though Graph had taken it.

A report is an ordinary mail to the sender, minutes or days later. Exchange marks it by headers; what it says is in
its MIME (RFC 3464): a part for machines with the recipients, and the mail that it is about with its Message-ID.
"""

from __future__ import annotations

import email
import email.policy
import logging
import re
from collections.abc import Iterator
from email.message import Message
from itertools import islice
from typing import Any

from shared.graph.errors import GraphError
from shared.graph.mail import MailClient
from shared.handlers.inbound import moment, objects
from shared.handlers.payload_fields import text_of
from shared.handlers.services import DeliveryFailures, DeliveryReport, FailedDelivery

log = logging.getLogger(__name__)

#: So much of a report is read: the mail that it is about stands at its end, and may be large.
REPORT_BYTES = 1_000_000
MOST_FAILURES = 500
LONGEST_DIAGNOSTIC = 1000
#: Of what becomes part of a key in the database.
LONGEST_RECIPIENT = 320
LONGEST_ID = 400

_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,400}>")
_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
_NDR_HEADER = "x-ms-exchange-message-is-ndr"


class NonDelivery:
    """Keeps what non-delivery reports say."""

    def __init__(self, mail: MailClient, failures: DeliveryFailures) -> None:
        self._mail = mail
        self._failures = failures

    def take_in(self, user: str, message: dict[str, Any]) -> int:
        """How many failures a message of the user's mailbox told us that we did not know. Raises GraphFailure."""
        if not is_report(message):
            return 0
        message_id = text_of(message.get("id"))
        try:
            raw = self._mail.mime(user, message_id, REPORT_BYTES)
        except GraphError as error:
            if error.status != 404:
                raise
            return 0  # deleted since it was read
        try:
            report = read_report(raw, user, message)
        except RecursionError:
            log.warning("delivery_report.unreadable", extra={"bytes": len(raw)})
            return 0
        if not report.failures or not report.message_id:
            return 0
        new = self._failures.record(report)
        if new:
            statuses = sorted({failure.status for failure in report.failures})
            log.warning("mail.not_delivered", extra={"failures": new, "statuses": statuses})
        return new


def is_report(message: dict[str, Any]) -> bool:
    """Whether a message of Graph's, with its headers, is a delivery report."""
    headers = {
        text_of(h.get("name")).lower(): text_of(h.get("value")) for h in objects(message.get("internetMessageHeaders"))
    }
    content_type = headers.get("content-type", "").lower()
    return _NDR_HEADER in headers or ("multipart/report" in content_type and "delivery-status" in content_type)


def read_report(raw: bytes, account: str, message: dict[str, Any]) -> DeliveryReport:
    """What the MIME of a report says; without failures where it reports none."""
    parsed = email.message_from_bytes(raw, policy=email.policy.compat32)
    return DeliveryReport(
        report_id=(text_of(message.get("internetMessageId")) or text_of(message.get("id")))[:LONGEST_ID],
        account=account,
        reported_at=moment(message.get("receivedDateTime")),
        message_id=next(_originals(parsed), ""),
        failures=list(islice(_failures(parsed), MOST_FAILURES)),
    )


def _originals(report: Message) -> Iterator[str]:
    """Message-IDs of what it is about, the surest first."""
    for part in report.walk():
        if part.get_content_type() in ("message/rfc822", "text/rfc822-headers"):
            yield from _MESSAGE_ID.findall(_original_headers(part))
    for name in ("In-Reply-To", "References"):
        yield from _MESSAGE_ID.findall(str(report.get(name, "")))


def _original_headers(part: Message) -> str:
    payload = part.get_payload()
    if isinstance(payload, list):
        return str(payload[0].get("Message-ID", "")) if payload and isinstance(payload[0], Message) else ""
    return str(email.message_from_string(str(payload), policy=email.policy.compat32).get("Message-ID", ""))


def _failures(report: Message) -> Iterator[FailedDelivery]:
    for part in report.walk():
        if part.get_content_type() != "message/delivery-status":
            continue
        blocks = part.get_payload()
        for block in blocks if isinstance(blocks, list) else []:
            if isinstance(block, Message) and _line(block, "Action").lower() == "failed":
                recipient = _typed(block, "Original-Recipient") or _typed(block, "Final-Recipient")
                if recipient:
                    diagnostic = _typed(block, "Diagnostic-Code")
                    found = _STATUS.search(_line(block, "Status")) or _STATUS.search(diagnostic)
                    yield FailedDelivery(
                        recipient[:LONGEST_RECIPIENT], found[1] if found else "5.0.0", diagnostic[:LONGEST_DIAGNOSTIC]
                    )


def _typed(block: Message, name: str) -> str:
    """The value of a field of the form "rfc822; a@x.example"."""
    return _line(block, name).partition(";")[2].strip()


def _line(block: Message, name: str) -> str:
    return " ".join(str(block.get(name, "")).split())
