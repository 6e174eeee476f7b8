"""Which keys jobs wait for: told by the workers that met them, in alerts, since health is asked of another host."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from shared.engine.json_text import to_json
from shared.postgres.pool import Database

#: A job whose key is missing comes back every minute, so a key of which nobody spoke for longer is missed no more.
STALE = timedelta(minutes=5)
_PREFIX = "encryption-key:"
_RAISE = """
insert into queue.queue_alerts as a (alert_key, level, title, details) values (%s, 'critical', %s, %s)
on conflict (alert_key) where resolved_at is null do update
   set occurrences = a.occurrences + 1, updated_at = clock_timestamp()
 where a.updated_at < clock_timestamp() - interval '30 seconds'
"""


class MissingKeys:
    """Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def miss(self, key_id: str) -> None:
        """Open the key's alert, or count it up: a thousand waiting jobs make two writes a minute."""
        title = f"Jobs wait for the encryption key {key_id}"
        with self._database.connection() as conn:
            conn.execute(_RAISE, (f"{_PREFIX}{key_id}", title, to_json({"keyId": key_id})))

    def missed(self) -> list[str]:
        """The ids of the keys that jobs wait for."""
        with self._database.connection() as conn:
            rows = conn.execute(
                "select substr(alert_key, %s) from queue.queue_alerts"
                " where alert_key like %s and resolved_at is null and updated_at > clock_timestamp() - %s order by 1",
                (len(_PREFIX) + 1, f"{_PREFIX}%", STALE),
            ).fetchall()
        return [row[0] for row in rows]

    def found(self, key_ids: Sequence[str]) -> None:
        """Close the alerts of keys that are here now."""
        with self._database.connection() as conn:
            conn.execute(
                "update queue.queue_alerts set resolved_at = clock_timestamp()"
                " where alert_key = any(%s) and resolved_at is null",
                ([f"{_PREFIX}{key_id}" for key_id in key_ids],),
            )
