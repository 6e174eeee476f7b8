"""Alerts about something that is wrong until it is mended: one open alert for a key, resolved when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from shared.engine.json_text import to_json
from shared.postgres.pool import Database

# Ten thousand jobs that meet the same trouble write twice a minute, and none of them waits for the others' locks.
_OPEN = """
insert into queue.queue_alerts as a (alert_key, level, title, details)
select %(key)s, %(level)s, %(title)s, %(details)s
 where not exists (select from queue.queue_alerts where alert_key = %(key)s and resolved_at is null
                      and updated_at > clock_timestamp() - interval '30 seconds')
on conflict (alert_key) where resolved_at is null do update
   set occurrences = a.occurrences + 1, updated_at = clock_timestamp(), level = excluded.level, title = excluded.title,
       details = excluded.details
returning id, occurrences = 1
"""


class OpenAlerts:
    """Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(
        self, key: str, level: Literal["warning", "critical"], title: str, details: Mapping[str, Any]
    ) -> str | None:
        """Open the key's alert, or count it up at most twice a minute; the new alert's id, None when it was open."""
        values = {"key": key, "level": level, "title": title, "details": to_json(dict(details))}
        with self._database.connection() as conn:
            row = conn.execute(_OPEN, values).fetchone()
        return str(row[0]) if row and row[1] else None

    def resolve(self, key: str) -> bool:
        """Close the key's alert; False when none was open."""
        with self._database.connection() as conn:
            return (
                conn.execute(
                    "update queue.queue_alerts set resolved_at = clock_timestamp()"
                    " where alert_key = %s and resolved_at is null",
                    (key,),
                ).rowcount
                == 1
            )
