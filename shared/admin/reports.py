"""What the routes of daily reports do."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.errors import not_found
from shared.admin.models.reports import Report, ReportPage, ReportSummary
from shared.admin.ports import Call
from shared.monitoring.report import day_begin

#: There is one report a day: its place in the list is that of the day.
_ANY = UUID(int=0)


def list_reports(call: Call) -> ReportPage:
    after = read_cursor(call.query.cursor)
    rows = call.admin.reports().list(call.query.limit + 1, after.at.date() if after else None)
    page, following = cut(rows, call.query.limit, lambda one: Place(day_begin(one.day), _ANY))
    items = [ReportSummary(day=one.day, subject=one.subject, made_at=one.made_at) for one in page]
    return ReportPage(items=items, next=following)


def show(call: Call) -> Report:
    found = call.admin.reports().get(_day(call.parameters["day"]))
    if found is None:
        raise not_found("report of this day")
    return Report(day=found.day, subject=found.subject, made_at=found.made_at, figures=dict(found.figures))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise not_found("report of this day") from None
