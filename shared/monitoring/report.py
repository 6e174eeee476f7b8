"""The daily report: what happened on a day (UTC), beside the same day of the week before. Made and sent once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Protocol

from shared.engine.enqueue import Producer
from shared.engine.errors import EnqueueError
from shared.engine.job import NewJob
from shared.handlers.operator_notices import mail, notice
from shared.handlers.services import Operator
from shared.monitoring.report_html import render
from shared.monitoring.statistics import Activity
from shared.settings_errors import SettingsError

log = logging.getLogger(__name__)

WEEK = timedelta(days=7)
SLOWEST = 10
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Material:
    """What a report is made from: the day's figures by queue, those of the day a week before, of the week that ends
    with the day, and of the week before that; what is open now, and the state of the subscriptions."""

    day: Sequence[Activity]
    day_before: Sequence[Activity]
    week: Sequence[Activity]
    week_before: Sequence[Activity]
    dead_letters: Sequence[Mapping[str, Any]]
    alerts: Sequence[Mapping[str, Any]]
    subscriptions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportHead:
    """A report in a list."""

    day: date
    made_at: datetime
    subject: str


@dataclass(frozen=True, slots=True)
class DailyReport(ReportHead):
    """A report as it is kept; `figures` is JSON."""

    html: str
    figures: Mapping[str, Any]


class Desk(Protocol):
    """The transaction in which one report is made. Leaving it commits, an exception undoes all of it."""

    @property
    def conn(self) -> Any: ...

    def material(self) -> Material: ...

    def save(self, subject: str, html: str, figures: Mapping[str, Any]) -> None: ...


class Reports(Protocol):
    """Where reports are kept. Raises StoreUnavailableError."""

    def due(self) -> Sequence[date]:
        """Days that have ended, whose figures are complete, and of which there is no report yet; oldest first."""
        ...

    def desk(self, day: date) -> AbstractContextManager[Desk | None]:
        """None when the report is there, or somebody else makes one."""
        ...

    def list(self, limit: int = 30, before: date | None = None) -> Sequence[ReportHead]:
        """The newest first."""
        ...

    def get(self, day: date) -> DailyReport | None: ...


class ReportTimer:
    """Makes every report that is due, and sends it to the operator's mail address if there is one."""

    def __init__(self, reports: Reports, producer: Producer, operator: Operator) -> None:
        self._reports = reports
        self._producer = producer
        self._operator = operator

    def run(self) -> None:
        for day in self._reports.due():
            with self._reports.desk(day) as desk:
                if desk is None:
                    continue
                figures = summarise(day, desk.material())
                subject, html = render(figures, self._operator.link(f"reports/{day}"))
                desk.save(subject, html, figures)
                jobs = self._mails(day, subject, html)
                enqueued = self._producer.enqueue_many(jobs, conn=desk.conn)
            self._producer.wake_for(jobs, enqueued)
            log.info("report.made", extra={"day": day.isoformat(), "mails": len(jobs)})

    def _mails(self, day: date, subject: str, html: str) -> list[NewJob]:
        if not self._operator.mail_to:
            return []
        job = notice("outlook-outbound", mail(self._operator, subject, html, "html"), f"report:{day}")
        try:
            self._producer.validate(job)
        except (EnqueueError, SettingsError) as error:
            log.error("report.not_tellable", extra={"queue": job.queue, "error": str(error)})
            return []
        return [job]


def day_begin(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def summarise(day: date, material: Material) -> dict[str, Any]:
    """The report's figures as JSON."""
    before = {activity.queue: activity for activity in material.day_before}
    queues = [
        _queue(activity, before.get(activity.queue))
        for activity in material.day
        if activity.enqueued or activity.processed or activity.dead or activity.cancelled
    ]
    slowest = [{"queue": activity.queue, **job} for activity in material.day for job in activity.slowest]
    return {
        "day": day.isoformat(),
        "total": _totals(material.day),
        "totalWeekBefore": _totals(material.day_before),
        "week": _totals(material.week),
        "previousWeek": _totals(material.week_before),
        "queues": queues,
        "failures": _failures(material.day),
        "slowest": sorted(slowest, key=lambda job: -float(job["seconds"]))[:SLOWEST],
        "deadLetters": list(material.dead_letters),
        "alerts": list(material.alerts),
        "subscriptions": dict(material.subscriptions),
    }


def _queue(activity: Activity, before: Activity | None) -> dict[str, Any]:
    return {
        "queue": activity.queue,
        **_totals([activity]),
        **{name: _rounded(activity.latency_at(share)) for name, share in SHARES.items()},
        "meanSeconds": _rounded(activity.average_processing_seconds),
        "completedWeekBefore": before.completed if before else None,
        "p95WeekBefore": _rounded(before.latency_at(SHARES["p95"])) if before else None,
    }


def _totals(activities: Sequence[Activity]) -> dict[str, Any]:
    names = ("enqueued", "completed", "failed", "dead", "cancelled")
    sums = {name: sum(getattr(activity, name) for activity in activities) for name in names}
    attempts = sums["failed"] + sums["completed"]
    return {**sums, "failureRate": round(sums["failed"] / attempts, 4) if attempts else None}


def _failures(activities: Sequence[Activity]) -> list[dict[str, Any]]:
    found = [
        {"queue": activity.queue, "errorClass": error_class, "times": times}
        for activity in activities
        for error_class, times in activity.failures.items()
    ]
    return sorted(found, key=lambda failure: (-failure["times"], failure["queue"], failure["errorClass"]))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
