"""Alerts in `queue_alerts`: one is open for the same trouble, counted up each time; dead letters count once each."""

from __future__ import annotations

from uuid import UUID

import psycopg

from shared.engine.json_text import to_json
from shared.handlers.services import Alert, DeadLetter
from shared.postgres.pool import Database

# A dead letter counts once (alerted_at). Whether it opened the alert is written into the alert, so that a handler
# that died after this call hears the same again.
_RAISE = """
with mine as (
    update queue.dead_letter_queue set alerted_at = clock_timestamp()
     where id = %(id)s and alerted_at is null
    returning id
),
raised as (
    insert into queue.queue_alerts as a (alert_key, level, title, details)
    select %(key)s, 'warning', %(title)s, %(details)s::jsonb || jsonb_build_object('openedBy', %(id)s::text) from mine
    on conflict (alert_key) where resolved_at is null do update
       set occurrences = a.occurrences + 1, updated_at = clock_timestamp(), details = a.details || %(details)s::jsonb
    returning a.details ->> 'openedBy' as opened_by
)
select coalesce(
    (select opened_by from raised),
    (select details ->> 'openedBy' from queue.queue_alerts where alert_key = %(key)s and resolved_at is null)
) is not distinct from %(id)s::text
"""

_TELL = """
insert into queue.queue_alerts as a (alert_key, level, title, details, occurrences)
values (%(key)s, %(level)s, %(title)s, %(details)s, %(times)s)
on conflict (alert_key) where resolved_at is null do update
   set occurrences = a.occurrences + %(times)s, updated_at = clock_timestamp(),
       details = a.details || %(details)s::jsonb
"""


class PostgresAlerts:
    """See shared.handlers.services.Alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def dead_letter(self, dead_letter_id: UUID) -> DeadLetter | None:
        with self._database.connection() as conn:
            row = conn.execute(
                "select id, job_id, queue, error_class, error_message from queue.dead_letter_queue where id = %s",
                (dead_letter_id,),
            ).fetchone()
        return DeadLetter(*row) if row is not None else None

    def raise_alert(self, dead_letter: DeadLetter) -> bool:
        details = {
            "queue": dead_letter.queue,
            "errorClass": dead_letter.error_class,
            "lastMessage": dead_letter.message,
            "lastDeadLetterId": str(dead_letter.id),
            "lastJobId": str(dead_letter.job_id) if dead_letter.job_id else None,
        }
        with self._database.connection() as conn:
            row = conn.execute(
                _RAISE,
                {
                    "id": dead_letter.id,
                    "key": f"dead-letter:{dead_letter.queue}:{dead_letter.error_class}",
                    "title": f"Dead letters in {dead_letter.queue} ({dead_letter.error_class})",
                    "details": to_json(details),
                },
            ).fetchone()
        return bool(row and row[0])

    def tell(self, alert: Alert) -> None:
        with self._database.connection() as conn:
            tell(conn, alert)


def tell(conn: psycopg.Connection, alert: Alert) -> None:
    """Open an alert or count it up, in the transaction of the connection."""
    values = {"key": alert.key, "level": alert.level, "title": alert.title, "times": alert.times}
    conn.execute(_TELL, values | {"details": to_json(alert.details)})
