"""The daily report from its figures to the mail."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

from shared.monitoring.histogram import CELLS
from shared.monitoring.report import Material, summarise
from shared.monitoring.report_html import render
from shared.monitoring.statistics import Activity

DAY = date(2026, 3, 1)
AT = datetime(2026, 3, 1, tzinfo=UTC)
ONE_DAY = timedelta(days=1)


def activity(queue: str = "mail", completed: int = 100, failed: int = 0, dead: int = 0, cell: int = 20) -> Activity:
    latency = [0] * CELLS
    latency[cell] = completed
    return Activity(
        queue, AT, ONE_DAY, completed, completed, failed, dead, 0, completed, completed * 2.0, latency,
        {"network": failed} if failed else {}, [{"id": f"{queue}-{n}", "seconds": float(n)} for n in range(9)],
    )  # fmt: skip


def material(**changes: object) -> Material:
    plain = Material(
        day=[activity(completed=150, failed=50, dead=2), activity("chat")],
        day_before=[activity()],
        week=[activity(completed=900)],
        week_before=[activity(completed=1000)],
        dead_letters=[{"queue": "mail", "errorClass": "network", "count": 2, "newest": "2026-03-01 10:00"}],
        alerts=[{"level": "warning", "title": "<b>", "key": "k", "openedAt": "2026-03-01 10:00", "resolvedAt": None}],
        subscriptions={"watched": 3, "live": 2, "withProblem": 1, "nextExpiry": "2026-03-02 09:00"},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_report_has_throughput_percentiles_failures_and_trends() -> None:
    figures = summarise(DAY, material())
    assert figures["total"] == {
        "enqueued": 250, "completed": 250, "failed": 50, "dead": 2, "cancelled": 0, "failureRate": 0.1667,
    }  # fmt: skip
    assert figures["totalWeekBefore"]["completed"] == 100
    assert (figures["week"]["completed"], figures["previousWeek"]["completed"]) == (900, 1000)
    mail = figures["queues"][0]
    assert mail["completedWeekBefore"] == 100 and mail["meanSeconds"] == 2
    assert 1.0 < mail["p50"] < mail["p95"] < mail["p99"] < 1.5
    assert figures["failures"] == [{"queue": "mail", "errorClass": "network", "times": 50}]
    assert [job["seconds"] for job in figures["slowest"]] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def test_a_report_is_well_formed_html_with_everything_in_it_and_nothing_unescaped() -> None:
    subject, html = render(summarise(DAY, material()), "https://fleet.example/d?a=1&b='#/reports/2026-03-01")
    assert subject == "Fleet Queue 2026-03-01: 250 completed, 2 dead"
    page = Cells()
    page.feed(html)
    assert page.open == []
    for text in ("+150%", "-10%", "network", "mail-8", "8.0 s", "<b>", "still open", "2026-03-02 09:00", "16.7%"):
        assert text in page.texts, text
    assert "<b>" not in html
    assert "src=" not in html and "<script" not in html and "&amp;b=&#x27;" in html


def test_a_report_of_a_day_without_anything_says_so() -> None:
    empty = {"watched": 0, "live": 0, "withProblem": 0, "nextExpiry": None}
    figures = summarise(DAY, Material([], [], [], [], [], [], empty))
    subject, html = render(figures, None)
    assert subject == "Fleet Queue 2026-03-01: 0 completed, 0 dead"
    assert "No queue had anything to do." in html and "dashboard" not in html
