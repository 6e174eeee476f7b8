"""Random walks over every verb of the store: states change only as drawn, no job vanishes, no lease is shared, no key
holds back for nothing.

The same walk (walk.py) runs on PostgreSQL and in memory.
"""

from __future__ import annotations

from uuid import UUID

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from psycopg.rows import namedtuple_row

from shared.engine.job import JobRecord
from shared.engine.memory import MemoryClock, MemoryStore
from shared.handlers.registry import QUEUES
from shared.postgres.job_rows import RECORD, read_record
from shared.postgres.sealer import Sealer
from shared.postgres.store import PostgresStore
from tests.contract.bench import database_now, let_time_pass
from tests.contract.walk import Walk, World
from tests.limits import LIFT

TABLES = (
    "job",
    "later",
    "waiting",
    "job_tracking",
    "dead_letter_queue",
    "rate_limit_tracking",
    "uniqueness",
    "dependency",
    "batch",
)


def _walk(world: World, examples: int) -> None:
    class Bound(Walk):
        pass

    Bound.world = world
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_I1_I2_I3_I10_random_walks_in_memory() -> None:
    clock = MemoryClock()
    store = MemoryStore(list(QUEUES), clock=clock)

    def reset() -> None:
        store.__init__(list(QUEUES), clock=clock)  # type: ignore[misc]

    def look() -> dict[UUID, JobRecord]:
        return {record.id: record for record in store.jobs()}

    _walk(World(store, clock.advance, look, reset, clock), 60)


def test_I1_I2_I3_I10_random_walks_on_postgres(postgres_store: PostgresStore, sql: psycopg.Connection) -> None:
    def look() -> dict[UUID, JobRecord]:
        with sql.cursor(row_factory=namedtuple_row) as cursor:
            records = [read_record(row, Sealer()) for row in cursor.execute(f"{RECORD} order by j.id")]
        return {record.id: record for record in records}

    def reset() -> None:
        sql.execute(LIFT)
        for table in TABLES:
            sql.execute(f"delete from queue.{table}".encode())

    _walk(World(postgres_store, lambda by: let_time_pass(sql, by), look, reset, lambda: database_now(sql)), 15)
