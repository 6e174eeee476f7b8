"""What non-delivery reports have said, on PostgreSQL. A failure names the mail by its Message-ID, and so may come
before the mail itself is recorded."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from shared.engine.json_text import clean_text
from shared.handlers.services import DeliveryReport
from shared.postgres.pool import Database

_INSERT = """
insert into queue.delivery_failures
    (internet_message_id, recipient, status, diagnostic, report_id, account, reported_at)
select %(message_id)s, f.recipient, f.status, f.diagnostic, %(report_id)s, %(account)s,
       coalesce(%(reported_at)s::timestamptz, clock_timestamp())
from unnest(%(recipients)s::text[], %(statuses)s::text[], %(diagnostics)s::text[])
     as f (recipient, status, diagnostic)
on conflict do nothing
"""

_OF_JOB = """
select recipient, status, diagnostic, reported_at
from queue.undelivered
where job_id = %s
order by reported_at, recipient
"""


class DeliveryFailureRow(NamedTuple):
    """A recipient that a job's mail did not reach."""

    recipient: str
    status: str
    diagnostic: str
    reported_at: datetime

    def as_json(self) -> dict[str, Any]:
        return {
            "recipient": self.recipient,
            "status": self.status,
            "diagnostic": self.diagnostic,
            "reportedAt": self.reported_at.isoformat(),
        }


class PostgresDeliveryFailures:
    """See shared.handlers.services.DeliveryFailures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, report: DeliveryReport) -> int:
        values = {
            "report_id": clean_text(report.report_id),
            "account": clean_text(report.account),
            "reported_at": report.reported_at,
            "message_id": clean_text(report.message_id),
            "recipients": [clean_text(failure.recipient) for failure in report.failures],
            "statuses": [clean_text(failure.status) for failure in report.failures],
            "diagnostics": [clean_text(failure.diagnostic) for failure in report.failures],
        }
        with self._database.connection() as conn:
            return conn.execute(_INSERT, values).rowcount

    def of_job(self, job_id: UUID) -> list[DeliveryFailureRow]:
        """Whom the job's mail did not reach, as far as reports say."""
        with self._database.connection() as conn:
            return [DeliveryFailureRow(*row) for row in conn.execute(_OF_JOB, (job_id,)).fetchall()]
