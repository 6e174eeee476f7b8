"""The job: its states, what a caller asks for, what a worker gets, and how an attempt may end.

    enqueue ──► scheduled ──► ready ──► active ──► completed
       │            ▲           ▲  ▲       │ │
       │            └─ retry, ──┼──┼───────┘ ├───► dead ──► redrive: a new job
       ├─────────► waiting ─────┘  │ release │
       │                           └─────────┤
       └─────────► ready                     └───► cancelled

`scheduled`, `waiting` and `ready` may also end as `cancelled`, or as `dead` when their deadline passes or a job that
they depend on fails. A `ready` job that a key or a limit holds back is `waiting`; one that an operator puts off is
`scheduled` again, from `ready` or `waiting`, and so is one whose dependencies end before its time. TRANSITIONS is this
drawing; a test compares it with the table in docs/explanation/architecture.md and with what the store really does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from shared.redaction import facts_without_secrets, without_secrets

HIGHEST_PRIORITY = 1
NORMAL_PRIORITY = 5
LOWEST_PRIORITY = 10


class JobState(StrEnum):
    """Where a job is in its life; the same strings in Python, in the database and in the API."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    READY = "ready"
    ACTIVE = "active"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.SCHEDULED: frozenset({JobState.READY, JobState.WAITING, JobState.CANCELLED, JobState.DEAD}),
    JobState.WAITING: frozenset({JobState.READY, JobState.SCHEDULED, JobState.CANCELLED, JobState.DEAD}),
    JobState.READY: frozenset(
        {JobState.ACTIVE, JobState.WAITING, JobState.SCHEDULED, JobState.CANCELLED, JobState.DEAD}
    ),
    JobState.ACTIVE: frozenset(
        {JobState.COMPLETED, JobState.SCHEDULED, JobState.READY, JobState.DEAD, JobState.CANCELLED}
    ),
    JobState.COMPLETED: frozenset(),
    JobState.DEAD: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class ErrorClass(StrEnum):
    """What kind of failure ended an attempt; the retry table (backoff.py) has one row for each."""

    RATE_LIMIT = "rate-limit"
    NETWORK = "network"
    TIMEOUT = "timeout"
    AUTH = "auth"
    VALIDATION = "validation"
    UNCERTAIN = "uncertain"
    UNKNOWN = "unknown"
    WORKER_LOST = "worker-lost"
    EXPIRED = "expired"
    DEPENDENCY = "dependency"


#: After one of these the outside effect may have happened although the attempt failed.
MAY_HAVE_TAKEN_EFFECT = frozenset(
    {
        ErrorClass.NETWORK,
        ErrorClass.TIMEOUT,
        ErrorClass.UNCERTAIN,
        ErrorClass.UNKNOWN,
        ErrorClass.WORKER_LOST,
    }
)


class SingletonPolicy(StrEnum):
    """What an enqueue does when a live job has its singleton key already. Replaced is only a scheduled one that was not
    tried yet; any other answers as with `return_existing`."""

    REJECT = "reject"
    RETURN_EXISTING = "return_existing"
    REPLACE_SCHEDULED = "replace_scheduled"


@dataclass(frozen=True, slots=True)
class Singleton:
    """One live job of the queue has this key: scheduled, waiting, ready or active.

    `reject` refuses the second one, `return_existing` answers with the first, and `replace_scheduled` cancels the
    first and takes its place while that is scheduled, and answers with it when it has gone further.
    """

    key: str
    policy: SingletonPolicy = SingletonPolicy.RETURN_EXISTING


@dataclass(frozen=True, slots=True)
class Debounce:
    """The job runs when no other with this key has come for `window`; each new one cancels the scheduled one before
    it and takes its place, unless that one was tried already: it may have taken effect, and both run. `at_most` after
    the first of them it runs all the same."""

    key: str
    window: timedelta
    at_most: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Throttle:
    """One job of the queue is made with this key in `window`, counted from the first; others answer with that one."""

    key: str
    window: timedelta


Unique = Singleton | Debounce | Throttle


class OnDead(StrEnum):
    """What becomes of an ordering key when one of its jobs dies. One that dies before its first attempt, by its
    deadline, never blocks it."""

    RELEASE = "release"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class OrderingKey:
    """Jobs of the queue with this key run one at a time, in the order in which they became due, retries included.

    After a dead job the next one runs (`release`), or none until the dead one is redriven or discarded (`block`).
    """

    key: str
    on_dead: OnDead = OnDead.RELEASE


