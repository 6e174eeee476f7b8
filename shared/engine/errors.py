"""Exceptions of the engine, grouped by what the caller can do.

FleetQueueError
├── EnqueueError            the caller's request is wrong; nothing was stored
│   ├── UnknownQueueError   no such queue
│   ├── QueueClosedError    the queue exists but takes no jobs
│   └── PayloadError        the payload or an option does not validate; `.problems` names the fields
│       └── NewerPayloadError  all that is wrong are fields that this release does not know
├── StoreUnavailableError   the database is away or refuses for now; nothing is known to be lost
│   └── StoreNotReadyError  … until a person does what `.remedy` says
│       ├── NotMigratedError
│       └── NoRightsError
├── TransportUnavailableError  the Storage Queue is away; jobs are durable without it
├── UnreadableMessageError  a queue message is neither a wake-up nor a job
├── MessageHeldError        what a message's processing needs is away: it is put back and comes again
├── ControlError            an order that cannot be carried out; nothing changed
├── LeaseLostError          another worker has the job now: stop, and settle nothing
├── LimitReachedError       no permit left for now: let it through, and the job is deferred
├── ParkedError             what the job needs is missing: let it through, and the job is deferred until it is there
├── JobCancelledError       an operator cancelled the running job: stop; the attempt settles as cancelled
└── JobError                raised by a handler to say how the attempt failed; `.error_class`
    ├── RateLimitedError (retry_after)   ├── NetworkError      ├── TimedOutError
    ├── AuthError        ├── RejectedError (validation: never retried)
    └── UncertainError   the request went out and the answer was lost
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from shared.engine.job import ErrorClass


class FleetQueueError(Exception):
    """Everything that the engine raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: the field (dotted path, `""` for the whole) and what to do about it."""

    field: str
    message: str


class EnqueueError(FleetQueueError):
    """The request cannot be taken; nothing was stored."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class UnknownQueueError(EnqueueError):
    """There is no such queue."""


class QueueClosedError(EnqueueError):
    """The queue is declared but takes no jobs."""


class PayloadError(EnqueueError):
    """The payload or an option does not validate."""


class NewerPayloadError(PayloadError):
    """Fields that this release does not know, in a payload of a kind that the system makes: a newer release made it."""


class StoreUnavailableError(FleetQueueError):
    """The database cannot be used now. Whatever was not settled comes back when its lease ends."""


class StoreNotReadyError(StoreUnavailableError):
    """The database answers and cannot be used: in one word or two (`state`), and what to do about it (`remedy`)."""

    state: ClassVar[str]
    remedy: ClassVar[str]


class NotMigratedError(StoreNotReadyError):
    """It lacks what this release needs."""

    state = "not migrated"
    remedy = "Run ./dev migrate, with DATABASE_URL set to the database that the app uses."


class NoRightsError(StoreNotReadyError):
    """The role that the app signs in as may not use what is there."""

    state = "no rights"
    remedy = (
        "Run ./dev migrate as the role in the app's DATABASE_URL, or make that role a member of the one that ran it"
        " (grant OWNER to ROLE)."
    )


class TransportUnavailableError(FleetQueueError):
    """The Storage Queue cannot be used now."""


class UnreadableMessageError(FleetQueueError):
    """A queue message is neither a wake-up nor a job."""


class MessageHeldError(FleetQueueError):
    """Something that the processing of a message needs, beside the database, is away; the message is put back."""


class LeaseLostError(FleetQueueError):
    """The lease was taken over: what this worker still does has no owner."""


class LimitReachedError(FleetQueueError):
    """The queue's rate has not the `permits` that were asked for; they are to be had after `wait`."""

    def __init__(self, message: str, wait: timedelta, permits: int = 1) -> None:
        super().__init__(message)
        self.wait = wait
        self.permits = permits


class ParkedError(FleetQueueError):
    """What the job needs (`needs`, by name) is not there, and no attempt could have done anything: let it through.

    The job is deferred by `pause`, its attempt not counted. `urgent`: it takes a person, who does what `remedy` says.
    """

    def __init__(self, message: str, *, needs: str, remedy: str, urgent: bool, pause: timedelta) -> None:
        super().__init__(message)
        self.needs = needs
        self.remedy = remedy
        self.urgent = urgent
        self.pause = pause


class JobCancelledError(FleetQueueError):
    """The job was asked to stop. A handler that cleans up raises it on."""


class ControlError(FleetQueueError):
    """The order cannot be carried out, and nothing changed; the text says why."""


class JobError(FleetQueueError):
    """A handler's way to say how an attempt failed. `details` are kept on the attempt. `is_final`: no other attempt
    can do better, so that the job dies at once."""

    error_class: ClassVar[ErrorClass] = ErrorClass.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        retry_after: timedelta | None = None,
        details: dict[str, Any] | None = None,
        is_final: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.details = details or {}
        self.is_final = is_final


class RateLimitedError(JobError):
    """The peer asks to slow down; `retry_after` is what it said, if it said anything."""

    error_class = ErrorClass.RATE_LIMIT


class NetworkError(JobError):
    """The peer could not be reached, or failed on its side before taking the request."""

    error_class = ErrorClass.NETWORK


class TimedOutError(JobError):
    """The peer did not answer in time, and a repeat does no harm."""

    error_class = ErrorClass.TIMEOUT


class AuthError(JobError):
    """Refused for who we are (401, 403)."""

    error_class = ErrorClass.AUTH


class RejectedError(JobError):
    """Refused for what was asked: the same request will never succeed."""

    error_class = ErrorClass.VALIDATION


class UncertainError(JobError):
    """A send whose answer was lost: the next attempt reads back before it sends."""

    error_class = ErrorClass.UNCERTAIN
