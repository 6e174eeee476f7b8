"""Rounds and sets of a sync on PostgreSQL. Every write names the round's owner and the set's version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from shared.engine.job import Job
from shared.engine.json_text import to_json
from shared.handlers.sync_store import (
    Busy,
    Content,
    Counts,
    DeltaSet,
    Ended,
    NewSet,
    ResourceType,
    Round,
    RoundLost,
    Step,
    Stored,
)
from shared.postgres import sync_pages
from shared.postgres.pool import Database

#: What a round has not found is marked in portions, each a transaction of its own.
SWEEP_ITEMS = 2000
#: A message that a notification brings while a page is stored: the second look finds it.
STORE_TRIES = 3

#: For each subscription whose declared resource is a user's: the user as declared.
DECLARED_USERS = """
select s.id, substring(w.resource from '^users/([^/]+)/') from queue.subscriptions s
  join queue.watched_resources w on w.id = s.watch_id
 where s.id = any (%s) and w.resource ^@ 'users/'
"""

_ENDED = """
select created_count, updated_count, deleted_count, pages from queue.sync_history
 where job_id = %(job)s and resource_type = %(resource_type)s and account = %(account)s and outcome = 'completed'
 limit 1
"""

_OPEN = """
select h.id, h.kind, h.job_id,
       h.owner is distinct from %(owner)s and exists (
           select from queue.job j
            where j.id = h.owner_job_id and j.lease_token = h.owner and j.lease_until > clock_timestamp()),
       clock_timestamp(),
       exists (select from queue.delta_links d where d.resource_type = %(resource_type)s and d.account = %(account)s)
  from (select %(resource_type)s::text, %(account)s::text) asked
  left join queue.sync_history h
    on h.resource_type = %(resource_type)s and h.account = %(account)s and h.finished_at is null
"""

_START = """
insert into queue.sync_history (resource_type, account, kind, job_id, owner, owner_job_id)
values (%(resource_type)s, %(account)s, %(kind)s, %(job)s, %(owner)s, %(job)s)
returning id
"""

# The pass that runs is given up: what it has stored stays, and the new one goes over it.
_RENEW = """
update queue.delta_links
   set state = 'new', link = null, is_full = true, version = version + 1, updated_at = clock_timestamp()
 where resource_type = %(resource_type)s and account = %(account)s
"""

_ROOTS = """
with held as materialized (select 1 where queue.hold_sync(%(round)s, %(owner)s)),
roots as materialized (
    select r.resource, r.details from jsonb_to_recordset(%(roots)s::jsonb) as r(resource text, details jsonb)
),
forgotten as (
    delete from queue.delta_links d
     where d.resource_type = %(resource_type)s and d.account = %(account)s and d.parent is null
       and d.resource not in (select resource from roots) and exists (select from held)
    returning d.resource
),
orphans as (
    update queue.sync_items s set gone = true from forgotten where s.resource = forgotten.resource and not s.gone
),
kept as (
    insert into queue.delta_links as d (resource, resource_type, account, details)
    select r.resource, %(resource_type)s, %(account)s, r.details from roots r where exists (select from held)
    on conflict (resource) do update set details = d.details || excluded.details
)
select count(*) from held
"""

# Sets that find others come first. Folders that a full pass of theirs has not shown are left to the round's end.
_NEXT = """
select d.resource, d.state, d.link, d.is_full, d.pass, d.version, d.details, d.resynced_at
  from queue.delta_links d
 where d.resource_type = %(resource_type)s and d.account = %(account)s and d.round_id is distinct from %(round)s
 order by d.parent is not null, d.details ->> 'kind' is distinct from 'folders', d.resource
 limit 1
"""

_RESTART = """
with held as materialized (select 1 where queue.hold_sync(%(round)s, %(owner)s)),
counted as (
    update queue.sync_history set resyncs = resyncs + 1
     where id = %(round)s and %(forced)s and exists (select from held)
)
update queue.delta_links
   set state = 'new', link = %(link)s, is_full = true, stale_pages = 0, version = version + 1,
       resynced_at = case when %(forced)s then clock_timestamp() else resynced_at end, updated_at = clock_timestamp()
 where resource = %(resource)s and version = %(version)s and exists (select from held)
returning 1
"""

_SKIP = """
with held as materialized (select 1 where queue.hold_sync(%(round)s, %(owner)s)),
noted as (
    update queue.sync_history set error_message = left(%(reason)s, 1000)
     where id = %(round)s and exists (select from held)
)
update queue.delta_links set round_id = %(round)s, version = version + 1
 where resource = %(resource)s and version = %(version)s and exists (select from held)
