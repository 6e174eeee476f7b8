"""Brings mailboxes, chats, calendars, contacts and files up to date by Graph's delta queries: the handler of `sync`.

A round goes set by set and page by page. What a page shows and the link to the next one are stored in one transaction,
so a round goes on where it stood: after a kill, and as the next job when this one's time or permits are used up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Self

from pydantic import field_validator, model_validator

from shared.engine.context import Context, Handler
from shared.engine.errors import RejectedError
from shared.engine.job import Completed, Deferred, Job
from shared.graph.delta import DeltaClient, LedBack, ResyncRequired
from shared.graph.errors import GraphError, GraphFailure, LinkRefused
from shared.handlers.graph_errors import graph_attempt
from shared.handlers.non_delivery import NonDelivery
from shared.handlers.payload_fields import Identifier, Payload
from shared.handlers.services import Services
from shared.handlers.sync_kinds import Calendar, Contacts, Files, Kind, Reader
from shared.handlers.sync_messages import Chats, Emails
from shared.handlers.sync_store import (
    Busy,
    Counts,
    DeltaSet,
    Ended,
    ResourceType,
    Round,
    RoundLost,
    Step,
    SyncStore,
)

log = logging.getLogger(__name__)

KINDS: dict[ResourceType, type[Kind]] = {
    kind.resource_type: kind for kind in (Calendar, Chats, Contacts, Emails, Files)
}
#: A job works for so long, between two pages; the rest is done by the job's next turn. Below the worker's LONGEST_RUN.
TIME_BUDGET = timedelta(seconds=60)
#: A round that another job works on is looked at again after so long.
BUSY_PAUSE = timedelta(seconds=15)
#: Graph may ask for a full sync of a set so often; another one waits.
RESYNC_PERIOD = timedelta(hours=1)
#: So many pages in a row that show nothing new are a circle.
MOST_STALE_PAGES = 100
#: Permits are taken so many at a time, to spare a round trip for each page.
PERMITS = 10
#: Of a job's requests, so many are kept on the attempt.
KEPT_CALLS = 20


class SyncRequest(Payload):
    """Bring one kind of resource of a user or a team up to date; `full_sync` starts from the beginning.

    `subscription_id`: whose notification asked for it. Graph names users by id there; the declaration may not.
    """

    resource_type: ResourceType
    user_id: Identifier | None = None
    team_id: Identifier | None = None
    subscription_id: Identifier | None = None
    full_sync: bool = False

    @field_validator("user_id", "team_id")
    @classmethod
    def _lower(cls, value: str | None) -> str | None:
        return value and value.lower()

    @model_validator(mode="after")
    def _one_owner(self) -> Self:
        if (self.user_id is None) == (self.team_id is None):
            raise ValueError("give userId or teamId, one of them")
        if self.team_id is not None and self.resource_type not in ("messages", "files"):
            raise ValueError(f"a team has no {self.resource_type} of its own: give userId")
        return self

    @property
    def account(self) -> str:
        """What the rows are kept under: the user's id, or team:… for a team's."""
        return self.user_id or f"team:{self.team_id}"


@dataclass
class Permits:
    """The requests that this turn may make; the first is the job's own."""

    context: Context
    left: int = 1

    def take(self) -> None:
        """One more request. Raises LimitReachedError, and what a checkpoint raises."""
        if self.left == 0:
            self.context.take_permits(PERMITS)
            self.left = PERMITS
        self.context.checkpoint()
        self.left -= 1


