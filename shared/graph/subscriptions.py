"""Subscriptions to change notifications: Graph's operations on them, and the service that keeps ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from shared.graph.client import IMMUTABLE_IDS, GraphClient
from shared.graph.errors import AnswerLost, GraphError

_PREFER = (IMMUTABLE_IDS,)
#: The longest that Graph allows, by what is watched (basic notifications).
LIFETIMES = (
    (re.compile(r"^users/[^/]+/(mailfolders|messages|events|contacts|calendar)"), timedelta(minutes=10_080)),
    (re.compile(r"^(chats|teams|teamwork|users/[^/]+/chats)\b"), timedelta(minutes=4_320)),
    (re.compile(r"^(drives|sites|users/[^/]+/drive)\b"), timedelta(minutes=42_300)),
)
#: Ask for a little less than the longest: the two clocks differ.
CLOCK_MARGIN = timedelta(minutes=5)
LONGEST_CLIENT_STATE = 128


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """A subscription as we keep it."""

    id: str
    resource: str
    change_type: str
    notification_url: str
    expires_at: datetime


class SubscriptionRecords(Protocol):
    """Where our subscriptions are kept."""

    def live(self, resource: str, change_type: str) -> SubscriptionRecord | None: ...

    def save(self, record: SubscriptionRecord) -> None:
        """Insert or update; any other live record of the same resource and change type ends."""
        ...

    def remove(self, subscription_id: str) -> None: ...


class SubscriptionClient:
    """Graph's operations on subscriptions, as the application. Methods raise GraphFailure."""

    def __init__(self, graph: GraphClient) -> None:
        self._graph = graph

    def create(
        self,
        *,
        resource: str,
        change_type: str,
        notification_url: str,
        lifecycle_url: str,
        client_state: str,
        expires_at: datetime,
    ) -> SubscriptionRecord:
        """Create one; Graph makes its handshake with both URLs meanwhile. 409: there is one already."""
        body = {
            "resource": resource,
            "changeType": change_type,
            "notificationUrl": notification_url,
            "lifecycleNotificationUrl": lifecycle_url,
            "clientState": client_state,
            "expirationDateTime": _text(expires_at),
        }
        return _record(self._graph.call("POST", "/subscriptions", body=body, expect=201, prefer=_PREFER))

    def renew(self, subscription_id: str, expires_at: datetime) -> SubscriptionRecord:
        """Move the expiry; this reauthorises as well (never do both within ten minutes)."""
        body = {"expirationDateTime": _text(expires_at)}
        return _record(self._graph.call("PATCH", "/subscriptions/{id}", id=subscription_id, body=body))

    def reauthorize(self, subscription_id: str) -> None:
        """Renew Graph's right to deliver, without moving the expiry."""
        self._graph.call("POST", "/subscriptions/{id}/reauthorize", id=subscription_id, expect=204)

    def delete(self, subscription_id: str) -> None:
        """Delete; one that is not there counts as deleted."""
        try:
            self._graph.call("DELETE", "/subscriptions/{id}", id=subscription_id, expect=204)
        except GraphError as error:
            if error.status != 404:
                raise

    def list(self) -> Iterator[SubscriptionRecord]:
        """All of this application's; Graph limits this call more than others."""
        return (_record(item) for item in self._graph.pages("/subscriptions"))


class Subscriptions:
    """Keeps one live subscription for a resource, at Graph and in our records."""

    def __init__(
        self,
        client: SubscriptionClient,
        records: SubscriptionRecords,
        *,
        notification_url: str,
        lifecycle_url: str,
        client_state: Callable[[], str],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._records = records
        self._notification_url = notification_url
        self._lifecycle_url = lifecycle_url
        self._client_state = client_state
        self._clock = clock

    def ensure(self, resource: str, change_type: str = "created,updated") -> SubscriptionRecord:
        """The live subscription of the resource: ours as recorded, the one that Graph has, or a new one.

        Raises GraphFailure, and ValueError when there is no usable clientState.
        """
        known = self._records.live(resource, change_type)
        if known and known.notification_url == self._notification_url and known.expires_at > self._clock():
            return known
        try:
            record = self._create(resource, change_type)
        except GraphError as error:
            if error.status != 409:
                raise
            record = self._adopt(resource, change_type, error)
        self._records.save(record)
        return record

    def renew(self, record: SubscriptionRecord) -> SubscriptionRecord:
        """Move the expiry as far as it goes; one that Graph has forgotten is made anew."""
        try:
            renewed = self._client.renew(record.id, self._expiry(record.resource))
        except GraphError as error:
            if error.status != 404:
                raise
            self._records.remove(record.id)
            return self.ensure(record.resource, record.change_type)
        self._records.save(renewed)
        return renewed

    def remove(self, record: SubscriptionRecord) -> None:
        """End it at Graph and in our records."""
        self._client.delete(record.id)
        self._records.remove(record.id)

    def _create(self, resource: str, change_type: str) -> SubscriptionRecord:
        client_state = self._client_state()
        if not 0 < len(client_state) <= LONGEST_CLIENT_STATE:
            raise ValueError(f"clientState must have 1 to {LONGEST_CLIENT_STATE} characters")
        return self._client.create(
            resource=resource,
            change_type=change_type,
            notification_url=self._notification_url,
            lifecycle_url=self._lifecycle_url,
            client_state=client_state,
            expires_at=self._expiry(resource),
        )

    def _adopt(self, resource: str, change_type: str, conflict: GraphError) -> SubscriptionRecord:
        """Graph has one already: take it when it reports to us, replace it when it reports elsewhere."""
        for record in self._client.list():
            if _same(record, resource, change_type):
                if record.notification_url == self._notification_url:
                    return record
                self._client.delete(record.id)
                return self._create(resource, change_type)
        raise conflict

    def _expiry(self, resource: str) -> datetime:
        return self._clock() + lifetime(resource) - CLOCK_MARGIN


def lifetime(resource: str) -> timedelta:
    """The longest that a subscription to this resource may live. ValueError when we do not know it."""
    path = resource.strip("/").lower()
    for pattern, longest in LIFETIMES:
        if pattern.match(path):
            return longest
    raise ValueError(f"no known lifetime of subscriptions to {resource!r}")


def _same(record: SubscriptionRecord, resource: str, change_type: str) -> bool:
    return record.resource.strip("/").lower() == resource.strip("/").lower() and set(
        record.change_type.split(",")
    ) == set(change_type.split(","))


def _record(item: dict[str, Any]) -> SubscriptionRecord:
    try:
        return SubscriptionRecord(
            id=item["id"],
            resource=item["resource"],
            change_type=item["changeType"],
            notification_url=item["notificationUrl"],
            expires_at=datetime.fromisoformat(item["expirationDateTime"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnswerLost("Graph's answer is no subscription") from error


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
