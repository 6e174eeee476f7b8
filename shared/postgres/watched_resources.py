"""What to watch, as the fleet application in Python declares it; in SQL the same by queue.watch and queue.unwatch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from shared.engine.enqueue import Producer
from shared.engine.errors import PayloadError, Problem
from shared.postgres.pool import Database

QUEUE = "subscriptions"

_LIST = """
select w.id, w.resource, w.change_types, w.include_resource_data, s.id as subscription_id, s.expires_at, w.problem,
       w.ended_at is not null as is_ended
  from queue.watched_resources w left join queue.subscriptions s on s.watch_id = w.id and s.removed_at is null
 order by w.resource
"""


@dataclass(frozen=True, slots=True)
class WatchedResource:
    """A declared resource and its live subscription, if there is one. `problem`: why there is none, or it may end."""

    id: UUID
    resource: str
    change_types: str
    include_resource_data: bool
    subscription_id: str | None
    expires_at: datetime | None
    problem: str | None
    is_ended: bool


class WatchedResources:
    """Raises StoreUnavailableError."""

    def __init__(self, database: Database, producer: Producer) -> None:
        self._database = database
        self._producer = producer

    def watch(
        self,
        resource: str,
        change_types: str | None = None,
        *,
        include_resource_data: bool = False,
        sync_user: str | None = None,
        conn: Any = None,
    ) -> UUID:
        """Watch a resource from now on, or change how it is watched; a subscription follows within seconds.

        `resource` is a path such as "users/{id}/messages" (docs/reference/graph.md has all), `change_types` of
        created, updated, deleted, all when left out; `sync_user`: whose sync makes up for gaps, where the path names
        nobody. With `conn` (a psycopg connection) it is part of the caller's transaction, and the relay wakes a worker.
        Raises PayloadError.
        """
        values = (resource, change_types, include_resource_data, sync_user)
        statement = "select queue.watch(%s, %s, %s, %s)"
        try:
            if conn is not None:
                return _id(conn.execute(statement, values).fetchone())
            with self._database.connection() as own:
                watch_id = _id(own.execute(statement, values).fetchone())
        except psycopg.errors.InvalidParameterValue as error:
            raise _refused(error) from error
        self._producer.wake(QUEUE)
        return watch_id

    def unwatch(self, resource: str) -> bool:
        """Watch it no longer; its subscription is deleted within seconds. False: it was not watched."""
        with self._database.connection() as conn:
            row = conn.execute("select queue.unwatch(%s)", (resource,)).fetchone()
        was_watched = bool(row and row[0])
        if was_watched:
            self._producer.wake(QUEUE)
        return was_watched

    def list(self) -> list[WatchedResource]:
        with self._database.connection() as conn, conn.cursor(row_factory=class_row(WatchedResource)) as cursor:
            return cursor.execute(_LIST).fetchall()


def _id(row: Any) -> UUID:
    found: UUID = row[0]
    return found


def _refused(error: psycopg.Error) -> PayloadError:
    field, _, reason = (error.diag.message_primary or "").partition(": ")
    message = f"{reason}. {error.diag.message_hint or ''}".strip()
    return PayloadError(f"{field}: {message}", [Problem(field, message)])
