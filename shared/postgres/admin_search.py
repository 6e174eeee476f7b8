"""What a search by an operator's text may mean: everything in it that names jobs, found by index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg

#: Of one thing, such as a recipient, so many of the newest jobs are looked at for one page.
MOST_JOBS = 500
#: Messages are kept for good, jobs for 30 days: so many weeks back there may be jobs of messages.
WEEKS = 6
WEEK_SECONDS = 604_800
#: The beginning of an id, as lists show it (`01a212ff…b41d`) or as somebody has typed it. Eight digits are a minute.
_PART_OF_ID = re.compile(r"([0-9a-f]{8}[0-9a-f-]*)(?:(?:…|\.{2,3})([0-9a-f]{1,12}))?")

_KEYS: LiteralString = """
select i.job_id from queue.queue_settings s join queue.idempotency i on i.queue = s.queue
 where i.key = any(%(texts)s) and (%(queue)s::text is null or s.queue = %(queue)s)
"""
_AGAIN: LiteralString = """
select substr(target, 5)::uuid from queue.audit_log
 where action = 'job.again' and after ->> 'correlationId' = any(%(texts)s) and target like 'job:%%' limit %(most)s
"""
_MESSAGES: LiteralString = """
(select job_id from queue.communication_logs
  where channel in ('teams', 'outlook') and direction in ('in', 'out') and external_id = %(text)s limit %(most)s)
union all
(select job_id from queue.communication_logs
  where thread_id = %(text)s and occurred_at <= %(until)s order by occurred_at desc limit %(most)s)
"""
_NAMED: LiteralString = """
select job_id from queue.communication_logs
 where queue.message_names(channel, direction, account, sender, recipients, external_id, internet_message_id,
                           recorded_at) @> array[%(name)s]
   and recorded_at <= %(until)s
 order by recorded_at desc limit %(most)s
"""
_DEAD: LiteralString = """
select job_id from queue.dead_letter_queue
 where names && %(digests)s and died_at <= %(until)s order by died_at desc limit %(most)s
"""
_LETTER: LiteralString = "select job_id from queue.dead_letter_queue where id = %(id)s"
_SCOPES: LiteralString = "select distinct key_scope from queue.queue_settings where key_scope is not null"
_LATEST: LiteralString = "select least(%s, clock_timestamp() + interval '1 hour')"


@dataclass(frozen=True, slots=True)
class Found:
    """What the text may mean. `low` and `high` hold the ids that begin like it, `tail` is how they end."""

    ids: list[UUID]
    texts: list[str]
    keys: list[str] = field(default_factory=list)
    low: UUID | None = None
    high: UUID | None = None
    tail: str = ""
    request: str | None = None


def find(
    conn: psycopg.Connection,
    text: str,
    queue: str | None,
    *,
    until: datetime,
    digests: Sequence[bytes] = (),
) -> Found:
    """Jobs are named by an id, or its beginning; correlation id; idempotency key; chat, channel or mailbox; recipient
    or sender; message id; id of a request to Graph. Those of messages are the newest up to `until`. `digests` are those
    of the text under each key that seals payloads.
    """
    text = text.strip()
    texts = list(dict.fromkeys((text, text.lower(), text.upper())))
    [until] = conn.execute(_LATEST, (until,)).fetchone() or (until,)
    values: dict[str, Any] = {"text": text, "texts": texts, "queue": queue, "until": until, "most": MOST_JOBS}
    ids = [*_read(conn, _KEYS, values), *_read(conn, _AGAIN, values), *_read(conn, _MESSAGES, values)]
    if digests:
        ids += _read(conn, _DEAD, values | {"digests": list(digests)})
    ids += _of_messages(conn, text, until, values)
    exact = _uuid(text)
    if exact is not None:
        ids += [exact, *_read(conn, _LETTER, values | {"id": exact})]
    low, high, tail = _range(text.lower()) if exact is None else (None, None, "")
    return Found(
        ids=list(dict.fromkeys(ids)),
        texts=texts,
        keys=_limit_keys(conn, text.lower()),
        low=low,
        high=high,
        tail=tail,
        request=str(exact) if exact is not None else None,
    )


def _of_messages(conn: psycopg.Connection, text: str, until: datetime, values: dict[str, Any]) -> list[UUID]:
    """By the id of a message, or by whom it went to or came from: week by week back, until there are enough."""
    ids = _read(conn, _NAMED, values | {"name": text.strip("<>")})
    for back in range(WEEKS):
        if len(ids) >= MOST_JOBS:
            break
        week = int(until.timestamp()) // WEEK_SECONDS - back
        ids += _read(conn, _NAMED, values | {"name": f"{text.lower()} {week}", "most": MOST_JOBS - len(ids)})
    return ids


def _limit_keys(conn: psycopg.Connection, text: str) -> list[str]:
    """The text as a limit key, whatever its scope is: chat:…, mailbox:…"""
    scopes = [row[0] for row in conn.execute(_SCOPES).fetchall()]
    return [text] if text.partition(":")[0] in scopes else [f"{scope}:{text}" for scope in scopes]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _range(text: str) -> tuple[UUID | None, UUID | None, str]:
    match = _PART_OF_ID.fullmatch(text)
    if match is None:
        return None, None, ""
    digits = match[1].replace("-", "")
    if len(digits) >= 32:
        return None, None, ""
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")), match[2] or ""


def _read(conn: psycopg.Connection, statement: LiteralString, values: dict[str, Any]) -> list[UUID]:
    return [row[0] for row in conn.execute(statement.encode(), values).fetchall() if row[0] is not None]
