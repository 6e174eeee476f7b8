"""Alerts, the audit log, limits and figures for the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from shared.admin.cursor import Place
from shared.postgres.admin_jobs import END

ALERT: LiteralString = (
    "a.id, a.alert_key as key, a.level, a.title, a.details, a.occurrences, a.opened_at, a.updated_at,"
    " a.acknowledged_at, a.acknowledged_by, a.resolved_at"
)
_ALERT_STATES: dict[str, LiteralString] = {"open": "a.resolved_at is null", "resolved": "a.resolved_at is not null"}
_AUDIT: LiteralString = "id, at, who, kind, role, action, target, before, after, correlation_id"
#: Keys that are named beside a queue's limits.
KEYS_SHOWN = 20
#: Counts of now stop here.
COUNTED_AT_MOST = 10_000

_LIMITS = """
select s.queue, s.rate_limit, s.rate_seconds, s.concurrency, s.key_rate_limit, s.key_rate_seconds, s.key_concurrency,
       s.job_cost, s.limits_changed_at as changed_at, s.key_scope, coalesce(t.in_use, 0) as in_use, t.blocked_until,
       case when s.rate_limit is null or t.key is null then 0
            else s.rate_limit - queue.slots_free(
                (queue.slots_at(t, s.rate_seconds, clock_timestamp())).slots, s.rate_limit) end as used_in_window
  from queue.queue_settings s
  left join queue.rate_limit_tracking t on t.key = 'queue:' || s.queue
 where s.queue = %(queue)s
"""
_KEYS = """
with busy as (
    select t.key, t.in_use, case when t.blocked_until > clock_timestamp() then t.blocked_until end as blocked_until,
           case when %(limit)s::integer is null then 0 else %(limit)s - queue.slots_free(
               (queue.slots_at(t, %(seconds)s, clock_timestamp())).slots, %(limit)s) end as used_in_window
      from queue.rate_limit_tracking t where starts_with(t.key, %(scope)s || ':')
)
select * from busy where in_use > 0 or used_in_window > 0 or blocked_until is not null
 order by blocked_until desc nulls last, in_use desc, used_in_window desc, key limit %(most)s
"""
_STATS = """
select s.queue, s.class as queue_class, s.paused, nullif(s.closed, '') as closed, j.ready, j.active, l.scheduled,
       w.waiting, d.dead,
       greatest(j.ready + j.active, l.scheduled, w.waiting, d.dead) >= %(most)s as counts_capped,
       k.enqueued / 5.0::float8 as enqueued_per_minute, k.completed / 5.0::float8 as completed_per_minute,
       (k.failed::float8 / nullif(k.completed + k.failed, 0)) as failure_rate, o.oldest_ready_seconds
  from queue.queue_settings s
 cross join lateral (
    select count(*) filter (where c.lease_token is null) as ready, count(c.lease_token) as active
      from (select lease_token from queue.job where queue = s.queue limit %(most)s) c) j
 cross join lateral (
    select count(*) as scheduled from (select from queue.later where queue = s.queue limit %(most)s) c) l
 cross join lateral (
    select count(*) as waiting from (select from queue.waiting where queue = s.queue limit %(most)s) c) w
 cross join lateral (
    select count(*) as dead
      from (select from queue.dead_letter_queue x where x.queue = s.queue and x.redriven_at is null
               and x.discarded_at is null limit %(most)s) c) d
  left join lateral (
    select greatest(0, extract(epoch from clock_timestamp() - min(c.run_at)))::float8 as oldest_ready_seconds
      from (select run_at from queue.job where queue = s.queue and lease_token is null
             order by enqueued_at, id limit 100) c) o on true
  left join lateral (
    select enqueued, completed, failed from queue.queue_statistics q
     where q.queue = s.queue and q.bucket_at > clock_timestamp() - interval '11 minutes'
     order by q.bucket_at desc limit 1) k on true
 order by s.queue
"""
_BUCKETS = """
select date_bin(make_interval(secs => %(bucket)s), q.bucket_at, timestamptz '2000-01-01') as at, q.queue,
       sum(q.enqueued)::bigint as enqueued, sum(q.completed)::bigint as completed, sum(q.failed)::bigint as failed,
       sum(q.dead)::bigint as dead, max(q.ready) as ready, max(q.active) as active, max(q.scheduled) as scheduled,
       max(q.oldest_ready_seconds) as oldest_ready_seconds,
       sum(q.processing_seconds) / nullif(sum(q.completed + q.failed), 0)::float8 as average_seconds
  from queue.queue_statistics q
 where q.bucket_at >= clock_timestamp() - make_interval(secs => %(seconds)s)
   and (%(queue)s::text is null or q.queue = %(queue)s)
 group by 1, 2 order by 1, 2
"""


def list_alerts(
    conn: psycopg.Connection, filters: Mapping[str, Any], after: Place | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first; `filters`: status (open, resolved), level."""
    where = [_ALERT_STATES[filters["status"]]] if filters.get("status") else []
    where += ["a.level = %(level)s"] if filters.get("level") else []
    statement = (
        f"select {ALERT} from queue.queue_alerts a"  # noqa: S608 - of constants
        f" where {' and '.join([*where, '(a.opened_at, a.id) < (%(at)s, %(id)s)'])}"
        " order by a.opened_at desc, a.id desc limit %(limit)s"
    )
    return _rows(conn, statement, {**filters, **_place(after, limit)})


def list_audit(
    conn: psycopg.Connection, filters: Mapping[str, Any], after: Place | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first; `filters`: who, action, target."""
    where = [f"{name} = %({name})s" for name in ("who", "action", "target") if filters.get(name)]
    statement = (
        f"select {_AUDIT} from queue.audit_log"  # noqa: S608 - of constants
        f" where {' and '.join([*where, '(at, id) < (%(at)s, %(id)s)'])} order by at desc, id desc limit %(limit)s"
    )
    return _rows(conn, statement, {**filters, **_place(after, limit)})


def show_limits(conn: psycopg.Connection, queue: str) -> dict[str, Any]:
    """The columns of queue_settings, how full they are, and `keys`."""
    [found] = _rows(conn, _LIMITS, {"queue": queue})
    scope = found.pop("key_scope")
    keyed = {"limit": found["key_rate_limit"], "seconds": found["key_rate_seconds"], "scope": scope}
    return found | {"keys": _rows(conn, _KEYS, keyed | {"most": KEYS_SHOWN}) if scope else []}


def stats(conn: psycopg.Connection) -> dict[str, Any]:
    [alerts] = _rows(
        conn, "select count(*) as open, clock_timestamp() as at from queue.queue_alerts where resolved_at is null", {}
    )
    queues = _rows(conn, _STATS, {"most": COUNTED_AT_MOST})
    return {"at": alerts["at"], "open_alerts": alerts["open"], "queues": queues}


def buckets(conn: psycopg.Connection, queue: str | None, seconds: int, bucket_seconds: int) -> list[dict[str, Any]]:
    return _rows(conn, _BUCKETS, {"queue": queue, "seconds": seconds, "bucket": bucket_seconds})


def _place(after: Place | None, limit: int) -> dict[str, Any]:
    place = after or END
    return {"at": place.at, "id": place.id, "limit": limit + 1}


def _rows(conn: psycopg.Connection, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()
