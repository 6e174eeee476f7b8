"""Daily reports in PostgreSQL: one a day, and one mail, whoever dies and however many make it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from shared.engine.enqueue import Producer
from shared.handlers.registry import QUEUES
from shared.handlers.services import Operator
from shared.monitoring.report import ReportTimer
from shared.postgres.pool import Database
from shared.postgres.reports import PostgresReports
from shared.postgres.statistics import PostgresStatistics
from shared.postgres.store import PostgresStore
from tests.integration.monitoring.conftest import QUEUE, History
from tests.integration.monitoring.test_alerting import Killed, Wire

CLOCK = "test_clock.now()"
OPERATOR = Operator(mail_from="fleet@fleet.example", mail_to="ops@fleet.example", dashboard="https://fleet.example/d")
DAY = timedelta(days=1)
Clock = Callable[[datetime], None]


class Bench:
    def __init__(self, database: Database, sql: psycopg.Connection, set_clock: Clock) -> None:
        self.sql = sql
        self.set_clock = set_clock
        self.statistics = PostgresStatistics(database, CLOCK)
        self.reports = PostgresReports(database, CLOCK)
        self.wire = Wire()
        self.producer = Producer(PostgresStore(database), self.wire, QUEUES, lambda queue, text: text)
        self.timer = ReportTimer(self.reports, self.producer, OPERATOR)

    def days(self) -> list[date]:
        return [report.day for report in self.reports.list()]

    def mails(self) -> list[str]:
        rows = self.sql.execute(
            "select idempotency_key from queue.jobs where queue = 'outlook-outbound' order by 1"
        ).fetchall()
        return [row[0].removeprefix("operator-notice:report:") for row in rows]


@pytest.fixture
def midnight() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def bench(database: Database, sql: psycopg.Connection, set_clock: Clock, history: History, midnight: datetime) -> Bench:
    """Yesterday had jobs, and its figures are complete."""
    bench = Bench(database, sql, set_clock)
    bench.set_clock(midnight - timedelta(minutes=30))
    bench.statistics.keep()
    for n in range(20):
        history.end(midnight - timedelta(minutes=n + 1), errors=("network",) if n < 4 else (), took=n + 1)
    bench.set_clock(midnight + timedelta(seconds=45))
    bench.statistics.keep()
    return bench


def yesterday(midnight: datetime) -> date:
    return (midnight - DAY).date()


def test_a_report_is_made_at_midnight_kept_and_sent_once(bench: Bench, midnight: datetime) -> None:
    for _ in range(3):
        bench.timer.run()
    report = bench.reports.get(yesterday(midnight))
    day = yesterday(midnight)
    assert report is not None and f"https://fleet.example/d#/reports/{day}" in report.html, "the mail leads to its page"
    assert report is not None and bench.days() == [yesterday(midnight)]
    assert report.figures["total"]["completed"] == 20
    assert report.figures["failures"] == [{"queue": QUEUE, "errorClass": "network", "times": 4}]
    assert report.figures["slowest"][0]["seconds"] == 20
    assert "network" in report.html and "https://fleet.example/d" in report.html
    assert bench.mails() == [yesterday(midnight).isoformat()]
    [(payload,)] = bench.sql.execute("select payload from queue.jobs where queue = 'outlook-outbound'").fetchall()
    assert (payload["to"], payload["bodyType"], payload["body"]) == (["ops@fleet.example"], "html", report.html)
    assert bench.wire.sent == ["outlook-outbound"]


def test_a_report_waits_for_the_days_last_figures(
    database: Database, sql: psycopg.Connection, set_clock: Clock, midnight: datetime
) -> None:
    bench = Bench(database, sql, set_clock)
    set_clock(midnight - timedelta(minutes=10))
    bench.statistics.keep()
    set_clock(midnight + timedelta(seconds=45))
    bench.timer.run()
    assert bench.days() == []
    bench.statistics.keep()
    bench.timer.run()
    assert bench.days() == [yesterday(midnight)]


def test_a_report_of_a_day_before_there_were_figures_is_not_made(
    database: Database, sql: psycopg.Connection, set_clock: Clock, midnight: datetime
) -> None:
    bench = Bench(database, sql, set_clock)
    set_clock(midnight + timedelta(hours=10))
    bench.statistics.keep()
    bench.timer.run()
    assert bench.days() == []


def test_two_hosts_at_once_make_one_report_and_one_mail(bench: Bench, midnight: datetime) -> None:
    barrier = threading.Barrier(4)

    def make() -> None:
        barrier.wait(10)
        bench.timer.run()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert bench.days() == [yesterday(midnight)]
    assert bench.mails() == [yesterday(midnight).isoformat()]


@pytest.mark.parametrize("point", ["enqueue_many", "wake_for"])
def test_a_report_whose_maker_is_killed_is_made_and_sent_once(
    bench: Bench, midnight: datetime, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bench.producer, point, die)
        with pytest.raises(Killed):
            bench.timer.run()
    assert bench.days() == ([] if point == "enqueue_many" else [yesterday(midnight)])
    bench.timer.run()
    assert bench.days() == [yesterday(midnight)]
    assert bench.mails() == [yesterday(midnight).isoformat()]


def test_after_an_outage_the_missing_reports_follow(bench: Bench, midnight: datetime) -> None:
    bench.timer.run()
    for days in range(1, 4):
        bench.set_clock(midnight + days * DAY + timedelta(minutes=1))
    for _ in range(4):
        bench.statistics.keep()
    bench.timer.run()
    first = yesterday(midnight)
    assert bench.days() == [first + days * DAY for days in (3, 2, 1, 0)]
    assert bench.mails() == [(first + days * DAY).isoformat() for days in range(4)]


def test_a_report_compares_with_the_same_day_a_week_before(
    bench: Bench, midnight: datetime, sql: psycopg.Connection
) -> None:
    sql.execute(
        "insert into queue.queue_statistics_hour (queue, bucket_at, completed)"
        " values (%(q)s, %(at)s - interval '7 days 1 hour', 40), (%(q)s, %(at)s - interval '6 days 23 hours', 7)",
        {"q": QUEUE, "at": midnight},
    )
    bench.timer.run()
    report = bench.reports.get(yesterday(midnight))
    assert report is not None
    assert report.figures["totalWeekBefore"]["completed"] == 40
    assert (report.figures["week"]["completed"], report.figures["previousWeek"]["completed"]) == (27, 40)
    assert "-50%" in report.html


def test_a_report_without_a_mail_address_is_kept_all_the_same(bench: Bench, midnight: datetime) -> None:
    ReportTimer(bench.reports, bench.producer, Operator()).run()
    assert bench.days() == [yesterday(midnight)] and bench.mails() == []
