"""Orders of the admin API: a change and the row of the audit log that tells of it, in one transaction."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from shared.access import Principal
from shared.engine.control import Control
from shared.engine.enqueue import Producer
from shared.engine.errors import StoreUnavailableError, TransportUnavailableError
from shared.engine.json_text import clean_text, to_json
from shared.engine.ports import Limits, Store, Transport
from shared.engine.schedules import Schedules
from shared.monitoring.rules import Threshold, Thresholds
from shared.postgres import admin_letters
from shared.postgres.admin_lists import ALERT
from shared.postgres.pool import Database
from shared.postgres.schedules import PostgresSchedules
from shared.postgres.sealer import Sealer
from shared.postgres.store import CONFLICT_TRIES, PostgresStore
from shared.postgres.thresholds import PostgresThresholds

log = logging.getLogger(__name__)
T = TypeVar("T")

_IN_THE_WAY = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
_RECORD = """
insert into queue.audit_log (who, kind, role, action, target, before, after, correlation_id)
values (%(who)s, %(kind)s, %(role)s, %(action)s, %(target)s, %(before)s, %(after)s, %(correlation_id)s)
"""


class _ConflictError(Exception):
    """The transaction is broken: another was in its way, or the history has no partition for today."""


class _OneTransaction:
    """What the store takes for the pool: the transaction that is under way."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        if self._conn.info.transaction_status is TransactionStatus.INERROR:
            raise _ConflictError
        yield self._conn

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        with self.connection() as conn, conn.transaction():
            yield conn


class _AfterCommit:
    """A transport that keeps wake-ups until the jobs that they are for are there."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._kept: list[tuple[str, str, timedelta]] = []

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None:
        self._kept.append((queue, body, delay))

    def visible(self, queue: str, cap: int) -> int:
        return self._transport.visible(queue, cap)

    def flush(self) -> None:
        """What cannot be sent now, the relay makes up for."""
        for queue, body, delay in self._kept:
            try:
                self._transport.send(queue, body, delay)
            except TransportUnavailableError as error:
                log.warning("wake_up.not_sent", extra={"queue": queue, "error": str(error)})
                return


class PostgresOrder:
    """See shared.admin.ports.Order."""

    def __init__(
        self,
        conn: psycopg.Connection,
        who: Principal,
        correlation_id: str,
        store: Store,
        producer: Producer,
        schedules: Schedules,
        thresholds: Thresholds,
    ) -> None:
        self._conn = conn
        self._who = who
        self._correlation_id = correlation_id
        self.store = store
        self.producer = producer
        self.schedules = schedules
        self.thresholds = thresholds
        self.control = Control(store, producer)

    def now(self) -> datetime:
        now: datetime = self._one("select clock_timestamp() as now", {})["now"]
        return now

    def job_before(self, job_id: UUID) -> Mapping[str, Any] | None:
        return self._maybe("select queue, state, priority, run_at from queue.jobs where id = %(id)s", {"id": job_id})

    def letter(self, letter_id: UUID) -> Mapping[str, Any] | None:
        return admin_letters.letter(self._conn, letter_id, lock=True)

    def review(self, letter_id: UUID, by: str, note: str) -> None:
        self._conn.execute(
            "update queue.dead_letter_queue set reviewed_at = clock_timestamp(), reviewed_by = %s, review_note = %s"
            " where id = %s",
            (by, clean_text(note), letter_id),
        )

    def discard_message(self, letter_id: UUID, by: str) -> None:
        self._conn.execute(
            "update queue.dead_letter_queue set discarded_at = clock_timestamp(), discarded_by = %s"
            " where id = %s and job_id is null and discarded_at is null",
            (by, letter_id),
        )

    def alert(self, alert_id: UUID) -> Mapping[str, Any] | None:
        return self._maybe(f"select {ALERT} from queue.queue_alerts a where a.id = %(id)s for update", {"id": alert_id})  # noqa: S608

    def acknowledge(self, alert_id: UUID, by: str) -> None:
        self._conn.execute(
            "update queue.queue_alerts"
            " set acknowledged_at = clock_timestamp(), acknowledged_by = %s, sent_level = level where id = %s",
            (by, alert_id),
        )

    def limits(self, queue: str) -> Limits:
        self._conn.execute("select from queue.queue_settings where queue = %s for update", (queue,))
        return self.store.settings(queue).limits

    def held_thresholds(self) -> Mapping[tuple[str, str], Threshold]:
        self._conn.execute("lock table queue.alert_thresholds in share row exclusive mode")
        return {(one.rule, one.scope): one.threshold for one in self.thresholds.list()}

    def forget_limits_change(self, queue: str) -> None:
        self._conn.execute("update queue.queue_settings set limits_changed_at = null where queue = %s", (queue,))

    def record(
        self, action: str, target: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
    ) -> None:
        values = {
            "who": clean_text(self._who.name),
            "kind": self._who.kind,
            "role": self._who.role.title if self._who.role else "",
            "action": action,
            "target": clean_text(target),
            "before": to_json(before) if before is not None else None,
            "after": to_json(after) if after is not None else None,
            "correlation_id": self._correlation_id,
        }
        self._conn.execute(_RECORD, values)

    def _maybe(self, statement: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        with self._conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement.encode(), values).fetchone()

    def _one(self, statement: str, values: Mapping[str, Any]) -> dict[str, Any]:
        found = self._maybe(statement, values)
        if found is None:
            raise AssertionError("a select without from gives a row")
        return found


class PostgresOrders:
    """See shared.admin.ports.Orders. `produce` makes a producer on a store and a transport."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        transport: Callable[[], Transport],
        produce: Callable[[Store, Transport], Producer],
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._transport = transport
        self._produce = produce

    def run(self, who: Principal, correlation_id: str, order: Callable[[PostgresOrder], T]) -> T:
        for _ in range(CONFLICT_TRIES):
            wake_ups = _AfterCommit(self._transport())
            try:
                with self._database.transaction() as conn:
                    result = order(self._order(conn, who, correlation_id, wake_ups))
            except _ConflictError:
                self._make_way()
                continue
            except StoreUnavailableError as error:
                if not isinstance(error.__cause__, _IN_THE_WAY):
                    raise
                self._make_way()
                continue
            wake_ups.flush()
            return result
        raise StoreUnavailableError("others were in the way of this order, again and again")

    def _order(
        self, conn: psycopg.Connection, who: Principal, correlation_id: str, wake_ups: _AfterCommit
    ) -> PostgresOrder:
        bound = cast(Database, _OneTransaction(conn))
        store = PostgresStore(bound, self._sealer)
        producer = self._produce(store, wake_ups)
        schedules = Schedules(PostgresSchedules(bound, self._sealer), producer)
        thresholds = PostgresThresholds(bound)
        return PostgresOrder(conn, who, correlation_id, store, producer, schedules, thresholds)

    def _make_way(self) -> None:
        with self._database.connection() as conn:
            conn.execute("select queue.make_partitions(7)")
        time.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - spreads two callers, no secret
