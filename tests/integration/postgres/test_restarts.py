"""Hosts that are stopped and started all the time, and orders that break off in the middle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared.engine.context import Context
from shared.engine.enqueue import Producer
from shared.engine.job import Dead, ErrorClass, Failure, Job, NewJob, Settlement
from shared.engine.memory import MemoryTransport
from shared.engine.worker import Worker
from shared.handlers.registry import QUEUES
from shared.postgres.store import PostgresStore
from tests.integration.postgres.test_concurrency import LEASE, QUEUE

HOSTS = 100
AT_ONCE = 4
MOST_JOBS = 6


def test_a_hundred_rolling_restarts_under_load_lose_and_double_nothing(
    postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    """Each host claims three jobs at a time and is told to stop in the middle of one, while others work on."""
    sql.execute("update queue.queue_settings set claim_batch = 3")
    producer = Producer(postgres_store, MemoryTransport(), QUEUES, lambda *_: None)
    jobs = {made.id for made in producer.enqueue_many([NewJob(QUEUE, {})] * (MOST_JOBS * HOSTS))}
    ran: list[UUID] = []
    stops_at = [Random(number).randint(1, MOST_JOBS) for number in range(HOSTS)]

    def host(number: int) -> None:
        started: list[UUID] = []

        def handler(job: Job, payload: Any, context: Context) -> None:
            started.append(job.id)
            if len(started) == stops_at[number]:
                worker.stop()

        worker = Worker(postgres_store, producer, lambda _: handler, lambda *_: None, Random(number), f"host-{number}")
        assert worker.run(QUEUE, MOST_JOBS).lost == []
        ran.extend(started)

    with ThreadPoolExecutor(AT_ONCE) as machines:
        list(machines.map(host, range(HOSTS)))
    assert len(ran) == sum(stops_at) and len(set(ran)) == len(ran) and set(ran) <= jobs
    rows = sql.execute("select state, attempt, count(*) from queue.jobs group by 1, 2 order by 1").fetchall()
    assert rows == [("completed", 1, len(ran)), ("ready", 0, len(jobs) - len(ran))]


@pytest.mark.parametrize("verb", ["redrive", "discard"])
def test_a_redrive_that_breaks_off_leaves_the_dead_letter_to_the_next(
    postgres_store: PostgresStore, sql: psycopg.Connection, direct_url: str, verb: str
) -> None:
    [made] = postgres_store.enqueue([NewJob(QUEUE, {"n": 1}, correlation_id="trip-7", idempotency_key="k")])
    [job] = postgres_store.claim(QUEUE, 1, "w", LEASE).jobs
    refused = Dead(Failure(ErrorClass.VALIDATION, "refused"))
    postgres_store.settle([Settlement(job.id, job.lease_token, refused)])
    before = sql.execute("select count(*) from queue.jobs").fetchone()
    conn = psycopg.connect(direct_url)
    conn.execute(f"select queue.{verb}(%s, 'ann')".encode(), (made.id,))
    sql.execute("select pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        conn.commit()
    conn.close()
    assert sql.execute("select count(*) from queue.jobs").fetchone() == before
    again = postgres_store.redrive(made.id, "ben")
    assert again is not None and again.created and postgres_store.redrive(made.id, "cid") is None
    record, dead = postgres_store.get(again.id), postgres_store.get(made.id)
    assert record is not None and dead is not None
    assert (record.payload, record.correlation_id, record.redrive_of) == ({"n": 1}, "trip-7", made.id)
    assert [attempt.message for attempt in dead.attempts] == ["refused"], "the attempts stay with the dead one"
