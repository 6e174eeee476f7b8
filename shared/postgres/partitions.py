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

_LIVES = """
        exists (select from queue.job j where j.id = job_id)
        or exists (select from queue.later l where l.id = job_id)
        or exists (select from queue.waiting w where w.id = job_id)
"""
_OLD_KEYS = f"""
    delete from queue.idempotency i using (
        select queue, key from queue.idempotency
         where created_at < (select clock_timestamp()) - make_interval(days => %s) and not ({_LIVES})
         limit %s) old
     where i.queue = old.queue and i.key = old.key
"""  # noqa: S608 - constants
_OLD_UNIQUE_KEYS = f"""
    delete from queue.uniqueness u using (
        select queue, kind, key from queue.uniqueness
         where first_at < (select clock_timestamp()) - make_interval(days => %s)
           and (until is null or until < (select clock_timestamp())) and not ({_LIVES})
         limit %s) old
     where u.queue = old.queue and u.kind = old.kind and u.key = old.key
"""  # noqa: S608 - constants
_OLD_BATCHES = """
    delete from queue.batch b using (
        select id from queue.batch
         where finished_at < (select clock_timestamp()) - make_interval(days => %s)
         limit %s) old
     where b.id = old.id
"""
_OLD_EVENTS = """
    delete from queue.webhook_events e using (
        select dedupe_key from queue.webhook_events
         where recorded_at < (select clock_timestamp()) - make_interval(days => %s)
         limit %s) old
     where e.dedupe_key = old.dedupe_key
"""
_OLD_OUTGOING_EVENTS = """
    delete from queue.outgoing_events e using (
        select position from queue.outgoing_events
         where recorded_at < (select clock_timestamp()) - make_interval(days => %s)
         limit %s) old
     where e.position = old.position
"""
_OLD_ROUNDS = """
    delete from queue.sync_history h using (
        select id from queue.sync_history
         where finished_at < (select clock_timestamp()) - make_interval(days => %s)
           and not exists (select from queue.delta_links d where d.round_id = id)
         limit %s) old
     where h.id = old.id
"""
_OLD_FAILURES = """
    delete from queue.delivery_failures f using (
        select id from queue.delivery_failures
         where recorded_at < (select clock_timestamp()) - make_interval(days => %s)
         limit %s) old
     where f.id = old.id
"""
_OLD_ROWS = (
    _OLD_KEYS, _OLD_UNIQUE_KEYS, _OLD_BATCHES, _OLD_EVENTS, _OLD_OUTGOING_EVENTS, _OLD_ROUNDS, _OLD_FAILURES,
)  # fmt: skip


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
