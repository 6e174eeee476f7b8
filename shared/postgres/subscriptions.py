"""Our records of Graph subscriptions on PostgreSQL; at most one of a resource and change type is live."""

from __future__ import annotations

from shared.graph.subscriptions import SubscriptionRecord
from shared.postgres.pool import Database


class PostgresSubscriptions:
    """See shared.graph.subscriptions.SubscriptionRecords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def live(self, resource: str, change_type: str) -> SubscriptionRecord | None:
        with self._database.connection() as conn:
            row = conn.execute(
                "select id, resource, change_type, notification_url, expires_at from queue.subscriptions"
                " where resource = %s and change_type = %s and removed_at is null",
                (resource, change_type),
            ).fetchone()
        return SubscriptionRecord(*row) if row else None

    def save(self, record: SubscriptionRecord) -> None:
        values = {
            "id": record.id,
            "resource": record.resource,
            "change_type": record.change_type,
            "url": record.notification_url,
            "expires_at": record.expires_at,
        }
        with self._database.transaction() as conn:
            # Rivals for one resource take turns; otherwise both would find no other live record to end.
            conn.execute("select pg_advisory_xact_lock(hashtextextended(%(resource)s || %(change_type)s, 5))", values)
            conn.execute(
                "update queue.subscriptions set removed_at = clock_timestamp(), updated_at = clock_timestamp()"
                " where resource = %(resource)s and change_type = %(change_type)s and id <> %(id)s"
                " and removed_at is null",
                values,
            )
            conn.execute(
                "insert into queue.subscriptions (id, resource, change_type, notification_url, expires_at)"
                " values (%(id)s, %(resource)s, %(change_type)s, %(url)s, %(expires_at)s)"
                " on conflict (id) do update set expires_at = excluded.expires_at, removed_at = null,"
                " notification_url = excluded.notification_url, updated_at = clock_timestamp()",
                values,
            )

    def remove(self, subscription_id: str) -> None:
        with self._database.connection() as conn:
            conn.execute(
                "update queue.subscriptions set removed_at = clock_timestamp(), updated_at = clock_timestamp()"
                " where id = %s and removed_at is null",
                (subscription_id,),
            )
