"""Retention: partitions of the history are made ahead and dropped by the day; keys, batches and notices forgotten."""

from __future__ import annotations

import logging
from datetime import date, timedelta

import psycopg
from psycopg import sql

from shared.postgres.pool import Database

log = logging.getLogger(__name__)

DAYS_AHEAD = 7
KEEP_DAYS = 30
#: Rows that one transaction deletes, where there are no partitions to drop.
BATCH = 5000

_LIVES = """(
    exists (select from queue.job j where j.id = job_id)
    or exists (select from queue.later l where l.id = job_id)
    or exists (select from queue.waiting w where w.id = job_id))"""


def _forget(table: str, time: str, unless: str = "false") -> str:
    """Deletes up to BATCH rows whose time is longer ago than some days; takes the days and the batch."""
    return f"""
    delete from queue.{table} where ctid = any(array(
        select ctid from queue.{table}
         where {time} < (select clock_timestamp()) - make_interval(days => %s) and not ({unless})
         limit %s))"""  # noqa: S608 - constants


_OLD_ROWS = (
    _forget(
        "idempotency",
        "created_at",
        f"{_LIVES} or exists (select from queue.job_tracking t where t.id = job_id)",
    ),
    _forget("uniqueness", "first_at", f"{_LIVES} or coalesce(until >= (select clock_timestamp()), false)"),
    _forget("batch", "finished_at"),
    _forget("webhook_events", "recorded_at"),
    _forget("outgoing_events", "recorded_at"),
    _forget("sync_history", "finished_at", "exists (select from queue.delta_links d where d.round_id = id)"),
    _forget("delivery_failures", "recorded_at"),
    # It takes no deletion of what is younger than a year.
    _forget("audit_log", "at", "at >= (select clock_timestamp()) - interval '366 days'"),
)


class Partitions:
    """The daily partitions of `job_tracking`, and what else is kept for as long as they are."""

    def __init__(self, database: Database, keep_days: int = KEEP_DAYS) -> None:
        self._database = database
        self._keep_days = keep_days

    def maintain(self) -> None:
        """Make the coming days' partitions and forget what is older than `keep_days`. Safe to run at any time."""
        with self._database.connection() as conn:
            conn.execute("select queue.make_partitions(%s)", (DAYS_AHEAD,))
            old = conn.execute(
                "select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid"
                " where i.inhparent = 'queue.job_tracking'::regclass and c.relname < %s order by c.relname",
                (f"job_tracking_{self._first_kept(conn):%Y%m%d}",),
            ).fetchall()
        for (name,) in old:
            self._drop(name)
        for statement in _OLD_ROWS:
            self._delete(statement)

    def _delete(self, statement: str) -> None:
        """In small transactions: a long one would hold back the cleaning of the hot tables."""
        while True:
            with self._database.connection() as conn:
                if conn.execute(statement.encode(), (self._keep_days, BATCH)).rowcount < BATCH:
                    return

    def _first_kept(self, conn: psycopg.Connection) -> date:
        row = conn.execute("select (clock_timestamp() at time zone 'UTC')::date").fetchone()
        if row is None:
            raise AssertionError("a select without from gives a row")
        today: date = row[0]
        return today - timedelta(days=self._keep_days)

    def _drop(self, name: str) -> None:
        """One partition, in a transaction of its own, giving way to running work: the next run tries again."""
        try:
            with self._database.transaction() as conn:
                conn.execute("select set_config('lock_timeout', '1s', true)")
                conn.execute(sql.SQL("drop table queue.{}").format(sql.Identifier(name)))
        except Exception as error:
            if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            log.warning("partition.drop_postponed", extra={"partition": name})
        else:
            log.info("partition.dropped", extra={"partition": name})