@dataclass(frozen=True, slots=True)
class ConcurrencyKey:
    """At most `limit` jobs of the queue with this key run at once."""

    key: str
    limit: int


@dataclass(frozen=True, slots=True)
class FairnessKey:
    """Keys of a queue take turns: after a job of this key, its next one stands at the end of the line."""

    key: str


Lane = OrderingKey | ConcurrencyKey | FairnessKey


class IfDependencyFails(StrEnum):
    """What becomes of a job when one that it depends on ends dead or cancelled."""

    DIE = "die"
    CANCEL = "cancel"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a caller asks for. `payload` is the JSON object that the queue's payload model has checked.

    `run_at` is an aware datetime; `delay` counts from the database's clock; at most one of the two.
    A job that has not started by `expires_at`, or `expires_in` from now, dies; at most one of the two.
    `idempotency_key` is unique in its queue for as long as the job is kept. `redrive_of` names the first
    dead job of the chain that this one repeats, and `effect_since` from when on its effect may have happened.
    It waits until every job of `depends_on` has ended. `limit_key` names what the queue's keyed limits count by
    (a chat, a mailbox); left out, it is taken from the payload as the queue declares.
    """

    queue: str
    payload: dict[str, Any]
    priority: int | None = None
    run_at: datetime | None = None
    delay: timedelta | None = None
    idempotency_key: str | None = None
    correlation_id: str | None = None
    redrive_of: UUID | None = None
    effect_since: datetime | None = None
    expires_at: datetime | None = None
    expires_in: timedelta | None = None
    unique: Unique | None = None
    lane: Lane | None = None
    depends_on: tuple[UUID, ...] = ()
    if_dependency_fails: IfDependencyFails = IfDependencyFails.DIE
    batch_id: UUID | None = None
    limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The answer to an enqueue: the job's id, and whether this call made it (False: there was one with its key).

    `due`: a worker can take it now. It is not when it is for later, when it waits for others or when its queue is
    paused. `replaced` is the scheduled job that this one was put in place of.
    """

    id: UUID
    created: bool
    due: bool = True
    replaced: UUID | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim found: the jobs, best first, and when to look again for some that a limit holds back now.

    `wait` is None when nothing is held back, or when what holds it back will wake a worker itself.
    """

    jobs: tuple[Job, ...] = ()
    wait: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What settling did: the jobs whose lease was lost (not settled), and how many jobs of which queue became
    runnable by it."""

    lost: tuple[UUID, ...] = ()
    freed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """How far a batch is: counts of its jobs, and the callback that was made when the last of them ended."""

    id: UUID
    total: int
    completed: int
    dead: int
    cancelled: int
    created_at: datetime
    finished_at: datetime | None = None
    callback_id: UUID | None = None

    @property
    def pending(self) -> int:
        return self.total - self.completed - self.dead - self.cancelled


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended attempt as kept on the job (I5). Times are the database's."""

    number: int
    started_at: datetime
    finished_at: datetime
    worker: str
    outcome: str
    error_class: ErrorClass | None = None
    message: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


#: In an attempt's details: it looked for what earlier ones may have done outside, and found nothing.
FOUND_NOTHING = "found_nothing"


def lost_answer(
    attempts: Iterable[Attempt], classes: frozenset[ErrorClass] = frozenset({ErrorClass.UNCERTAIN})
) -> Attempt | None:
    """The first attempt of these classes that no later one has looked for, finding nothing; None: all is known."""
    lost = None
    for attempt in attempts:
        if attempt.details.get(FOUND_NOTHING):
            lost = None
        if lost is None and attempt.error_class in classes:
            lost = attempt
    return lost


