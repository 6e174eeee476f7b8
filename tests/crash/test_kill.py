"""Workers are killed at every step; a job is lost by none of them and takes effect once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from random import Random
from typing import IO

import psycopg
import pytest

from local.azurite import Azurite
from shared.engine.enqueue import Producer
from shared.engine.messages import wake_up_body
from shared.engine.relay import Relay
from shared.engine.rescue import Rescue
from shared.handlers.registry import QUEUES
from shared.postgres.store import PostgresStore
from shared.storage.queues import StorageQueues
from tests.crash.worker_process import POINTS, QUEUE

DEADLINE_SECONDS = 60


class Workers:
    """Starts worker processes, and plays the timers while they work."""

    def __init__(self, database_url: str, azurite: Azurite, store: PostgresStore, storage: StorageQueues) -> None:
        self._environment = os.environ | {"DATABASE_URL": database_url, "QueueStorage": azurite.connection_string}
        self.producer = Producer(store, storage, QUEUES, lambda queue, text: text)
        self._relay = Relay(store, storage)
        self._rescue = Rescue(store, self.producer, Random(1))
        self._started: list[subprocess.Popen[str]] = []

    def start(self, point: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker_process", point],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        self._started.append(process)
        assert out(process).readline() == "ready\n"
        return process

    def turn(self, process: subprocess.Popen[str]) -> bool:
        """Let it take what the queue holds; False when it died of it."""
        stdin = process.stdin
        assert stdin is not None
        try:
            stdin.write(f"{QUEUE}\n")
            stdin.flush()
        except BrokenPipeError:
            return False
        return out(process).readline() == "idle\n"

    def tick(self) -> None:
        self._rescue.run()
        self._relay.run()

    def stop(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        continue


def out(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


@pytest.fixture
def workers(
    database_url: str,
    azurite: Azurite,
    postgres_store: PostgresStore,
    storage: StorageQueues,
    sql: psycopg.Connection,
) -> Iterator[Workers]:
    sql.execute("create table effects (job_id uuid not null, at timestamptz default clock_timestamp())")
    sql.execute("update queue.queue_settings set lease_seconds = 1")
    workers = Workers(database_url, azurite, postgres_store, storage)
    yield workers
    workers.stop()


def drain(workers: Workers, process: subprocess.Popen[str], sql: psycopg.Connection) -> None:
    """Work until no job is left that has not ended."""
    until = time.monotonic() + DEADLINE_SECONDS
    while sql.execute("select 1 from queue.jobs where finished_at is null limit 1").fetchone():
        assert time.monotonic() < until, sql.execute("select * from queue.jobs where finished_at is null").fetchall()
        workers.tick()
        assert workers.turn(process)


@pytest.mark.parametrize("point", POINTS)
def test_I1_a_worker_killed_at_this_point_loses_no_job_and_sends_none_twice(
    workers: Workers, sql: psycopg.Connection, point: str
) -> None:
    jobs = [workers.producer.enqueue(QUEUE, {"n": n}).id for n in range(3)]
    victim = workers.start(point)
    assert not workers.turn(victim), "the worker outlived its crash point"
    assert victim.wait(10) == -9
    drain(workers, workers.start("never"), sql)
    assert sql.execute("select state, count(*) from queue.jobs where queue = %s group by 1", (QUEUE,)).fetchall() == [
        ("completed", 3)
    ]
    effects = sql.execute("select job_id, count(*) from effects group by 1").fetchall()
    assert {row[0] for row in effects} == set(jobs) and {row[1] for row in effects} == {1}
    attempts = sql.execute("select max(attempt) from queue.jobs").fetchone()
    assert attempts == ((1 if point in ("after-receive", "after-settle", "before-delete") else 2),)


def test_I7_a_wake_up_outlives_its_worker_until_its_jobs_are_settled(
    workers: Workers, storage: StorageQueues, sql: psycopg.Connection
) -> None:
    workers.producer.enqueue(QUEUE, {})
    assert not workers.turn(workers.start("before-settle"))
    assert storage.count(QUEUE) == 1
    drain(workers, workers.start("never"), sql)


def test_I1_an_enqueue_whose_wake_up_was_never_sent_is_still_run(
    workers: Workers, postgres_store: PostgresStore, storage: StorageQueues, sql: psycopg.Connection
) -> None:
    sql.execute("select queue.enqueue(%s, '{}')", (QUEUE,))
    assert storage.count(QUEUE) == 0
    drain(workers, workers.start("never"), sql)
    assert sql.execute("select count(*) from effects").fetchone() == (1,)


def test_a_wake_up_delivered_twenty_times_has_one_effect(
    workers: Workers, storage: StorageQueues, sql: psycopg.Connection
) -> None:
    workers.producer.enqueue(QUEUE, {})
    for _ in range(19):
        storage.send(QUEUE, wake_up_body(QUEUE, 1))
    process = workers.start("never")
    while storage.count(QUEUE):
        assert workers.turn(process)
    assert sql.execute("select count(*) from effects").fetchone() == (1,)


def test_I1_random_kills_lose_nothing_and_double_nothing(
    workers: Workers, postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    """Nor are the numbers of running jobs, of the queue and of each key, wrong in the moment after a kill."""
    sql.execute(
        "update queue.queue_settings set concurrency = 20, key_concurrency = 10, limits_changed_at = clock_timestamp()"
        " where queue = %s",
        (QUEUE,),
    )
    dice = random.Random(20261125)
    jobs = {workers.producer.enqueue(QUEUE, {"n": n, "chatId": f"chat-{n % 3}"}).id for n in range(60)}
    for _ in range(8):
        process = workers.start(dice.choice(POINTS))
        while workers.turn(process):
            workers.tick()
            if not sql.execute("select 1 from queue.jobs where finished_at is null limit 1").fetchone():
                break
        assert postgres_store.repair() == 0
        workers.tick()
    drain(workers, workers.start("never"), sql)
    rows = sql.execute("select id, state from queue.jobs where queue = %s", (QUEUE,)).fetchall()
    assert {row[0] for row in rows} == jobs and {row[1] for row in rows} == {"completed"}
    effects = sql.execute("select job_id, count(*) from effects group by 1").fetchall()
    assert len(effects) == 60 and {row[1] for row in effects} == {1}
