"""Daily reports in `daily_report`: made in one transaction each, with the mail that carries it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any, LiteralString

import psycopg

from shared.engine.json_text import to_json
from shared.monitoring.report import WEEK, DailyReport, Desk, Material, ReportHead, day_begin
from shared.monitoring.statistics import Activity
from shared.postgres.pool import Database
from shared.postgres.statistics import activities

LOCK_KEY = 0x5265706F7274  # any number, the same for every host
#: What is made up for after an outage.
MOST_DAYS = 7
DAY = timedelta(days=1)

_DUE: LiteralString = """
with today as (select ({clock} at time zone 'UTC')::date as day),
days as (
    select d::date as day
      from today, generate_series(today.day - %(most)s, today.day - 1, interval '1 day') d
)
select d.day from days d
 where d.day > coalesce((select max(r.day) from queue.daily_report r), (select today.day - 2 from today))
   and exists (select from queue.queue_statistics_hour h
                where h.bucket_at >= d.day::timestamp at time zone 'UTC'
                  and h.bucket_at < (d.day + 1)::timestamp at time zone 'UTC')
   and exists (select from queue.queue_statistics k
                where k.bucket_at >= (d.day + 1)::timestamp at time zone 'UTC' - interval '5 minutes')
 order by d.day
"""
_DEAD_LETTERS: LiteralString = """
select jsonb_build_object('queue', queue, 'errorClass', error_class, 'count', count(*),
                          'newest', to_char(max(died_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI'))
  from queue.dead_letter_queue
 where redriven_at is null and discarded_at is null and reviewed_at is null
 group by queue, error_class order by count(*) desc, queue, error_class
"""
_ALERTS: LiteralString = """
select jsonb_build_object('level', level, 'title', title, 'key', alert_key,
                          'openedAt', to_char(opened_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
                          'resolvedAt', to_char(resolved_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'))
  from queue.queue_alerts where opened_at >= %s and opened_at < %s
 order by opened_at limit 50
"""
_SUBSCRIPTIONS: LiteralString = """
select jsonb_build_object(
    'watched', count(w.id), 'live', count(s.id) filter (where s.expires_at > clock_timestamp()),
    'withProblem', count(w.problem),
    'nextExpiry', to_char(min(s.expires_at) filter (where s.expires_at > clock_timestamp()) at time zone 'UTC',
                          'YYYY-MM-DD HH24:MI'))
  from queue.watched_resources w
  left join queue.subscriptions s on s.watch_id = w.id and s.removed_at is null
 where w.ended_at is null
"""
_COLUMNS: LiteralString = "day, made_at, subject, html, figures"


class PostgresReports:
    """See shared.monitoring.report.Reports. `clock` is the SQL that tells the time; tests have their own."""

    def __init__(self, database: Database, clock: LiteralString = "clock_timestamp()") -> None:
        self._database = database
        self._clock = clock

    def due(self) -> list[date]:
        with self._database.connection() as conn:
            rows = conn.execute(_DUE.replace("{clock}", self._clock), {"most": MOST_DAYS}).fetchall()
        return [row[0] for row in rows]

    @contextmanager
    def desk(self, day: date) -> Iterator[Desk | None]:
        with self._database.transaction() as conn:
            row: Any = conn.execute("select pg_try_advisory_xact_lock(%s)", (LOCK_KEY,)).fetchone()
            known = conn.execute("select from queue.daily_report where day = %s", (day,)).fetchone()
            yield _Desk(conn, day) if row[0] and known is None else None

    def list(self, limit: int = 30, before: date | None = None) -> list[ReportHead]:
        with self._database.connection() as conn:
            rows = conn.execute(
                "select day, made_at, subject from queue.daily_report"
                " where day < coalesce(%s, 'infinity'::date) order by day desc limit %s",
                (before, limit),
            ).fetchall()
        return [ReportHead(*row) for row in rows]

    def get(self, day: date) -> DailyReport | None:
        with self._database.connection() as conn:
            row = conn.execute(
                f"select {_COLUMNS} from queue.daily_report where day = %s",  # noqa: S608 - constant
                (day,),
            ).fetchone()
        return DailyReport(*row) if row is not None else None


class _Desk:
    """See shared.monitoring.report.Desk."""

    def __init__(self, conn: psycopg.Connection, day: date) -> None:
        self.conn = conn
        self._day = day

    def material(self) -> Material:
        begin, end = day_begin(self._day), day_begin(self._day) + DAY
        return Material(
            day=self._between(begin, end),
            day_before=self._between(begin - WEEK, end - WEEK),
            week=self._between(end - WEEK, end),
            week_before=self._between(end - 2 * WEEK, end - WEEK),
            dead_letters=self._objects(_DEAD_LETTERS),
            alerts=self._objects(_ALERTS, begin, end),
            subscriptions=self._objects(_SUBSCRIPTIONS)[0],
        )

    def save(self, subject: str, html: str, figures: Mapping[str, Any]) -> None:
        self.conn.execute(
            "insert into queue.daily_report (day, subject, html, figures) values (%s, %s, %s, %s)",
            (self._day, subject, html, to_json(figures)),
        )

    def _between(self, since: datetime, until: datetime) -> Sequence[Activity]:
        return activities(self.conn, since, until, until - since, True, None)

    def _objects(self, statement: LiteralString, *arguments: Any) -> Sequence[dict[str, Any]]:
        return [row[0] for row in self.conn.execute(statement, arguments or None).fetchall()]
