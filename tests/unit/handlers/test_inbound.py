"""What the inbound handlers make of Graph's JSON, however odd it is."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest

from shared.engine.context import Context
from shared.engine.job import Job
from shared.handlers.inbound import moment, sortable
from shared.handlers.outlook_inbound import MailReference, OutlookInbound
from shared.handlers.services import Communication, Recorded
from shared.handlers.teams_inbound import ChatMessageReference, TeamsInbound


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

    def folder_id(self, user: str, folder: str) -> str | None:
        return f"the {folder} of {user}"


class Log:
    def __init__(self) -> None:
        self.rows: list[Communication] = []

    def record(self, message: Communication) -> Recorded:
        self.rows.append(message)
        return Recorded("stored")

    def mark_deleted(self, channel: str, external_id: str, job_id: UUID | None = None) -> Recorded:
        return Recorded("unknown")


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


@pytest.mark.parametrize(
    ("name", "value", "automatic"),
    [
        ("Auto-Submitted", "auto-replied", True),
        ("auto-submitted", "auto-generated; owner-email=x", True),
        ("Auto-Submitted", "no", False),
        ("Auto-Submitted", " No ", False),
        ("Precedence", "bulk", True),
        ("Precedence", "first-class", False),
        ("List-Id", "<fleet.example>", True),
        ("X-Autoreply", "yes", True),
        ("X-Auto-Response-Suppress", "All", False),
        ("Subject", "auto-replied", False),
    ],
)
def test_a_machine_is_known_by_its_headers(name: str, value: str, automatic: bool) -> None:
    assert take_in({"id": "m", "internetMessageHeaders": [{"name": name, "value": value}]}, []).automatic is automatic


@pytest.mark.parametrize("headers", [None, 5, [None, 5, {}, {"name": None}, {"name": "Precedence", "value": None}]])
def test_odd_headers_are_no_machine(headers: Any) -> None:
    assert take_in({"id": "m", "internetMessageHeaders": headers}, []).automatic is False


class Chat:
    """One message of a chat, as Graph shows it."""

    def __init__(self, message: dict[str, Any]) -> None:
        self._message = message

    def message(self, place: object, message: str) -> dict[str, Any]:
        return self._message


PERSON, OURS = {"user": {"id": "person"}}, {"user": {"id": "ours"}}
BOT = {"application": {"id": "bot", "displayName": "Bot"}, "user": None}
MARKED = {"contentType": "html", "content": '<span itemprop="fleet-queue" itemid="1"></span>quoted'}


@pytest.mark.parametrize(
    ("sender", "body", "outcome"),
    [
        (PERSON, {"content": "x"}, "stored"),
        (PERSON, MARKED, "stored"),
        (OURS, {"content": "x"}, "own"),
        (BOT, {"content": "x"}, "stored"),
        (BOT, MARKED, "own"),
        (None, {"content": "x"}, "stored"),
    ],
    ids=["person", "person who quotes us", "account", "another bot", "our bot or workflow", "nobody"],
)
def test_our_own_messages_are_told_from_those_of_people_and_other_bots(
    sender: Any, body: dict[str, Any], outcome: str
) -> None:
    log = Log()
    handler = TeamsInbound(Chat({"id": "1", "from": sender, "body": body}), log, lambda: {"ours"})  # type: ignore[arg-type]
    job = Job(UUID(int=1), "teams-inbound", "", 1, 5, uuid4())
    reference = ChatMessageReference.model_validate({"resource": "chats('c')/messages('1')"})
    done = handler(job, reference, Context())
    assert done.result is not None and done.result["outcome"] == outcome
    assert [row.automatic for row in log.rows] == ([sender is BOT] if outcome == "stored" else [])


def test_of_a_mail_with_many_attached_items_a_few_small_ones_are_looked_into() -> None:
    class Items(Mailbox):
        asked: ClassVar[list[str]] = []

        def attached_item(self, user: str, message: str, attachment: str) -> dict[str, Any]:
            self.asked.append(attachment)
            return {
                "@odata.type": "#microsoft.graph.event",
                "subject": "s",
                "organizer": {"emailAddress": {"address": "o"}},
            }

    found = [
        {
            "@odata.type": "#microsoft.graph.itemAttachment",
            "id": str(n),
            "name": f"n{n}",
            "size": 2_000_000 if n < 2 else 9,
        }
        for n in range(12)
    ]
    log = Log()
    handler = OutlookInbound(Items({"id": "m", "hasAttachments": True}, found), log, NoReports())  # type: ignore[arg-type]
    job = Job(UUID(int=1), "outlook-inbound", "", 1, 5, uuid4())
    handler(job, MailReference.model_validate({"resource": "users/u/messages/m"}), Context())
    assert Items.asked == ["2", "3", "4", "5", "6"]
    details = [dict(attachment.details) for attachment in log.rows[0].attachments]
    assert details[2] == {"itemType": "event", "subject": "s", "sender": "o"}
    assert details[0] == details[11] == {}


def test_links_content_ids_and_unknown_kinds_are_kept() -> None:
    row = take_in(
        {"id": "m", "hasAttachments": True},
        [
            {"@odata.type": "#microsoft.graph.fileAttachment", "id": "1", "contentId": "map"},
            {"@odata.type": "#microsoft.graph.referenceAttachment", "id": "2", "sourceUrl": "https://x.example/a"},
            {"@odata.type": "#microsoft.graph.someDayAttachment", "id": "3"},
        ],
    )
    assert [dict(attachment.details) for attachment in row.attachments] == [
        {"contentId": "map"}, {"sourceUrl": "https://x.example/a"}, {"type": "#microsoft.graph.someDayAttachment"},
    ]  # fmt: skip
