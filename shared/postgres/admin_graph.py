"""Subscriptions and syncs for the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg

from shared.admin.cursor import Place
from shared.postgres.admin_lists import place_values, rows

_SUBSCRIPTION: LiteralString = (
    "w.id, w.resource, w.change_types, w.declared_at, w.due_at, w.tries, w.problem, w.problem_since,"
    " s.id as subscription_id, s.expires_at, s.renewed_at"
)
_STATES: dict[str, LiteralString] = {
    "covered": "s.expires_at > clock_timestamp()",
    "uncovered": "coalesce(s.expires_at <= clock_timestamp(), true)",
    "failing": "w.problem is not null",
}
_SYNC: LiteralString = (
    "id, resource_type, account, kind, started_at, finished_at, outcome, pages, resyncs, created_count, updated_count,"
    " deleted_count, job_id, error_message"
)


def list_subscriptions(
    conn: psycopg.Connection, status: str | None, after: Place | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first. There is a row for each watched mailbox or chat: thousands, not millions."""
    state = _STATES[status] if status is not None else "true"
    statement = (
        f"select {_SUBSCRIPTION} from queue.watched_resources w"  # noqa: S608 - of constants
        " left join queue.subscriptions s on s.watch_id = w.id and s.removed_at is null"
        f" where w.ended_at is null and {state} and (w.declared_at, w.id) < (%(at)s, %(id)s)"
        " order by w.declared_at desc, w.id desc limit %(limit)s"
    )
    return rows(conn, statement, place_values(after, limit))


def subscription_counts(conn: psycopg.Connection) -> dict[str, Any]:
    [found] = rows(conn, "select * from queue.subscription_status", {})
    return found


def list_syncs(
    conn: psycopg.Connection, filters: Mapping[str, Any], after: Place | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first; `filters`: account, resource_type."""
    where = [f"{name} = %({name})s" for name in ("account", "resource_type") if filters.get(name)]
    statement = (
        f"select {_SYNC} from queue.sync_history"  # noqa: S608 - of constants
        f" where {' and '.join([*where, '(started_at, id) < (%(at)s, %(id)s)'])}"
        " order by started_at desc, id desc limit %(limit)s"
    )
    return rows(conn, statement, {**filters, **place_values(after, limit)})
