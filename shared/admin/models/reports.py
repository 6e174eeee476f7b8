"""Daily reports."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import Field

from shared.admin.models.base import ListQuery, Model, Page


class ReportsQuery(ListQuery):
    """Which reports."""


class ReportSummary(Model):
    """A report in a list."""

    day: date
    subject: str
    made_at: datetime


class ReportPage(Page[ReportSummary]):
    """Some reports."""


class Report(ReportSummary):
    """A report as it was mailed, in figures; docs/reference/http.md says which."""

    figures: dict[str, Any] = Field(description="docs/reference/http.md#reports lists them")
