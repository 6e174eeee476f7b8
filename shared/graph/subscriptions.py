"""Subscriptions to change notifications: Graph's operations on them, and what Graph allows of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from shared.graph.client import IMMUTABLE_IDS, GraphClient
from shared.graph.errors import AnswerLost, GraphError

_PREFER = (IMMUTABLE_IDS,)
_OUTLOOK = (timedelta(minutes=10_080), timedelta(minutes=1_440))
_TEAMS = (timedelta(minutes=4_320), timedelta(minutes=4_320))
#: The longest that Graph lets a subscription live, by kind of resource: without and with resource data.
LIFETIMES: Mapping[str, tuple[timedelta, timedelta]] = {
    "mail": _OUTLOOK,
    "event": _OUTLOOK,
    "contact": _OUTLOOK,
    "chat": _TEAMS,
    "channel": _TEAMS,
    "drive": (timedelta(minutes=42_300), timedelta(minutes=42_300)),
}
#: Ask for a little less than the longest: the two clocks differ.
CLOCK_MARGIN = timedelta(minutes=5)
LONGEST_CLIENT_STATE = 128


class Certificate(Protocol):
    """What Graph encrypts resource data for: an X.509 certificate in base64, and the id that items will name."""

    @property
    def id(self) -> str: ...

    @property
    def base64(self) -> str: ...


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """A subscription as Graph has it."""

    id: str
    resource: str
    change_type: str
    notification_url: str
    expires_at: datetime
    lifecycle_url: str | None = None
    include_resource_data: bool = False
    certificate_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewSubscription:
    """What a subscription is created with; `certificate` exactly when it includes resource data."""

    resource: str
    change_type: str
    notification_url: str
    lifecycle_url: str
    client_state: str
    expires_at: datetime
    certificate: Certificate | None = None


class SubscriptionClient:
    """Graph's operations on subscriptions, as the application. Methods raise GraphFailure."""

    def __init__(self, graph: GraphClient) -> None:
        self._graph = graph

    def create(self, new: NewSubscription) -> SubscriptionRecord:
        """Create one; Graph makes its handshake with both URLs meanwhile. 409: there is one already.

        Raises ValueError when there is no usable clientState: what it brings could not be told from a forgery.
        """
        if not 0 < len(new.client_state) <= LONGEST_CLIENT_STATE:
            raise ValueError(f"clientState must have 1 to {LONGEST_CLIENT_STATE} characters")
        body: dict[str, Any] = {
            "resource": new.resource,
            "changeType": new.change_type,
            "notificationUrl": new.notification_url,
            "lifecycleNotificationUrl": new.lifecycle_url,
            "clientState": new.client_state,
            "expirationDateTime": _text(new.expires_at),
        }
        if new.certificate is not None:
            body |= {"includeResourceData": True} | _certificate_fields(new.certificate)
        made = _record(self._graph.call("POST", "/subscriptions", body=body, expect=201, prefer=_PREFER))
        # As asked for: an answer that leaves some of it out, or spells it otherwise, makes it no other subscription.
        return replace(
            made,
            change_type=new.change_type,
            notification_url=new.notification_url,
            lifecycle_url=new.lifecycle_url,
            include_resource_data=new.certificate is not None,
            certificate_id=new.certificate.id if new.certificate else None,
        )

    def update(
        self,
        subscription_id: str,
        expires_at: datetime,
        *,
        notification_url: str | None = None,
        certificate: Certificate | None = None,
    ) -> SubscriptionRecord:
        """Move the expiry, and what else is given; Graph can change nothing else of a subscription.

        This renews Graph's right to deliver as well: `reauthorize` must not be called within ten minutes of it, and
        so is never called. 404: Graph has it no longer.
        """
        body: dict[str, Any] = {"expirationDateTime": _text(expires_at)}
        if notification_url is not None:
            body["notificationUrl"] = notification_url
        if certificate is not None:
            body |= _certificate_fields(certificate)
        changed = _record(self._graph.call("PATCH", "/subscriptions/{id}", id=subscription_id, body=body))
        return replace(changed, certificate_id=certificate.id) if certificate is not None else changed

    def delete(self, subscription_id: str) -> None:
        """Delete; one that is not there counts as deleted."""
        try:
            self._graph.call("DELETE", "/subscriptions/{id}", id=subscription_id, expect=204)
        except GraphError as error:
            if error.status != 404:
                raise

    def page(self, link: str | None = None) -> tuple[list[SubscriptionRecord], str | None]:
        """A page of this application's subscriptions, and the link to the next; Graph limits this more than the rest.

        What is no subscription is left out.
        """
        items, following = self._graph.page("/subscriptions", link=link)
        found = []
        for item in items:
            try:
                found.append(_record(item))
            except AnswerLost:
                continue
        return found, following


def lifetime(kind: str, include_resource_data: bool) -> timedelta:
    """For how long to ask."""
    return LIFETIMES[kind][include_resource_data] - CLOCK_MARGIN


def _certificate_fields(certificate: Certificate) -> dict[str, str]:
    return {"encryptionCertificate": certificate.base64, "encryptionCertificateId": certificate.id}


def _record(item: dict[str, Any]) -> SubscriptionRecord:
    try:
        expires_at = datetime.fromisoformat(item["expirationDateTime"])
        return SubscriptionRecord(
            id=str(item["id"]),
            resource=str(item["resource"]),
            change_type=str(item["changeType"]),
            notification_url=str(item["notificationUrl"]),
            expires_at=expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC),
            lifecycle_url=item.get("lifecycleNotificationUrl"),
            include_resource_data=item.get("includeResourceData") is True,
            certificate_id=item.get("encryptionCertificateId"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnswerLost("Graph's answer is no subscription") from error


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
