"""What the engine needs from outside. PostgreSQL and memory implement Store; Storage Queues implement Transport.

Verbs of Store, each one round trip and one transaction:
    enqueue          insert jobs; known idempotency keys return the job they made
    claim            lease the best ready jobs of a queue (due ones are promoted first)
    settle           end attempts, guarded by lease token; returns the leases that were lost
    settle_and_claim both at once: the worker's hot path
    renew            extend leases; returns the ones that were lost
    expired          jobs whose lease has run out
    promote_due      scheduled jobs whose time has come become ready
    runnable         how many jobs may run now, per queue, counted up to a cap
    get, cancel, redrive, bury (a message that is no job becomes a dead letter)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from shared.engine.job import Enqueued, Job, JobRecord, Lease, NewJob, Settlement


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What an operator may change on a running queue (table `queue_settings`)."""

    queue: str
    paused: bool = False
    lease: timedelta = timedelta(seconds=45)
    wake_size: int = 16
    claim_batch: int = 1


class Store(Protocol):
    """Where jobs live. Raises StoreUnavailableError when the database cannot be used now."""

    def enqueue(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        """Insert, all or none, in the order given; with `conn`, in the caller's transaction."""
        ...

    def claim(self, queue: str, limit: int, worker: str, lease: timedelta) -> list[Job]: ...

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> list[UUID]:
        """Settle; returns the ids whose lease was lost (not settled). `only_expired`: rescue's extra guard."""
        ...

    def settle_and_claim(
        self, settlements: Sequence[Settlement], queue: str, limit: int, worker: str, lease: timedelta
    ) -> tuple[list[UUID], list[Job]]: ...

    def renew(self, leases: Sequence[Lease], lease: timedelta) -> list[UUID]: ...

    def expired(self, limit: int) -> list[Job]: ...

    def promote_due(self, limit: int) -> int:
        """Make due jobs ready, up to `limit` of each queue; returns how many in all."""
        ...

    def runnable(self, cap: int) -> Mapping[str, int]:
        """Ready jobs per queue that is not paused, counted up to `cap`; queues without any are left out."""
        ...

    def settings(self, queue: str) -> QueueSettings: ...

    def get(self, job_id: UUID) -> JobRecord | None: ...

    def cancel(self, job_id: UUID) -> bool:
        """Cancel a job that has not started; False when it is active, ended or unknown."""
        ...

    def redrive(self, job_id: UUID, by: str) -> Enqueued | None:
        """A new job from a dead letter, attempts reset; None when there is no dead letter left to redrive."""
        ...

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
