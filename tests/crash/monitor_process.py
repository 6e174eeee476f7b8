"""Judges alerts, or makes a report, and kills itself: `python -m tests.crash.monitor_process WORK POINT`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from shared.engine.enqueue import Producer
from shared.engine.job import Enqueued, NewJob
from shared.handlers.registry import QUEUES
from shared.handlers.services import Operator
from shared.monitoring.alerts import AlertWatch
from shared.monitoring.notices import Notices
from shared.monitoring.report import ReportTimer
from shared.postgres.alert_board import PostgresAlertBoards
from shared.postgres.pool import Database
from shared.postgres.reports import PostgresReports
from shared.postgres.store import PostgresStore

#: Before the messages are stored; after that and before the commit; after the commit and before the wake-ups.
POINTS = ("before-messages", "before-commit", "after-commit")
OPERATOR = Operator(mail_from="fleet@fleet.example", mail_to="ops@fleet.example")


class NoTransport:
    """Wake-ups go nowhere."""

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None: ...

    def visible(self, queue: str, cap: int) -> int:
        return 0


class CrashingProducer(Producer):
    """SIGKILLs its own process at one point; nothing runs after it, no rollback, no finally."""

    point = ""

    def enqueue_many(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        self._die_at("before-messages")
        made = super().enqueue_many(jobs, conn)
        self._die_at("before-commit")
        return made

    def wake_for(self, jobs: Sequence[NewJob], enqueued: Sequence[Enqueued]) -> None:
        self._die_at("after-commit")
        super().wake_for(jobs, enqueued)

    def _die_at(self, point: str) -> None:
        if point == self.point:
            os.kill(os.getpid(), signal.SIGKILL)


def run(work: str, url: str, point: str = "") -> None:
    database = Database(url, pooler=os.environ.get("DATABASE_POOLER") == "true")
    producer = CrashingProducer(PostgresStore(database), NoTransport(), QUEUES, lambda queue, text: text)
    producer.point = point
    if work == "alerts":
        AlertWatch(PostgresAlertBoards(database), producer, Notices(OPERATOR).jobs).run()
    else:
        ReportTimer(PostgresReports(database), producer, OPERATOR).run()
    database.close()


if __name__ == "__main__":
    run(sys.argv[1], os.environ["DATABASE_URL"], sys.argv[2])
