"""Jobs: lists, one, new ones, changes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, RootModel, model_validator

from shared.admin.models.base import LetterState, ListQuery, Model, Moment, Page, Priority, ShortText
from shared.admin.models.diagnosis import Diagnosis
from shared.engine.job import Cancellation, ErrorClass, JobState

#: What a search takes; shared/postgres/admin_search.py finds it.
SEARCH = (
    "job id or its beginning, correlation id, idempotency key, chat, channel, mailbox, recipient, sender, message id or"
    " Graph request id"
)


class TimesQuery(ListQuery):
    """Jobs of a time: that of their end, or of the enqueueing of those that have not ended."""

    from_: Moment | None = Field(None, alias="from", description="only at this time or later")
    to: Moment | None = Field(None, description="only before this time")


class FailedQuery(TimesQuery):
    """Which dead jobs of the queue."""

    search: ShortText | None = Field(None, description=SEARCH)
    error_class: ErrorClass | None = Field(None, description="only dead jobs with an error of this class")


class JobsQuery(FailedQuery):
    """Which jobs: of the queue, or of all queues but internal ones."""

    status: JobState | None = Field(None, description="only jobs in this state")


class JobSummary(Model):
    """A job in a list. `at` is when it ended, or was enqueued when it has not: lists are ordered by it. `deadLetter` is
    what became of a dead one's dead letter."""

    id: UUID
    queue: str
    state: JobState
    dead_letter: LetterState | None
    label: str = Field(description="the state, or more: parked, blocked, not delivered to 1 of 2 …")
    priority: int
    attempt: int
    at: datetime
    enqueued_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    correlation_id: str | None
    idempotency_key: str | None
    redrive_of: UUID | None
    batch_id: UUID | None
    leased_by: str | None
    error_class: ErrorClass | None
    error_message: str | None


class JobPage(Page[JobSummary]):
    """Some jobs."""


class Attempt(Model):
    """An attempt that has ended. `details` hold what the peer said: request ids, statuses."""

    number: int
    started_at: datetime
    finished_at: datetime
    worker: str
    outcome: str
    error_class: ErrorClass | None
    message: str | None
    details: dict[str, Any]


class DeliveryFailure(Model):
    """Whom a mail did not reach."""

    recipient: str | None
    status: str | None
    diagnostic: str | None
    reported_at: datetime


class Moments(Model):
    """One thing that happened to the job."""

    at: datetime
    event: str = Field(
        description="enqueued, started, attempt, parked, blocked, queue paused, finished, not delivered, reviewed,"
        " redriven, discarded, or an order"
    )
    text: str
    by: str | None = None


class RelatedJob(Model):
    """A job that this one has to do with. Its state is null when it is no longer kept."""

    relation: Literal["about", "redriveOf", "redrivenAs", "dependsOn", "dependent", "batch"]
    id: UUID
    queue: str | None
    state: JobState | None


class BatchCounts(Model):
    """How far the job's batch is."""

    id: UUID
    total: int
    pending: int
    completed: int
    dead: int
    cancelled: int
    created_at: datetime
    finished_at: datetime | None
    callback_id: UUID | None


class JobDetail(Model):
    """Everything that is kept of a job. The values of `payload` are hidden (`payloadMasked`) but from an Admin.

    `internal`: the system made it for itself; the related job that it is `about` is the message.
    """

    id: UUID
    internal: bool
    queue: str
    state: JobState
    priority: int
    attempt: int
    enqueued_at: datetime
    run_at: datetime
    expires_at: datetime | None
    stop_requested_at: datetime | None
    finished_at: datetime | None
    correlation_id: str | None
    idempotency_key: str | None
    redrive_of: UUID | None
    lane: str | None
    limit_key: str | None
    batch_id: UUID | None
    depends_on: list[UUID]
    leased_by: str | None
    lease_until: datetime | None
    progress: dict[str, Any] | None
    error_class: ErrorClass | None
    error_message: str | None
    payload: dict[str, Any]
    payload_masked: bool
    result: dict[str, Any] | None
    delivery_failures: list[DeliveryFailure]
    attempts: list[Attempt]
    dead_letter_id: UUID | None
    timeline: list[Moments]
    related: list[RelatedJob]
    batch: BatchCounts | None
    diagnosis: Diagnosis


Seconds = Annotated[float, Field(ge=0)]


class NewJob(Model):
    """A job to enqueue; docs/reference/http.md says what each option does."""

    payload: dict[str, Any]
    priority: Priority | None = None
    run_at: Moment | None = None
    delay_seconds: Seconds | None = None
    expires_at: Moment | None = None
    expires_in_seconds: Seconds | None = None
    idempotency_key: ShortText | None = None
    correlation_id: ShortText | None = None
    singleton_key: ShortText | None = None
    singleton_policy: Literal["return_existing", "reject", "replace_scheduled"] | None = None
    debounce_key: ShortText | None = None
    debounce_seconds: Seconds | None = None
    debounce_at_most_seconds: Seconds | None = None
    throttle_key: ShortText | None = None
    throttle_seconds: Seconds | None = None
    ordering_key: ShortText | None = None
    ordering_on_dead: Literal["release", "block"] | None = None
    concurrency_key: ShortText | None = None
    concurrency_limit: Annotated[int, Field(ge=1)] | None = None
    fairness_key: ShortText | None = None
    depends_on: list[UUID] | None = None
    if_dependency_fails: Literal["die", "cancel", "run"] | None = None
    batch_id: UUID | None = None


class NewJobs(RootModel[NewJob | Annotated[list[NewJob], Field(min_length=1, max_length=1000)]]):
    """One job, or up to a thousand that are stored all or none."""


class Receipt(Model):
    """`created` is false when there was a job with one of its keys, which the id then names: nothing new is stored."""

    id: UUID
    created: bool
    replaced: UUID | None = None
    differs: bool | None = Field(None, description="whether that job's payload is another than the one given now")


class ReceiptList(Model):
    """In the order of the jobs."""

    jobs: list[Receipt]


class Receipts(RootModel[Receipt | ReceiptList]):
    """Of one job, or of a list."""


class JobChange(Model):
    """At least one of the two."""

    priority: Priority | None = None
    run_at: Moment | None = None

    @model_validator(mode="after")
    def _something(self) -> JobChange:
        if self.priority is None and self.run_at is None:
            raise ValueError("give priority, runAt or both")
        return self


class Placement(Model):
    """Where the job stands now."""

    id: UUID
    queue: str
    state: JobState


class CancelAnswer(Model):
    """`requested`: it runs, and is asked to stop at its next checkpoint."""

    id: UUID
    outcome: Cancellation


class RetryAnswer(Model):
    """The job that runs now: the same one, or the new one that a dead one was redriven as (`created`)."""

    id: UUID
    created: bool
