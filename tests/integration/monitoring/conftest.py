"""History made by hand, at times of the test's choice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared.engine.json_text import to_json

QUEUE = "teams-outbound"


class History:
    """Writes ended jobs."""

    def __init__(self, sql: psycopg.Connection) -> None:
        self.sql = sql

    def end(
        self,
        finished_at: datetime,
        *,
        queue: str = QUEUE,
        state: str = "completed",
        took: float = 0.1,
        waited: float = 0.0,
        errors: tuple[str, ...] = (),
        made_at: datetime | None = None,
    ) -> UUID:
        """One job that ended at this time; `errors` are the classes of its failed attempts, in seconds of their own."""
        started = finished_at - timedelta(seconds=took)
        due = started - timedelta(seconds=waited)
        attempts: list[dict[str, Any]] = [
            {"number": n, "started_at": due.isoformat(), "outcome": "retry", "error_class": error}
            for n, error in enumerate(errors, 1)
        ]
        if state == "completed":
            attempts.append({"number": len(errors) + 1, "started_at": started.isoformat(), "outcome": "completed"})
        row = self.sql.execute(
            "insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, started_at, finished_at,"
            " attempt, payload, attempts, error_class, error_message)"
            " values (overlay(queue.first_id(%s)::text placing right(gen_random_uuid()::text, 12) from 25)::uuid,"
            " %s, %s, 5, %s, %s, %s, %s, %s, '{}', %s, %s, %s) returning id",
            (
                made_at or due, queue, state, started if errors else due, due, started, finished_at, len(attempts),
                to_json(attempts), errors[-1] if state == "dead" else None, "why" if state == "dead" else None,
            ),
        ).fetchone()  # fmt: skip
        assert row is not None
        found: UUID = row[0]
        return found

    def day(self, at: datetime) -> None:
        """The partition of another day than these."""
        name = f"job_tracking_{at:%Y%m%d}"
        self.sql.execute(
            f"create table if not exists queue.{name} partition of queue.job_tracking"
            f" for values from ('{at:%Y-%m-%d} 00:00:00+00') to ('{at + timedelta(days=1):%Y-%m-%d} 00:00:00+00')"
        )


@pytest.fixture
def history(sql: psycopg.Connection) -> History:
    return History(sql)


@pytest.fixture
def set_clock(sql: psycopg.Connection) -> Callable[[datetime], None]:
    """What `test_clock.now()` says from now on."""
    sql.execute("create schema test_clock")
    sql.execute("create table test_clock.reading (at timestamptz)")
    sql.execute("insert into test_clock.reading values (clock_timestamp())")
    sql.execute(
        "create function test_clock.now() returns timestamptz language sql as 'select at from test_clock.reading'"
    )

    def set_to(at: datetime) -> None:
        sql.execute("update test_clock.reading set at = %s", (at,))

    return set_to
