"""Declared resources and their subscriptions on PostgreSQL: claimed by leases, settled a batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg.rows import namedtuple_row

from shared.engine.enqueue import Producer
from shared.engine.json_text import to_json
from shared.graph.subscriptions import SubscriptionRecord
from shared.handlers.watching import RENEWAL_PAUSE, Held, Outcome, Wanted, Watch
from shared.postgres import subscription_gaps as gaps
from shared.postgres import subscription_sql as sql
from shared.postgres.pool import Database

log = logging.getLogger(__name__)


class PostgresSubscriptions:
    """See shared.handlers.subscription_records.SubscriptionRecords, less the listing.

    Gaps become jobs of the queue `sync` through `producer`. `clock` stands in for the database's time in tests.
    """

    def __init__(self, database: Database, producer: Producer, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._producer = producer
        self._test_clock = clock

    def note_settings(self, wanted: Wanted) -> None:
        values = {
            "url": wanted.notification_url,
            "lifecycle_url": wanted.lifecycle_url,
            "state_ids": sorted(wanted.state_ids),
            "certificate_id": wanted.certificate.id if wanted.certificate else None,
        }
        self._run(sql.NOTE_SETTINGS, **values)

    def claim(self, limit: int, lease: timedelta) -> tuple[UUID, list[Watch]]:
        token = uuid4()
        values = {"now": self._clock(), "limit": limit, "token": token, "lease": lease}
        with self._database.connection() as conn, conn.cursor(row_factory=namedtuple_row) as cursor:
            rows = cursor.execute(sql.CLAIM, values).fetchall()
        return token, [_watch(row) for row in rows]

    def mark_creating(self, token: UUID, watches: Sequence[Watch], state_id: str) -> None:
        self._run(sql.MARK_CREATING, token=token, ids=[watch.id for watch in watches], state_id=state_id)

    def settle(self, token: UUID, outcomes: Sequence[Outcome]) -> None:
        with self._database.transaction() as conn:
            rows = conn.execute(sql.LOCK, (token, [outcome.watch_id for outcome in outcomes])).fetchall()
            held = {row[0] for row in rows}
            lost = [str(outcome.watch_id) for outcome in outcomes if outcome.watch_id not in held]
            if lost:
                log.warning("subscriptions.claim_lost", extra={"watch_ids": lost})
            kept = [outcome for outcome in outcomes if outcome.watch_id in held]
            created = [one.subscription.id for one in kept if one.state == "created" and one.subscription]
            values = {"now": self._clock(), "outcomes": to_json([_outcome_json(one) for one in kept])}
            conn.execute(sql.SAVE_SUBSCRIPTIONS, values)
            if created:
                conn.execute(sql.ADD_SUBSCRIPTIONS, values)
                conn.execute(gaps.ADD_GAPS, {"now": values["now"], "ids": created, "reason": None})
            conn.execute(sql.SAVE_WATCHES, values)
            ended = [one.watch_id for one in kept if one.state == "ended"]
            if ended:
                conn.execute(sql.FORGET, {"ids": ended})
            made = gaps.sync_gaps(conn, self._producer) if created else 0
        gaps.wake_sync(self._producer, made)

    def postpone_kind(self, kind: str, pause: timedelta, problem: str) -> None:
        self._run(sql.POSTPONE_KIND, kind=kind, pause=pause, problem=problem)

    def pause(self, pause: timedelta, reason: str) -> None:
        self._run(sql.PAUSE, pause=pause, reason=reason[:500])

    def due(self) -> tuple[int, bool]:
        """How many rows are due, and whether there is anything else for a pass to do; nothing during a pause."""
        with self._database.connection() as conn:
            row = conn.execute(sql.IS_DUE, {"now": self._clock()}).fetchone()
        return (row[0], bool(row[1])) if row else (0, False)

    # What Graph tells of a subscription. One that is not live here is nobody's: it changes nothing.

    def note_removed(self, subscription_id: str) -> bool:
        """Graph has ended it: a new one is due. False: it is none of the live ones."""
        return self._note(subscription_id, sql.REMOVED)

    def note_reauthorize(self, subscription_id: str) -> bool:
        """Graph asks for its renewal: due at once, or ten minutes after the last one."""
        return self._note(subscription_id, sql.REAUTHORIZE)

    def note_missed(self, subscription_id: str, key: str) -> bool:
        """Graph says that it lost notifications: one gap for each `key`."""
        with self._database.transaction() as conn:
            values = {"now": self._clock(), "id": subscription_id, "key": f"missed:{key}"}
            added = conn.execute(sql.MISSED, values).rowcount == 1
            made = gaps.sync_gaps(conn, self._producer) if added else 0
        gaps.wake_sync(self._producer, made)
        return added

    def tell(self) -> None:
        with self._database.transaction() as conn:
            made = gaps.sync_gaps(conn, self._producer)
            conn.execute(sql.ALERTS, {"now": self._clock()})
        gaps.wake_sync(self._producer, made)

    def _clock(self) -> datetime | None:
        return self._test_clock() if self._test_clock else None

    def _note(self, subscription_id: str, statement: LiteralString) -> bool:
        with self._database.transaction() as conn:
            row = conn.execute(sql.LOCK_OF_SUBSCRIPTION, (subscription_id,)).fetchone()
            if row is None:
                return False
            values = {"now": self._clock(), "id": subscription_id, "pause": RENEWAL_PAUSE}
            return conn.execute(statement, values).rowcount == 1

    def _run(self, statement: LiteralString, **values: Any) -> None:
        with self._database.connection() as conn:
            conn.execute(statement, {"now": self._clock()} | values)


def _watch(row: Any) -> Watch:
    held = None
    if row.subscription_id is not None:
        held = Held(
            id=row.subscription_id,
            resource=row.subscribed,
            change_type=row.change_type,
            notification_url=row.notification_url,
            expires_at=row.expires_at,
            lifecycle_url=row.lifecycle_url,
            include_resource_data=row.has_data,
            certificate_id=row.certificate_id,
            state_id=row.client_state_id,
            renewed_at=row.renewed_at,
        )
    return Watch(
        id=row.id,
        resource=row.resource,
        kind=row.kind,
        change_types=row.change_types,
        include_resource_data=row.include_resource_data,
        is_ended=row.is_ended,
        tries=row.tries,
        renew_asked_at=row.renew_asked_at,
        now=row.now,
        held=held,
    )


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    record = outcome.subscription
    found: dict[str, Any] = {
        "watch_id": str(outcome.watch_id),
        "state": outcome.state,
        "due_at": outcome.due_at.isoformat() if outcome.due_at else None,
        "state_id": outcome.state_id,
        "gap": outcome.gap,
        "problem": outcome.problem,
        "refused": outcome.refused,
        "removed": outcome.removed,
    }
    if record is not None:
        found |= record_json(record)
    return found


def record_json(record: SubscriptionRecord) -> dict[str, Any]:
    """A subscription as the statements read it."""
    return {
        "subscription_id": record.id,
        "resource": record.resource,
        "change_type": record.change_type,
        "notification_url": record.notification_url,
        "lifecycle_url": record.lifecycle_url,
        "include_resource_data": record.include_resource_data,
        "certificate_id": record.certificate_id,
        "expires_at": record.expires_at.isoformat(),
    }
