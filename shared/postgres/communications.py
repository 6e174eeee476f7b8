"""The communication log on PostgreSQL: a message is one row, however often and under whatever id it comes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg

from shared.engine.json_text import clean_text, to_json
from shared.handlers.services import AttachmentRecord, Communication
from shared.postgres.pool import Database

_INSERT = """
insert into queue.communication_logs (
    direction, channel, external_id, account, thread_id, sender, recipients, subject, body, body_type, text,
    internet_message_id, occurred_at, job_id, correlation_id, raw)
values (
    %(direction)s, %(channel)s, %(external_id)s, %(account)s, %(thread_id)s, %(sender)s, %(recipients)s, %(subject)s,
    %(body)s, %(body_type)s, %(text)s, %(internet_message_id)s, %(occurred_at)s, %(job_id)s, %(correlation_id)s,
    %(raw)s)
on conflict do nothing
returning id
"""

# By Graph's id, or by the mail's own id: a mail that was moved may have a new one of Graph's.
_FIND = """
select id from queue.communication_logs
where channel = %(channel)s and direction = %(direction)s and external_id = %(external_id)s
   or account = %(account)s and internet_message_id = %(internet_message_id)s and direction = %(direction)s
order by external_id = %(external_id)s desc
limit 1
for no key update
"""

# Jobs run in any order: an older look at the message changes nothing. What a later look does not know stays.
_UPDATE = """
update queue.communication_logs as known
set external_id = %(external_id)s,
    thread_id = coalesce(%(thread_id)s, thread_id),
    recipients = %(recipients)s,
    subject = %(subject)s,
    body = %(body)s,
    body_type = %(body_type)s,
    text = %(text)s,
    internet_message_id = coalesce(internet_message_id, %(internet_message_id)s),
    occurred_at = coalesce(occurred_at, %(occurred_at)s),
    raw = known.raw || %(raw)s::jsonb,
    updated_at = clock_timestamp()
where id = %(id)s
  and coalesce(known.raw ->> 'modifiedAt', '') <= coalesce(%(raw)s::jsonb ->> 'modifiedAt', '~')
"""

_ATTACHMENTS = """
insert into queue.attachments (communication_id, external_id, name, content_type, size_bytes, is_inline, kind)
select %s, u.external_id, u.name, u.content_type, u.size_bytes, u.is_inline, u.kind
from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::boolean[], %s::text[])
     as u (external_id, name, content_type, size_bytes, is_inline, kind)
on conflict (communication_id, external_id) do nothing
"""

_MARK_DELETED = """
update queue.communication_logs
set raw = raw || jsonb_build_object('deletedDateTime', coalesce(%(deleted_at)s::timestamptz, clock_timestamp())),
    updated_at = clock_timestamp()
where channel = %(channel)s and direction = 'in' and external_id = %(external_id)s
  and not raw ? 'deletedDateTime'
returning id
"""


class PostgresCommunications:
    """See shared.handlers.services.CommunicationLog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, message: Communication) -> bool:
        values = _values(message)
        with self._database.transaction() as conn:
            row = conn.execute(_INSERT, values).fetchone()
            is_new = row is not None
            if row is None:
                row = conn.execute(_FIND, values).fetchone()
                if row is None:  # the two keys name rows of which neither is visible yet: a rival is committing
                    raise RuntimeError("a message neither could be stored nor is there")
                conn.execute(_UPDATE, {**values, "id": row[0]})
            _record_attachments(conn, row[0], message.attachments)
        return is_new

    def mark_deleted(self, channel: Literal["teams", "outlook"], external_id: str, deleted_at: datetime | None) -> bool:
        values = {"channel": channel, "external_id": clean_text(external_id), "deleted_at": deleted_at}
        with self._database.connection() as conn:
            return conn.execute(_MARK_DELETED, values).fetchone() is not None


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
        ]
        conn.execute(_ATTACHMENTS, (message, *columns))
