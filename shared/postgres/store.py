"""The engine's Store on PostgreSQL. One method, one call of a SQL function (migrations/), one commit."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from shared.engine.backoff import RetryPolicy, check_retries
from shared.engine.errors import ControlError, EnqueueError
from shared.engine.job import (
    MAY_HAVE_TAKEN_EFFECT,
    BatchRecord,
    Cancellation,
    Claimed,
    Enqueued,
    ErrorClass,
    Job,
    JobRecord,
    JobState,
    Lease,
    NewJob,
    Placed,
    Renewal,
    Settled,
    Settlement,
)
from shared.engine.json_text import clean_text, to_json
from shared.engine.ports import Limits, QueueSettings, Rate
from shared.postgres.job_rows import (
    CLAIMED,
    RECORD,
    limits_json,
    new_job_json,
    read_job,
    read_record,
    retries_json,
    settlement_json,
)
from shared.postgres.pool import Database
from shared.postgres.sealer import Sealer

T = TypeVar("T")
#: A deadlock or a serialisation failure is nobody's fault: the statement runs again, this often.
CONFLICT_TRIES = 5


class PostgresStore:
    """See shared.engine.ports.Store. Thread-safe: every call takes a connection of its own."""

    def __init__(self, database: Database, sealer: Sealer | None = None) -> None:
        self._database = database
        self._sealer = sealer or Sealer()

    def enqueue(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        text = to_json([new_job_json(one, self._sealer) for one in jobs])

        def call(conn: psycopg.Connection) -> list[Enqueued]:
            rows = conn.execute("select id, created, due, replaced from queue.add_jobs(%s)", (text,))
            return [Enqueued(*row) for row in rows]

        with _refusals(EnqueueError):
            return call(conn) if conn is not None else self._writing_history(call)

    def claim(self, queue: str, limit: int, worker: str, lease: timedelta) -> Claimed:
        def call(conn: psycopg.Connection) -> Claimed:
            rows = conn.execute(
                f"select wait_seconds, {CLAIMED} from queue.take(%s, %s, %s, %s)",  # noqa: S608 - constant column list
                (queue, limit, worker, lease),
            ).fetchall()
            return self._claimed(queue, rows)

        return self._writing_history(call)

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        if not settlements:
            return Settled()
        text = to_json([settlement_json(s, self._sealer) for s in settlements])

        def call(conn: psycopg.Connection) -> Settled:
            row = conn.execute("select lost, freed from queue.end_attempts(%s, %s)", (text, only_expired)).fetchone()
            return _settled(row)

        with _refusals(EnqueueError):
            return self._writing_history(call)

    def settle_and_claim(
        self, settlements: Sequence[Settlement], queue: str, limit: int, worker: str, lease: timedelta
    ) -> tuple[Settled, Claimed]:
        text = to_json([settlement_json(s, self._sealer) for s in settlements])

        def call(conn: psycopg.Connection) -> tuple[Settled, Claimed]:
            rows = conn.execute(
                f"select lost, freed, wait_seconds, {CLAIMED} from queue.end_and_take(%s, %s, %s, %s, %s)",  # noqa: S608
                (text, queue, limit, worker, lease),
            ).fetchall()
            return _settled(rows[0]), self._claimed(queue, [row[2:] for row in rows])

        with _refusals(EnqueueError):
            return self._writing_history(call)

    def save_progress(self, job_id: UUID, lease_token: UUID, progress: dict[str, Any]) -> bool:
        arguments = (job_id, lease_token, to_json(progress))
        return bool(self._call(lambda conn: _scalar(conn, "select queue.save_progress(%s, %s, %s)", *arguments)))

    def take_permits(self, queue: str, n: int) -> timedelta | None:
        wait = self._order(lambda conn: _scalar(conn, "select queue.take_permits(%s, %s)", queue, n))
        return timedelta(seconds=wait) if wait is not None else None

    def renew(self, leases: Sequence[Lease], lease: timedelta) -> Renewal:
        ids, tokens = [held.job_id for held in leases], [held.token for held in leases]

        def call(conn: psycopg.Connection) -> Renewal:
            rows = conn.execute("select id, lost from queue.renew_leases(%s, %s, %s)", (ids, tokens, lease)).fetchall()
            lost = tuple(job_id for job_id, is_lost in rows if is_lost)
            return Renewal(lost, tuple(job_id for job_id, is_lost in rows if not is_lost))

        return self._call(call)

    def expired(self, limit: int) -> list[Job]:
        def call(conn: psycopg.Connection) -> list[Job]:
            rows = conn.execute(
                f"select queue, {CLAIMED} from queue.job"  # noqa: S608 - constant column list
                " where lease_until < clock_timestamp() order by lease_until limit %s",
                (limit,),
            ).fetchall()
            return [read_job(row[0], row[1:]) for row in rows]

        return self._call(call)

    def expire_due(self, limit: int) -> int:
        return int(self._writing_history(lambda conn: _scalar(conn, "select queue.expire_due(null, %s)", limit)))

    def promote_due(self, limit: int) -> int:
        def call(conn: psycopg.Connection) -> int:
            row = conn.execute(
                "select sum(queue.promote_due(s.queue, %s)) from queue.queue_settings s", (limit,)
            ).fetchone()
            return int(row[0]) if row else 0

        return self._call(call)

    def open_due(self, limit: int) -> int:
        return int(self._writing_history(lambda conn: _scalar(conn, "select queue.open_due(%s)", limit)))

    def repair(self) -> int:
        return int(self._writing_history(lambda conn: _scalar(conn, "select queue.repair()")))

    def runnable(self, cap: int) -> Mapping[str, int]:
        return self._call(
            lambda conn: dict(conn.execute("select queue, jobs from queue.runnable(%s)", (cap,)).fetchall())
        )

    def settings(self, queue: str) -> QueueSettings:
        def call(conn: psycopg.Connection) -> QueueSettings:
            row = conn.execute(
                "select paused, lease_seconds, wake_size, claim_batch, rate_limit, rate_seconds, concurrency,"
                " key_rate_limit, key_rate_seconds, key_concurrency, job_cost, retry_delays, ageing_seconds"
                " from queue.queue_settings"
                " where queue = %s",
                (queue,),
            ).fetchone()
            if row is None:
                return QueueSettings(queue)
            limits = Limits(_rate(row[4], row[5]), row[6], _rate(row[7], row[8]), row[9], row[10])
            return QueueSettings(
                queue=queue,
                paused=row[0],
                lease=timedelta(seconds=row[1]),
                wake_size=row[2],
                claim_batch=row[3],
                limits=limits,
                retries=_retries(row[11]),
                ageing=timedelta(seconds=row[12]) if row[12] is not None else None,
            )

        return self._call(call)

    def get(self, job_id: UUID) -> JobRecord | None:
        def call(conn: psycopg.Connection) -> JobRecord | None:
            with conn.cursor(row_factory=namedtuple_row) as cursor:
                row = cursor.execute(f"{RECORD} where j.id = %s", (job_id,)).fetchone()
            return read_record(row, self._sealer) if row is not None else None

        return self._call(call)

    def cancel(self, job_id: UUID) -> Cancellation | None:
        answer = self._writing_history(lambda conn: _scalar(conn, "select queue.cancel_job(%s)", job_id))
        return Cancellation(answer) if answer is not None else None

    def reschedule(self, job_id: UUID, priority: int | None, run_at: datetime | None) -> Placed | None:
        statement = "select queue, state, freed from queue.reschedule(%s, %s, %s)"
        row = self._order(lambda conn: conn.execute(statement, (job_id, priority, run_at)).fetchone())
        return Placed(row[0], JobState(row[1]), row[2]) if row is not None else None

    def retry_now(self, job_id: UUID) -> Placed | None:
        queue = self._call(lambda conn: _scalar(conn, "select queue.retry_now(%s)", job_id))
        return Placed(queue, JobState.READY) if queue is not None else None

    def pause(self, queue: str) -> bool:
        return bool(self._order(lambda conn: _scalar(conn, "select queue.pause(%s)", queue)))

    def resume(self, queue: str) -> bool:
        return bool(self._order(lambda conn: _scalar(conn, "select queue.resume(%s)", queue)))

    def clear(self, queue: str, confirm: str, states: Sequence[JobState], limit: int) -> int:
        arguments = (queue, confirm, [state.value for state in states], limit)
        return int(self._order(lambda conn: _scalar(conn, "select queue.clear(%s, %s, %s, %s)", *arguments)))

    def set_limits(self, queue: str, limits: Limits) -> None:
        text = to_json(limits_json(limits))
        self._order(lambda conn: conn.execute("select queue.set_limits(%s, %s)", (queue, text)))

    def set_ageing(self, queue: str, every: timedelta | None) -> None:
        self._order(lambda conn: conn.execute("select queue.set_ageing(%s, %s)", (queue, every)))

    def set_retries(self, queue: str, retries: Mapping[ErrorClass, RetryPolicy]) -> None:
        check_retries(retries)
        text = to_json(retries_json(retries))
        self._order(lambda conn: conn.execute("select queue.set_retry_delays(%s, %s)", (queue, text)))

    def redrive(self, job_id: UUID, by: str) -> Enqueued | None:
        new = self._order(lambda conn: _scalar(conn, "select queue.redrive(%s, %s, %s)", job_id, by, _UNCERTAIN))
        return Enqueued(new, True) if new is not None else None

    def discard(self, job_id: UUID, by: str) -> bool:
        return bool(self._call(lambda conn: _scalar(conn, "select queue.discard(%s, %s)", job_id, by)))

    def create_batch(self, jobs: Sequence[NewJob], callback: NewJob | None) -> tuple[UUID, list[Enqueued]]:
        text = to_json([new_job_json(one, self._sealer) for one in jobs])
        last = to_json(new_job_json(callback, self._sealer)) if callback is not None else None

        def call(conn: psycopg.Connection) -> tuple[UUID, list[Enqueued]]:
            rows = conn.execute(
                "select batch_id, id, created, due, replaced from queue.create_batch(%s, %s)", (text, last)
            ).fetchall()
            return rows[0][0], [Enqueued(*row[1:]) for row in rows[1:]]

        with _refusals(EnqueueError):
            return self._writing_history(call)

    def batch(self, batch_id: UUID) -> BatchRecord | None:
        def call(conn: psycopg.Connection) -> BatchRecord | None:
            row = conn.execute(
                "select id, total, completed, dead, cancelled, created_at, finished_at, callback_id"
                " from queue.batch where id = %s",
                (batch_id,),
            ).fetchone()
            return BatchRecord(*row) if row is not None else None

        return self._call(call)

    def bury(self, queue: str, body: str, reason: str, source: str) -> bool:
        arguments = (queue, clean_text(body), clean_text(reason), source)
        return bool(self._call(lambda conn: _scalar(conn, "select queue.bury(%s, %s, %s, %s)", *arguments)))

    def bury_job(self, job: NewJob, reason: str, source: str) -> UUID | None:
        text = to_json(new_job_json(job, self._sealer))
        arguments = (text, clean_text(reason), source)
        new: UUID | None = self._writing_history(
            lambda conn: _scalar(conn, "select queue.bury_job(%s, %s, %s)", *arguments)
        )
        return new

    def take_turn(self, timer: str, at_most: timedelta) -> UUID | None:
        token: UUID | None = self._call(lambda conn: _scalar(conn, "select queue.take_turn(%s, %s)", timer, at_most))
        return token

    def end_turn(self, timer: str, token: UUID) -> None:
        self._call(
            lambda conn: conn.execute(
                "update queue.timer_turn set taken_until = null, last_finished_at = clock_timestamp()"
                " where timer = %s and token = %s",
                (timer, token),
            )
        )

    def _call(self, call: Callable[[psycopg.Connection], T]) -> T:
        """Run it; again when two transactions got in each other's way (40001, 40P01)."""
        for tries_left in reversed(range(CONFLICT_TRIES)):
            with self._database.connection() as conn:
                try:
                    return call(conn)
                except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                    if tries_left == 0:
                        raise
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - spreads two callers, no secret
        raise AssertionError("unreachable")

    def _order(self, call: Callable[[psycopg.Connection], T]) -> T:
        with _refusals(ControlError):
            return self._writing_history(call)

    def _claimed(self, queue: str, rows: Sequence[Sequence[Any]]) -> Claimed:
        """The first row says how long to wait; the others are jobs, best first."""
        wait = rows[0][0]
        found = tuple(read_job(queue, row[1:], self._sealer) for row in rows[1:])
        return Claimed(found, timedelta(seconds=wait) if wait is not None else None)

    def _writing_history(self, call: Callable[[psycopg.Connection], T]) -> T:
        """Run it; when the day's partition is missing (the timer was down for days), make it and run again."""
        try:
            return self._call(call)
        except psycopg.errors.CheckViolation as error:
            if error.diag.constraint_name is not None or error.diag.table_name != "job_tracking":
                raise
            self._call(lambda conn: conn.execute("select queue.make_partitions(7)"))
            return self._call(call)


