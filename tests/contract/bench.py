"""A store of each kind, and how to let time pass for it; what the contract tests work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from shared.engine.job import (
    ErrorClass,
    Failure,
    Job,
    JobState,
    NewJob,
    Outcome,
    Settlement,
)
from shared.engine.memory import MemoryClock, MemoryStore
from shared.engine.ports import Store
from shared.handlers.registry import QUEUES
from shared.postgres.store import PostgresStore

QUEUE = "teams-outbound"
LEASE = timedelta(seconds=45)
NO_LEASE = timedelta(seconds=-1)
LOST = Failure(ErrorClass.WORKER_LOST, "gone")
REFUSED = Failure(ErrorClass.VALIDATION, "chatId: unknown", details={"status": 400})


@dataclass
class Bench:
    """A store, and how to let time pass for its scheduled jobs and leases."""

    store: Store
    make_due: Callable[[UUID], None]
    expire: Callable[[UUID], None]
    pass_deadline: Callable[[UUID], None]


@pytest.fixture(params=["postgres", "memory"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return _postgres(request) if request.param == "postgres" else _memory()


def _postgres(request: pytest.FixtureRequest) -> Bench:
    store: PostgresStore = request.getfixturevalue("postgres_store")
    sql: psycopg.Connection = request.getfixturevalue("sql")
    past = "clock_timestamp() - interval '1 second'"
    return Bench(
        store,
        make_due=lambda job_id: _run(sql, f"update queue.later set run_at = {past} where id = %s", job_id),
        expire=lambda job_id: _run(sql, f"update queue.job set lease_until = {past} where id = %s", job_id),
        pass_deadline=lambda job_id: _run(
            sql,
            "with ready as (update queue.job set expires_at = clock_timestamp() where id = %(id)s returning 1),"
            " scheduled as (update queue.later set expires_at = clock_timestamp() where id = %(id)s returning 1)"
            " select 1 from ready union all select 1 from scheduled",
            {"id": job_id},
        ),
    )


def _run(sql: psycopg.Connection, statement: str, argument: object) -> None:
    arguments = argument if isinstance(argument, dict) else (argument,)
    assert sql.execute(statement.encode(), arguments).rowcount == 1


def _memory() -> Bench:
    clock = MemoryClock()
    closed = {spec.name: spec.closed for spec in QUEUES.values() if spec.closed}
    store = MemoryStore(list(QUEUES), closed, clock)

    def advance(_: UUID) -> None:
        clock.advance(timedelta(days=8))

    return Bench(store, advance, advance, advance)


def enqueue(bench: Bench, n: int = 1, **options: object) -> list[UUID]:
    jobs = [NewJob(QUEUE, {"n": i}, **options) for i in range(n)]  # type: ignore[arg-type]
    return [made.id for made in bench.store.enqueue(jobs)]


def claim(bench: Bench, limit: int = 10, queue: str = QUEUE) -> list[Job]:
    return bench.store.claim(queue, limit, "worker-1", LEASE)


def settle(bench: Bench, job: Job, outcome: Outcome, **details: object) -> bool:
    return not bench.store.settle([Settlement(job.id, job.lease_token, outcome, details)])


def state(bench: Bench, job_id: UUID) -> JobState:
    record = bench.store.get(job_id)
    assert record is not None
    return record.state
