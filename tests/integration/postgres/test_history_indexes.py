"""An index of the history comes while jobs end, and a runner that was killed on the way is no obstacle."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from local.process import wait_until
from shared.postgres import migrate as migrate_module
from shared.postgres.migrate import Migration, migrate, migrations

FILL = """
insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, finished_at, attempt, payload)
select queue.new_id(), 'sync', 'completed', 5, now(), now(), now() - %s * interval '1 day', 1, '{}'
  from generate_series(1, 50)
"""
INDEXES = """
select c.relname, i.inhrelid is not null, c.relfilenode from pg_class c
  left join pg_inherits i on i.inhrelid = c.oid
 where c.relname like 'job_tracking_2%\\_probe' and c.relkind = 'i' order by 1
"""
END_A_JOB = """
insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, finished_at, attempt, payload)
values (queue.new_id(), 'sync', 'completed', 5, now(), now(), clock_timestamp(), 1, '{}')
"""
SECONDS = 20


@pytest.fixture
def probe(sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> Migration:
    """A migration to come, on a history of two days."""
    for days in (0, 1):
        sql.execute(FILL, (days,))
    known = migrations()
    text = "-- For lists.\ncreate index job_tracking_probe on queue.job_tracking (attempt)\n    where attempt > 1;"
    change = Migration(len(known) + 1, "add_probe", text)
    monkeypatch.setattr(migrate_module, "migrations", lambda: [*known, change])
    return change


def day(back: int) -> str:
    return f"job_tracking_{datetime.now(UTC) - timedelta(days=back):%Y%m%d}"


def waits_for_lock(sql: psycopg.Connection) -> bool:
    row = sql.execute(
        "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query ~ '_probe'"
        " and datname = current_database())"
    ).fetchone()
    return row == (True,)


def test_jobs_end_while_an_earlier_day_is_indexed(database_url: str, sql: psycopg.Connection, probe: Migration) -> None:
    """Somebody writes to yesterday's partition, so that its index has to wait; today's takes jobs all the same."""
    applied: list[str] = []
    runner = threading.Thread(target=lambda: applied.extend(migrate(database_url)))
    with psycopg.connect(database_url) as busy:
        busy.execute(f"update queue.{day(1)} set attempt = 2".encode())
        runner.start()
        assert wait_until(lambda: waits_for_lock(sql), SECONDS)
        with sql.transaction():
            sql.execute("select set_config('lock_timeout', '100ms', true)")
            sql.execute(END_A_JOB)
        busy.commit()
    runner.join(SECONDS)
    assert applied == [f"{probe.version:04} add_probe"]
    [yesterday, today] = sql.execute(INDEXES).fetchall()
    assert [yesterday[:2], today[:2]] == [(f"{day(1)}_probe", True), (f"{day(0)}_probe", True)]


def test_the_migration_takes_what_was_built_before_it(
    database_url: str, sql: psycopg.Connection, probe: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner ends between two days (today's lock is not to be had), and the next builds only what lacks."""
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migrate_module, "LOCK_TRIES", 1)
    with psycopg.connect(database_url) as busy:
        busy.execute(f"update queue.{day(0)} set attempt = 2".encode())
        with pytest.raises(psycopg.errors.LockNotAvailable):
            migrate(database_url)
    [built] = sql.execute(INDEXES).fetchall()
    assert built[:2] == (f"{day(1)}_probe", False)
    assert migrate(database_url) == [f"{probe.version:04} add_probe"]
    found = sql.execute(INDEXES).fetchall()
    assert found[0] == (built[0], True, built[2]), "it was built anew"
    assert found[1][:2] == (f"{day(0)}_probe", True)
    whole = "select indisvalid from pg_index where indexrelid = 'queue.job_tracking_probe'::regclass"
    assert sql.execute(whole).fetchone() == (True,)
