"""Retention of the history: partitions are made ahead, and dropped by the day."""

from __future__ import annotations

import logging
from datetime import date, timedelta

import psycopg
from psycopg import sql

from shared.postgres.pool import Database

log = logging.getLogger(__name__)

DAYS_AHEAD = 7
KEEP_DAYS = 30


class Partitions:
    """The daily partitions of `job_tracking`."""

    def __init__(self, database: Database, keep_days: int = KEEP_DAYS) -> None:
        self._database = database
        self._keep_days = keep_days

    def maintain(self) -> None:
        """Make the coming days' partitions and drop what is older than `keep_days`. Safe to run anywhere, any time."""
        with self._database.connection() as conn:
            conn.execute("select queue.make_partitions(%s)", (DAYS_AHEAD,))
            old = conn.execute(
                "select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid"
                " where i.inhparent = 'queue.job_tracking'::regclass and c.relname < %s order by c.relname",
                (f"job_tracking_{self._first_kept(conn):%Y%m%d}",),
            ).fetchall()
        for (name,) in old:
            self._drop(name)
        with self._database.connection() as conn:
            conn.execute(
                "delete from queue.idempotency where created_at < clock_timestamp() - make_interval(days => %s)"
                " and not exists (select from queue.job j where j.id = job_id)"
                " and not exists (select from queue.later l where l.id = job_id)"
                " and not exists (select from queue.waiting w where w.id = job_id)",
                (self._keep_days,),
            )

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
