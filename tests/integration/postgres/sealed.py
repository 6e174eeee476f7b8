"""A store that seals, with the keys that a test gives it, and what the database holds."""

from __future__ import annotations

import json
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg

from shared.engine.enqueue import Producer
from shared.engine.job import Job, Settlement
from shared.engine.memory import MemoryTransport
from shared.engine.worker import Worker
from shared.handlers.registry import QUEUES
from shared.postgres.pool import Database
from shared.postgres.sealer import Sealer
from shared.postgres.store import PostgresStore
from shared.sealing import KeyRing

OLD, NEW = b"o" * 32, b"n" * 32
#: Sealed, and not.
QUEUE, OPEN_QUEUE = "teams-outbound", "dead-letter"
SECRET = "the driver's telephone is 0151 2345"
PAYLOAD = {"chatId": "19:dispatch@thread.v2", "content": SECRET}
LEASE = timedelta(seconds=45)


def sealer(*keys: bytes) -> Sealer:
    ring = KeyRing(*keys)
    return Sealer([spec.name for spec in QUEUES.values() if spec.sealed], lambda: ring)


class Host:
    """A function host of its own: store, producer and worker with these keys. `ran` are the payloads of jobs that ran;
    `outcome` is what its handler answers."""

    def __init__(self, database: Database, *keys: bytes) -> None:
        self.sealer = sealer(*keys)
        self.store = PostgresStore(database, self.sealer)
        self.producer = Producer(self.store, MemoryTransport(), QUEUES, lambda queue, text: json.loads(text))
        self.ran: list[Any] = []
        self.missed: list[str] = []
        self.outcome: Any = None
        self.worker = Worker(
            self.store,
            self.producer,
            lambda queue: self._handle,
            lambda queue, text: json.loads(text),
            Random(1),
            "worker-1",
            on_missing_key=self.missed.append,
        )

    def _handle(self, job: Job, payload: Any, context: object) -> Any:
        self.ran.append(payload)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def enqueue(self, payload: dict[str, Any] = PAYLOAD, queue: str = QUEUE, **options: Any) -> UUID:
        return self.producer.enqueue(queue, payload, **options).id

    def claim(self, queue: str = QUEUE, limit: int = 10) -> list[Job]:
        return list(self.store.claim(queue, limit, "worker-1", LEASE).jobs)

    def settle(self, job: Job, outcome: Any) -> None:
        assert self.store.settle([Settlement(job.id, job.lease_token, outcome)]).lost == ()


def everything(sql: psycopg.Connection) -> str:
    """Every row of every table, as text."""
    tables = sql.execute(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('queue', 'public')"
    ).fetchall()
    rows = [sql.execute(f"select t::text from {name} t".encode()).fetchall() for (name,) in tables]
    return "\n".join(row[0] for table in rows for row in table)


def keys(sql: psycopg.Connection) -> set[str | None]:
    """The ids of the keys that the payloads of the sealed queue are under; None for plain ones."""
    return {
        row[0]
        for row in sql.execute(
            "select distinct payload ->> 'key' from queue.jobs where queue = %s", (QUEUE,)
        ).fetchall()
    }
