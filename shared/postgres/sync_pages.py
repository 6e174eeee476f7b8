"""Statements that store a page of a sync: the items, what is in which set, the counts, and the set's new link, at once.

Each is put together of a head that takes the set for whoever owns the round, a part for the kind of items, and a tail
that moves the set on. A part names what it did: `fresh` (new to this pass), `created`, `updated`, `removed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, LiteralString

from psycopg import sql

from shared.engine.json_text import clean_text, to_json
from shared.handlers.services import Communication
from shared.handlers.sync_store import Content, Messages, Rows, Sets

_HEAD = """
with held as materialized (
    select d.resource
      from queue.delta_links d
     where d.resource = %(resource)s and d.version = %(version)s and queue.hold_sync(%(round)s, %(owner)s)
       for update
),
"""

_TAIL = """
moved as (
    update queue.delta_links d
       set link = %(link)s, state = case when %(is_end)s then 'ready' else 'pass' end, is_full = %(is_full)s,
           full_pass = case when %(is_end)s and %(is_full)s then %(pass)s else d.full_pass end,
           stale_pages = case when %(is_end)s or (select n from fresh) > 0 or d.pass <> %(pass)s then 0
                              else d.stale_pages + 1 end,
           round_id = case when %(is_end)s then %(round)s else d.round_id end,
           pass = %(pass)s, version = d.version + 1, details = %(details)s, updated_at = clock_timestamp()
      from held
     where d.resource = held.resource
    returning d.stale_pages, d.version
),
counted as (
    update queue.sync_history h
       set pages = h.pages + 1, error_message = null,
           created_count = h.created_count + (select n from created),
           updated_count = h.updated_count + (select n from updated),
           deleted_count = h.deleted_count + (select n from removed)
      from held
     where h.id = %(round)s
)
select (select n from created), (select n from updated), m.stale_pages, m.version from moved m
"""

# A tombstone counts where the item is: one that has moved to another set is there, whatever the old one says.
_MEMBERS = """
members as (
    insert into queue.sync_items as s (resource_type, account, external_id, resource, pass, gone)
    select %(resource_type)s, %(account)s, m.id, %(resource)s, %(pass)s, m.gone
      from (select unnest(%(seen)s::text[]) as id, false as gone union all select unnest(%(gone)s::text[]), true) m
     where exists (select from held)
     order by m.id
    on conflict (resource_type, account, external_id) do update
       set resource = excluded.resource, pass = excluded.pass, gone = excluded.gone
     where s.resource = excluded.resource and (s.gone <> excluded.gone or s.pass < excluded.pass)
        or s.resource <> excluded.resource and not excluded.gone
    returning 1
),
fresh as (select count(*) as n from members),
"""

# What a page shows only in part leaves the rest as it is; an older state changes nothing, nor does the same one again.
_ROWS = """
input as materialized (
    select r.id, r.fields from jsonb_to_recordset(%(items)s::jsonb) as r(id text, fields jsonb)
     where exists (select from held)
),
changed as (
    update queue.{table} t
       set ({columns}) = (select {new_columns} from jsonb_populate_record(t, i.fields - 'raw') n),
           raw = t.raw || (i.fields -> 'raw'), deleted_at = null, updated_at = clock_timestamp()
      from input i
     where t.account = %(account)s and t.external_id = i.id
       and (t.deleted_at is not null
            or (t.raw || (i.fields -> 'raw')) is distinct from t.raw
               and coalesce((i.fields ->> 'modified_at')::timestamptz, 'infinity')
                   >= coalesce(t.modified_at, '-infinity'))
    returning 1
),
added as (
    insert into queue.{table} (account, external_id, raw, {columns})
    select %(account)s, i.id, i.fields -> 'raw', {new_columns}
      from input i, jsonb_populate_record(null::queue.{table}, i.fields - 'raw') n
     where not exists (select from queue.{table} t where t.account = %(account)s and t.external_id = i.id)
    returning 1
),
created as (select count(*) as n from added), updated as (select count(*) as n from changed),
removed as (select 0 as n),
"""

#: Tells the application what `news` lists (id, job_id, kind), in the order of positions (migration 0011). All of it is
#: known before the lock is taken, so that nothing else is waited for under it.
TELL: LiteralString = """
turn as materialized (
    select pg_advisory_xact_lock(hashtextextended('queue.outgoing_events', 0))
      from (select count(*) as n from news) c where c.n > 0
),
told as (
    insert into queue.outgoing_events (kind, communication_id, job_id) select n.kind, n.id, n.job_id from news n, turn
),
"""

# The same rules as for a message that a notification brought (communications.py), for many at once. What a sync finds
# of the last days is news that no notification told; what is older is history, and the application hears nothing of it.
# What the log has as sent did not come in, wherever it lies by now.
_WRITTEN: LiteralString = """
input as materialized (
    select row_number() over () as number, i.*
      from jsonb_to_recordset(%(items)s::jsonb) as i(
          direction text, channel text, external_id text, account text, thread_id text, sender text, recipients text[],
          subject text, body text, body_type text, text text, internet_message_id text, occurred_at timestamptz,
          edited_at timestamptz, automatic boolean, job_id uuid, correlation_id text, raw jsonb, attachments jsonb)
     where exists (select from held)
       and not (i.direction = 'in' and exists (
           select from queue.communication_logs o
            where o.channel = i.channel and o.direction = 'out' and o.external_id = i.external_id))
),
matched as materialized (
    select i.number, coalesce(a.id, b.id) as id,
           case when a.id is not null then a.deleted_at else b.deleted_at end as deleted_at,
           (i.subject, i.body) is distinct from
               (case when a.id is not null then a.subject else b.subject end, coalesce(a.body, b.body)) as is_edited
      from input i
      left join queue.communication_logs a
        on a.channel = i.channel and a.direction = i.direction and a.external_id = i.external_id
      left join queue.communication_logs b
        on b.account = i.account and b.internet_message_id = i.internet_message_id and b.direction = i.direction
     where coalesce(a.id, b.id) is not null
),
changed as (
    update queue.communication_logs known
       set external_id = i.external_id,
           thread_id = coalesce(i.thread_id, known.thread_id),
           recipients = i.recipients,
           subject = i.subject,
           body = i.body,
           body_type = i.body_type,
           text = i.text,
           internet_message_id = coalesce(known.internet_message_id, i.internet_message_id),
           occurred_at = coalesce(known.occurred_at, i.occurred_at),
           edited_at = coalesce(i.edited_at, known.edited_at),
           deleted_at = null,
           raw = known.raw || i.raw,
           updated_at = clock_timestamp()
      from input i
      join matched m on m.number = i.number
     where known.id = m.id
       and coalesce(known.raw ->> 'modifiedAt', '') <= coalesce(i.raw ->> 'modifiedAt', '~')
       and (known.raw ->> 'modifiedAt' is distinct from i.raw ->> 'modifiedAt'
            or known.raw ->> 'parentFolderId' is distinct from i.raw ->> 'parentFolderId'
            or known.external_id <> i.external_id or known.deleted_at is not null)
    returning known.id, known.direction, i.job_id, m.deleted_at, m.is_edited
),
added as (
    insert into queue.communication_logs (
        direction, channel, external_id, account, thread_id, sender, recipients, subject, body, body_type, text,
        internet_message_id, occurred_at, edited_at, automatic, job_id, correlation_id, raw)
    select i.direction, i.channel, i.external_id, i.account, i.thread_id, i.sender, i.recipients, i.subject, i.body,
           i.body_type, i.text, i.internet_message_id, i.occurred_at, i.edited_at, i.automatic, i.job_id,
           i.correlation_id, i.raw
      from input i
     where i.number not in (select number from matched)
     order by i.channel, i.direction, i.external_id
    returning id, direction, external_id, occurred_at, job_id
),
attached as (
    insert into queue.attachments (communication_id, external_id, name, content_type, size_bytes, is_inline, kind,
                                   details)
    select coalesce(m.id, n.id), f.external_id, f.name, f.content_type, f.size, f.is_inline, f.kind, f.details
      from input i
     cross join jsonb_to_recordset(i.attachments) as f(
         external_id text, name text, content_type text, size bigint, is_inline boolean, kind text, details jsonb)
      left join matched m on m.number = i.number
      left join added n on n.direction = i.direction and n.external_id = i.external_id
    on conflict (communication_id, external_id) do nothing
),
withdrawn as (
    update queue.communication_logs c
       set deleted_at = coalesce(d.deleted_at, clock_timestamp()), updated_at = clock_timestamp()
      from jsonb_to_recordset(%(deleted)s::jsonb) as d(external_id text, deleted_at timestamptz)
     where c.channel = %(channel)s and c.direction = any ('{{in,out}}') and c.external_id = d.external_id
       and c.deleted_at is null and exists (select from held)
    returning c.id, c.direction
),
news as materialized (
    select id, job_id, 'message.received' as kind from added
     where direction = 'in' and occurred_at > clock_timestamp() - interval '3 days'
    union all
    select id, job_id, case when deleted_at is null then 'message.edited' else 'message.restored' end
      from changed
     where direction = 'in' and (deleted_at is not null or is_edited)
    union all
    select id, null, 'message.deleted' from withdrawn where direction = 'in'
),
"""
_COUNTED: LiteralString = """
created as (select count(*) as n from added), updated as (select count(*) as n from changed),
removed as (select count(*) as n from withdrawn),
"""
_MESSAGES: LiteralString = _WRITTEN + TELL + _COUNTED

_SETS = """
kept as (
    insert into queue.delta_links as d (resource, resource_type, account, parent, parent_pass, details)
    select s.resource, %(resource_type)s, %(account)s, %(resource)s, %(pass)s, s.details
      from jsonb_to_recordset(%(items)s::jsonb) as s(resource text, details jsonb)
     where exists (select from held)
     order by s.resource
    on conflict (resource) do update
       set parent_pass = excluded.parent_pass, details = d.details || excluded.details
     where d.parent_pass < excluded.parent_pass or not d.details @> excluded.details
    returning 1
),
dropped as (
    delete from queue.delta_links d
     where d.resource = any (%(gone)s::text[]) and d.parent = %(resource)s and exists (select from held)
    returning d.resource
),
orphans as (
    update queue.sync_items s set gone = true from dropped where s.resource = dropped.resource and not s.gone
),
fresh as (select (select count(*) from kept) + (select count(*) from dropped) as n),
created as (select 0 as n), updated as (select 0 as n), removed as (select 0 as n),
"""

_COLUMNS: dict[str, tuple[str, ...]] = {
    "calendar_events": (
        "ical_uid", "type", "series_master_id", "subject", "preview", "start_at", "start_time_zone", "end_at",
        "end_time_zone", "is_all_day", "is_cancelled", "is_online_meeting", "online_meeting_url", "show_as",
        "sensitivity", "importance", "organizer_name", "organizer_address", "attendees", "location", "recurrence",
        "categories", "response", "web_link", "etag", "modified_at",
    ),
    "contacts": (
        "folder_id", "display_name", "given_name", "surname", "company_name", "job_title", "department",
        "email_addresses", "mobile_phone", "business_phones", "home_phones", "categories", "notes", "etag",
        "modified_at",
    ),
    "files": (
        "drive_id", "parent_id", "name", "is_folder", "size_bytes", "mime_type", "quick_xor_hash", "sha1_hash",
        "sha256_hash", "web_url", "created_by", "modified_by", "is_malware", "etag", "ctag", "modified_at",
    ),
}  # fmt: skip
#: The table of a resource type; mails and chat messages stand in the communication log.
TABLES = {"calendar": "calendar_events", "contacts": "contacts", "files": "files"}
CHANNELS = {"emails": "outlook", "messages": "teams"}


def statement(resource_type: str, content: Content) -> sql.Composed:
    """The statement that stores such a page of this resource type."""
    if isinstance(content, Sets):
        return _composed(_SETS)
    if isinstance(content, Messages):
        return _composed(_MEMBERS + _MESSAGES)
    table = TABLES[resource_type]
    names = _COLUMNS[table]
    return _composed(
        _MEMBERS + _ROWS,
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(map(sql.Identifier, names)),
        new_columns=sql.SQL(", ").join(sql.Identifier("n", name) for name in names),
    )


def _composed(part: LiteralString, **names: sql.Composable) -> sql.Composed:
    return sql.SQL(_HEAD + part + _TAIL).format(**names)


def values(resource_type: str, content: Content) -> dict[str, Any]:
    """What the page itself gives the statement."""
    if isinstance(content, Sets):
        found = [{"resource": one.resource, "details": dict(one.details)} for one in content.found]
        return {"items": to_json(found), "gone": list(content.gone)}
    gone = [clean_text(one) for one in content.gone]
    if isinstance(content, Rows):
        items = [{"id": clean_text(one), "fields": dict(fields)} for one, fields in content.items.items()]
        return {"items": to_json(items), "seen": [item["id"] for item in items], "gone": gone}
    deleted = [
        {"external_id": one, "deleted_at": moment.isoformat() if moment else None} for one, moment in content.deleted
    ]
    return {
        "items": to_json([_row(message) for message in _once(content.communications)]),
        "seen": [clean_text(one) for one in content.seen],
        "gone": gone,
        "deleted": to_json(deleted),
        "channel": CHANNELS[resource_type],
    }


def _once(messages: Sequence[Communication]) -> list[Communication]:
    """A mail that lies in two folders is one row; of a page's two copies the later one counts."""
    found = {(one.direction, one.internet_message_id or one.external_id): one for one in messages}
    return list(found.values())


def _row(message: Communication) -> dict[str, Any]:
    row = asdict(message)
    for name in ("occurred_at", "edited_at", "deleted_at"):
        row[name] = row[name].isoformat() if row[name] else None
    row["job_id"] = str(message.job_id) if message.job_id else None
    row["recipients"] = list(message.recipients)
    row["attachments"] = [asdict(attachment) for attachment in message.attachments]
    row["raw"] = {name: value for name, value in message.raw.items() if value is not None}
    return row
