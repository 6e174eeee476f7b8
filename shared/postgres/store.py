"""The engine's Store on PostgreSQL. One method, one call of a SQL function (migrations/), one commit."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from shared.engine.errors import ControlError, EnqueueError
from shared.engine.job import (
    MAY_HAVE_TAKEN_EFFECT,
    Attempt,
    Cancellation,
    Cancelled,
    Completed,
    Dead,
    Deferred,
    Enqueued,
    ErrorClass,
    Job,
    JobRecord,
    JobState,
    Lease,
    NewJob,
    Outcome,
    Placed,
    Released,
    Renewal,
    Retry,
    Settlement,
    Unreadable,
)
from shared.engine.json_text import clean_text, to_json
from shared.engine.ports import QueueSettings
from shared.postgres.pool import Database
from shared.postgres.sealer import Sealer, of_job

T = TypeVar("T")
#: A deadlock or a serialisation failure is nobody's fault: the statement runs again, this often.
CONFLICT_TRIES = 5


class PostgresStore:
    """See shared.engine.ports.Store. Thread-safe: every call takes a connection of its own."""

    def __init__(self, database: Database, sealer: Sealer | None = None) -> None:
        self._database = database
        self._sealer = sealer or Sealer()

    def enqueue(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        text = to_json([_new_job_json(job, self._sealer) for job in jobs])

        def call(conn: psycopg.Connection) -> list[Enqueued]:
            rows = conn.execute("select id, created, due from queue.enqueue_many(%s)", (text,))
            return [Enqueued(*row) for row in rows]

        try:
            return call(conn) if conn is not None else self._call(call)
        except psycopg.errors.InvalidParameterValue as error:
            raise EnqueueError(error.diag.message_primary or str(error)) from error

    def claim(self, queue: str, limit: int, worker: str, lease: timedelta) -> list[Job]:
        def call(conn: psycopg.Connection) -> list[Job]:
            rows = conn.execute(
                f"select {_CLAIMED} from queue.claim(%s, %s, %s, %s)",  # noqa: S608 - constant column list
                (queue, limit, worker, lease),
            ).fetchall()
            return _jobs(queue, rows, self._sealer)

        return self._writing_history(call)

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> list[UUID]:
        if not settlements:
            return []
        text = to_json([_settlement_json(s, self._sealer) for s in settlements])

        def call(conn: psycopg.Connection) -> list[UUID]:
            row = conn.execute("select queue.settle(%s, %s)", (text, only_expired)).fetchone()
            return list(row[0]) if row else []

        return self._writing_history(call)

    def settle_and_claim(
        self, settlements: Sequence[Settlement], queue: str, limit: int, worker: str, lease: timedelta
    ) -> tuple[list[UUID], list[Job]]:
        text = to_json([_settlement_json(s, self._sealer) for s in settlements])

        def call(conn: psycopg.Connection) -> tuple[list[UUID], list[Job]]:
            rows = conn.execute(
                f"select lost, {_CLAIMED} from queue.settle_and_claim(%s, %s, %s, %s, %s)",  # noqa: S608
                (text, queue, limit, worker, lease),
            ).fetchall()
            return list(rows[0][0]), _jobs(queue, [row[1:] for row in rows[1:]], self._sealer)

        return self._writing_history(call)

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
                f"select queue, {_CLAIMED} from queue.job"  # noqa: S608 - constant column list
                " where lease_until < clock_timestamp() order by lease_until limit %s",
                (limit,),
            ).fetchall()
            return [_job(row[0], row[1:]) for row in rows]

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

    def runnable(self, cap: int) -> Mapping[str, int]:
        def call(conn: psycopg.Connection) -> dict[str, int]:
            rows = conn.execute(
                "select s.queue, c.jobs from queue.queue_settings s cross join lateral ("
                "  select count(*)::int as jobs from (select from queue.job j"
                "   where j.queue = s.queue and j.lease_token is null limit %s) counted) c"
                " where not s.paused and c.jobs > 0",
                (cap,),
            )
            return dict(rows.fetchall())

        return self._call(call)

    def settings(self, queue: str) -> QueueSettings:
        def call(conn: psycopg.Connection) -> QueueSettings:
            row = conn.execute(
                "select paused, lease_seconds, wake_size, claim_batch from queue.queue_settings where queue = %s",
                (queue,),
            ).fetchone()
            if row is None:
                return QueueSettings(queue)
            return QueueSettings(queue, row[0], timedelta(seconds=row[1]), row[2], row[3])

        return self._call(call)

    def get(self, job_id: UUID) -> JobRecord | None:
        def call(conn: psycopg.Connection) -> JobRecord | None:
            with conn.cursor(row_factory=namedtuple_row) as cursor:
                row = cursor.execute("select * from queue.jobs where id = %s", (job_id,)).fetchone()
            return _record(row, self._sealer) if row is not None else None

        return self._call(call)

    def cancel(self, job_id: UUID) -> Cancellation | None:
        answer = self._writing_history(lambda conn: _scalar(conn, "select queue.cancel_job(%s)", job_id))
        return Cancellation(answer) if answer is not None else None

    def reschedule(self, job_id: UUID, priority: int | None, run_at: datetime | None) -> Placed | None:
        statement = "select queue, state from queue.reschedule(%s, %s, %s)"
        row = self._order(lambda conn: conn.execute(statement, (job_id, priority, run_at)).fetchone())
        return Placed(row[0], JobState(row[1])) if row is not None else None

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

    def redrive(self, job_id: UUID, by: str) -> Enqueued | None:
        new = self._call(lambda conn: _scalar(conn, "select queue.redrive(%s, %s, %s)", job_id, by, _UNCERTAIN))
        return Enqueued(new, True) if new is not None else None

    def bury(self, queue: str, body: str, reason: str, source: str) -> bool:
        arguments = (queue, clean_text(body), clean_text(reason), source)
        return bool(self._call(lambda conn: _scalar(conn, "select queue.bury(%s, %s, %s, %s)", *arguments)))

    def bury_job(self, job: NewJob, reason: str, source: str) -> UUID | None:
        text = to_json(_new_job_json(job, self._sealer))
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
        try:
            return self._writing_history(call)
        except psycopg.errors.InvalidParameterValue as error:
            raise ControlError(error.diag.message_primary or str(error)) from error

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
_CLAIMED = (
    "id, priority, run_at, attempt, lease_token, correlation_id, enqueued_at, redrive_of, effect_since, attempts::text,"
    " payload::text"
)


def _scalar(conn: psycopg.Connection, statement: str, *arguments: object) -> Any:
    row = conn.execute(statement.encode(), arguments).fetchone()
    return row[0] if row else None


def _jobs(queue: str, rows: Sequence[Sequence[Any]], sealer: Sealer) -> list[Job]:
    """RETURNING gives rows in no order: best first again."""
    return [_job(queue, row, sealer) for row in sorted(rows, key=lambda row: (row[1], row[2], row[0]))]


def _job(queue: str, row: Sequence[Any], sealer: Sealer | None = None) -> Job:
    """Without a sealer the payload stays as stored: who only settles does not read it."""
    (
        job_id,
        priority,
        _run_at,
        attempt,
        token,
        correlation_id,
        enqueued_at,
        redrive_of,
        since,
        attempts,
        payload,
    ) = row
    opened = sealer.open_text(of_job(queue, redrive_of or job_id), payload) if sealer is not None else payload
    return Job(
        id=job_id,
        queue=queue,
        payload=payload if isinstance(opened, Unreadable) else opened,
        attempt=attempt,
        priority=priority,
        lease_token=token,
        correlation_id=correlation_id,
        enqueued_at=enqueued_at,
        redrive_of=redrive_of,
        inherited_effect_since=since,
        attempts=_attempts(json.loads(attempts)) if attempts else (),
        unreadable=opened if isinstance(opened, Unreadable) else None,
    )


def _attempts(entries: list[dict[str, Any]] | None) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(
            number=entry["number"],
            started_at=datetime.fromisoformat(entry["started_at"]),
            finished_at=datetime.fromisoformat(entry["finished_at"]),
            worker=entry["worker"],
            outcome=entry["outcome"],
            error_class=ErrorClass(entry["error_class"]) if "error_class" in entry else None,
            message=entry.get("message"),
            details=entry.get("details", {}),
        )
        for entry in entries or ()
    )


def _record(row: Any, sealer: Sealer) -> JobRecord:
    return JobRecord(
        id=row.id,
        queue=row.queue,
        state=JobState(row.state),
        priority=row.priority,
        attempt=row.attempt,
        payload=sealer.show(of_job(row.queue, row.redrive_of or row.id), row.payload),
        enqueued_at=row.enqueued_at,
        run_at=row.run_at,
        attempts=_attempts(row.attempts),
        correlation_id=row.correlation_id,
        idempotency_key=row.idempotency_key,
        result=row.result,
        error_class=ErrorClass(row.error_class) if row.error_class else None,
        error_message=row.error_message,
        finished_at=row.finished_at,
        lease_until=row.lease_until,
        leased_by=row.leased_by,
        redrive_of=row.redrive_of,
        expires_at=row.expires_at,
        stop_requested_at=row.stop_requested_at,
    )


def _new_job_json(job: NewJob, sealer: Sealer) -> dict[str, Any]:
    """Without what is not given: for a bulk of bare jobs that is a third of the text and of the time."""
    given: dict[str, Any] = {"queue": job.queue} | sealer.new_row(job)
    if job.priority is not None:
        given["priority"] = job.priority
    if job.run_at is not None:
        given["run_at"] = job.run_at.isoformat()
    if job.delay is not None:
        given["delay_seconds"] = job.delay.total_seconds()
    if job.idempotency_key is not None:
        given["idempotency_key"] = job.idempotency_key
    if job.correlation_id is not None:
        given["correlation_id"] = job.correlation_id
    if job.redrive_of is not None:
        given["redrive_of"] = str(job.redrive_of)
    if job.effect_since is not None:
        given["effect_since"] = job.effect_since.isoformat()
    if job.expires_at is not None:
        given["expires_at"] = job.expires_at.isoformat()
    if job.expires_in is not None:
        given["expires_in_seconds"] = job.expires_in.total_seconds()
    return given


def _settlement_json(settlement: Settlement, sealer: Sealer) -> dict[str, Any]:
    head: dict[str, Any] = {"id": str(settlement.job_id), "token": str(settlement.lease_token)}
    if settlement.details:
        head["details"] = settlement.details
    return head | _outcome_json(settlement.outcome, settlement.details, sealer)


def _outcome_json(outcome: Outcome, details: dict[str, Any], sealer: Sealer) -> dict[str, Any]:
    match outcome:
        case Completed():
            done: dict[str, Any] = {"outcome": "completed"}
            if outcome.result is not None:
                done["result"] = outcome.result
            if outcome.follow_ups:
                done["follow_ups"] = [_new_job_json(job, sealer) for job in outcome.follow_ups]
            return done
        case Retry() | Dead():
            failure = outcome.failure
            head = {
                "outcome": "dead" if isinstance(outcome, Dead) else "retry",
                "error_class": failure.error_class.value,
                "message": failure.message,
                "details": details | failure.details or None,
            }
            return head | ({"delay_seconds": outcome.delay.total_seconds()} if isinstance(outcome, Retry) else {})
        case Deferred():
            return {"outcome": "deferred", "delay_seconds": outcome.delay.total_seconds()}
        case Released():
            return {"outcome": "released"}
        case Cancelled():
            return {"outcome": "cancelled", "message": outcome.reason}
