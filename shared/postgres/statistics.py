"""Statistics in `queue_statistics` (five minutes) and `queue_statistics_hour`: kept by a timer, read by pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg.rows import namedtuple_row

from shared.monitoring.statistics import BUCKET, RANGES, Activity, QueueNow, TimerRun, Totals
from shared.postgres.pool import Database

KEEP_DAYS = 30
#: Resolved alerts are kept longer: an operator asks when it last happened.
KEEP_ALERT_DAYS = 90
#: What one run makes up for after an outage; the next goes on.
BUCKETS_A_RUN = 288
#: The first run of all looks back so far.
FIRST_LOOK_BACK = timedelta(hours=1)
#: What was committed late is counted when the bucket is written again by the next run.
AGAIN = 1
HOUR = timedelta(hours=1)
#: Rows that one transaction deletes.
BATCH = 5000

_SUMS: LiteralString = (
    "queue, step_at, enqueued, completed, failed, dead, cancelled, processed, processing_seconds, latency, failures,"
    " ready, active, scheduled, waiting, dead_letters, oldest_ready_seconds"
)
_HEALTH: LiteralString = """
insert into queue.queue_health as h (
    queue, measured_at, enqueued, completed, failed, dead, processed, processing_seconds, latency)
select queue, %(now)s, enqueued, completed, failed, dead, processed, processing_seconds, latency
  from queue.activity(%(now)s - %(window)s, %(now)s)
on conflict (queue) do update
   set measured_at = excluded.measured_at, enqueued = excluded.enqueued, completed = excluded.completed,
       failed = excluded.failed, dead = excluded.dead, processed = excluded.processed,
       processing_seconds = excluded.processing_seconds, latency = excluded.latency
 where h.measured_at <= excluded.measured_at or h.measured_at > excluded.measured_at + %(window)s  -- a clock was ahead
"""
_OLD_ALERTS: LiteralString = """
delete from queue.queue_alerts a using (
    select id from queue.queue_alerts
     where resolved_at is not null and opened_at < clock_timestamp() - make_interval(days => %s) limit %s) old
 where a.id = old.id
"""
_OVERVIEW: LiteralString = """
select b.*, h.measured_at, h.enqueued, h.completed, h.failed, h.dead, h.processed, h.processing_seconds, h.latency
  from queue.backlog() b left join queue.queue_health h on h.queue = b.queue
 order by b.queue
