"""From notifications to jobs: dedupe, route, record, and enqueue in the same transaction.

An item stands for a change; the same change comes more than once: Graph repeats a delivery, two subscriptions
see one resource, a creation is told as `created` and as `updated`. One change makes one job (I9). What counts as
one change is `dedupe_key`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from shared.engine.enqueue import Producer
from shared.engine.errors import EnqueueError, FleetQueueError, UnreadableMessageError
from shared.engine.job import NewJob
from shared.engine.json_text import REPLACEMENT
from shared.handlers import outlook_inbound, teams_inbound

log = logging.getLogger(__name__)

QUEUE = "webhooks"
LONGEST_RESOURCE = 2000
CHANGES = {"created", "updated", "deleted"}


class NotificationBatch(BaseModel):
    """A message of the `webhooks` queue: items as Graph sent them, less their clientState."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    notifications: list[Any]
    received_at: AwareDatetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One notification as recorded in `webhook_events`; `job` where it asks for one. `raw` is a JSON object."""

    dedupe_key: str
    subscription_id: str
    kind: Literal["change", "lifecycle"]
    change_type: str | None
    resource: str | None
    tenant_id: str | None
    received_at: datetime | None
    outcome: Literal["enqueued", "recorded", "ignored"]
    raw: dict[str, Any]
    job: NewJob | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event that was new; `job_id` is the job that it made, if it made one."""

    dedupe_key: str
    queue: str | None
    job_id: UUID | None


class EventRefusedError(FleetQueueError):
    """The database does not take these values, now or ever."""


class WebhookEvents(Protocol):
    """Where notifications are recorded."""

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        """Record what is new and enqueue its jobs, in one transaction; known events are left out of the answer.

        Raises StoreUnavailableError, or EventRefusedError when nothing was stored because of one of them.
        """
        ...


#: Keeps an item that cannot be understood as a dead letter: queue, body, reason, source; True when it was new.
Bury = Callable[[str, str, str, str], bool]


@dataclass(frozen=True, slots=True)
class Target:
    """What a resource path names. `identity` is the same however the path is written."""

    queue: str
    identity: tuple[str, ...]


class NotificationProcessor:
    """Turns messages of the `webhooks` queue into recorded events and jobs."""

    def __init__(self, events: WebhookEvents, bury: Bury, producer: Producer) -> None:
        self._events = events
        self._bury = bury
        self._producer = producer

    def process(self, body: dict[str, Any], message_id: str) -> None:
        """Handle a decoded message; doing it again changes nothing.

        Raises UnreadableMessageError when it is no batch, StoreUnavailableError while the database is away.
        """
        try:
            batch = NotificationBatch.model_validate(body)
        except ValidationError as error:
            raise UnreadableMessageError(f"the body is no batch of notifications: {_reasons(error)}") from None
        events: dict[str, Event] = {}
        refused: list[tuple[Any, str]] = []
        for index, item in enumerate(batch.notifications):
            try:
                event = self._read(item, batch.received_at, index)
                events.setdefault(event.dedupe_key, event)
            except (EnqueueError, ValueError) as error:
                refused.append((item, str(error)))
        recorded = self._record(list(events.values()), refused)
        for item, reason in refused:
            self._keep(item, reason, batch.received_at)
        counts = Counter(made.queue for made in recorded if made.queue)
        for queue, jobs in counts.items():
            self._producer.wake(queue, jobs)
        log.info(
            "notifications.processed",
            extra={
                "message_id": message_id,
                "received": len(batch.notifications),
                "recorded": len(recorded),
                "jobs": sum(counts.values()),
                "ignored": sum(event.outcome == "ignored" for event in events.values()),
                "refused": len(refused),
            },
        )

    def _record(self, events: Sequence[Event], refused: list[tuple[Any, str]]) -> list[Recorded]:
        """All at once; one by one when the database refuses a value, so that one item does not cost the others."""
        if not events:
            return []
        try:
            return self._events.record(events)
        except EventRefusedError as error:
            if len(events) == 1:
                refused.append((events[0].raw, str(error)))
                return []
            return [made for event in events for made in self._record([event], refused)]

    def _read(self, item: Any, received_at: datetime | None, index: int) -> Event:
        if not isinstance(item, dict):
            raise ValueError("a notification must be an object")
        raw = {name: value for name, value in item.items() if name != "clientState"}
        subscription = _text(item, "subscriptionId")
        if subscription is None:
            raise ValueError("subscriptionId: it is missing")
        change = _text(item, "changeType")
        lifecycle = _text(item, "lifecycleEvent")
        resource = _text(item, "resource")
        position = f"{received_at.isoformat() if received_at else ''}/{index}"
        job: NewJob | None = None
        outcome: Literal["enqueued", "recorded", "ignored"] = "recorded"
        if lifecycle is None:
            if change is None or resource is None:
                raise ValueError("a notification needs lifecycleEvent, or resource and changeType")
            target = find_target(resource)
            outcome = "ignored"
            key = change_key(item, target, position)
            if target is not None and change in CHANGES:
                outcome, job = "enqueued", self._job(target, item, key)
        else:
            key = lifecycle_key(item, received_at)
        return Event(
            dedupe_key=key,
            subscription_id=subscription,
            kind="change" if lifecycle is None else "lifecycle",
            change_type=change if lifecycle is None else lifecycle,
            resource=resource,
            tenant_id=_text(item, "tenantId"),
            received_at=received_at,
            outcome=outcome,
            raw=raw,
            job=job,
        )

    def _job(self, target: Target, item: dict[str, Any], key: str) -> NewJob:
        payload = {
            name: value
            for name in ("resource", "changeType", "subscriptionId", "tenantId")
            if (value := _text(item, name)) is not None
        }
        job = NewJob(
            target.queue,
            payload,
            idempotency_key=f"notification:{key}",
            correlation_id=f"notification:{key[:16]}",
        )
        return self._producer.validate(job)

    def _keep(self, item: Any, reason: str, received_at: datetime | None) -> None:
        body = json.dumps(item)
        source = f"{QUEUE}/item/{_hash(body, received_at.isoformat() if received_at else '')}"
        if self._bury(QUEUE, body, reason, source):
            log.error("notification.buried", extra={"error": reason})
            self._producer.wake("dead-letter")


