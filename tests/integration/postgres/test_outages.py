"""What the store says when the database is away, and how it comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from local.postgres import PostgresServer
from local.process import wait_until
from shared.engine.context import Context
from shared.engine.enqueue import Producer
from shared.engine.errors import StoreUnavailableError
from shared.engine.job import Completed, Job, NewJob, Settlement
from shared.engine.memory import MemoryTransport
from shared.engine.worker import Worker
from shared.handlers.registry import QUEUES
from shared.postgres import pool
from shared.postgres.migrate import migrate
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore
from tests.pooler import open_database

QUEUE = "teams-outbound"
LEASE = timedelta(seconds=45)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path / "data")
    server.start()
    migrate(server.url("postgres"))
    yield server
    server.stop("immediate")


def is_back(store: PostgresStore) -> bool:
    try:
        return store.settings(QUEUE).queue == QUEUE
    except StoreUnavailableError:
        return False


def test_a_stopped_database_is_told_as_away_and_work_goes_on_within_5_s_of_its_return(
    own_server: PostgresServer,
) -> None:
    database = Database(own_server.url("postgres"))
    store = PostgresStore(database)
    store.enqueue([NewJob(QUEUE, {})])
    own_server.stop("immediate")
    for call in (lambda: store.claim(QUEUE, 1, "w", LEASE).jobs, lambda: store.enqueue([NewJob(QUEUE, {})])):
        with pytest.raises(StoreUnavailableError):
            call()
    own_server.start()
    back = time.monotonic()
    while True:
        try:
            assert len(store.claim(QUEUE, 5, "w", LEASE).jobs) == 1
            break
        except StoreUnavailableError:
            assert time.monotonic() - back < 5
    database.close()


def test_dead_connections_after_a_quiet_night_are_not_handed_out(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(database)
    store.enqueue([NewJob(QUEUE, {})])
    sql.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fleet-queue'")
    monkeypatch.setattr(pool, "TRUSTED_IDLE_SECONDS", 0.0)
    assert len(store.claim(QUEUE, 1, "w", LEASE).jobs) == 1


def test_after_a_failover_to_a_read_only_server_the_connection_is_given_up(direct_url: str) -> None:
    database = Database(direct_url, max_size=1)
    store = PostgresStore(database)
    store.enqueue([NewJob(QUEUE, {})])
    with database.connection() as conn:
        conn.execute("select set_config('default_transaction_read_only', 'on', false)")
    with pytest.raises(StoreUnavailableError, match="read-only"):
        store.claim(QUEUE, 1, "w", LEASE)
    assert len(store.claim(QUEUE, 1, "w", LEASE).jobs) == 1
    database.close()


@pytest.mark.parametrize("timeout", ["lock_timeout", "statement_timeout"])
def test_a_statement_that_waits_for_a_lock_gives_up_and_is_told_as_away(
    direct_url: str, monkeypatch: pytest.MonkeyPatch, timeout: str
) -> None:
    monkeypatch.setattr(pool, "_TIMEOUTS", f"-c {timeout}=100")
    database = Database(direct_url)
    store = PostgresStore(database)
    with psycopg.connect(direct_url) as other:
        other.execute("lock table queue.job in access exclusive mode")
        with pytest.raises(StoreUnavailableError):
            store.claim(QUEUE, 1, "w", LEASE)
    store.enqueue([NewJob(QUEUE, {})])
    assert len(store.claim(QUEUE, 1, "w", LEASE).jobs) == 1
    database.close()


def test_a_used_up_pool_is_told_as_away(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHECKOUT_SECONDS", 0.1)
    database = open_database(database_url, max_size=1)
    with database.connection(), pytest.raises(StoreUnavailableError, match="PoolTimeout"):
        PostgresStore(database).settings(QUEUE)
    database.close()


def test_a_server_without_a_free_connection_is_told_as_away_and_recovers(
    direct_url: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CHECKOUT_SECONDS", 1.0)
    role = f"narrow_{uuid4().hex}"
    sql.execute(f"create role {role} login superuser connection limit 0".encode())
    sql.execute(f"alter role {role} nosuperuser".encode())  # the limit does not bind a superuser
    sql.execute(f"grant usage on schema queue to {role}".encode())
    sql.execute(f"grant all on all tables in schema queue to {role}".encode())
    address = urlsplit(direct_url)
    database = Database(address._replace(netloc=f"{role}@{address.netloc.rpartition('@')[2]}").geturl())
    store = PostgresStore(database)
    with pytest.raises(StoreUnavailableError):
        store.settings(QUEUE)
    sql.execute(f"alter role {role} connection limit 1".encode())
    assert wait_until(lambda: is_back(store), 10)
    database.close()
    sql.execute(f"drop owned by {role}; drop role {role}".encode())


def test_no_connection_is_held_while_a_handler_waits_for_an_answer(database_url: str) -> None:
    database = open_database(database_url, max_size=1)
    store = PostgresStore(database)
    producer = Producer(store, MemoryTransport(), QUEUES, lambda *_: None)
    producer.enqueue_many([NewJob(QUEUE, {}) for _ in range(5)])
    all_wait, answer = threading.Barrier(6), threading.Event()

    def handler(job: Job, payload: Any, context: Context) -> None:
        all_wait.wait(10)
        assert answer.wait(10)

    worker = Worker(store, producer, lambda _: handler, lambda *_: None, Random(1), "w")
    with ThreadPoolExecutor(5) as threads:
        runs = [threads.submit(worker.run, QUEUE, 1) for _ in range(5)]
        all_wait.wait(10)
        assert store.settings(QUEUE).queue == QUEUE, "with all handlers waiting, the only connection is free"
        answer.set()
        assert [run.result().ran for run in runs] == [1] * 5
    database.close()


def test_a_closed_pool_is_told_as_away_to_who_is_late_and_opens_again(database: Database) -> None:
    def use_late() -> None:
        with database.connection() as conn:
            database.close()
            conn.close()
            conn.execute("select 1")

    with pytest.raises(StoreUnavailableError):
        use_late()
    assert PostgresStore(database).settings(QUEUE).queue == QUEUE


def test_no_prepared_statements_that_a_transaction_pooler_could_lose(direct_url: str) -> None:
    with closing(Database(direct_url, max_size=1)) as database:  # so that the claims went through this one
        store = PostgresStore(database)
        for _ in range(10):
            store.claim(QUEUE, 1, "w", LEASE)
        with database.connection() as conn:
            assert conn.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)


def test_a_settlement_on_a_day_without_partition_makes_it(
    postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    postgres_store.enqueue([NewJob(QUEUE, {})])
    [job] = postgres_store.claim(QUEUE, 1, "w", LEASE).jobs
    for (name,) in sql.execute(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'queue.job_tracking'::regclass"
    ).fetchall():
        sql.execute(f"drop table {name}".encode())
    assert postgres_store.settle([Settlement(job.id, job.lease_token, Completed())]).lost == ()
    assert postgres_store.get(job.id) is not None