_UNCERTAIN = sorted(error_class.value for error_class in MAY_HAVE_TAKEN_EFFECT)


def _scalar(conn: psycopg.Connection, statement: str, *arguments: object) -> Any:
    row = conn.execute(statement.encode(), arguments).fetchone()
    return row[0] if row else None


def _settled(row: Sequence[Any] | None) -> Settled:
    if row is None:
        raise AssertionError("the function gives a row")
    return Settled(tuple(row[0]), Counter(row[1]))


def _rate(limit: int | None, seconds: float | None) -> Rate | None:
    return Rate(limit, timedelta(seconds=seconds)) if limit is not None and seconds is not None else None


def _retries(delays: dict[str, list[float]] | None) -> dict[ErrorClass, RetryPolicy]:
    return {ErrorClass(name): RetryPolicy(tuple(seconds)) for name, seconds in (delays or {}).items()}


@contextmanager
def _refusals(refusal: type[EnqueueError] | type[ControlError]) -> Iterator[None]:
    """What the database refuses, as the engine's error."""
    try:
        yield
    except psycopg.errors.InvalidParameterValue as error:
        raise refusal(_spelled(error.diag.message_primary or str(error))) from error


def _spelled(text: str) -> str:
    """The database's own names of an enqueue's options, as callers spell them."""
    return text.replace("singleton_key:", "singletonKey:")