def find_target(resource: str) -> Target | None:
    """The inbound queue of the message that a path names, `users/{id}/messages/{id}` for one; None: no queue's."""
    with suppress(ValueError):
        user, message = outlook_inbound.address(resource)
        return Target("outlook-inbound", ("mail", user.lower(), message))
    with suppress(ValueError):
        place, message = teams_inbound.address(resource)
        return Target("teams-inbound", ("chat", place.thread_id(message), place.external_id(message)))
    return None


def change_key(item: dict[str, Any], target: Target | None, position: str) -> str:
    """What makes two notifications the same change.

    With an etag: the resource in that state, and whether it is gone. So `created` and `updated` of one creation,
    repeats, and the views of two subscriptions are one; an edit has a new etag. Without one, a creation is one
    for its resource; an update is told by the notification's id, or else only by its place in its delivery:
    rather a spare look at a message than a missed change.
    """
    change = str(item.get("changeType"))
    resource = target.identity if target else (str(item.get("resource")),)
    data = item.get("resourceData")
    etag = data.get("@odata.etag") if isinstance(data, dict) else None
    state: tuple[str, ...]
    if isinstance(etag, str) and etag:
        state = ("etag", etag, "gone" if change == "deleted" else "there")
    elif change in ("created", "deleted"):
        state = (change,)
    elif isinstance(item.get("id"), str):
        state = (change, "id", str(item["id"]))
    else:
        state = (change, "at", position)
    return _hash("change", str(item.get("tenantId")), *resource, *state)


def lifecycle_key(item: dict[str, Any], received_at: datetime | None) -> str:
    """A subscription is removed once; the other events may come again and mean it: told by id, or by the minute."""
    event = str(item.get("lifecycleEvent"))
    parts = ["lifecycle", str(item.get("subscriptionId")), event]
    if event != "subscriptionRemoved":
        minute = received_at.strftime("%Y-%m-%dT%H:%M") if received_at else ""
        parts.append(str(item["id"]) if isinstance(item.get("id"), str) else minute)
    return _hash(*parts)


def _text(item: dict[str, Any], name: str) -> str | None:
    value = item.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > LONGEST_RESOURCE:
        raise ValueError(f"{name}: it must be a text of at most {LONGEST_RESOURCE} characters")
    return value.replace("\x00", REPLACEMENT)


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _reasons(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in found)
