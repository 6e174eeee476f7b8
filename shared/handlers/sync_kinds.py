"""What is kept in step, kind by kind: which sets there are, how each begins, and what its pages hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from shared.engine.job import Job
from shared.graph import calendar, contacts, files
from shared.graph.delta import Change, DeltaClient, DeltaPage, DeltaQuery
from shared.graph.mail import MailClient
from shared.handlers.non_delivery import NonDelivery
from shared.handlers.payload_fields import text_of
from shared.handlers.sync_store import Content, DeltaSet, NewSet, ResourceType, Rows, Sets, SyncStore

FOLDERS = "folders"


@dataclass(frozen=True, slots=True)
class Reader:
    """What kinds read with, besides the pages of their sets. `own_accounts` are the ids of our service accounts."""

    delta: DeltaClient
    mail: MailClient
    non_delivery: NonDelivery
    store: SyncStore
    own_accounts: Callable[[], Collection[str]]


class Kind:
    """One resource type of one account. `permit` is called before each request that a kind makes itself."""

    resource_type: ClassVar[ResourceType]
    #: Whether a full sync begins where Graph's 410 says, and not with our own first request, which has our options.
    follows_location: ClassVar[bool] = False

    def __init__(
        self, user: str | None, team: str | None, reader: Reader, job: Job, permit: Callable[[], None]
    ) -> None:
        self.user = user or ""
        self.team = team or ""
        self.reader = reader
        self.job = job
        self.permit = permit

    def roots(self) -> list[NewSet]:
        """The sets to begin with."""
        raise NotImplementedError

    def query(self, details: Mapping[str, Any]) -> DeltaQuery:
        """The first request of a pass through the set with these details."""
        raise NotImplementedError

    def content(self, details: Mapping[str, Any], page: DeltaPage) -> Content:
        """What a page of the set holds."""
        raise NotImplementedError

    def start(self, known: DeltaSet, now: datetime) -> dict[str, Any]:
        """What a pass that starts now writes into the set's details."""
        del known, now
        return {}

    def is_over(self, known: DeltaSet, now: datetime) -> bool:
        """Whether the set must be read anew because its window has to move."""
        del known, now
        return False

    def may_be_missing(self, known: DeltaSet) -> bool:
        """Whether 404 only means that this set is not there (yet, or any more)."""
        return "folder" in known.details

    def name(self, *parts: str) -> str:
        """The unique name of a set."""
        return "/".join((self.resource_type, self.user or f"team:{self.team}", *parts))


class Calendar(Kind):
    """One set: the window of the user's calendar, as a view, so that series come as single occurrences too."""

    resource_type = "calendar"

    def roots(self) -> list[NewSet]:
        return [NewSet(self.name("view"))]

    def start(self, known: DeltaSet, now: datetime) -> dict[str, Any]:
        if known.state == "ready":
            return {}
        start, end = calendar.window(now)
        return {"start": start, "end": end}

    def is_over(self, known: DeltaSet, now: datetime) -> bool:
        return calendar.is_over(known.details["end"], now)

    def query(self, details: Mapping[str, Any]) -> DeltaQuery:
        return calendar.query(self.user, details["start"], details["end"])

    def content(self, details: Mapping[str, Any], page: DeltaPage) -> Content:  # noqa: ARG002
        return rows(page, calendar.columns)


class Contacts(Kind):
    """The default folder, and a set for each folder below it."""

    resource_type = "contacts"

    def roots(self) -> list[NewSet]:
        return [NewSet(self.name(FOLDERS), {"kind": FOLDERS}), NewSet(self.name("default"))]

    def query(self, details: Mapping[str, Any]) -> DeltaQuery:
        if details.get("kind") == FOLDERS:
            return contacts.folders_query(self.user)
        return contacts.query(self.user, details.get("folder"))

    def content(self, details: Mapping[str, Any], page: DeltaPage) -> Content:
        return folders(self, page) if details.get("kind") == FOLDERS else rows(page, contacts.columns)


class Files(Kind):
    """One set: the drive of the user, or of the team."""

    resource_type = "files"
    follows_location = True

    def roots(self) -> list[NewSet]:
        self.permit()
        if self.user:
            query = DeltaQuery("/users/{user}/drive", {"user": self.user}, {"$select": "id"})
        else:
            query = DeltaQuery("/groups/{group}/drive", {"group": self.team}, {"$select": "id"})
        drive_id = text_of(self.reader.delta.get(query).get("id"))
        return [NewSet(self.name(drive_id), {"drive": drive_id})]

    def query(self, details: Mapping[str, Any]) -> DeltaQuery:
        return files.query(details["drive"])

    def content(self, details: Mapping[str, Any], page: DeltaPage) -> Content:  # noqa: ARG002
        return rows(page, files.columns)


def last_of_each(page: DeltaPage) -> list[Change]:
    """A page may show an item several times: its last state counts."""
    found: dict[str, Change] = {}
    for change in page.changes:
        found.pop(change.id, None)
        found[change.id] = change
    return list(found.values())


def rows(page: DeltaPage, columns: Callable[[dict[str, Any]], dict[str, Any]]) -> Rows:
    """A page of items that are rows of a table."""
    changes = last_of_each(page)
    return Rows(
        {change.id: columns(dict(change.item)) for change in changes if not change.removed},
        [change.id for change in changes if change.removed],
    )


def folders(kind: Kind, page: DeltaPage) -> Sets:
    """A page of folders, each a set of its own."""
    changes = last_of_each(page)
    return Sets(
        [
            NewSet(
                kind.name("folder", change.id), {"folder": change.id, "name": text_of(change.item.get("displayName"))}
            )
            for change in changes
            if not change.removed
        ],
        [kind.name("folder", change.id) for change in changes if change.removed],
    )
