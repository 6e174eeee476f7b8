"""Dead letters: lists, groups, review, redrive, discard."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, model_validator

from shared.admin.models.base import LetterState, ListQuery, LongText, Model, Moment, Page, ShortText

MOST_ORDERED = 500


class DeadLettersQuery(ListQuery):
    """Which dead letters."""

    queue: ShortText | None = None
    status: LetterState | None = Field(None, description="open: neither redriven nor discarded")
    reviewed: bool | None = Field(None, description="only those that somebody has reviewed, or has not")
    error_class: ShortText | None = None
    from_: Moment | None = Field(None, alias="from", description="only those that died at this time or later")
    to: Moment | None = Field(None, description="only those that died before this time")
    pattern: LongText | None = Field(None, description="of a group: what its errors have in common")
    foreign: bool | None = Field(None, description="only messages that are no jobs, or only jobs")


class DeadLetter(Model):
    """A job that ended dead, or a message that is no job of ours (no `jobId`): its `body` as it came, and as `text`
    where it can be read, of both the beginning."""

    id: UUID
    job_id: UUID | None
    queue: str
    state: LetterState
    error_class: str
    error_message: str
    body: str | None
    text: str | None
    died_at: datetime
    reviewed_at: datetime | None
    reviewed_by: str | None
    review_note: str | None
    redriven_at: datetime | None
    redriven_by: str | None
    redriven_job_id: UUID | None
    discarded_at: datetime | None
    discarded_by: str | None
    meaning: str = Field(description="what its class of error means; the job's own diagnosis says more")
    remedy: str = Field(description="what one does about it")
    redrive_helps: bool = Field(description="false where the same would only fail again")


class DeadLetterPage(Page[DeadLetter]):
    """Some dead letters."""


class GroupsQuery(Model):
    """Which open dead letters to group."""

    queue: ShortText | None = None
    reviewed: bool | None = None


class DeadLetterGroup(Model):
    """Open dead letters of one queue with the same error: its class, and `pattern`, what the texts have in common (of
    Graph's answers the status and the operation). With `foreign` (messages that are no jobs) these find them in the
    list, and for an order."""

    queue: str
    foreign: bool
    error_class: str
    pattern: str
    count: int
    unreviewed: int
    first_at: datetime
    last_at: datetime
    example_id: UUID
    example_message: str
    meaning: str
    remedy: str
    redrive_helps: bool


class DeadLetterGroups(Model):
    """Largest first. `complete` is false when only the newest `counted` are in it."""

    groups: list[DeadLetterGroup]
    counted: int
    complete: bool


class Review(Model):
    """What was found out."""

    note: LongText


class LettersFilter(Model):
    """Open dead letters that fit all that is given."""

    queue: ShortText | None = None
    error_class: ShortText | None = None
    pattern: LongText | None = None
    reviewed: bool | None = None
    foreign: bool | None = None
    died_after: Moment | None = None
    died_before: Moment | None = None

    @model_validator(mode="after")
    def _something(self) -> LettersFilter:
        if not self.model_fields_set:
            raise ValueError("name at least one field")
        return self


class LettersOrder(Model):
    """By `ids` of dead letters, or by `filter` (oldest first)."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=MOST_ORDERED)] | None = None
    filter: LettersFilter | None = None
    limit: int = Field(100, ge=1, le=MOST_ORDERED, description="so many of the filter's at most")

    @model_validator(mode="after")
    def _one_way(self) -> LettersOrder:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give ids or filter, one of the two")
        return self


class RedriveOrder(LettersOrder):
    """By `ids` of dead letters, or by `filter` (oldest first) those of jobs that are still kept. `ratePerSecond`
    spreads them over time, from `startAt` on: the `nextAt` of the order before, where several follow one another."""

    rate_per_second: Annotated[float, Field(gt=0, le=1000)] | None = None
    start_at: Moment | None = None


class DiscardOrder(LettersOrder):
    """By `ids` of dead letters, or by `filter` (oldest first). `note` says why, at each of them."""

    note: LongText


class ReviewOrder(LettersOrder):
    """By `ids` of dead letters, or by `filter` (oldest first) those that nobody has reviewed."""

    note: LongText

    @model_validator(mode="after")
    def _unreviewed(self) -> ReviewOrder:
        if self.filter is not None and self.filter.reviewed:
            raise ValueError("filter.reviewed: a filter takes those that nobody has reviewed; name others by ids")
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
    """`more`: the filter fits others; order it again. `nextAt`: when one more would be due by the order's rate."""

    redriven: list[RedrivenLetter]
    skipped: list[SkippedLetter]
    more: bool
    next_at: datetime | None = None


class Discarded(Model):
    """`more`: the filter fits others; order it again."""

    discarded: list[UUID]
    skipped: list[SkippedLetter]
    more: bool


class Reviewed(Model):
    """`more`: the filter fits others; order it again."""

    reviewed: list[UUID]
    skipped: list[SkippedLetter]
    more: bool
