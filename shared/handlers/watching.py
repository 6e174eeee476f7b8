"""What a watched resource needs next: pure decisions from its row, its subscription and the settings."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Literal
from uuid import UUID

from shared.graph.subscriptions import Certificate, NewSubscription, SubscriptionRecord, lifetime

#: A subscription is renewed when between a half and two thirds of its life are over, each at its own point, so that
#: thousands made in one minute are not renewed in one. At least a third is left then, for many more tries.
RENEW_FROM = 1 / 2
RENEW_SPREAD = 1 / 6
#: Renewing and reauthorising within this time of each other is what Graph forbids; our renewals keep it too.
RENEWAL_PAUSE = timedelta(minutes=10)
FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(minutes=30)
#: A refusal that only a person can end (no permission, a quota) is tried this rarely.
FIRST_RETRY_REFUSED = timedelta(minutes=15)
LONGEST_RETRY_REFUSED = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What all our subscriptions should have, from the settings; `new_state` makes a clientState.

    `state_id` names the secret that makes new ones, `state_ids` all that are valid. What reports anywhere below
    `base_url` is ours.
    """

    base_url: str
    notification_url: str
    lifecycle_url: str
    new_state: Callable[[], str]
    state_id: str
    state_ids: frozenset[str]
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Held(SubscriptionRecord):
    """A subscription as we keep it; `state_id` is None when we do not know which secret made its clientState."""

    state_id: str | None = None
    renewed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """A declared resource, claimed by this pass. `now` is the database's time at the claim."""

    id: UUID
    resource: str
    kind: str
    change_types: str
    include_resource_data: bool
    is_ended: bool
    tries: int
    renew_asked_at: datetime | None
    now: datetime
    held: Held | None = None


class Step(Enum):
    """What a watch needs next."""

    FORGET = "forget"
    DELETE = "delete"
    CREATE = "create"
    REPLACE = "replace"
    RENEW = "renew"
    WAIT = "wait"

    @property
    def creates(self) -> bool:
        return self in (Step.CREATE, Step.REPLACE)


State = Literal["created", "renewed", "kept", "gone", "ended", "failed", "unfinished", "released"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step came to; the row is looked at again at `due_at`, None: at once.

    `created`, `renewed`: `subscription` is live; for a created one `gap` says why there was none, where we know.
    `kept`: nothing to do. `gone`: Graph has it no longer. `ended`: nothing is left to watch. `failed`: `problem`.
    `unfinished`: a creation may have had its effect, and a listing will tell; `state_id` is the secret that it
    carried, None where somebody else's subscription stands in its place. `released`: not reached, as it was.
    `refused`: only a person can end the problem. `removed`: the subscription that was to be replaced is gone at Graph.
    """

    watch_id: UUID
    state: State
    due_at: datetime | None = None
    subscription: SubscriptionRecord | None = None
    state_id: str | None = None
    gap: str | None = None
    problem: str | None = None
    refused: bool = False
    removed: bool = False


def next_step(watch: Watch, wanted: Wanted) -> Step:
    """The one thing to do now."""
    held = watch.held
    if watch.is_ended:
        return Step.DELETE if held is not None else Step.FORGET
    if held is None or held.expires_at <= watch.now:
        return Step.CREATE
    is_due = watch.now >= renew_at(watch.id, held)
    if not _same(watch, held, wanted) or held.state_id not in wanted.state_ids:
        return Step.REPLACE
    if is_due and held.state_id != wanted.state_id:
        return Step.REPLACE
    asked_for = _asked_for(watch, held)
    if is_due or (asked_for is not None and watch.now >= asked_for):
        return Step.RENEW
    if watch.include_resource_data and wanted.certificate and held.certificate_id != wanted.certificate.id:
        return Step.RENEW
    return Step.WAIT


def renew_at(watch_id: UUID, held: Held | SubscriptionRecord, renewed_at: datetime | None = None) -> datetime:
    """When to renew, from the time of the last renewal and the expiry that it gave."""
    since = renewed_at or (held.renewed_at if isinstance(held, Held) else None)
    if since is None:
        return datetime.min.replace(tzinfo=UTC)
    share = RENEW_FROM + RENEW_SPREAD * (zlib.crc32(watch_id.bytes) / 2**32)
    return since + (held.expires_at - since) * share


def look_at(watch: Watch, held: Held) -> datetime:
    """When a row that needs nothing now will need something."""
    at, asked_for = renew_at(watch.id, held), _asked_for(watch, held)
    return at if asked_for is None else min(at, asked_for)


def _asked_for(watch: Watch, held: Held) -> datetime | None:
    """From when on to renew because Graph asked for it; None: it did not since the last renewal."""
    if watch.renew_asked_at is None:
        return None
    if held.renewed_at is None:
        return watch.renew_asked_at
    return held.renewed_at + RENEWAL_PAUSE if watch.renew_asked_at > held.renewed_at else None


def retry_at(watch: Watch, *, refused: bool) -> datetime:
    """When to try again after one more failure: several times before the expiry; equal failures spread by a quarter."""
    first, longest = (FIRST_RETRY_REFUSED, LONGEST_RETRY_REFUSED) if refused else (FIRST_RETRY, LONGEST_RETRY)
    pause: timedelta = min(first * 2 ** min(watch.tries, 20), longest)
    if watch.held is not None and watch.held.expires_at > watch.now:
        pause = min(pause, max((watch.held.expires_at - watch.now) / 4, FIRST_RETRY))
    return watch.now + pause * (1 + 0.25 * (zlib.crc32(watch.id.bytes) / 2**32))


def expiry(watch: Watch) -> datetime:
    return watch.now + lifetime(watch.kind, watch.include_resource_data)


def new_subscription(watch: Watch, wanted: Wanted) -> NewSubscription:
    """What to create."""
    return NewSubscription(
        resource=watch.resource,
        change_type=watch.change_types,
        notification_url=wanted.notification_url,
        lifecycle_url=wanted.lifecycle_url,
        client_state=wanted.new_state(),
        expires_at=expiry(watch),
        certificate=wanted.certificate if watch.include_resource_data else None,
    )


def sync_request(resource: str, sync_user: str | None) -> dict[str, Any] | None:
    """The payload of the job that makes up for a gap in what this resource told; None: nobody is named to sync."""
    parts = resource.partition("?")[0].split("/")
    if parts[0] == "teams":
        return {"resourceType": "messages", "teamId": parts[1], "fullSync": False}
    user = parts[1] if parts[0] == "users" else sync_user
    if user is None:
        return None
    return {"resourceType": _SYNCED[_what(parts)], "userId": user, "fullSync": False}


_SYNCED = {
    "messages": "emails",
    "events": "calendar",
    "contacts": "contacts",
    "chats": "messages",
    "root": "files",
}


def _what(parts: list[str]) -> str:
    return "chats" if "chats" in parts else parts[-1]


def _same(watch: Watch, held: Held, wanted: Wanted) -> bool:
    """Whether all is as it should be of what Graph lets nobody change."""
    return (
        set(held.change_type.replace(" ", "").split(",")) == set(watch.change_types.split(","))
        and held.include_resource_data == watch.include_resource_data
        and held.notification_url == wanted.notification_url
        and held.lifecycle_url == wanted.lifecycle_url
    )