def effect_since(attempts: Iterable[Attempt]) -> datetime | None:
    """When the first attempt started that may have reached the outside world."""
    return min((a.started_at for a in attempts if a.error_class in MAY_HAVE_TAKEN_EFFECT), default=None)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a stored payload cannot be read. `key_id`: of the key that would open it and that this process lacks, so
    that it may be read later; None: it never can be."""

    reason: str
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job. `payload` is JSON text; `attempt` is 1-based and counts this attempt.

    `attempts` are the ended ones, oldest first. `lease_token` fences every settlement. `progress` is what an earlier
    attempt saved. `permits` of the queue's rate were taken by
    its start besides what a job costs.
    """

    id: UUID
    queue: str
    payload: str
    attempt: int
    priority: int
    lease_token: UUID
    correlation_id: str | None = None
    enqueued_at: datetime | None = None
    redrive_of: UUID | None = None
    inherited_effect_since: datetime | None = None
    attempts: tuple[Attempt, ...] = ()
    progress: dict[str, Any] | None = None
    batch_id: UUID | None = None
    unreadable: Unreadable | None = None
    permits: int = 0

    def failures(self, error_class: ErrorClass) -> int:
        """How many earlier attempts ended with this class."""
        return sum(attempt.error_class is error_class for attempt in self.attempts)

    @property
    def effect_id(self) -> UUID:
        """What to mark an outside effect with: the same for the job and for every redrive of it."""
        return self.redrive_of or self.id

    @property
    def effect_since(self) -> datetime | None:
        """From when on an earlier attempt, of this job or of one that it repeats, may have reached the outside
        world: then read back before sending. None: none can have."""
        return self.inherited_effect_since or effect_since(self.attempts)

    @property
    def may_have_taken_effect(self) -> bool:
        return self.effect_since is not None


@dataclass(frozen=True, slots=True)
class Failure:
    """A classified failure: class, text for the operator, what the peer asked for, and whether it ends the job.

    It is kept, so whatever an exception said, it holds no secret.
    """

    error_class: ErrorClass
    message: str
    retry_after: timedelta | None = None
    details: dict[str, Any] = field(default_factory=dict)
    is_final: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", without_secrets(self.message))
        object.__setattr__(self, "details", facts_without_secrets(self.details))


@dataclass(frozen=True, slots=True)
class Completed:
    """The job is done. `follow_ups` come into being in the settling transaction (I6)."""

    result: dict[str, Any] | None = None
    follow_ups: tuple[NewJob, ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed and the job runs again after `delay`; zero: it is ready at once."""

    failure: Failure
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Dead:
    """The job ends as a dead letter."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Deferred:
    """The handler gave the job back until later; the attempt does not count (I4).

    `permits`: its next start takes so many of the queue's rate besides what a job costs.
    """

    delay: timedelta
    reason: str = ""
    permits: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", without_secrets(self.reason))


@dataclass(frozen=True, slots=True)
class Released:
    """Claimed but not started (shutdown): ready again, and the attempt does not count (I4)."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The handler was asked to stop, and did; the attempt counts."""

    reason: str = "asked to stop while it ran"


Outcome = Completed | Retry | Dead | Deferred | Released | Cancelled


@dataclass(frozen=True, slots=True)
class Settlement:
    """One job's outcome, guarded by its lease token. `details` go onto the attempt (request ids, …).

    `block`: for so long no job starts that has this one's limit key, or of its queue when it has none (a 429).
    """

    job_id: UUID
    lease_token: UUID
    outcome: Outcome
    details: dict[str, Any] = field(default_factory=dict)
    block: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A live or expired claim on a job."""

    job_id: UUID
    token: UUID


@dataclass(frozen=True, slots=True)
class Renewal:
    """What renewing found out: jobs whose lease is lost, and jobs (leases renewed) that are asked to stop."""

    lost: tuple[UUID, ...] = ()
    asked_to_stop: tuple[UUID, ...] = ()


class Cancellation(StrEnum):
    """What became of a cancel."""

    CANCELLED = "cancelled"
    REQUESTED = "requested"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a job stands after it was moved: its queue, and `ready`, `scheduled` or `waiting`.

    `freed`: how many others of its queue that made ready, because it left its place in an ordering key.
    """

    queue: str
    state: JobState
    freed: int = 0


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as an operator sees it, whatever its state."""

    id: UUID
    queue: str
    state: JobState
    priority: int
    attempt: int
    payload: dict[str, Any]
    enqueued_at: datetime
    run_at: datetime
    attempts: tuple[Attempt, ...]
    correlation_id: str | None = None
    idempotency_key: str | None = None
    result: dict[str, Any] | None = None
    error_class: ErrorClass | None = None
    error_message: str | None = None
    finished_at: datetime | None = None
    lease_until: datetime | None = None
    leased_by: str | None = None
    redrive_of: UUID | None = None
    expires_at: datetime | None = None
    stop_requested_at: datetime | None = None
    lane: str | None = None
    limit_key: str | None = None
    batch_id: UUID | None = None
    progress: dict[str, Any] | None = None
    depends_on: tuple[UUID, ...] = ()
