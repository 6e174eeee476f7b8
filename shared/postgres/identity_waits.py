"""Jobs that wait for an identity (a service account, the application) to give tokens again, and the alert for each.

A job that waits is deferred for long. What it waits for is noted, so that it can be called back at once.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from shared.engine.errors import ParkedError
from shared.postgres.open_alerts import OpenAlerts
from shared.postgres.pool import Database

_PREFIX = "identity:"
#: Longer than any process holds a refused credential back (shared/graph/tokens.py): until then a failure that was
#: heard of before the mending may be told once more.
GRACE = timedelta(seconds=6)
PAGE = 1000

_NOTE = """
insert into queue.identity_wait (job_id, identity) values (%(job)s, %(identity)s)
on conflict (job_id) do update set identity = excluded.identity
returning exists (select from queue.queue_alerts
                   where alert_key = %(key)s and resolved_at > clock_timestamp() - %(grace)s)
"""
# A job that is just being deferred stays noted: the next look finds it.
_CALL_BACK = """
with page as (
    select job_id from queue.identity_wait where identity = %(identity)s and job_id > %(after)s
     order by job_id limit %(page)s
),
moved as (
    update queue.later l set run_at = least(l.run_at, clock_timestamp() + %(grace)s)
      from page p where l.id = p.job_id
    returning l.id
),
done as (
    delete from queue.identity_wait w using page p
     where w.job_id = p.job_id and not exists (select from queue.job j where j.id = w.job_id)
)
select max(job_id::text)::uuid, (select count(*) from moved) from page
"""


class PostgresIdentityWaits:
    """Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._alerts = OpenAlerts(database)

    def wait(self, job_id: UUID, error: ParkedError) -> tuple[timedelta, str | None]:
        """Note that the job waits, and open the identity's alert; returns for how long to defer the job, and the
        alert's id when it is new."""
        values = {"job": job_id, "identity": error.needs, "key": f"{_PREFIX}{error.needs}", "grace": GRACE}
        with self._database.connection() as conn:
            row = conn.execute(_NOTE, values).fetchone()
        if row and row[0]:
            return GRACE, None
        alert_id = self._alerts.open(
            f"{_PREFIX}{error.needs}",
            "critical" if error.urgent else "warning",
            f"Jobs wait for Microsoft 365: no token for {error.needs}",
            {"identity": error.needs, "reason": str(error), "remedy": error.remedy},
        )
        return error.pause, alert_id

    def broken(self) -> list[str]:
        """The identities that have an open alert or jobs that wait."""
        with self._database.connection() as conn:
            rows = conn.execute(
                "select substr(alert_key, %s) from queue.queue_alerts where alert_key like %s and resolved_at is null"
                " union select identity from queue.identity_wait order by 1",
                (len(_PREFIX) + 1, f"{_PREFIX}%"),
            ).fetchall()
        return [row[0] for row in rows]

    def mend(self, identity: str) -> int:
        """Resolve the identity's alert and call its jobs back; returns how many."""
        self._alerts.resolve(f"{_PREFIX}{identity}")
        called, after = 0, UUID(int=0)
        while True:
            values = {"identity": identity, "after": after, "page": PAGE, "grace": GRACE}
            with self._database.connection() as conn:
                row = conn.execute(_CALL_BACK, values).fetchone()
            if row is None or row[0] is None:
                return called
            after, called = row[0], called + row[1]