returning 1
"""

_VANISHED_SETS = """
with held as materialized (select 1 where queue.hold_sync(%(round)s, %(owner)s)),
vanished as (
    delete from queue.delta_links d using queue.delta_links p
     where p.resource_type = %(resource_type)s and p.account = %(account)s and d.parent = p.resource
       and d.parent_pass < p.full_pass and exists (select from held)
    returning d.resource
)
update queue.sync_items s set gone = true from vanished where s.resource = vanished.resource and not s.gone
"""

# An item's set has told that it is gone, or a full pass has not shown it. `told` tells the two apart.
_SWEEP = """
with held as materialized (select 1 where queue.hold_sync(%(round)s, %(owner)s)),
ending as materialized (
    (select s.external_id, true as told, d.details
       from queue.sync_items s
       left join queue.delta_links d on d.resource = s.resource
      where s.resource_type = %(resource_type)s and s.account = %(account)s and s.gone and exists (select from held)
      limit %(most)s)
    union all
    (select s.external_id, false, d.details
       from queue.delta_links d
       join queue.sync_items s on s.resource = d.resource and s.pass < d.full_pass
      where d.resource_type = %(resource_type)s and d.account = %(account)s and not s.gone
        and exists (select from held)
      limit %(most)s)
),
forgotten as (
    delete from queue.sync_items s using ending e
     where s.resource_type = %(resource_type)s and s.account = %(account)s and s.external_id = e.external_id
),
marked as (
    {mark}
),
{told}
counted as (
    update queue.sync_history set deleted_count = deleted_count + (select count(*) from marked)
     where id = %(round)s and exists (select from held)
)
select (select count(*) from held), (select count(*) from ending)
"""

_RETURNING = "returning 1"
_MARK_ROWS = """
update queue.{table} t set deleted_at = clock_timestamp(), updated_at = clock_timestamp()
  from ending e
 where t.account = %(account)s and t.external_id = e.external_id and t.deleted_at is null
"""

# What a window that has moved no longer shows is past, and stays.
_MARK_EVENTS = (
    _MARK_ROWS
    + """
   and (e.told or t.start_at < (e.details ->> 'end')::timestamptz and t.end_at > (e.details ->> 'start')::timestamptz)
"""
)

_MARK_MAILS = """
update queue.communication_logs c
   set deleted_at = clock_timestamp(), updated_at = clock_timestamp()
  from ending e
 where c.channel = 'outlook' and c.direction = any ('{{in,out}}') and c.external_id = e.external_id
   and c.deleted_at is null
returning c.id, c.direction
"""

_DELETED_MAILS = """
news as materialized (
    select id, null::uuid as job_id, 'message.deleted' as kind from marked where direction = 'in'
),
"""
_TOLD_MAILS: LiteralString = _DELETED_MAILS + sync_pages.TELL

_MARKS: dict[str, LiteralString] = {
    "calendar": _MARK_EVENTS.replace("{table}", "calendar_events") + _RETURNING,
    "contacts": _MARK_ROWS.replace("{table}", "contacts") + _RETURNING,
    "files": _MARK_ROWS.replace("{table}", "files") + _RETURNING,
    "emails": _MARK_MAILS.replace("{{in,out}}", "{in,out}"),
}

# Of a folder that was deleted, Graph need not name what was in it; what was moved out has another parent by now.
_INSIDE_DELETED_FOLDERS = """
with recursive inside as (
    select f.external_id from queue.files f, queue.sync_history h
     where f.account = %(account)s and f.is_folder and f.deleted_at >= h.started_at
       and h.id = %(round)s and h.owner = %(owner)s and h.finished_at is null
    union
    select f.external_id from inside join queue.files f on f.account = %(account)s and f.parent_id = inside.external_id
     where f.deleted_at is null
),
marked as (
    update queue.files t set deleted_at = clock_timestamp(), updated_at = clock_timestamp()
      from inside where t.account = %(account)s and t.external_id = inside.external_id and t.deleted_at is null
    returning t.external_id
),
forgotten as (
    delete from queue.sync_items s using marked
     where s.resource_type = 'files' and s.account = %(account)s and s.external_id = marked.external_id
)
update queue.sync_history set deleted_count = deleted_count + (select count(*) from marked)
 where id = %(round)s and owner = %(owner)s and finished_at is null
"""

_CLOSE = """
update queue.sync_history set finished_at = clock_timestamp(), outcome = %(outcome)s, error_message = %(reason)s
 where id = %(round)s and owner = %(owner)s and finished_at is null
