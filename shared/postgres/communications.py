"""The communication log on PostgreSQL: a message is one row, however often and under whatever id it comes.

What a row's change means to the fleet application becomes an outgoing event in the same transaction: once for each
change, whoever looks at the message again. A job that runs again hears of the event that it made before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg

from shared.engine.json_text import clean_text, to_json
from shared.handlers.inbound import AUTOMATIC_WINDOW, MOST_AUTOMATIC
from shared.handlers.services import Alert, AttachmentRecord, Communication, Outcome, OutgoingEvent, Recorded
from shared.postgres.alerts import tell
from shared.postgres.pool import Database

#: What the application is told of a message that came in.
EVENTS: dict[Outcome, str] = {
    "stored": "message.received",
    "edited": "message.edited",
    "deleted": "message.deleted",
    "restored": "message.restored",
}

_OWN = """
select 1 from queue.communication_logs
where channel = %(channel)s and direction = 'out' and external_id = %(external_id)s
"""

_INSERT = """
insert into queue.communication_logs (
    direction, channel, external_id, account, thread_id, sender, recipients, subject, body, body_type, text,
    internet_message_id, occurred_at, edited_at, deleted_at, automatic, job_id, correlation_id, raw)
values (
    %(direction)s, %(channel)s, %(external_id)s, %(account)s, %(thread_id)s, %(sender)s, %(recipients)s, %(subject)s,
    %(body)s, %(body_type)s, %(text)s, %(internet_message_id)s, %(occurred_at)s, %(edited_at)s, %(deleted_at)s,
    %(automatic)s, %(job_id)s, %(correlation_id)s, %(raw)s)
on conflict do nothing
returning id
"""

# By Graph's id, or by the mail's own id: a mail that was moved may have a new one of Graph's.
_FIND = """
select id, subject, body, deleted_at, raw ->> 'modifiedAt',
       external_id = %(external_id)s and raw || %(raw)s::jsonb = raw as is_same
from queue.communication_logs
where channel = %(channel)s and direction = %(direction)s and external_id = %(external_id)s
   or account = %(account)s and internet_message_id = %(internet_message_id)s and direction = %(direction)s
order by external_id = %(external_id)s desc
limit 1
for no key update
"""

# What a later look does not know stays; of a deleted message Graph shows no text any more.
_UPDATE = """
update queue.communication_logs as known
set external_id = %(external_id)s,
    thread_id = coalesce(%(thread_id)s, thread_id),
    recipients = %(recipients)s,
    subject = case when %(keeps_text)s then subject else %(subject)s end,
    body = case when %(keeps_text)s then body else %(body)s end,
    body_type = case when %(keeps_text)s then body_type else %(body_type)s end,
    text = case when %(keeps_text)s then text else %(text)s end,
    internet_message_id = coalesce(internet_message_id, %(internet_message_id)s),
    occurred_at = coalesce(occurred_at, %(occurred_at)s),
    edited_at = coalesce(%(edited_at)s, edited_at),
    deleted_at = %(deleted_at)s,
    raw = known.raw || %(raw)s::jsonb,
    updated_at = clock_timestamp()
where id = %(id)s
"""

_ATTACHMENTS = """
insert into queue.attachments (communication_id, external_id, name, content_type, size_bytes, is_inline, kind, details)
select %s, u.external_id, u.name, u.content_type, u.size_bytes, u.is_inline, u.kind, u.details::jsonb
from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::boolean[], %s::text[], %s::text[])
     as u (external_id, name, content_type, size_bytes, is_inline, kind, details)
on conflict (communication_id, external_id) do nothing
"""

_MARK_DELETED = """
with gone as (
    select id, direction, deleted_at from queue.communication_logs
     where channel = %(channel)s and direction = any ('{in,out}') and external_id = %(external_id)s
       for no key update
),
marked as (
    update queue.communication_logs l set deleted_at = clock_timestamp(), updated_at = clock_timestamp()
      from gone where l.id = gone.id and gone.deleted_at is null
)
select id, deleted_at is null, direction = 'in' from gone order by direction limit 1
"""

_AUTOMATIC = """
select count(*) from queue.communication_logs
where automatic and direction = 'in' and thread_id = %(thread_id)s
  and recorded_at > clock_timestamp() - %(window)s::interval
