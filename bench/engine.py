"""Throughput of the engine beside plain SQL on the same server: `./dev python -m bench.engine`.

The server is PostgreSQL with its defaults (fsync and synchronous_commit on) on this machine's cores, which the
clients share. Plain and ours take turns, so that a slow moment of the machine hits both. Every phase is the whole
product but for the wake-ups: validation, attempts, history, leases, heartbeat.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import psycopg

from local.postgres import PostgresServer
from shared.engine.enqueue import Producer
from shared.engine.job import NewJob
from shared.engine.ports import NO_LIMITS, Limits, Rate
from shared.engine.worker import Worker
from shared.handlers.registry import QUEUES
from shared.postgres.migrate import migrate
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore

QUEUE = "teams-outbound"
ROUNDS = 3
PAYLOAD = {"n": 1, "text": "x" * 380}
CHATS = 50
#: Kept at every claim, and never reached.
FAR = Limits(rate=Rate(1_000_000, timedelta(seconds=1)), concurrency=10_000)
FAR_FOR_KEYS = replace(FAR, key_rate=Rate(1_000_000, timedelta(seconds=1)), key_concurrency=10_000)


class NoTransport:
    """Wake-ups go nowhere: the Storage Queue is measured apart."""

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None: ...

    def visible(self, queue: str, cap: int) -> int:
        return 0


class Bench:
    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url, max_size=12)
        self.store = PostgresStore(self.database)
        self.store.set_limits(QUEUE, NO_LIMITS)
        self.producer = Producer(self.store, NoTransport(), QUEUES, lambda queue, text: text)
        self.worker = Worker(
            self.store,
            self.producer,
            lambda queue: lambda job, payload, context: None,
            lambda queue, text: json.loads(text),
            Random(1),
            "bench",
        )
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create table plain (id bigserial primary key, taken boolean default false, payload jsonb)")
            conn.execute("create index on plain (id) where not taken")

    # ------------------------------------------------------------------ phases: each returns the number of jobs

    def plain_insert(self, n: int) -> None:
        with psycopg.connect(self.url, autocommit=True, prepare_threshold=None) as conn:
            text = json.dumps(PAYLOAD)
            for _ in range(n):
                conn.execute("insert into plain (payload) values (%s)", (text,))

    def enqueue(self, n: int) -> None:
        for _ in range(n):
            self.producer.enqueue(QUEUE, PAYLOAD)

    def plain_bulk(self, n: int) -> None:
        with psycopg.connect(self.url, autocommit=True, prepare_threshold=None) as conn:
            for _ in range(n // 1000):
                text = json.dumps([PAYLOAD] * 1000)
                conn.execute("insert into plain (payload) select value from jsonb_array_elements(%s)", (text,))

    def enqueue_bulk(self, n: int) -> None:
        for _ in range(n // 1000):
            self.producer.enqueue_many([NewJob(QUEUE, PAYLOAD)] * 1000)

    def plain_take(self, n: int, batch: int) -> None:
        with psycopg.connect(self.url, autocommit=True, prepare_threshold=None) as conn:
            for _ in range(n // batch):
                rows = conn.execute(
                    "with c as (select id from plain where not taken order by id limit %s for update skip locked)"
                    " update plain p set taken = true from c where p.id = c.id returning p.id, p.payload::text",
                    (batch,),
                ).fetchall()
                conn.execute("delete from plain where id = any(%s)", ([row[0] for row in rows],))

    def process(self, n: int, batch: int) -> None:
        with self.database.connection() as conn:
            conn.execute("update queue.queue_settings set claim_batch = %s where claim_batch <> %s", (batch, batch))
        self.worker.run(QUEUE, n, timedelta(minutes=5))


def timed(call: Callable[[int], None], n: int, threads: int = 1) -> float:
    """Jobs a second of `threads` callers that do n / threads each."""
    workers = [threading.Thread(target=call, args=(n // threads,)) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return n / (time.perf_counter() - start)


def main() -> None:
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    for run in (_run, _run_with_limits):
        with tempfile.TemporaryDirectory() as folder:
            server = PostgresServer(Path(folder) / "pg", settings={"max_wal_size": "4GB"})
            server.start()
            try:
                migrate(server.url("postgres"))
                run(Bench(server.url("postgres")), scale)
            finally:
                server.stop()


def _run(bench: Bench, scale: float) -> None:
    def n(jobs: int) -> int:
        return max(1000, int(jobs * scale) // 1000 * 1000)

    def one(jobs: int) -> None:
        bench.plain_take(jobs, 1)

    def hundred(jobs: int) -> None:
        bench.plain_take(jobs, 100)

    phases: list[tuple[str, Callable[[int], None], Callable[[int], None], int, int]] = [
        ("enqueue one by one", bench.plain_insert, bench.enqueue, n(4000), 1),
        ("enqueue, 10 callers", bench.plain_insert, bench.enqueue, n(8000), 10),
        ("enqueue, 1000 a call", bench.plain_bulk, bench.enqueue_bulk, n(60_000), 1),
        ("process one by one", one, lambda jobs: bench.process(jobs, 1), n(2000), 1),
        ("process one by one, 10 threads", one, lambda jobs: bench.process(jobs, 1), n(4000), 10),
        ("process 100 a claim", hundred, lambda jobs: bench.process(jobs, 100), n(30_000), 1),
        ("process 100 a claim, 2 threads", hundred, lambda jobs: bench.process(jobs, 100), n(30_000), 2),
    ]
    print("| phase | plain SQL, jobs/s | engine, jobs/s | ratio |\n|---|---|---|---|")
    for name, plain, ours, jobs, threads in phases:
        figures = [(timed(plain, jobs, threads), timed(ours, jobs, threads)) for _ in range(ROUNDS)]
        plain_rate, our_rate = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"| {name} | {plain_rate:,.0f} | {our_rate:,.0f} | {our_rate / plain_rate:.2f} |", flush=True)


def _run_with_limits(bench: Bench, scale: float) -> None:
    """What limits cost that are far from reached: the same jobs, claimed one by one, until none is left."""
    kinds = (("no limits", NO_LIMITS), ("limits of the queue", FAR), (f"and of each of {CHATS} chats", FAR_FOR_KEYS))
    n = max(1000, int(2000 * scale))
    print("\n| limits far from reached | 1 thread, jobs/s | 4 threads, jobs/s |\n|---|---|---|")
    figures: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for threads in (1, 4):
            for name, limits in kinds:
                bench.store.set_limits(QUEUE, limits)
                chats = [{"chatId": f"chat-{i % CHATS}"} if limits is FAR_FOR_KEYS else {} for i in range(n)]
                bench.producer.enqueue_many([NewJob(QUEUE, PAYLOAD | chat) for chat in chats])
                rate = timed(lambda jobs: bench.process(jobs, 1), n, threads)
                figures.setdefault((name, threads), []).append(rate)
    for name, _ in kinds:
        one, four = (statistics.median(figures[name, threads]) for threads in (1, 4))
        print(f"| {name} | {one:,.0f} | {four:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
