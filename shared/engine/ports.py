"""What the engine needs from outside. PostgreSQL and memory implement Store; Storage Queues implement Transport.

Verbs of Store, each one round trip and one transaction:
    enqueue          insert jobs; known idempotency keys return the job they made
    claim            lease the best ready jobs of a queue (due ones are promoted first)
    settle           end attempts, guarded by lease token; tells the leases that were lost and what was freed
    settle_and_claim both at once: the worker's hot path
    renew            extend leases; tells which were lost and which jobs are asked to stop
    expired          jobs whose lease has run out
    expire_due       jobs that have not started by their deadline die
    promote_due      scheduled jobs whose time has come become ready
    open_due         jobs whose key or whose dependencies held them back become ready
    repair           the sweep over counts and keys
    runnable         how many jobs may run now, per queue, counted up to a cap
    get, cancel, reschedule, retry_now, redrive, bury (a message that is no job becomes a dead letter)
    pause, resume, clear, set_limits, set_ageing, set_retries (a queue)
    create_batch, batch; save_progress, take_permits (of a running job)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from shared.engine.backoff import RetryPolicy
from shared.engine.job import (
    BatchRecord,
    Cancellation,
    Claimed,
    Enqueued,
    ErrorClass,
    Job,
    JobRecord,
    JobState,
    Lease,
    NewJob,
    Placed,
    Renewal,
    Settled,
    Settlement,
)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` in any `window`, over all instances."""

    limit: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class Limits:
    """A queue's limits over all instances; None: no limit.

    `rate` counts requests: each job that starts takes `job_cost` of it. `key_rate` and `key_concurrency` hold for each
    limit key (a chat, a mailbox) and count jobs.
    """

    rate: Rate | None = None
    concurrency: int | None = None
    key_rate: Rate | None = None
    key_concurrency: int | None = None
    job_cost: int = 1


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What an operator may change on a running queue (table `queue_settings`).

    `retries` take the place of the table's delays for their classes. With `ageing` a job gains one priority each time
    that so much has passed since it was due.
    """

    queue: str
    paused: bool = False
    lease: timedelta = timedelta(seconds=45)
    wake_size: int = 16
    claim_batch: int = 1
    limits: Limits = NO_LIMITS
    retries: Mapping[ErrorClass, RetryPolicy] = field(default_factory=dict)
    ageing: timedelta | None = None

    @property
    def has_limits(self) -> bool:
        return self.limits != NO_LIMITS


class Store(Protocol):
    """Where jobs live. Raises StoreUnavailableError when the database cannot be used now."""

    def enqueue(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        """Insert, all or none, in the order given; with `conn`, in the caller's transaction."""
        ...

    def claim(self, queue: str, limit: int, worker: str, lease: timedelta) -> Claimed:
        """Jobs past their deadline are not handed out and do not count; nothing from a paused queue.

        Passes over jobs that a key or a limit holds back, and takes the permits of those that it hands out.
        """
        ...

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        """End attempts, and free what they held. `only_expired`: rescue's extra guard.

        What would run again ends all the same as cancelled when it was asked to stop, and a retry that would start
        after the deadline as dead (expired). Raises EnqueueError, and settles none, when a follow-up cannot be stored.
        """
        ...

    def settle_and_claim(
        self, settlements: Sequence[Settlement], queue: str, limit: int, worker: str, lease: timedelta
    ) -> tuple[Settled, Claimed]: ...

    def save_progress(self, job_id: UUID, lease_token: UUID, progress: dict[str, Any]) -> bool:
        """Keep what the handler has done so far, in place of what it saved before; False when the lease is lost."""
        ...

    def take_permits(self, queue: str, n: int) -> timedelta | None:
        """Take `n` of the queue's rate, for requests beyond a job's declared cost; None: granted, else how long they
        are not to be had. Raises ControlError when they are not free and, with that cost, above the rate."""
        ...

    def renew(self, leases: Sequence[Lease], lease: timedelta) -> Renewal: ...

    def expired(self, limit: int) -> list[Job]: ...

    def expire_due(self, limit: int) -> int:
        """End what is past its deadline, up to `limit` in each state; returns how many. Paused queues too."""
        ...

    def promote_due(self, limit: int) -> int:
        """Make due jobs ready, up to `limit` of each queue; returns how many in all."""
        ...

    def open_due(self, limit: int) -> int:
        """Make jobs ready again whose key may go on now (a rate, the end of a block), and those whose dependencies have
        ended, up to `limit`; returns how many."""
        ...

    def repair(self) -> int:
        """Set right what a mistake or a hand on the tables left wrong: counts of running jobs, keys that hold back jobs
        for nothing. Returns how many were wrong."""
        ...

    def runnable(self, cap: int) -> Mapping[str, int]:
        """Ready jobs per queue that is not paused, counted up to `cap` and to what its limits let start within the next
        ten seconds; queues without any are left out."""
        ...

    def settings(self, queue: str) -> QueueSettings: ...

    def get(self, job_id: UUID) -> JobRecord | None: ...

    def cancel(self, job_id: UUID) -> Cancellation | None:
        """Cancel a waiting job, or ask a running one to stop; None when it has ended or is unknown."""
        ...

    def reschedule(self, job_id: UUID, priority: int | None, run_at: datetime | None) -> Placed | None:
        """Another priority or time for a job that has not started; None when it runs, has ended or is unknown.
        Raises ControlError."""
        ...

    def retry_now(self, job_id: UUID) -> Placed | None:
        """A scheduled job becomes ready; None otherwise. What waits starts by itself when nothing holds it back."""
        ...

    def pause(self, queue: str) -> bool:
        """Hand out nothing more; False when it was paused already. Raises ControlError for an unknown queue."""
        ...

    def resume(self, queue: str) -> bool: ...

    def clear(self, queue: str, confirm: str, states: Sequence[JobState], limit: int) -> int:
        """Cancel up to `limit` jobs that are ready or scheduled; `confirm` repeats the name. Raises ControlError."""
        ...

    def set_limits(self, queue: str, limits: Limits) -> None:
        """From now on; what runs is counted. Raises ControlError."""
        ...

    def set_ageing(self, queue: str, every: timedelta | None) -> None:
        """From now on, for jobs that wait already too; None: no ageing. Raises ControlError."""
        ...

    def set_retries(self, queue: str, retries: Mapping[ErrorClass, RetryPolicy]) -> None:
        """For failures from now on; classes left out go by the table. Raises ControlError."""
        ...

    def redrive(self, job_id: UUID, by: str) -> Enqueued | None:
        """A new job from a dead letter, attempts reset; None when there is no dead letter left to redrive.

        It takes the place of the dead one where that blocks its ordering key. Raises ControlError when a live job has
        its singleton key.
        """
        ...

    def discard(self, job_id: UUID, by: str) -> bool:
        """Give a dead job up: it is not redriven any more, and an ordering key that it blocks goes on."""
        ...

    def create_batch(self, jobs: Sequence[NewJob], callback: NewJob | None) -> tuple[UUID, list[Enqueued]]:
        """Enqueue jobs as one batch, all or none; `callback` follows in the transaction that ends the last of them."""
        ...

    def batch(self, batch_id: UUID) -> BatchRecord | None: ...

    def bury(self, queue: str, body: str, reason: str, source: str) -> bool:
        """Keep an unreadable message as a dead letter, once per `source` (the message id)."""
        ...

    def bury_job(self, job: NewJob, reason: str, source: str) -> UUID | None:
        """Keep a job that a poison queue carried as a dead one, once per `source`; None when it was known."""
        ...

    def take_turn(self, timer: str, at_most: timedelta) -> UUID | None:
        """A token when this host may run the timer now, else None: a lease, freed by end_turn or after `at_most`."""
        ...

    def end_turn(self, timer: str, token: UUID) -> None: ...


class Transport(Protocol):
    """Where wake-ups travel. Raises TransportUnavailableError. Delays are at most 30 s."""

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None: ...

    def visible(self, queue: str, cap: int) -> int:
        """How many messages could be received now, counted up to `cap` (at most 32)."""
        ...
