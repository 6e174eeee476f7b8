"""Recurring schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from shared.admin.models.base import Model, Priority, ShortText
from shared.engine.schedules import CatchUp

#: What stands in an address as it is.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}$")]


class Schedule(Model):
    """A schedule. `payload` is null for those who may not read payloads; `problem` says why it makes no jobs."""

    name: str
    queue: str
    cron: str
    time_zone: str
    priority: int | None
    catch_up: CatchUp
    paused: bool
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_job_id: UUID | None
    problem: str | None
    payload: dict[str, Any] | None


class Schedules(Model):
    """All of them."""

    items: list[Schedule]


class PlanQuery(Model):
    """An expression to look at; nothing is made of it."""

    cron: ShortText
    time_zone: ShortText = "UTC"


class Plan(Model):
    """The next times at which it would make a job, soonest first."""

    cron: str
    time_zone: str
    times: list[datetime]


class NewSchedule(Model):
    """A schedule to make."""

    name: Name
    queue: ShortText
    payload: dict[str, Any]
    cron: ShortText
    time_zone: ShortText = "UTC"
    priority: Priority | None = None
    catch_up: CatchUp = CatchUp.ONCE
    paused: bool = False


class ScheduleChange(Model):
    """What is left out stays."""

    queue: ShortText | None = None
    payload: dict[str, Any] | None = None
    cron: ShortText | None = None
    time_zone: ShortText | None = None
    priority: Priority | None = None
    catch_up: CatchUp | None = None
    paused: bool | None = None

    @model_validator(mode="after")
    def _something(self) -> ScheduleChange:
        if not self.model_fields_set:
            raise ValueError("name at least one field")
        wrong = [name for name in self.model_fields_set - {"priority"} if getattr(self, name) is None]
        if wrong:
            names = ", ".join(to_camel(name) for name in sorted(wrong))
            raise ValueError(f"{names}: leave it out in place of null")
        return self
