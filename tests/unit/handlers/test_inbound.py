"""What the inbound handlers make of Graph's JSON, however odd it is."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.engine.context import Context
from shared.engine.job import Job
from shared.handlers.inbound import moment, sortable
from shared.handlers.outlook_inbound import MailReference, OutlookInbound
from shared.handlers.services import Communication


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-03-01T10:00:00.1234567Z", "2026-03-01T10:00:00.123456+00:00"),
        ("2026-03-01T10:00:00.4Z", "2026-03-01T10:00:00.400000+00:00"),
        ("2026-03-01T10:00:00+00:00", "2026-03-01T10:00:00+00:00"),
        ("2026-03-01T10:00:00+05:30", "2026-03-01T04:30:00+00:00"),
        ("2026-03-01T10:00:00", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999+00:00"),
        ("9999-12-31T23:59:59-08:00", None),
        ("soon", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_an_instant_is_read_to_utc_or_is_none(text: Any, utc: str | None) -> None:
    found = moment(text)
    assert (found.isoformat() if found else None) == utc
    assert (sortable(text) is None) == (utc is None)


class Mailbox:
    """One message with odd attachments."""

    def __init__(self, message: dict[str, Any], attachments: list[dict[str, Any]]) -> None:
        self._message, self._attachments = message, attachments

    def message(self, user: str, message: str) -> dict[str, Any]:
        return self._message

    def attachments(self, user: str, message: str) -> list[dict[str, Any]]:
        return self._attachments


class Log:
    def __init__(self) -> None:
        self.rows: list[Communication] = []

    def record(self, message: Communication) -> bool:
        self.rows.append(message)
        return True

    def mark_deleted(self, channel: str, external_id: str, deleted_at: object) -> bool:
        return False


class NoReports:
    def take_in(self, user: str, message: dict[str, Any]) -> int:
        return 0


def take_in(message: dict[str, Any], attachments: list[dict[str, Any]]) -> Communication:
    log = Log()
    handler = OutlookInbound(Mailbox(message, attachments), log, NoReports())  # type: ignore[arg-type]
    job = Job(UUID(int=1), "outlook-inbound", "", 1, 5, uuid4())
    handler(job, MailReference.model_validate({"resource": "users/u/messages/m"}), Context())
    (row,) = log.rows
    return row


def test_every_kind_of_attachment_is_recorded_whatever_it_lacks() -> None:
    row = take_in(
        {"id": "m", "hasAttachments": True},
        [
            {"@odata.type": "#microsoft.graph.itemAttachment", "id": "1", "name": "Fwd", "contentType": None},
            {"@odata.type": "#microsoft.graph.referenceAttachment", "id": "2", "name": "Plan", "size": 0},
            {
                "@odata.type": "#microsoft.graph.fileAttachment",
                "id": "3",
                "name": "a.pdf",
                "contentType": "application/pdf",
            },
            {"@odata.type": "#microsoft.graph.someDayAttachment", "id": "4"},
            {},
        ],
    )
    assert [(a.external_id, a.kind, a.content_type) for a in row.attachments] == [
        ("1", "item", None),
        ("2", "reference", None),
        ("3", "file", "application/pdf"),
        ("4", "other", None),
        ("unnamed-4", "other", None),
    ]


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"body": None, "from": None, "toRecipients": None, "internetMessageHeaders": None},
        {"body": {"contentType": "html", "content": "<div><img src=x></div>"}},
        {"body": {"contentType": "HTML", "content": "&nbsp;"}, "subject": None, "toRecipients": [None, {}]},
        {"body": {"content": None}, "receivedDateTime": "0001-01-01T00:00:00Z"},
    ],
)
def test_a_mail_without_text_or_with_nulls_everywhere_ends_well(message: dict[str, Any]) -> None:
    row = take_in(message, [])
    assert (row.text, row.recipients, row.occurred_at) == ("", [], None)