class Sync:
    """The handler of `sync`."""

    def __init__(
        self,
        delta: DeltaClient,
        reader: Reader,
        store: SyncStore,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._delta = delta
        self._reader = reader
        self._store = store
        self._monotonic = monotonic

    def __call__(self, job: Job, payload: SyncRequest, context: Context) -> Completed | Deferred:
        until = self._monotonic() + TIME_BUDGET.total_seconds()
        permits = Permits(context)
        if payload.user_id is not None and payload.subscription_id is not None:
            declared = self._store.declared_user(payload.subscription_id)
            payload = payload.model_copy(update={"user_id": declared or payload.user_id})
        full = payload.full_sync
        try:
            with graph_attempt(context, keep=KEPT_CALLS):
                while True:
                    begun = self._store.begin(payload.resource_type, payload.account, job, full=full)
                    match begun:
                        case Busy():
                            return Deferred(BUSY_PAUSE, "another job brings the same up to date now")
                        case Ended(counts):
                            return _completed(counts)
                        case Round():
                            outcome = self._round(begun, payload, job, permits, until)
                    if isinstance(outcome, Deferred):
                        return outcome
                    if begun.started_by == job.id:
                        return _completed(outcome)
                    # It was another job's: what changed before this one was asked for may not be in all of its sets.
                    full = full and begun.kind != "full"
        except RoundLost:
            return Deferred(BUSY_PAUSE, "another job has taken over")

    def _round(
        self, round_: Round, payload: SyncRequest, job: Job, permits: Permits, until: float
    ) -> Counts | Deferred:
        """Go through the sets that are left; the counts of the whole round, or when to go on."""
        kind = KINDS[payload.resource_type](payload.user_id, payload.team_id, self._reader, job, permits.take)
        with self._failing(round_):
            if not round_.has_sets or round_.kind == "full":
                self._store.set_roots(round_, kind.roots())
            while (known := self._store.next_set(round_)) is not None:
                deferred = self._pass(round_, known, kind, permits, until)
                if deferred is not None:
                    return deferred
            return self._store.finish(round_)

    def _pass(self, round_: Round, known: DeltaSet, kind: Kind, permits: Permits, until: float) -> Deferred | None:
        """Take a set to its deltaLink."""
        known = self._renewed(round_, known, kind)
        while True:
            if self._monotonic() >= until:
                return Deferred(timedelta(), "the time of this turn is used up; the round goes on where it stands")
            permits.take()
            starts = known.state != "pass"
            details = dict(known.details) | (kind.start(known, round_.now) if starts else {})
            try:
                page = self._delta.page(kind.query(details), known.link)
            except ResyncRequired as resync:
                wait = _until_next_resync(known, round_)
                if wait > timedelta():
                    return Deferred(wait, f"{resync}; the set was read anew less than {RESYNC_PERIOD} ago")
                self._store.restart(round_, known, resync.link if kind.follows_location else None, forced=True)
                return None
            except LedBack as error:
                raise PagesGoRound(known, str(error)) from error
            except GraphError as error:
                if error.status != 404 or not kind.may_be_missing(known):
                    raise
                self._store.skip(round_, known, str(error))
                return None
            step = Step(
                link=page.next_link or page.delta_link,
                is_end=page.next_link is None,
                is_full=known.is_full if known.state != "ready" else False,
                number=known.number + 1 if starts else known.number,
                details=details,
            )
            content = kind.content(details, page)
            stored = self._store.store_page(round_, known, content, step)
            known = replace(
                known, state="ready" if step.is_end else "pass", link=step.link, is_full=step.is_full,
                number=step.number, version=stored.version, details=step.details,
            )  # fmt: skip
            if step.is_end:
                return None
            if stored.stale_pages >= MOST_STALE_PAGES:
                raise PagesGoRound(known, f"{stored.stale_pages} pages of {known.resource} in a row show nothing new")

    def _renewed(self, round_: Round, known: DeltaSet, kind: Kind) -> DeltaSet:
        """A set whose window has to move begins anew."""
        if known.state == "ready" and kind.is_over(known, round_.now):
            self._store.restart(round_, known, None, forced=False)
            return replace(known, state="new", link=None, is_full=True, version=known.version + 1)
        return known

    @contextmanager
    def _failing(self, round_: Round) -> Iterator[None]:
        """A failure that will not pass closes the round; any other is noted on it, and the next attempt goes on."""
        try:
            yield
        except PagesGoRound as error:
            self._store.fail(round_, str(error), restart=error.known)
            log.error("sync.went_round", extra=_names(round_) | {"set": error.known.resource, "error": str(error)})
            raise
        except LinkRefused as error:
            self._store.fail(round_, str(error))
            log.error("sync.link_refused", extra=_names(round_) | {"error": str(error)})
            raise
        except GraphFailure as error:
            self._store.note(round_, str(error))
            raise


class PagesGoRound(RejectedError):
    """Graph's pages have no end. The set is read anew by the next round."""

    def __init__(self, known: DeltaSet, message: str) -> None:
        super().__init__(f"{message}: the sync was stopped")
        self.known = known


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built."""
    non_delivery = NonDelivery(services.mail, services.delivery_failures)
    reader = Reader(services.delta, services.mail, non_delivery, services.sync, services.own_account_ids)
    return Sync(services.delta, reader, services.sync)


def _until_next_resync(known: DeltaSet, round_: Round) -> timedelta:
    if known.resynced_at is None:
        return timedelta()
    return known.resynced_at + RESYNC_PERIOD - round_.now


def _completed(counts: Counts) -> Completed:
    return Completed(
        {"created": counts.created, "updated": counts.updated, "deleted": counts.deleted, "pages": counts.pages}
    )


def _names(round_: Round) -> dict[str, Any]:
    return {"resource_type": round_.resource_type, "account": round_.account, "round": str(round_.id)}
