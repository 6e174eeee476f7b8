"""A store of each kind, and how to let time pass for it; what the contract tests work with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar
from uuid import UUID

import psycopg
import pytest

from shared.engine.context import Handler
from shared.engine.enqueue import Producer
from shared.engine.job import (
    Claimed,
    Completed,
    ErrorClass,
    Failure,
    Job,
    JobRecord,
    JobState,
    NewJob,
    Outcome,
    Retry,
    Settlement,
)
from shared.engine.memory import MemoryClock, MemoryStore, MemoryTransport
from shared.engine.ports import Store
from shared.engine.worker import Worker
from shared.handlers.registry import QUEUES
from shared.postgres.store import PostgresStore

T = TypeVar("T")

QUEUE = "teams-outbound"
LEASE = timedelta(seconds=45)
NO_LEASE = timedelta(seconds=-1)
LOST = Failure(ErrorClass.WORKER_LOST, "gone")
REFUSED = Failure(ErrorClass.VALIDATION, "chatId: unknown", details={"status": 400})


@dataclass
class Bench:
    """A store, and how to let time pass for it: for one job, or for everything that has a time."""

    store: Store
    make_due: Callable[[UUID], None]
    expire: Callable[[UUID], None]
    pass_deadline: Callable[[UUID], None]
    pass_time: Callable[[timedelta], None]
    now: Callable[[], datetime]

    def open_all(self) -> None:
        """As the relay does every ten seconds: what a key held back is looked at again."""
        self.pass_time(timedelta(seconds=11))
        self.store.open_due(1000)


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
        pass_time=lambda by: let_time_pass(sql, by),
        now=lambda: database_now(sql),
    )


def database_now(sql: psycopg.Connection) -> datetime:
    row = sql.execute("select clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


def let_time_pass(sql: psycopg.Connection, by: timedelta) -> None:
    """Move everything that has a time into the past: what is scheduled, leased, limited, blocked, unique for now."""
    for statement in (
        "update queue.later set run_at = run_at - %(by)s, expires_at = expires_at - %(by)s",
        "update queue.waiting set run_at = run_at - %(by)s, expires_at = expires_at - %(by)s",
        "update queue.job set run_at = run_at - %(by)s, lease_until = lease_until - %(by)s,"
        " expires_at = expires_at - %(by)s",
        "update queue.uniqueness set first_at = first_at - %(by)s, until = until - %(by)s",
        "update queue.rate_limit_tracking set blocked_until = blocked_until - %(by)s, wake_at = wake_at - %(by)s,"
        " reserved_until = reserved_until - %(by)s,"
        " bucket = bucket - coalesce(ceil(extract(epoch from %(by)s) * 20 / window_seconds)::bigint, 0)",
    ):
        sql.execute(statement.encode(), {"by": by})


def _run(sql: psycopg.Connection, statement: str, argument: object) -> None:
    arguments = argument if isinstance(argument, dict) else (argument,)
    assert sql.execute(statement.encode(), arguments).rowcount == 1


def _memory() -> Bench:
    clock = MemoryClock()
    closed = {spec.name: spec.closed for spec in QUEUES.values() if spec.closed}
    store = MemoryStore(list(QUEUES), closed, clock)

    def advance(_: UUID) -> None:
        clock.advance(timedelta(days=8))

    return Bench(store, advance, advance, advance, clock.advance, clock)


def producer(bench: Bench) -> Producer:
    return Producer(bench.store, MemoryTransport(), QUEUES, lambda _, text: text)


def worker(bench: Bench, handler: Handler) -> Worker:
    return Worker(bench.store, producer(bench), lambda _: handler, lambda _, text: text, Random(7), "host-1")


def enqueue(bench: Bench, n: int = 1, **options: object) -> list[UUID]:
    jobs = [NewJob(QUEUE, {"n": i}, **options) for i in range(n)]  # type: ignore[arg-type]
    return [made.id for made in bench.store.enqueue(jobs)]


def claim(bench: Bench, limit: int = 10, queue: str = QUEUE) -> list[Job]:
    return list(look(bench, limit, queue).jobs)


def look(bench: Bench, limit: int = 10, queue: str = QUEUE) -> Claimed:
    """A claim with all that it answers."""
    return bench.store.claim(queue, limit, "worker-1", LEASE)


def settle(bench: Bench, job: Job, outcome: Outcome, **details: object) -> bool:
    return not bench.store.settle([Settlement(job.id, job.lease_token, outcome, details)]).lost


def finish(bench: Bench, *jobs: Job) -> Mapping[str, int]:
    """Complete jobs; returns how many that made runnable, per queue."""
    settled = bench.store.settle([Settlement(job.id, job.lease_token, Completed()) for job in jobs])
    assert settled.lost == ()
    return settled.freed


def block(bench: Bench, job: Job, by: timedelta) -> None:
    """The peer asked to slow down: the job runs again later, and its limit key is blocked."""
    asked = Failure(ErrorClass.RATE_LIMIT, "429", retry_after=by)
    assert bench.store.settle([Settlement(job.id, job.lease_token, Retry(asked, by), block=by)]).lost == ()


def record(bench: Bench, job_id: UUID) -> JobRecord:
    found = bench.store.get(job_id)
    assert found is not None
    return found


def state(bench: Bench, job_id: UUID) -> JobState:
    return record(bench, job_id).state


def states(bench: Bench, job_ids: Iterable[UUID]) -> list[JobState]:
    return [state(bench, job_id) for job_id in job_ids]


def ids(jobs: Iterable[Job]) -> list[UUID]:
    return [job.id for job in jobs]
