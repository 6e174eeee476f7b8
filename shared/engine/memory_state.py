"""What the store in memory remembers: jobs, who holds which key, batches, dead letters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import Enum, auto
from uuid import UUID

from shared.engine.job import (
    ENDED,
    BatchRecord,
    ConcurrencyKey,
    FairnessKey,
    IfDependencyFails,
    JobRecord,
    JobState,
    Lane,
    NewJob,
    OrderingKey,
    Unique,
)
from shared.engine.memory_limits import Gate


class HeldBy(Enum):
    """What keeps a due job waiting, besides its dependencies."""

    LANE = auto()
    LIMIT_KEY = auto()


@dataclass(slots=True)
class Row:
    """A job. `order` is that of enqueueing; `place` is its place in the line, which a fairness key moves back.

    `permits`: its next start takes so many of the queue's rate besides its cost; `paid`: its last one did.
    """

    record: JobRecord
    order: int
    place: int
    token: UUID | None = None
    started_at: datetime | None = None
    effect_since: datetime | None = None
    lane: Lane | None = None
    unique: Unique | None = None
    if_dependency_fails: IfDependencyFails = IfDependencyFails.DIE
    held_by: HeldBy | None = None
    permits: int | None = None
    paid: int = 0

    @property
    def id(self) -> UUID:
        return self.record.id

    @property
    def state(self) -> JobState:
        return self.record.state

    @property
    def due_order(self) -> tuple[datetime, int]:
        """The first of an ordering key has the lowest."""
        return self.record.run_at, self.order


@dataclass(slots=True)
class Letter:
    """A dead letter: of a job, or of a message that was none. `closed_by` redrove or discarded it."""

    id: UUID
    queue: str
    message: str
    job_id: UUID | None = None
    source: str | None = None
    body: str | None = None
    closed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    record: BatchRecord
    callback: NewJob | None


@dataclass(frozen=True, slots=True)
class LastDebounced:
    """The last job that was made with a debounce key, and when the first of its run of replacements came."""

    job_id: UUID
    first_at: datetime


@dataclass(frozen=True, slots=True)
class FirstThrottled:
    """The job that a throttle key answers with, and until when."""

    job_id: UUID
    until: datetime


@dataclass(slots=True)
class State:
    """Everything that a transaction which fails takes back."""

    live: dict[UUID, Row] = field(default_factory=dict)
    ended: dict[UUID, Row] = field(default_factory=dict)
    idempotency: dict[tuple[str, str], UUID] = field(default_factory=dict)
    holders: dict[str, UUID] = field(default_factory=dict)
    debounced: dict[tuple[str, str], LastDebounced] = field(default_factory=dict)
    throttled: dict[tuple[str, str], FirstThrottled] = field(default_factory=dict)
    queue_gates: dict[str, Gate] = field(default_factory=dict)
    key_gates: dict[str, Gate] = field(default_factory=dict)
    batches: dict[UUID, Batch] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def find(self, job_id: UUID) -> Row | None:
        return self.live.get(job_id) or self.ended.get(job_id)

    def rows(self, state: JobState, queue: str | None = None) -> list[Row]:
        """Live jobs in one state, in the order of enqueueing."""
        return [row for row in self.live.values() if row.state is state and queue in (None, row.record.queue)]

    def lane(self, lane: str | None) -> list[Row]:
        """Live jobs of one lane."""
        return [row for row in self.live.values() if lane is not None and row.record.lane == lane]

    def everything(self) -> list[Row]:
        return sorted((*self.live.values(), *self.ended.values()), key=lambda row: row.order)

    def queue_gate(self, queue: str) -> Gate:
        return self.queue_gates.setdefault(queue, Gate())

    def key_gate(self, key: str) -> Gate:
        return self.key_gates.setdefault(key, Gate())

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What the block did is taken back when it raises."""
        saved = self._copy()
        try:
            yield
        except Exception:
            for each in fields(self):
                setattr(self, each.name, getattr(saved, each.name))
            raise

    def _copy(self) -> State:
        return State(
            live={row.id: replace(row) for row in self.live.values()},
            ended=dict(self.ended),
            idempotency=dict(self.idempotency),
            holders=dict(self.holders),
            debounced=dict(self.debounced),
            throttled=dict(self.throttled),
            queue_gates={name: gate.copy() for name, gate in self.queue_gates.items()},
            key_gates={name: gate.copy() for name, gate in self.key_gates.items()},
            batches=dict(self.batches),
            letters=[replace(letter) for letter in self.letters],
            numbers=self.numbers,
        )


def lane_name(queue: str, lane: Lane | None) -> str | None:
    match lane:
        case None:
            return None
        case OrderingKey(key=key):
            return f"{queue}:order:{key}"
        case ConcurrencyKey(key=key):
            return f"{queue}:concurrency:{key}"
        case FairnessKey(key=key):
            return f"{queue}:fair:{key}"


def has_ended(row: Row) -> bool:
    return row.state in ENDED
