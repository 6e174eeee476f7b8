"""Dead letters: lists, groups, review, redrive."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, model_validator

from shared.admin.models.base import ListQuery, LongText, Model, Moment, Page, ShortText

MOST_REDRIVEN = 500
LetterState = Literal["open", "redriven", "discarded"]


class DeadLettersQuery(ListQuery):
    """Which dead letters."""

    queue: ShortText | None = None
    status: LetterState | None = Field(None, description="open: neither redriven nor discarded")
    reviewed: bool | None = Field(None, description="only those that somebody has reviewed, or has not")
    error_class: ShortText | None = None
    from_: Moment | None = Field(None, alias="from", description="only those that died at this time or later")
    to: Moment | None = Field(None, description="only those that died before this time")
    pattern: LongText | None = Field(None, description="of a group: the error's text, its numbers and ids replaced")


class DeadLetter(Model):
    """A job, or a message that is none (`body`), that ended dead."""

    id: UUID
    job_id: UUID | None
    queue: str
    state: LetterState
    error_class: str
    error_message: str
    body: str | None
    died_at: datetime
    reviewed_at: datetime | None
    reviewed_by: str | None
    review_note: str | None
    redriven_at: datetime | None
    redriven_by: str | None
    redriven_job_id: UUID | None
    discarded_at: datetime | None
    discarded_by: str | None


class DeadLetterPage(Page[DeadLetter]):
    """Some dead letters."""


class GroupsQuery(Model):
    """Which open dead letters to group."""

    queue: ShortText | None = None
    reviewed: bool | None = None


class DeadLetterGroup(Model):
    """Open dead letters of one queue with the same error; `pattern` finds them in the list and for a redrive."""

    queue: str
    error_class: str
    pattern: str
    count: int
    unreviewed: int
    first_at: datetime
    last_at: datetime
    example_id: UUID
    example_message: str


class DeadLetterGroups(Model):
    """Largest first. `complete` is false when only the newest `counted` are in it."""

    groups: list[DeadLetterGroup]
    counted: int
    complete: bool


class Review(Model):
    """What was found out."""

    note: LongText


class RedriveFilter(Model):
    """Open dead letters that fit all that is given."""

    queue: ShortText | None = None
    error_class: ShortText | None = None
    pattern: LongText | None = None
    reviewed: bool | None = None
    died_after: Moment | None = None
    died_before: Moment | None = None

    @model_validator(mode="after")
    def _something(self) -> RedriveFilter:
        if not self.model_fields_set:
            raise ValueError("name at least one field")
        return self


class RedriveOrder(Model):
    """By `ids` of dead letters, or by `filter` (oldest first). `ratePerSecond` spreads them over time."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=MOST_REDRIVEN)] | None = None
    filter: RedriveFilter | None = None
    rate_per_second: Annotated[float, Field(gt=0, le=1000)] | None = None
    limit: int = Field(100, ge=1, le=MOST_REDRIVEN, description="so many of the filter's at most")

    @model_validator(mode="after")
    def _one_way(self) -> RedriveOrder:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give ids or filter, one of the two")
        return self


class RedrivenLetter(Model):
    """A dead letter and the job that it became."""

    id: UUID
    job_id: UUID


class SkippedLetter(Model):
    """A dead letter that was left as it is."""

    id: UUID
    reason: str


class Redriven(Model):
    """`more`: the filter fits others; order it again."""

    redriven: list[RedrivenLetter]
    skipped: list[SkippedLetter]
    more: bool
