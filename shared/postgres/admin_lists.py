"""Alerts, the audit log, limits and figures for the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

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
# Most keys rest: nothing runs, and their last start is longer ago than a window. Only the others' slots are counted.
_KEYS = """
with busy as (
    select t.key, t.in_use, case when t.blocked_until > n.at then t.blocked_until end as blocked_until,
           case when %(limit)s::integer is null then 0 else %(limit)s - queue.slots_free(
               (queue.slots_at(t, %(seconds)s, n.at)).slots, %(limit)s) end as used_in_window
      from (select clock_timestamp() as at) n, queue.rate_limit_tracking t
     where starts_with(t.key, %(scope)s || ':')
       and (t.in_use > 0 or t.blocked_until > n.at
            or (%(limit)s::integer is not null and t.counts is not null
                and (t.window_seconds is distinct from %(seconds)s
                     or t.bucket > extract(epoch from n.at) / (%(seconds)s / 20) - 22)))
)
select * from busy where in_use > 0 or used_in_window > 0 or blocked_until is not null
 order by blocked_until desc nulls last, in_use desc, used_in_window desc, key limit %(most)s
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
    return rows(conn, statement, {**filters, **place_values(after, limit)})


def show_alert(conn: psycopg.Connection, alert_id: UUID) -> dict[str, Any] | None:
    found = rows(conn, f"select {ALERT} from queue.queue_alerts a where a.id = %(id)s", {"id": alert_id})  # noqa: S608
    return found[0] if found else None


def list_audit(
    conn: psycopg.Connection, filters: Mapping[str, Any], after: Place | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first; `filters`: who, action, target."""
    where = [f"{name} = %({name})s" for name in ("who", "action", "target") if filters.get(name)]
    statement = (
        f"select {_AUDIT} from queue.audit_log"  # noqa: S608 - of constants
        f" where {' and '.join([*where, '(at, id) < (%(at)s, %(id)s)'])} order by at desc, id desc limit %(limit)s"
    )
    return rows(conn, statement, {**filters, **place_values(after, limit)})


def queue_names(conn: psycopg.Connection) -> list[str]:
    """Also of those that are no longer declared."""
    return [row[0] for row in conn.execute("select queue from queue.queue_settings order by 1").fetchall()]


def show_limits(conn: psycopg.Connection, queue: str) -> dict[str, Any]:
    """The columns of queue_settings, how full they are, and `keys`."""
    [found] = rows(conn, _LIMITS, {"queue": queue})
    scope = found.pop("key_scope")
    keyed = {"limit": found["key_rate_limit"], "seconds": found["key_rate_seconds"], "scope": scope}
    return found | {"keys": rows(conn, _KEYS, keyed | {"most": KEYS_SHOWN}) if scope else []}


def open_alerts(conn: psycopg.Connection) -> tuple[datetime, dict[str, int]]:
    """The time, and how many are open by level."""
    found = conn.execute("select level, count(*) from queue.queue_alerts where resolved_at is null group by level")
    counts: dict[str, int] = dict(found.fetchall())
    [clock] = rows(conn, "select clock_timestamp() as now", {})
    return clock["now"], counts


def place_values(after: Place | None, limit: int) -> dict[str, Any]:
    place = after or END
    return {"at": place.at, "id": place.id, "limit": limit + 1}


def rows(conn: psycopg.Connection, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()
