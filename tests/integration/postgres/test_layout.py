"""The schema tells the truth: constraints, plans, partitions, migrations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from local.postgres import PostgresServer
from local.process import wait_until
from shared.engine.backoff import RetryPolicy
from shared.engine.job import ENDED, Completed, ErrorClass, JobState, NewJob, Settlement, Singleton, Throttle
from shared.handlers.registry import QUEUES
from shared.postgres import migrate as migrate_module
from shared.postgres import partitions as partitions_module
from shared.postgres.migrate import Migration, MigrationError, migrate, migrations
from shared.postgres.partitions import Partitions
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore

QUEUE = "teams-outbound"


def test_states_in_the_database_are_the_states_in_python(sql: psycopg.Connection) -> None:
    row = sql.execute("select pg_get_viewdef('queue.jobs'::regclass)").fetchone()
    check = sql.execute(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'job_tracking_state'"
        " and conrelid = 'queue.job_tracking'::regclass"
    ).fetchone()
    assert row is not None and check is not None
    shown = {state for state in JobState if f"'{state.value}'::text" in row[0]}
    assert shown == set(JobState) - ENDED
    assert {state for state in JobState if f"'{state.value}'::text" in check[0]} == ENDED


def test_the_claim_reads_the_index_in_order_and_sorts_nothing(sql: psycopg.Connection) -> None:
    sql.execute(
        "insert into queue.job (id, queue, priority, run_at, enqueued_at, payload)"
        " select queue.new_id(), %s, 1 + n %% 10, clock_timestamp(), clock_timestamp(), '{}'"
        " from generate_series(1, 20000) n",
        (QUEUE,),
    )
    sql.execute("analyze queue.job")
    plan = "\n".join(
        row[0]
        for row in sql.execute(
            "explain (costs off) select c.ctid from queue.job c where c.queue = 'teams-outbound'"
            " and c.lease_token is null order by c.priority, c.run_at, c.id limit 16 for update skip locked"
        )
    )
    assert "Index Scan using job_order" in plan and "Sort" not in plan and "Seq Scan" not in plan


def test_claims_stay_hot_updates(sql: psycopg.Connection, database: Database) -> None:
    store = PostgresStore(database)
    store.enqueue([NewJob(QUEUE, {"n": n}) for n in range(200)])
    while store.claim(QUEUE, 50, "w", timedelta(seconds=45)).jobs:
        pass
    database.close()  # a server process reports its figures at its end

    def updates() -> tuple[int, int]:
        row = sql.execute("select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'job'").fetchone()
        assert row is not None
        return row[0], row[1]

    assert wait_until(lambda: updates()[0] == 200, 10)
    # A claimed row is longer by its lease, so some rows of a page whose jobs are all claimed at once must move.
    assert updates()[1] >= 150


def test_hot_tables_are_cleaned_early_and_connections_have_timeouts(
    sql: psycopg.Connection, database: Database
) -> None:
    rows = sql.execute(
        "select relname, reloptions from pg_class"
        " where relnamespace = 'queue'::regnamespace and relname in ('job', 'later')"
    ).fetchall()
    for _, options in rows:
        assert {"autovacuum_vacuum_scale_factor=0.05", "autovacuum_vacuum_threshold=2000"} <= set(options)
    assert len(rows) == 2
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    with database.connection() as conn:
        found = [conn.execute("select current_setting(%s)", (name,)).fetchone() for name in names]
    assert found == [("15s",), ("10s",), ("30s",)]


def test_a_pooler_gets_no_start_up_options(direct_url: str) -> None:
    database = Database(direct_url, pooler=True)
    with database.connection() as conn:
        assert conn.execute("select current_setting('statement_timeout')").fetchone() == ("0",)
    database.close()


def test_a_hundred_thousand_future_jobs_cost_a_claim_and_the_relay_nothing(
    sql: psycopg.Connection, postgres_store: PostgresStore
) -> None:
    sql.execute(
        "insert into queue.later (id, queue, priority, run_at, enqueued_at, payload)"
        " select queue.new_id(), %s, 5, clock_timestamp() + n * interval '1 second' + interval '1 day',"
        " clock_timestamp(), '{}' from generate_series(1, 100000) n",
        (QUEUE,),
    )
    postgres_store.enqueue([NewJob(QUEUE, {})])
    # What was counted before the statistics are emptied belongs to the insert.
    sql.execute("select pg_stat_force_next_flush()")
    sql.execute("select pg_stat_reset()")
    assert len(postgres_store.claim(QUEUE, 1, "w", timedelta(seconds=45)).jobs) == 1
    assert postgres_store.claim(QUEUE, 1, "w", timedelta(seconds=45)).jobs == ()
    assert postgres_store.promote_due(1000) == 0
    read = 0
    until = time.monotonic() + 20
    while not read and time.monotonic() < until:
        with psycopg.connect(sql.info.dsn, autocommit=True) as looking:
            row = looking.execute(
                "select seq_tup_read + coalesce(idx_tup_fetch, 0), seq_scan + idx_scan"
                " from pg_stat_user_tables where relname = 'later'"
            ).fetchone()
        assert row is not None
        rows_read, read = row
    assert read and rows_read < 100


@pytest.mark.parametrize(
    "change",
    [
        "lease_token = gen_random_uuid()",
        "lease_until = now()",
        "priority = 0",
        "priority = 11",
        "run_at = 'infinity'",
    ],
)
def test_constraints_refuse_what_cannot_be_true(
    sql: psycopg.Connection, postgres_store: PostgresStore, change: str
) -> None:
    postgres_store.enqueue([NewJob(QUEUE, {})])
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute(f"update queue.job set {change}".encode())


# ------------------------------------------------------------------ partitions


def partitions(sql: psycopg.Connection) -> list[str]:
    rows = sql.execute(
        "select relname from pg_inherits join pg_class on oid = inhrelid"
        " where inhparent = 'queue.job_tracking'::regclass order by 1"
    )
    return [row[0] for row in rows]


def add_old_partition(sql: psycopg.Connection, day: str) -> None:
    sql.execute(
        f"create table queue.job_tracking_{day.replace('-', '')} partition of queue.job_tracking"
        f" for values from ('{day} 00:00:00+00') to ('{day} 23:59:59+00')".encode()
    )


def test_partitions_are_made_ahead_and_dropped_when_old(database: Database, sql: psycopg.Connection) -> None:
    made = partitions(sql)
    assert len(made) == 9
    add_old_partition(sql, "2020-02-01")
    Partitions(database).maintain()
    assert partitions(sql) == made


def test_a_partition_in_use_is_dropped_by_a_later_run(
    database: Database, sql: psycopg.Connection, database_url: str
) -> None:
    add_old_partition(sql, "2020-02-01")
    with psycopg.connect(database_url) as reader:
        reader.execute("select count(*) from queue.job_tracking")
        Partitions(database).maintain()
        assert "job_tracking_20200201" in partitions(sql)
    Partitions(database).maintain()
    assert "job_tracking_20200201" not in partitions(sql)


def test_dropping_partitions_beside_running_work_costs_no_settlement(
    database: Database, postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    for day in range(1, 15):
        add_old_partition(sql, f"2020-02-{day:02}")
    postgres_store.enqueue([NewJob(QUEUE, {}) for _ in range(300)])
    done = threading.Event()

    def work() -> int:
        settled = 0
        while jobs := postgres_store.claim(QUEUE, 5, "w", timedelta(seconds=45)).jobs:
            settled += len(jobs)
            assert postgres_store.settle([Settlement(j.id, j.lease_token, Completed()) for j in jobs]).lost == ()
        done.set()
        return settled

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work) for _ in range(3)]
        while not done.is_set() and not all(worker.done() for worker in workers):
            Partitions(database).maintain()
        assert sum(worker.result() for worker in workers) == 300
    Partitions(database).maintain()
    assert len(partitions(sql)) == 9


def test_retention_forgets_old_keys_but_not_those_of_jobs_that_are_kept(
    database: Database, postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    postgres_store.enqueue([NewJob(QUEUE, {}, idempotency_key="alive")])
    postgres_store.enqueue([NewJob(QUEUE, {}, idempotency_key="later", delay=timedelta(days=90))])
    [ended] = postgres_store.enqueue([NewJob(QUEUE, {}, idempotency_key="ended today", delay=timedelta(days=40))])
    postgres_store.cancel(ended.id)
    sql.execute("insert into queue.idempotency (queue, key, job_id) values (%s, 'gone', queue.new_id())", (QUEUE,))
    sql.execute("update queue.idempotency set created_at = now() - interval '31 days'")
    Partitions(database).maintain()
    kept = sql.execute("select key from queue.idempotency order by 1").fetchall()
    assert kept == [("alive",), ("ended today",), ("later",)]
    [again] = postgres_store.enqueue([NewJob(QUEUE, {}, idempotency_key="ended today")])
    assert (again.id, again.created) == (ended.id, False)


def test_retention_forgets_old_unique_keys_and_batches_but_not_those_that_still_count(
    database: Database, postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    postgres_store.enqueue([NewJob(QUEUE, {}, unique=Singleton("alive"))])
    postgres_store.enqueue([NewJob(QUEUE, {}, unique=Throttle("open", timedelta(days=90)))])
    sql.execute(
        "insert into queue.uniqueness (queue, kind, key, job_id, first_at, until)"
        " values (%(queue)s, 'singleton', 'gone', queue.new_id(), now(), null),"
        " (%(queue)s, 'throttle', 'over', queue.new_id(), now(), now())",
        {"queue": QUEUE},
    )
    unfinished, _ = postgres_store.create_batch([NewJob(QUEUE, {})], None)
    postgres_store.create_batch([], None)
    sql.execute("update queue.uniqueness set first_at = first_at - interval '31 days'")
    sql.execute("update queue.batch set finished_at = finished_at - interval '31 days'")
    Partitions(database).maintain()
    assert sql.execute("select key from queue.uniqueness order by 1").fetchall() == [("alive",), ("open",)]
    assert sql.execute("select id from queue.batch").fetchall() == [(unfinished,)]


def test_retention_forgets_old_rounds_and_reports_but_not_the_round_of_a_link(
    database: Database, sql: psycopg.Connection
) -> None:
    old, new = "now() - interval '31 days'", "now() - interval '29 days'"
    for account, at in (("old", old), ("linked", old), ("new", new)):
        sql.execute(
            f"insert into queue.sync_history (resource_type, account, kind, started_at, finished_at, outcome)"
            f" values ('contacts', '{account}', 'delta', {at}, {at}, 'completed')".encode()
        )
        sql.execute(
            "insert into queue.delivery_failures (internet_message_id, recipient, status, diagnostic, report_id,"
            f" account, reported_at, recorded_at) values ('m', '{account}', '5', '', 'r', 'a', {at}, {at})".encode()
        )
    sql.execute(
        "insert into queue.delta_links (resource, resource_type, account, round_id)"
        " select 'r', 'contacts', account, id from queue.sync_history where account = 'linked'"
    )
    Partitions(database).maintain()
    assert {row[0] for row in sql.execute("select account from queue.sync_history")} == {"linked", "new"}
    assert {row[0] for row in sql.execute("select recipient from queue.delivery_failures")} == {"new"}


def test_retention_forgets_old_notifications_in_small_transactions(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions_module, "BATCH", 10)
    sql.execute(
        "insert into queue.webhook_events (dedupe_key, subscription_id, kind, received_at, outcome, raw, recorded_at)"
        " select n, 's', 'change', now(), 'recorded', '{}', now() - n * interval '1 day' from generate_series(1, 55) n"
    )
    Partitions(database).maintain()
    row = sql.execute("select count(*), max(dedupe_key::int) from queue.webhook_events").fetchone()
    assert row == (29, 29)


# ------------------------------------------------------------------ migrations


@pytest.fixture
def empty_database(postgres: PostgresServer, database_name: str, address: Callable[[str], str]) -> str:
    name = f"{database_name}_empty"
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())
    return address(name)


def test_migrating_twice_changes_nothing(empty_database: str) -> None:
    assert migrate(empty_database) == [f"{m.version:04} {m.name}" for m in migrations()]
    assert migrate(empty_database) == []


def test_migrating_from_two_places_at_once_applies_each_once(empty_database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = [name for names in pool.map(migrate, [empty_database] * 4) for name in names]
    assert sorted(applied) == [f"{m.version:04} {m.name}" for m in migrations()]


def test_every_queue_of_the_registry_is_declared_and_an_operators_settings_stay(
    database_url: str, sql: psycopg.Connection
) -> None:
    rows = sql.execute("select queue, closed from queue.queue_settings").fetchall()
    assert dict(rows) == {spec.name: spec.closed for spec in QUEUES.values()}
    sql.execute("update queue.queue_settings set paused = true, lease_seconds = 90, wake_size = 4")
    migrate(database_url)
    row = sql.execute(
        "select bool_and(paused), min(lease_seconds), max(wake_size) from queue.queue_settings"
    ).fetchone()
    assert row == (True, 90, 4)


def test_ageing_and_retry_delays_follow_the_registry_until_an_operator_sets_others(
    database_url: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(queue: str) -> tuple[Any, ...] | None:
        columns = "ageing_seconds, retry_delays"
        return sql.execute(
            f"select {columns} from queue.queue_settings where queue = %s",
            (queue,),
        ).fetchone()

    def declare(minutes: int) -> None:
        retries = {ErrorClass.NETWORK: RetryPolicy((minutes,))}
        ageing = timedelta(minutes=minutes)
        queues = {name: replace(spec, ageing=ageing, retries=retries) for name, spec in QUEUES.items()}
        monkeypatch.setattr(migrate_module, "QUEUES", queues)
        migrate(database_url)

    assert found("teams-outbound") == (None, None)
    declare(5)
    assert found("teams-outbound") == (300, {"network": [5]})
    sql.execute("select queue.set_ageing('teams-outbound', '1 hour')")
    sql.execute("select queue.set_retry_delays('outlook-outbound', '{}')")
    declare(7)
    assert found("teams-outbound") == (3600, {"network": [7]})
    assert found("outlook-outbound") == (420, {})


def test_a_failing_migration_leaves_nothing_behind(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Migration(1, "broken", "create table queue.half (id int); select 1 / 0;")
    monkeypatch.setattr(migrate_module, "migrations", lambda: [broken])
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_database)
    with psycopg.connect(empty_database) as conn:
        assert conn.execute("select to_regclass('queue.half'), count(*) from queue.schema_version").fetchone() == (
            None,
            0,
        )


def test_a_migration_whose_text_changed_is_refused(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = migrations()[0]
    migrate(empty_database)
    changed = Migration(first.version, first.name, first.sql + "-- changed")
    monkeypatch.setattr(migrate_module, "migrations", lambda: [changed])
    with pytest.raises(MigrationError, match="add a new migration"):
        migrate(empty_database)


def test_a_migration_waits_for_a_lock_only_briefly(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migrate_module, "LOCK_TRIES", 2)
    change = Migration(len(migrations()) + 1, "widen_job", "alter table queue.job add column extra text")
    known = migrations()
    monkeypatch.setattr(migrate_module, "migrations", lambda: [*known, change])
    with psycopg.connect(database_url) as busy:
        busy.execute("select from queue.job for update")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            migrate(database_url)
        busy.execute("select queue.enqueue('teams-outbound', '{}')")
    assert migrate(database_url) == [f"{change.version:04} widen_job"]
