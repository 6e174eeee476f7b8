"""What a sync keeps, and the port to it: rounds, the sets that a round goes through, and the pages of a set.

A round brings everything of one resource type and account up to date. A set is what has a delta of its own. Whoever
works on a round owns it by the lease of its job; each write names owner and version, and does nothing for anybody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from shared.engine.job import Job
from shared.handlers.services import Communication

ResourceType = Literal["messages", "emails", "calendar", "contacts", "files"]


@dataclass(frozen=True, slots=True)
class Round:
    """An open round of ours. `started_by` is the job that began it; `now` the database's clock when we took it."""

    id: UUID
    resource_type: ResourceType
    account: str
    kind: Literal["delta", "full"]
    started_by: UUID | None
    owner: UUID
    now: datetime
    has_sets: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """What a round did."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Busy:
    """Another live job owns the round."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has completed a round before, and was lost between that and its own end."""

    counts: Counts


@dataclass(frozen=True, slots=True)
class NewSet:
    """A set that is to be kept in step; `resource` is unique, and `parent` the set that it was found in."""

    resource: str
    details: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class DeltaSet:
    """Where a set stands. `link` is where it goes on; `number` counts its passes; `details` are its kind's own."""

    resource: str
    state: Literal["new", "pass", "ready"]
    link: str | None
    is_full: bool
    number: int
    version: int
    details: Mapping[str, Any]
    resynced_at: datetime | None


@dataclass(frozen=True, slots=True)
class Step:
    """How a set stands after a page: the link to go on with, or the one to start the next pass with (`is_end`)."""

    link: str | None
    is_end: bool
    is_full: bool
    number: int
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Items of a table (`calendar_events`, `contacts`, `files`): columns by id."""

    items: Mapping[str, Mapping[str, Any]]
    gone: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Messages:
    """Mails or chat messages. `seen` are all ids of the page that are there, also of what is not stored; `deleted`
    are messages that say themselves that they were deleted, and when."""

    communications: Sequence[Communication]
    seen: Sequence[str] = ()
    gone: Sequence[str] = ()
    deleted: Sequence[tuple[str, datetime | None]] = ()


@dataclass(frozen=True, slots=True)
class Sets:
    """Folders: each is a set of its own."""

    found: Sequence[NewSet]
    gone: Sequence[str] = ()


Content = Rows | Messages | Sets


@dataclass(frozen=True, slots=True)
class Stored:
    """A page is stored, and the set moved on in the same transaction. `stale_pages`: so many in a row, up to this
    one, showed nothing that the pass had not seen."""

    created: int
    updated: int
    stale_pages: int
    version: int


class SyncStore(Protocol):
    """Raises StoreUnavailableError; methods that write raise RoundLost when the round or the set is another's now."""

    def declared_user(self, subscription_id: str) -> str | None:
        """The user whose resource this subscription watches, as declared: the name that their rows are kept under."""
        ...

    def begin(self, resource_type: ResourceType, account: str, job: Job, *, full: bool) -> Round | Busy | Ended:
        """Take over the open round, or start one: the job's lease owns it. `full` starts every set anew."""
        ...

    def set_roots(self, round_: Round, roots: Sequence[NewSet]) -> None:
        """The sets that a round begins with; other roots of the account are forgotten."""
        ...

    def next_set(self, round_: Round) -> DeltaSet | None:
        """A set that this round has not been through; those that find others come first."""
        ...

    def known_messages(self, channel: str, external_ids: Sequence[str]) -> set[str]:
        """Those that are stored already."""
        ...

    def store_page(self, round_: Round, known: DeltaSet, content: Content, step: Step) -> Stored:
        """Store a page's items and the set's new link, in one transaction."""
        ...

    def restart(self, round_: Round, known: DeltaSet, link: str | None, *, forced: bool) -> None:
        """The set begins anew with a full pass; `forced`: Graph asked for it, which is counted and remembered."""
        ...

    def skip(self, round_: Round, known: DeltaSet, reason: str) -> None:
        """Leave the set for the next round as it is."""
        ...

    def finish(self, round_: Round) -> Counts:
        """Mark as deleted what the round has not found anywhere, and close it."""
        ...

    def fail(self, round_: Round, reason: str, *, restart: DeltaSet | None = None) -> None:
        """Close the round as failed; links stay, but for a set that is to begin anew."""
        ...

    def note(self, round_: Round, reason: str) -> None:
        """Keep on the open round why it does not go on now."""
        ...


class RoundLost(Exception):
    """Another job has the round or the set by now."""