returning created_count, updated_count, deleted_count, pages
"""


class PostgresSync:
    """See shared.handlers.sync_store.SyncStore."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def declared_user(self, subscription_id: str) -> str | None:
        with self._database.connection() as conn:
            row = conn.execute(DECLARED_USERS, ([subscription_id],)).fetchone()
        return row[1] if row is not None else None

    def begin(self, resource_type: ResourceType, account: str, job: Job, *, full: bool) -> Round | Busy | Ended:
        named = {"resource_type": resource_type, "account": account, "job": job.id, "owner": job.lease_token}
        with self._database.transaction() as conn:
            conn.execute(
                "select pg_advisory_xact_lock(hashtextextended(%(resource_type)s || ' ' || %(account)s, 6))", named
            )
            ended = conn.execute(_ENDED, named).fetchone()
            if ended is not None:
                return Ended(Counts(*ended))
            row = conn.execute(_OPEN, named).fetchone()
            if row is None:
                raise AssertionError("an outer join has a row")
            open_id, kind, started_by, is_busy, now, has_sets = row
            if is_busy:
                return Busy()
            if open_id is not None and full and kind == "delta":
                close = {"round": open_id, "outcome": "replaced", "reason": "a full sync took its place"}
                conn.execute("update queue.sync_history set owner = %(owner)s where id = %(round)s", named | close)
                conn.execute(_CLOSE, named | close)
                open_id = None
            if open_id is not None:
                conn.execute(
                    "update queue.sync_history set owner = %(owner)s, owner_job_id = %(job)s where id = %(round)s",
                    named | {"round": open_id},
                )
            else:
                kind, started_by = "full" if full or not has_sets else "delta", job.id
                if full:
                    conn.execute(_RENEW, named)
                [open_id] = _one(conn.execute(_START, named | {"kind": kind}))
        return Round(open_id, resource_type, account, kind, started_by, job.lease_token, now, has_sets)

    def set_roots(self, round_: Round, roots: Sequence[NewSet]) -> None:
        found = [{"resource": root.resource, "details": dict(root.details)} for root in roots]
        with self._database.connection() as conn:
            [held] = _one(conn.execute(_ROOTS, _named(round_) | {"roots": to_json(found)}))
        if not held:
            raise RoundLost

    def next_set(self, round_: Round) -> DeltaSet | None:
        with self._database.connection() as conn:
            row = conn.execute(_NEXT, _named(round_)).fetchone()
        return DeltaSet(*row) if row is not None else None

    def known_messages(self, channel: str, external_ids: Sequence[str]) -> set[str]:
        with self._database.connection() as conn:
            rows = conn.execute(
                "select external_id from queue.communication_logs"
                " where channel = %s and direction = any ('{in,out}') and external_id = any (%s)",
                (channel, list(external_ids)),
            ).fetchall()
        return {row[0] for row in rows}

    def store_page(self, round_: Round, known: DeltaSet, content: Content, step: Step) -> Stored:
        named = _named(round_, known) | {
            "link": step.link,
            "is_end": step.is_end,
            "is_full": step.is_full,
            "pass": step.number,
            "details": to_json(dict(step.details)),
        }
        page = sync_pages.values(round_.resource_type, content)
        statement = sync_pages.statement(round_.resource_type, content)
        for tries_left in reversed(range(STORE_TRIES)):
            try:
                with self._database.connection() as conn:
                    row = conn.execute(statement, named | page).fetchone()
                break
            except psycopg.errors.UniqueViolation:
                if tries_left == 0:
                    raise
        if row is None:
            raise RoundLost
        return Stored(*row)

    def restart(self, round_: Round, known: DeltaSet, link: str | None, *, forced: bool) -> None:
        self._write(_RESTART, _named(round_, known) | {"link": link, "forced": forced})

    def skip(self, round_: Round, known: DeltaSet, reason: str) -> None:
        self._write(_SKIP, _named(round_, known) | {"reason": reason})

    def finish(self, round_: Round) -> Counts:
        named = _named(round_) | {"most": SWEEP_ITEMS}
        with self._database.connection() as conn:
            conn.execute(_VANISHED_SETS, named)
        mark = _MARKS.get(round_.resource_type)
        told = _TOLD_MAILS if round_.resource_type == "emails" else ""
        left = 1 if mark is not None else 0
        while left:
            with self._database.connection() as conn:
                held, left = _one(conn.execute(_SWEEP.replace("{mark}", mark or "").replace("{told}", told), named))
            if not held:
                raise RoundLost
        with self._database.transaction() as conn:
            if round_.resource_type == "files":
                conn.execute(_INSIDE_DELETED_FOLDERS, named)
            row = conn.execute(_CLOSE, named | {"outcome": "completed", "reason": None}).fetchone()
        if row is None:
            raise RoundLost
        return Counts(*row)

    def fail(self, round_: Round, reason: str, *, restart: DeltaSet | None = None) -> None:
        with self._database.transaction() as conn:
            if restart is not None:
                conn.execute(_RESTART, _named(round_, restart) | {"link": None, "forced": True})
            conn.execute(_CLOSE, _named(round_) | {"outcome": "failed", "reason": reason[:1000]})

    def note(self, round_: Round, reason: str) -> None:
        with self._database.connection() as conn:
            conn.execute(
                "update queue.sync_history set error_message = %(reason)s where id = %(round)s and owner = %(owner)s",
                _named(round_) | {"reason": reason[:1000]},
            )

    def _write(self, statement: LiteralString, named: dict[str, Any]) -> None:
        with self._database.connection() as conn:
            if conn.execute(statement, named).fetchone() is None:
                raise RoundLost


def _named(round_: Round, known: DeltaSet | None = None) -> dict[str, Any]:
    named: dict[str, Any] = {
        "round": round_.id,
        "owner": round_.owner,
        "resource_type": round_.resource_type,
        "account": round_.account,
    }
    return named if known is None else named | {"resource": known.resource, "version": known.version}


def _one(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    row = cursor.fetchone()
    if row is None:
        raise AssertionError("the statement returns a row")
    return tuple(row)