"""


class PostgresStatistics:
    """See shared.monitoring.statistics.Statistics. `clock` is the SQL that tells the time; tests have their own."""

    def __init__(self, database: Database, clock: LiteralString = "clock_timestamp()") -> None:
        self._database = database
        self._clock = clock

    def keep(self) -> int:
        """Write every bucket that has ended and is not written yet, one transaction each; returns how many.

        Run again, or by two hosts at once, it writes the same. It goes on after an outage where it had come to. What a
        clock that was ahead has written is written anew when its time comes.
        """
        with self._database.connection() as conn:
            row: Any = conn.execute(
                "select n.at, (select max(k.bucket_at) from queue.queue_statistics k where k.bucket_at < n.at)"  # noqa: S608
                f" from (select date_bin('5 minutes', {self._clock}, 'epoch') as at) n"
            ).fetchone()
        now, last = row
        first = now - FIRST_LOOK_BACK if last is None else last - AGAIN * BUCKET
        # A gap longer than the history is kept has nothing to count.
        bucket, written = max(first, now - timedelta(days=KEEP_DAYS)), 0
        while bucket < now and written < BUCKETS_A_RUN:
            with self._database.transaction() as conn:
                conn.execute("select queue.keep_bucket(%s, %s)", (bucket, bucket + BUCKET == now))
                following = bucket + BUCKET
                if following == now or _hour(following) != _hour(bucket):
                    conn.execute("select queue.keep_hour(%s)", (_hour(bucket),))
            bucket, written = following, written + 1
        return written

    def measure(self) -> None:
        """Write down the last five minutes of every queue."""
        with self._database.transaction() as conn:
            measure(conn, self._now(conn))

    def forget(self, keep_days: int = KEEP_DAYS) -> None:
        """Delete figures that are older, and alerts that were resolved long ago."""
        for table in ("queue_statistics", "queue_statistics_hour"):
            statement = f"""
                delete from queue.{table} k using (
                    select queue, bucket_at from queue.{table}
                     where bucket_at < {self._clock} - make_interval(days => %s) limit %s) old
                 where k.queue = old.queue and k.bucket_at = old.bucket_at
            """  # noqa: S608 - constants
            delete_in_batches(self._database, statement, keep_days)
        delete_in_batches(self._database, _OLD_ALERTS, KEEP_ALERT_DAYS)

    def overview(self) -> list[QueueNow]:
        with self._database.connection() as conn:
            return overview(conn)

    def series(self, time_range: str, queue: str | None = None) -> list[Activity]:
        span = RANGES[time_range]
        with self._database.connection() as conn:
            now = self._now(conn)
            # Steps begin at whole steps, so that a chart does not shift under the eye; the last one is under way.
            until = _floor(now, span.step) + span.step
            return activities(conn, until - span.length, until, span.step, span.by_hour, queue, slowest=False)

    def between(self, since: datetime, until: datetime) -> list[Activity]:
        with self._database.connection() as conn:
            return activities(conn, since, until, until - since, True, None)

    def totals(self) -> list[Totals]:
        with self._database.connection() as conn:
            rows = conn.execute(
                "select queue, enqueued, completed, failed, dead, cancelled from queue.queue_totals order by queue"
            ).fetchall()
        return [Totals(*row) for row in rows]

    def timers(self) -> list[TimerRun]:
        with self._database.connection() as conn:
            rows = conn.execute(
                "select timer, last_started_at, last_finished_at from queue.timer_turn order by timer"
            ).fetchall()
        return [TimerRun(*row) for row in rows]

    def _now(self, conn: psycopg.Connection) -> datetime:
        row: Any = conn.execute(f"select {self._clock}").fetchone()
        now: datetime = row[0]
        return now


def measure(conn: psycopg.Connection, now: datetime) -> None:
    """Write down the five minutes before `now` of every queue, in the transaction of `conn`."""
    conn.execute(_HEALTH, {"now": now, "window": BUCKET})


def overview(conn: psycopg.Connection) -> list[QueueNow]:
    """Every queue as it is now."""
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        rows: list[Any] = cursor.execute(_OVERVIEW).fetchall()
    return [_queue_now(row) for row in rows]


def delete_in_batches(database: Database, statement: str, *arguments: Any) -> None:
    """In small transactions: a long one would hold back the cleaning of the hot tables. The last argument is the
    statement's limit."""
    while True:
        with database.connection() as conn:
            if conn.execute(statement.encode(), (*arguments, BATCH)).rowcount < BATCH:
                return


def activities(
    conn: psycopg.Connection,
    since: datetime,
    until: datetime,
    step: timedelta,
    by_hour: bool,
    queue: str | None,
    *,
    slowest: bool = True,
) -> list[Activity]:
    """Kept figures by queue and step, in the transaction of `conn`. `slowest` False: without them, in half the time."""
    columns: LiteralString = f"{_SUMS}, {'slowest' if slowest else 'null::jsonb as slowest'}"
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        rows: Sequence[Any] = cursor.execute(
            f"select {columns} from queue.statistics_of(%s, %s, %s, %s, %s) order by queue, step_at",  # noqa: S608
            (since, until, step, by_hour, queue),
        ).fetchall()
    return [
        Activity(
            queue=row.queue,
            at=row.step_at,
            step=step,
            enqueued=row.enqueued,
            completed=row.completed,
            failed=row.failed,
            dead=row.dead,
            cancelled=row.cancelled,
            processed=row.processed,
            processing_seconds=row.processing_seconds,
            latency=row.latency,
            failures=row.failures or {},
            slowest=row.slowest or (),
            ready=row.ready,
            active=row.active,
            scheduled=row.scheduled,
            waiting=row.waiting,
            dead_letters=row.dead_letters,
            oldest_ready_seconds=row.oldest_ready_seconds,
        )
        for row in rows
    ]


def _queue_now(row: Any) -> QueueNow:
    recent = None
    if row.measured_at is not None:
        recent = Activity(
            queue=row.queue,
            at=row.measured_at - BUCKET,
            step=BUCKET,
            enqueued=row.enqueued,
            completed=row.completed,
            failed=row.failed,
            dead=row.dead,
            processed=row.processed,
            processing_seconds=row.processing_seconds,
            latency=row.latency,
        )
    return QueueNow(
        queue=row.queue,
        paused=row.paused,
        ready=row.ready,
        active=row.active,
        scheduled=row.scheduled,
        waiting=row.waiting,
        retrying=row.retrying,
        dead_letters=row.dead_letters,
        oldest_ready_seconds=row.oldest_ready_seconds,
        recent=recent,
    )


def _hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _floor(at: datetime, step: timedelta) -> datetime:
    return at - timedelta(seconds=at.timestamp() % step.total_seconds())
