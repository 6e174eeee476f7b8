"""Refused sign-ins to the admin API, counted by the minute over all instances."""

from __future__ import annotations

import logging

from shared.engine.errors import StoreUnavailableError
from shared.postgres.pool import Database

log = logging.getLogger(__name__)


class PostgresRefusals:
    """See shared.access.Refusals."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, count: int) -> int | None:
        try:
            with self._database.connection() as conn:
                row = conn.execute("select queue.refuse_sign_ins(%s)", (count,)).fetchone()
        except StoreUnavailableError as error:
            log.warning("refusals.not_counted", extra={"error": str(error)})
            return None
        return int(row[0]) if row else None
