"""Recurring schedules in `scheduled_jobs`. A held one is a locked row inside a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import namedtuple_row

from shared.engine.errors import PayloadError, Problem
from shared.engine.job import Unreadable
from shared.engine.json_text import to_json
from shared.engine.schedules import CatchUp, Held, Schedule
from shared.postgres.pool import Database
from shared.postgres.sealer import Sealer, of_schedule

_COLUMNS: LiteralString = (
    "name, queue, payload, priority, cron, time_zone, catch_up, paused, planned_from, next_run_at, last_run_at,"
    " last_job_id, problem"
)
_ADD: LiteralString = (
    f"insert into queue.scheduled_jobs ({_COLUMNS})"  # noqa: S608 - constants
    " values (%(name)s, %(queue)s, %(payload)s, %(priority)s, %(cron)s, %(time_zone)s, %(catch_up)s,"
    " %(paused)s, %(planned_from)s, %(next_run_at)s, %(last_run_at)s, %(last_job_id)s, %(problem)s)"
    " on conflict (name) do nothing"
)
_SAVE: LiteralString = """
update queue.scheduled_jobs
   set queue = %(queue)s, payload = coalesce(%(payload)s, payload), priority = %(priority)s, cron = %(cron)s,
       time_zone = %(time_zone)s, catch_up = %(catch_up)s, paused = %(paused)s, planned_from = %(planned_from)s,
       next_run_at = %(next_run_at)s, last_run_at = %(last_run_at)s, last_job_id = %(last_job_id)s,
       problem = %(problem)s
 where name = %(name)s
"""
_RAISE: LiteralString = """
insert into queue.queue_alerts as a (alert_key, level, title, details)
values (%s, 'warning', %s, %s)
on conflict (alert_key) where resolved_at is null do update
   set occurrences = a.occurrences + 1, updated_at = clock_timestamp(), details = excluded.details
"""


class PostgresSchedules:
    """See shared.engine.schedules.ScheduleStore. `clock` is the SQL that says what time it is; tests have their own."""

    def __init__(
        self, database: Database, sealer: Sealer | None = None, clock: LiteralString = "clock_timestamp()"
    ) -> None:
        self._database = database
        self._sealer = sealer or Sealer()
        self._clock = clock

    def next_due(self, after: str) -> AbstractContextManager[Held | None]:
        # By name, and one at a time: a pass takes each once, whatever it leaves due. A row that another scheduler has
        # just moved on is judged again by its new next_run_at once its lock is had.
        return self._held(
            f"select {_COLUMNS}, {self._clock} as now from queue.scheduled_jobs"  # noqa: S608 - constants
            " where name > %s and not paused"
            f" and (next_run_at <= {self._clock} or next_run_at is null and problem is null)"
            " order by name limit 1 for update skip locked",
            after,
        )

    def hold(self, name: str) -> AbstractContextManager[Held | None]:
        return self._held(
            f"select {_COLUMNS}, {self._clock} as now from queue.scheduled_jobs where name = %s for update",  # noqa: S608
            name,
        )

    def now(self) -> datetime:
        with self._database.connection() as conn:
            row = conn.execute(f"select {self._clock}").fetchone()
        if row is None:
            raise AssertionError("a select without from gives a row")
        now: datetime = row[0]
        return now

    def add(self, schedule: Schedule) -> bool:
        try:
            with self._database.connection() as conn:
                return conn.execute(_ADD, _values(schedule, self._payload(schedule))).rowcount == 1
        except (psycopg.errors.InvalidParameterValue, psycopg.errors.ForeignKeyViolation) as error:
            raise _refused(error) from error

    def delete(self, name: str) -> bool:
        with self._database.transaction() as conn:
            _resolve_alert(conn, name)
            return conn.execute("delete from queue.scheduled_jobs where name = %s", (name,)).rowcount == 1

    def list(self) -> Sequence[Schedule]:
        with self._database.connection() as conn, conn.cursor(row_factory=namedtuple_row) as cursor:
            rows = cursor.execute(f"select {_COLUMNS} from queue.scheduled_jobs order by name").fetchall()  # noqa: S608
        return [_schedule(row, self._sealer) for row in rows]

    @contextmanager
    def _held(self, statement: LiteralString, name: str) -> Iterator[Held | None]:
        with self._database.transaction() as conn:
            with conn.cursor(row_factory=namedtuple_row) as cursor:
                row: Any = cursor.execute(statement, (name,)).fetchone()
            yield _Held(conn, _schedule(row, self._sealer), row.now, self._payload) if row is not None else None

    def _payload(self, schedule: Schedule) -> str:
        return to_json(self._sealer.seal(schedule.queue, of_schedule(schedule.name), schedule.payload))


class _Held:
    """See shared.engine.schedules.Held."""

    def __init__(
        self, conn: psycopg.Connection, schedule: Schedule, now: datetime, stored: Callable[[Schedule], str]
    ) -> None:
        self.conn = conn
        self.schedule = schedule
        self.now = now
        self._stored = stored

    def undoing(self) -> AbstractContextManager[object]:
        return self.conn.transaction()

    def save(self, schedule: Schedule) -> None:
        old = self.schedule  # what has not changed stays as it is sealed, and as it is when it does not open
        is_same = (schedule.queue, schedule.payload) == (old.queue, old.payload)
        values = _values(schedule, None if is_same else self._stored(schedule))
        try:
            self.conn.execute(_SAVE, values)
        except (psycopg.errors.InvalidParameterValue, psycopg.errors.ForeignKeyViolation) as error:
            raise _refused(error) from error

    def raise_alert(self, title: str, details: dict[str, Any]) -> None:
        self.conn.execute(_RAISE, (_alert_key(self.schedule.name), title, to_json(details)))

    def resolve_alert(self) -> None:
        _resolve_alert(self.conn, self.schedule.name)


def _resolve_alert(conn: psycopg.Connection, name: str) -> None:
    conn.execute(
        "update queue.queue_alerts set resolved_at = clock_timestamp() where alert_key = %s and resolved_at is null",
        (_alert_key(name),),
    )


def _alert_key(name: str) -> str:
    return f"schedule:{name}"


def _values(schedule: Schedule, payload: str | None) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "queue": schedule.queue,
        "payload": payload,
        "priority": schedule.priority,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "catch_up": schedule.catch_up.value,
        "paused": schedule.paused,
        "planned_from": schedule.planned_from,
        "next_run_at": schedule.next_run_at,
        "last_run_at": schedule.last_run_at,
        "last_job_id": schedule.last_job_id,
        "problem": schedule.problem,
    }


def _schedule(row: Any, sealer: Sealer) -> Schedule:
    opened = sealer.open(of_schedule(row.name), row.payload)
    return Schedule(
        name=row.name,
        queue=row.queue,
        payload=row.payload if isinstance(opened, Unreadable) else opened,
        cron=row.cron,
        time_zone=row.time_zone,
        priority=row.priority,
        catch_up=CatchUp(row.catch_up),
        paused=row.paused,
        planned_from=row.planned_from,
        next_run_at=row.next_run_at,
        last_run_at=row.last_run_at,
        last_job_id=row.last_job_id,
        problem=row.problem,
        unreadable=opened if isinstance(opened, Unreadable) else None,
    )


def _refused(error: psycopg.Error) -> PayloadError:
    """What the database knows better: its own list of time zones, and the queues that it was told of."""
    field = "queue" if isinstance(error, psycopg.errors.ForeignKeyViolation) else "timeZone"
    problem = Problem(field, f"the database does not know it: {error.diag.message_primary}")
    return PayloadError(f"{field}: {problem.message}", [problem])
