"""The re-encrypt command, and a change of keys while everything runs."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from shared import bootstrap
from shared import reseal as command
from shared.engine.context import Context
from shared.engine.job import Dead, Deferred, ErrorClass, Failure, NewJob
from shared.graph.token_cache import CacheCipher
from shared.postgres import reseal as module
from shared.postgres.missing_keys import MissingKeys
from shared.postgres.pool import Database
from shared.postgres.reseal import Report, Reseal
from shared.postgres.schedules import PostgresSchedules
from shared.postgres.token_cache import PostgresTokenCache
from shared.sealing import KeyRing, key_id
from tests.integration.postgres.sealed import (
    NEW,
    OLD,
    OPEN_QUEUE,
    PAYLOAD,
    QUEUE,
    SECRET,
    Host,
    everything,
    keys,
    sealer,
)
from tests.integration.postgres.test_sealing import Plan

ROOT = Path(__file__).resolve().parents[3]
MINUTE = timedelta(minutes=1)
REFUSED = Failure(ErrorClass.VALIDATION, "refused")


def run(database: Database, *ring: bytes) -> Report:
    said: list[str] = []
    return Reseal(database, sealer(*ring), CacheCipher(KeyRing(*ring)), said.append).run()


def fill(host: Host, sql: psycopg.Connection) -> int:
    """Jobs in every table that has any, sealed by the host and plain from SQL; how many payloads."""
    parent = host.enqueue()
    host.producer.enqueue_many([NewJob(QUEUE, PAYLOAD | {"n": n}, delay=MINUTE if n % 2 else None) for n in range(300)])
    host.producer.enqueue_many([NewJob(QUEUE, PAYLOAD, depends_on=(parent,), delay=MINUTE) for _ in range(3)])
    host.store.bury_job(NewJob(QUEUE, PAYLOAD), "given up", "m-1")
    host.claim(limit=2)
    for _ in range(20):
        sql.execute("select queue.enqueue(%s, %s)", (QUEUE, json.dumps(PAYLOAD)))
    return 1 + 300 + 3 + 1 + 20


def test_everything_is_sealed_with_the_new_key_afterwards(database: Database, sql: psycopg.Connection) -> None:
    old = Host(database, OLD)
    total = fill(old, sql)
    Plan(old, database, sql).schedules.put("report", QUEUE, PAYLOAD, "0 6 * * *")
    old.store.create_batch([NewJob(QUEUE, PAYLOAD)], NewJob(QUEUE, PAYLOAD))
    cipher, caches = CacheCipher(KeyRing(OLD)), PostgresTokenCache(database)
    caches.save("queue@fleet.example", cipher.seal("queue@fleet.example", b"tokens"), None)

    report = run(database, NEW, OLD)

    assert report.is_done and report.sealed == 20 and report.resealed == total - 20 + 1 + 1 + 1 + 1
    assert keys(sql) == {key_id(NEW)} and SECRET not in everything(sql) and key_id(OLD) not in everything(sql)
    only_new = Host(database, NEW)
    for (job_id,) in sql.execute("select id from queue.jobs where queue = %s", (QUEUE,)).fetchall():
        record = only_new.store.get(job_id)
        assert record is not None and record.payload["content"] == SECRET
    assert PostgresSchedules(database, only_new.sealer).list()[0].payload == PAYLOAD
    stored = caches.load("queue@fleet.example")
    assert stored is not None and CacheCipher(KeyRing(NEW)).open("queue@fleet.example", stored.sealed) == b"tokens"
    assert run(database, NEW).is_done, "a second run, without the old key, finds nothing to do"


def test_a_callback_sealed_anew_opens_when_its_batch_ends(database: Database, sql: psycopg.Connection) -> None:
    Host(database, OLD).store.create_batch([NewJob(QUEUE, PAYLOAD)], NewJob(QUEUE, PAYLOAD | {"n": "callback"}))
    assert run(database, NEW, OLD).resealed == 2
    host = Host(database, NEW)
    host.worker.run(QUEUE, 5)
    host.worker.run(QUEUE, 5)
    assert host.ran == [PAYLOAD, PAYLOAD | {"n": "callback"}]


def test_jobs_of_open_queues_stay_as_they_are(database: Database, sql: psycopg.Connection) -> None:
    host = Host(database, NEW)
    host.enqueue({"deadLetterId": str(uuid4())}, OPEN_QUEUE)
    before = everything(sql)
    assert run(database, NEW) == Report() and everything(sql) == before


def test_what_does_not_open_stays_and_is_told(database: Database, sql: psycopg.Connection) -> None:
    host = Host(database, OLD)
    moved, good = host.enqueue(), host.enqueue()
    sql.execute("update queue.job set payload = (select payload from queue.job where id = %s)", (good,))
    report = run(database, NEW)
    assert not report.is_done and sum(report.left.values()) == 2
    assert all(key_id(OLD) in reason for reason in report.left)
    report = run(database, NEW, OLD)
    assert report.resealed == 1 and list(report.left.values()) == [1]
    host.worker.run(QUEUE, 5)
    assert moved is not None and keys(sql) == {key_id(NEW), key_id(OLD)}


def test_a_claimed_job_is_sealed_anew_while_its_worker_runs(database: Database, sql: psycopg.Connection) -> None:
    host = Host(database, OLD)
    host.enqueue()
    [job] = host.claim()
    assert run(database, NEW, OLD).resealed == 1
    host.settle(job, Dead(REFUSED))
    again = host.store.redrive(job.id, "me")
    assert again is not None
    [job] = Host(database, NEW).claim()
    assert json.loads(job.payload) == PAYLOAD


def test_a_row_that_somebody_holds_is_passed_over_and_told(
    database: Database, database_url: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PASSES", 2)
    host = Host(database, OLD)
    held, free = host.enqueue(), host.enqueue()
    with psycopg.connect(database_url) as other:
        other.execute("select from queue.job where id = %s for update", (held,))
        report = run(database, NEW, OLD)
        assert report.resealed == 1 and report.busy == 1 and not report.is_done
    assert run(database, NEW, OLD).resealed == 1 and free is not None and keys(sql) == {key_id(NEW)}


class Interrupted(Exception):
    pass


def test_a_run_that_stops_half_way_is_finished_by_the_next(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(database, OLD)
    total = fill(host, sql)
    write, writes = Reseal._write, 0

    def failing(self: Reseal, table: Any, new: dict[UUID, str]) -> set[UUID]:
        nonlocal writes
        writes += 1
        if writes > 3:
            raise Interrupted
        return write(self, table, new)

    with monkeypatch.context() as patch:
        patch.setattr(Reseal, "_write", failing)
        with pytest.raises(Interrupted):
            run(database, NEW, OLD)
    assert keys(sql) == {key_id(OLD), key_id(NEW), None}
    done = sql.execute("select count(*) from queue.jobs where payload ->> 'key' = %s", (key_id(NEW),)).fetchone()
    report = run(database, NEW, OLD)
    assert done is not None and done[0] > 0 and done[0] + report.sealed + report.resealed == total
    assert report.is_done and keys(sql) == {key_id(NEW)}


def settings(database_url: str, *ring: bytes) -> dict[str, str]:
    current, *previous = (base64.b64encode(key).decode() for key in ring)
    return {"DATABASE_URL": database_url, "ENCRYPTION_KEY": current, "ENCRYPTION_KEYS_PREVIOUS": ",".join(previous)}


def test_the_command_may_be_killed_and_run_again(
    database: Database, database_url: str, sql: psycopg.Connection
) -> None:
    host = Host(database, OLD)
    host.producer.enqueue_many([NewJob(QUEUE, PAYLOAD | {"n": n}) for n in range(4000)])
    environment = os.environ | settings(database_url, NEW, OLD)
    started = [sys.executable, "-m", "shared.reseal"]

    def done() -> int:
        row = sql.execute("select count(*) from queue.job where payload ->> 'key' = %s", (key_id(NEW),)).fetchone()
        return int(row[0]) if row else 0

    with subprocess.Popen(started, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not done() and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert 0 < done() < 4000
    again = subprocess.run(started, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "job: 0 sealed," in again.stdout and done() == 4000
    assert [json.loads(job.payload)["n"] for job in Host(database, NEW).claim(limit=3)] == [0, 1, 2]


def test_keys_change_while_workers_run_and_no_job_is_lost(database: Database, sql: psycopg.Connection) -> None:
    """Old first everywhere, then both with either current, then reseal, then the new one alone."""
    hosts = [Host(database, OLD), Host(database, OLD, NEW), Host(database, NEW, OLD)]
    stop, failures = threading.Event(), []

    def work(host: Host) -> None:
        n = 0
        try:
            while not stop.is_set():
                host.enqueue(PAYLOAD | {"by": id(host), "n": n})
                n += 1
                host.worker.run(QUEUE, 3)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    first = hosts[:2]  # nobody seals with the new key before everybody can open it
    for step in (first, hosts[1:]):
        stop.clear()
        threads = [threading.Thread(target=work, args=(host,)) for host in step]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            run(database, *((OLD, NEW) if step is first else (NEW, OLD)))
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert run(database, NEW, OLD).is_done
    last = Host(database, NEW)
    while last.worker.run(QUEUE, 100).ran:
        pass
    counts: dict[str, int] = dict(
        sql.execute("select state, count(*) from queue.jobs where queue = %s group by 1", (QUEUE,)).fetchall()
    )
    assert set(counts) == {"completed"} and counts["completed"] == sum(len(host.ran) for host in [*hosts, last])
    assert keys(sql) == {key_id(NEW)} and [host.missed for host in hosts] == [[], [], []]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Any:
    def configure(*ring: bytes) -> None:
        bootstrap.stop()
        for name, value in settings(database_url, *ring).items():
            monkeypatch.setenv(name, value)

    yield configure
    bootstrap.stop()


def test_the_command_says_what_it_did(
    database: Database, sql: psycopg.Connection, configured: Callable[..., None]
) -> None:
    Host(database, OLD).enqueue()
    said: list[str] = []
    configured(NEW)
    assert command.main(said.append) == 1 and any(key_id(OLD) in line for line in said)
    said.clear()
    configured(NEW, OLD)
    assert command.main(said.append) == 0
    assert said[0] == "job: 0 sealed, 1 sealed anew" and said[1].startswith("0 payloads were plain and 1")


def test_the_command_without_a_key_says_so(monkeypatch: pytest.MonkeyPatch, configured: Callable[..., None]) -> None:
    configured(NEW)
    monkeypatch.delenv("ENCRYPTION_KEY")
    said: list[str] = []
    assert command.main(said.append) == 1 and "ENCRYPTION_KEY: it is not set" in said[0]


def test_a_missing_key_is_told_by_health_until_it_is_there(
    database: Database, sql: psycopg.Connection, configured: Callable[..., None]
) -> None:
    Host(database, NEW).enqueue()
    configured(OLD)
    bootstrap.built["producer"] = Host(database, OLD).producer
    job = next(iter(bootstrap.store().claim(QUEUE, 1, "w", MINUTE).jobs))
    outcome = bootstrap.worker()._handle(job, Context())
    assert isinstance(outcome, Deferred) and outcome.delay == MINUTE
    [problem] = bootstrap.missing_key_problems()
    assert problem.field == "ENCRYPTION_KEYS_PREVIOUS" and key_id(NEW) in problem.message
    configured(OLD, NEW)
    assert list(bootstrap.missing_key_problems()) == []
    assert sql.execute("select count(*) from queue.queue_alerts where resolved_at is null").fetchone() == (0,)


def test_a_key_of_which_nobody_speaks_any_more_is_not_missed(database: Database, sql: psycopg.Connection) -> None:
    missing = MissingKeys(database)
    for _ in range(3):
        missing.miss("abc")
    assert missing.missed() == ["abc"]
    assert sql.execute("select occurrences, level from queue.queue_alerts").fetchall() == [(1, "critical")]
    sql.execute("update queue.queue_alerts set updated_at = clock_timestamp() - interval '1 hour'")
    assert missing.missed() == []
    missing.miss("abc")
    assert missing.missed() == ["abc"]
    missing.found(["abc", "other"])
    assert missing.missed() == []