"""

_EVENT_OF_JOB = """
select id, kind from queue.outgoing_events where communication_id = %s and job_id = %s order by position desc limit 1
"""


@dataclass(frozen=True, slots=True)
class _Known:
    """The row of a message that was seen before, locked."""

    id: UUID
    subject: str | None
    body: str
    deleted_at: datetime | None
    modified_at: str | None
    is_same: bool


class PostgresCommunications:
    """See shared.handlers.services.CommunicationLog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, message: Communication) -> Recorded:
        values = _values(message)
        with self._database.transaction() as conn:
            if message.direction == "in" and conn.execute(_OWN, values).fetchone() is not None:
                return Recorded("own")
            row = conn.execute(_INSERT, values).fetchone()
            if row is not None:
                row_id, outcome = row[0], _first_look(conn, message)
            else:
                row_id, outcome = self._look_again(conn, message, values)
            _record_attachments(conn, row_id, message.attachments)
            is_news = message.direction == "in" and not (row is not None and outcome == "deleted")
            return Recorded(outcome, _event(conn, outcome if is_news else "unchanged", row_id, message.job_id))

    def mark_deleted(
        self, channel: Literal["teams", "outlook"], external_id: str, job_id: UUID | None = None
    ) -> Recorded:
        with self._database.transaction() as conn:
            values = {"channel": channel, "external_id": clean_text(external_id)}
            row = conn.execute(_MARK_DELETED, values).fetchone()
            if row is None:
                return Recorded("unknown")
            row_id, is_news, came_in = row
            outcome: Outcome = "deleted" if is_news else "unchanged"
            return Recorded(outcome, _event(conn, outcome if came_in else "unchanged", row_id, job_id))

    @staticmethod
    def _look_again(conn: psycopg.Connection, message: Communication, values: dict[str, Any]) -> tuple[UUID, Outcome]:
        row = conn.execute(_FIND, values).fetchone()
        if row is None:  # the two keys name rows of which neither is visible yet: a rival is committing
            raise RuntimeError("a message neither could be stored nor is there")
        known = _Known(*row)
        outcome = _compare(known, message)
        if outcome != "unchanged":
            keeps_text = message.deleted_at is not None
            conn.execute(_UPDATE, {**values, "id": known.id, "keeps_text": keeps_text})
        return known.id, outcome


def _compare(known: _Known, message: Communication) -> Outcome:
    """What a look at a known message shows. Jobs run in any order: an older look changes nothing."""
    modified_at = message.raw.get("modifiedAt")
    if known.modified_at is not None and modified_at is not None and modified_at < known.modified_at:
        return "unchanged"
    is_newer = known.modified_at is None or modified_at is None or modified_at > known.modified_at
    if message.deleted_at is not None:
        return "deleted" if known.deleted_at is None else "unchanged"
    if known.deleted_at is not None:
        # What a notification brought may be older than the deletion; what Graph shows on request is there.
        return "restored" if is_newer or message.fetched else "unchanged"
    if is_newer and (known.subject, known.body) != (_clean(message.subject), clean_text(message.body)):
        return "edited"
    return "unchanged" if known.is_same else "updated"


def _first_look(conn: psycopg.Connection, message: Communication) -> Outcome:
    """A new row: news, unless it is gone already, or one too many that a machine wrote in its thread."""
    if message.deleted_at is not None:
        return "deleted"
    if not (message.automatic and message.direction == "in" and message.thread_id):
        return "stored"
    thread = clean_text(message.thread_id)
    row = conn.execute(_AUTOMATIC, {"thread_id": thread, "window": AUTOMATIC_WINDOW}).fetchone()
    if row is None or row[0] <= MOST_AUTOMATIC:
        return "stored"
    title = "Automatic messages keep coming in one thread; the application is not told of more of them"
    tell(conn, Alert(f"automatic:{message.channel}:{thread}", "warning", title, {"thread": thread}))
    return "held"


def _event(conn: psycopg.Connection, outcome: Outcome, row_id: UUID, job_id: UUID | None) -> OutgoingEvent | None:
    """The event of this change; without a change, the one that this job made at an earlier try."""
    kind = EVENTS.get(outcome)
    if kind is None:
        row = conn.execute(_EVENT_OF_JOB, (row_id, job_id)).fetchone()
    else:
        row = conn.execute("select queue.add_outgoing_event(%s, %s, %s), %s", (kind, row_id, job_id, kind)).fetchone()
    return OutgoingEvent(row[0], row[1], row_id) if row is not None else None


def _values(message: Communication) -> dict[str, Any]:
    texts = {
        name: _clean(getattr(message, name))
        for name in (
            "direction", "channel", "external_id", "account", "thread_id", "sender", "subject", "body", "body_type",
            "text", "internet_message_id", "correlation_id",
        )
    }  # fmt: skip
    return {
        **texts,
        "recipients": [clean_text(recipient) for recipient in message.recipients],
        "occurred_at": message.occurred_at,
        "edited_at": message.edited_at,
        "deleted_at": message.deleted_at,
        "automatic": message.automatic,
        "job_id": message.job_id,
        "raw": to_json({name: value for name, value in message.raw.items() if value is not None}),
    }


def _clean(text: str | None) -> str | None:
    return None if text is None else clean_text(text)


def _record_attachments(conn: psycopg.Connection, message: UUID, records: Sequence[AttachmentRecord]) -> None:
    if records:
        columns = [
            [clean_text(record.external_id) for record in records],
            [clean_text(record.name) for record in records],
            [_clean(record.content_type) for record in records],
            [record.size for record in records],
            [record.is_inline for record in records],
            [record.kind for record in records],
            [to_json(dict(record.details)) for record in records],
        ]
        conn.execute(_ATTACHMENTS, (message, *columns))
