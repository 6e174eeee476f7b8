"""What the admin API needs from outside. PostgreSQL implements it; every read takes a fraction of a second whatever
the history holds. All raise StoreUnavailableError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from shared.access import Principal
from shared.admin.cursor import Place
from shared.admin.job_filter import JobFilter
from shared.engine.control import Control
from shared.engine.enqueue import Producer
from shared.engine.job import JobRecord
from shared.engine.ports import Limits, Store
from shared.engine.schedules import Schedules
from shared.monitoring.report import Reports
from shared.monitoring.rules import Threshold, Thresholds
from shared.monitoring.statistics import QueueNow, Statistics

T = TypeVar("T")
Row = Mapping[str, Any]


class Reads(Protocol):
    """Lists and single rows, as mappings with the models' names in snake_case. Lists give `limit` + 1 rows at most."""

    def jobs(self, jobs: JobFilter, after: Place | None, limit: int) -> list[Row]: ...

    def job_facts(self, jobs: Sequence[Row]) -> Mapping[UUID, Row]:
        """Of jobs of a list, by their ids: `paused`, `parked`, `waits_at`, `closed` (that key, by a 429), `blocked` (by
        a dead job), `undelivered` of how many `recipients`."""
        ...

    def related(self, job_id: UUID, batch_id: UUID | None) -> list[Row]:
        """`relation`, `id`, `queue`, `state`."""
        ...

    def circumstances(self, job: JobRecord, other: UUID | None, mailbox: str | None) -> Row | None:
        """What surrounds the job, as far as the database knows (shared.admin.diagnosis); `other`: a job whose state is
        asked for as well, `mailbox`: whether reports that come back to it are watched. None: an unknown queue."""
        ...

    def letters(self, filters: Mapping[str, Any], after: Place | None, limit: int) -> list[Row]: ...

    def letter(self, letter_id: UUID) -> Row | None:
        """By its own id or by its job's."""
        ...

    def letter_groups(self, queue: str | None, reviewed: bool | None, most: int) -> tuple[list[Row], int]:
        """Of the newest `most` open ones; and how many were looked at."""
        ...

    def open_letters(self, filters: Mapping[str, Any], limit: int) -> list[Row]:
        """`id`, oldest first."""
        ...

    def alerts(self, filters: Mapping[str, Any], after: Place | None, limit: int) -> list[Row]: ...

    def alert(self, alert_id: UUID) -> Row | None: ...

    def audit(self, filters: Mapping[str, Any], after: Place | None, limit: int) -> list[Row]: ...

    def subscriptions(self, status: str | None, after: Place | None, limit: int) -> list[Row]: ...

    def subscription_counts(self) -> Row: ...

    def syncs(self, filters: Mapping[str, Any], after: Place | None, limit: int) -> list[Row]: ...

    def queues(self) -> Sequence[str]:
        """Every queue that there is or was."""
        ...

    def limits(self, queue: str) -> Row:
        """The limits with their fill, and `keys`: the fullest."""
        ...

    def open_alerts(self) -> tuple[datetime, Mapping[str, int]]:
        """The database's time, and how many are open by level."""
        ...


class Order(Protocol):
    """One change, in a transaction with the row that says who made it. Wake-ups go out after the commit."""

    @property
    def store(self) -> Store: ...

    @property
    def producer(self) -> Producer: ...

    @property
    def control(self) -> Control: ...

    @property
    def schedules(self) -> Schedules: ...

    @property
    def thresholds(self) -> Thresholds: ...

    def now(self) -> datetime:
        """The database's clock."""
        ...

    def job_before(self, job_id: UUID) -> Row | None:
        """`queue`, `state`, `priority` and `run_at` of a job, before it changes."""
        ...

    def letter(self, letter_id: UUID) -> Row | None:
        """The dead letter, locked."""
        ...

    def review(self, letter_id: UUID, by: str, note: str) -> None: ...

    def discard_message(self, letter_id: UUID, by: str) -> None:
        """Give up a dead letter that is of no job."""
        ...

    def alert(self, alert_id: UUID) -> Row | None:
        """The alert, locked."""
        ...

    def acknowledge(self, alert_id: UUID, by: str) -> None: ...

    def limits(self, queue: str) -> Limits: ...

    def held_thresholds(self) -> Mapping[tuple[str, str], Threshold]:
        """Those that somebody set, by rule and scope; nobody else changes any until the order ends."""
        ...

    def forget_limits_change(self, queue: str) -> None:
        """Let the queue's declared limits hold as if nobody had set others."""
        ...

    def record(
        self, action: str, target: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
    ) -> None:
        """Write the audit row."""
        ...


class Orders(Protocol):
    """Where orders are carried out."""

    def run(self, who: Principal, correlation_id: str, order: Callable[[Order], T]) -> T:
        """Run `order` in a transaction, once more when others were in its way: it must have no other effects."""
        ...


@dataclass(frozen=True, slots=True)
class Admin:
    """What the routes work with. `delivery_failures` gives those of a job as the API shows them, `digests`
    what a name became under each key that seals payloads, `accounts` the service accounts, the default one first."""

    reads: Reads
    orders: Orders
    store: Store
    schedules: Callable[[], Schedules]
    delivery_failures: Callable[[UUID], Sequence[Mapping[str, Any]]]
    statistics: Callable[[], Statistics]
    overview: Callable[[], Sequence[QueueNow]]
    thresholds: Callable[[], Thresholds]
    reports: Callable[[], Reports]
    digests: Callable[[str], Sequence[bytes]] = lambda _text: ()
    accounts: Callable[[], tuple[str, ...]] = tuple


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may be answered: who asks, and what, checked."""

    admin: Admin
    who: Principal
    correlation_id: str
    parameters: Mapping[str, str]
    query: Any
    body: Any
    raw: bytes

    def order(self, order: Callable[[Order], T]) -> T:
        return self.admin.orders.run(self.who, self.correlation_id, order)
