"""Alerts and what they are raised at."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from shared.admin.models.base import ListQuery, Model, Page, ShortText, Storable
from shared.monitoring.meaning import Kind

Level = Literal["info", "warning", "critical"]


class AlertsQuery(ListQuery):
    """Which alerts."""

    status: Literal["open", "resolved"] | None = None
    level: Level | None = None


class Subject(Model):
    """What an alert is about: a queue, its dead letters or limits, a schedule, a job (`name`), or a whole list."""

    kind: Kind
    name: str


class Alert(Model):
    """Something that is or was wrong: what it means, what to do now (`remedy`), and where to look (`about`)."""

    id: UUID
    key: str
    level: Level
    title: str
    meaning: str
    remedy: str
    about: list[Subject]
    details: dict[str, Any]
    occurrences: int
    opened_at: datetime
    updated_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    resolved_at: datetime | None


class AlertPage(Page[Alert]):
    """Some alerts."""


class Threshold(Model):
    """What a rule compares with, for one scope (a queue, a timer) or, where that is empty, for all that have none of
    their own. A null: no alert of that level. `changedBy` is null for what nobody has set; a reset brings the built-in
    values back, or what is set for all."""

    rule: str
    scope: str
    warning: float | None
    critical: float | None
    built_in_warning: float | None
    built_in_critical: float | None
    unit: str
    remedy: str
    changed_at: datetime | None
    changed_by: str | None


class Thresholds(Model):
    """Every rule's values."""

    items: list[Threshold]


def _no_default(schema: dict[str, Any]) -> None:
    del schema["default"]  # left out is not null


class ThresholdChange(Model):
    """A level that is left out stays as it is, null switches it off; or `reset`: the rule's own again."""

    rule: ShortText
    scope: Annotated[str, Storable] = Field("", max_length=100)
    warning: float | None = Field(None, ge=0, lt=1e12, json_schema_extra=_no_default)
    critical: float | None = Field(None, ge=0, lt=1e12, json_schema_extra=_no_default)
    reset: bool = False

    def levels(self) -> dict[str, float | None]:
        """Those that are given."""
        return self.model_dump(include={"warning", "critical"}, exclude_unset=True)


class ThresholdsChange(Model):
    """Changed together or not at all, each rule and scope once; what is not named stays."""

    items: list[ThresholdChange] = Field(min_length=1, max_length=100)
