"""How users want to be notified, from `notification_routes`."""

from __future__ import annotations

from shared.handlers.notification_channels import Route
from shared.postgres.pool import Database


class PostgresNotificationRoutes:
    """See shared.handlers.notification_channels.NotificationRoutes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, user_id: str) -> Route | None:
        with self._database.connection() as conn:
            row = conn.execute(
                "select channels, endpoint from queue.notification_routes where user_id = %s", (user_id,)
            ).fetchone()
        return Route(tuple(row[0]), row[1]) if row else None
