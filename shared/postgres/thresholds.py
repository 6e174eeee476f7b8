"""Thresholds that an operator set, in `alert_thresholds`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import psycopg

from shared.monitoring.rules import SetThreshold, Threshold, check
from shared.postgres.admin_lists import queue_names
from shared.postgres.pool import Database

_SET = """
insert into queue.alert_thresholds (rule, scope, warning, critical, changed_by) values (%s, %s, %s, %s, %s)
on conflict (rule, scope) do update
   set warning = excluded.warning, critical = excluded.critical, changed_by = excluded.changed_by,
       changed_at = clock_timestamp()
"""


class PostgresThresholds:
    """See shared.monitoring.rules.Thresholds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[SetThreshold]:
        with self._database.connection() as conn:
            rows = conn.execute(
                "select rule, scope, warning, critical, changed_at, changed_by"
                " from queue.alert_thresholds order by rule, scope"
            ).fetchall()
        return [SetThreshold(row[0], row[1], Threshold(row[2], row[3]), row[4], row[5]) for row in rows]

    def set(self, rule: str, scope: str, threshold: Threshold, by: str, conn: psycopg.Connection | None = None) -> None:
        with self._on(conn) as on:
            check(rule, scope, threshold, queue_names(on))
            on.execute(_SET, (rule, scope, threshold.warning, threshold.critical, by))

    def reset(self, rule: str, scope: str, conn: psycopg.Connection | None = None) -> bool:
        with self._on(conn) as on:
            done = on.execute("delete from queue.alert_thresholds where rule = %s and scope = %s", (rule, scope))
            if not done.rowcount:
                check(rule, scope, Threshold(None, None), queue_names(on))
            return bool(done.rowcount)

    def _on(self, conn: Any) -> AbstractContextManager[Any]:
        return self._database.connection() if conn is None else nullcontext(conn)
