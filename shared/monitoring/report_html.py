"""The daily report as a mail that any client shows: tables, inline styles, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_CELL = "padding:4px 10px;border-bottom:1px solid #ddd;text-align:{align}"
_PAGE = "font-family:Segoe UI,Arial,sans-serif;font-size:14px;color:#222"


def render(figures: Mapping[str, Any], link: str | None) -> tuple[str, str]:
    """Subject and HTML of the figures that shared.monitoring.report.summarise made; `link` leads to them."""
    total, before = figures["total"], figures["totalWeekBefore"]
    subject = f"Fleet Queue {figures['day']}: {total['completed']:,} completed, {total['dead']:,} dead"
    parts = [
        f"<h1 style='font-size:20px'>Fleet Queue on {escape(figures['day'])} (UTC)</h1>",
        _summary(total, before),
        _trend(figures["week"], figures["previousWeek"]),
        _queues(figures["queues"]),
        _failures(figures["failures"]),
        _slowest(figures["slowest"]),
        _dead_letters(figures["deadLetters"]),
        _alerts(figures["alerts"]),
        _subscriptions(figures["subscriptions"]),
    ]
    if link:
        parts.append(f"<p><a href='{escape(link, quote=True)}'>Open it in the dashboard</a></p>")
    body = "\n".join(part for part in parts if part)
    return subject, f"<html><body style='{_PAGE}'>\n{body}\n</body></html>"


def _summary(total: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    names = ("enqueued", "completed", "failed", "dead", "cancelled")
    labels = {"failed": "failed attempts"}
    rows = [(labels.get(name, name), _number(total[name]), _change(total[name], before[name])) for name in names]
    rows.append(("failure rate", _share(total["failureRate"]), f"{_share(before['failureRate'])} then"))
    return _table("The day", ("", "jobs", "against the same day a week before"), rows)


def _trend(week: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    rows = [
        (name, _number(week[name]), _number(before[name]), _change(week[name], before[name]))
        for name in ("enqueued", "completed", "failed", "dead")
    ]
    return _table("The week", ("", "seven days", "the seven before", "change"), rows)


def _queues(queues: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            queue["queue"], _number(queue["enqueued"]), _number(queue["completed"]),
            _change(queue["completed"], queue["completedWeekBefore"]), _number(queue["failed"]), _number(queue["dead"]),
            _seconds(queue["meanSeconds"]), _seconds(queue["p50"]), _seconds(queue["p95"]), _seconds(queue["p99"]),
            _seconds(queue["p95WeekBefore"]),
        )
        for queue in queues
    ]  # fmt: skip
    head = ("queue", "enqueued", "completed", "change", "failed", "dead", "mean run", "p50", "p95", "p99", "p95 then")
    return _table("Queues; latency from due to ended", head, rows, "No queue had anything to do.")


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    rows = [(failure["queue"], failure["errorClass"], _number(failure["times"])) for failure in failures]
    return _table("Failed attempts by class", ("queue", "class", "times"), rows, "None.")


def _slowest(jobs: Sequence[Mapping[str, Any]]) -> str:
    rows = [(job["queue"], job["id"], _seconds(job["seconds"])) for job in jobs]
    return _table("Slowest jobs", ("queue", "job", "ran for"), rows)


def _dead_letters(letters: Sequence[Mapping[str, Any]]) -> str:
    rows = [(one["queue"], one["errorClass"], _number(one["count"]), one["newest"]) for one in letters]
    return _table("Dead letters that wait for somebody", ("queue", "class", "number", "newest"), rows, "None.")


def _alerts(alerts: Sequence[Mapping[str, Any]]) -> str:
    rows = [(one["level"], one["title"], one["openedAt"], one["resolvedAt"] or "still open") for one in alerts]
    return _table("Alerts of the day", ("level", "what", "opened", "resolved"), rows, "None.")


def _subscriptions(found: Mapping[str, Any]) -> str:
    rows = [
        ("declared resources", _number(found["watched"])),
        ("with a live subscription", _number(found["live"])),
        ("with a problem", _number(found["withProblem"])),
        ("the next one ends", found["nextExpiry"] or "–"),
    ]
    return _table("Subscriptions", ("", ""), rows)


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "") -> str:
    body = [_row("td", row) for row in rows]
    if not body:
        return f"<h2 style='font-size:16px'>{escape(title)}</h2><p>{escape(empty)}</p>" if empty else ""
    lines = "\n".join([_row("th", head), *body])
    return (
        f"<h2 style='font-size:16px'>{escape(title)}</h2>\n<table style='border-collapse:collapse'>\n{lines}\n</table>"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    shown = (
        f"<{tag} style='{_CELL.format(align='left' if place == 0 else 'right')}'>{escape(str(cell))}</{tag}>"
        for place, cell in enumerate(cells)
    )
    return f"<tr>{''.join(shown)}</tr>"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:,.1f} s"


def _change(now: int, before: int | None) -> str:
    if not before:
        return "–" if not now else "new"
    return f"{(now - before) / before:+.0%}"
