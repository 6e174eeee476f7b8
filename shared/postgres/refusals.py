"""Refused sign-ins to the admin API, counted by the minute over all instances."""

from __future__ import annotations

import logging

from shared.access import MOST_REFUSALS
from shared.engine.errors import StoreUnavailableError
from shared.postgres.open_alerts import OpenAlerts
from shared.postgres.pool import Database

log = logging.getLogger(__name__)


ALERT = "admin:guessing"
_REMEDY = "See who asks (the log's admin.refused); if it goes on, close the address to strangers and change the keys."


class PostgresRefusals:
    """See shared.access.Refusals. Too many open an alert, which is over when a day went by without."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, count: int) -> int | None:
        try:
            with self._database.connection() as conn:
                row = conn.execute("select queue.refuse_sign_ins(%s)", (count,)).fetchone()
            total = int(row[0]) if row else 0
            if total > MOST_REFUSALS:
                details = {"refusals": total, "remedy": _REMEDY}
                OpenAlerts(self._database).open(ALERT, "warning", "Somebody guesses keys of the admin API", details)
            return total
        except StoreUnavailableError as error:
            log.warning("refusals.not_counted", extra={"error": str(error)})
            return None
