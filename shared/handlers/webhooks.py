"""From notifications to jobs: check and decrypt, dedupe, route, record, and enqueue in the same transaction.

An item stands for a change; the same change comes more than once: Graph repeats a delivery, two subscriptions
see one resource, a creation is told as `created` and as `updated`. One change makes one job (I9). What counts as
one change is `dedupe_key` (change_keys.py). Resource data goes into the job's payload, which is sealed, and into
nothing else.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from shared import tracing
from shared.engine.enqueue import Producer
from shared.engine.errors import EnqueueError, FleetQueueError
from shared.engine.job import NewJob
from shared.engine.json_text import REPLACEMENT
from shared.handlers.change_keys import Target, change_key, digest, find_target, is_mail, lifecycle_key
from shared.handlers.changed import changed_job, is_users
from shared.handlers.lifecycle import lifecycle_job
from shared.handlers.notification_batch import NotificationBatch, read_batch
from shared.handlers.payload_fields import text_of
from shared.handlers.registry import QUEUES
from shared.handlers.rich_contents import Opened, RichContents, SuspiciousBatchError, suspicious_batch
from shared.handlers.services import AlertSink
from shared.redaction import without_secrets

log = logging.getLogger(__name__)

QUEUE = "webhooks"
LONGEST_RESOURCE = 2000
CHANGES = {"created", "updated", "deleted"}
#: Their jobs use what a notification brings; a mail is always fetched (outlook_inbound.py says why).
BRINGS_CONTENT = {"teams-inbound"}
#: Not recorded: a secret, and what only our private key opens.
UNRECORDED = {"clientState", "encryptedContent"}


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

    def declared_users(self, subscription_ids: Collection[str]) -> Mapping[str, str]:
        """For each of these subscriptions whose declared resource is a user's, the user as declared.

        Raises StoreUnavailableError.
        """
        ...


#: Keeps an item that cannot be understood as a dead letter: queue, body, reason, source; True when it was new.
Bury = Callable[[str, str, str, str], bool]


class NotificationProcessor:
    """Turns messages of the `webhooks` queue into recorded events and jobs."""

    def __init__(
        self, events: WebhookEvents, bury: Bury, producer: Producer, rich: RichContents, alerts: AlertSink
    ) -> None:
        self._events = events
        self._bury = bury
        self._producer = producer
        self._rich = rich
        self._alerts = alerts

    def process(self, body: dict[str, Any], message_id: str) -> None:
        """Handle a decoded message; doing it again changes nothing.

        Raises UnreadableMessageError when it is no batch, StoreUnavailableError while the database is away,
        MessageHeldError while resource data cannot be checked, or a newer release has made the message.
        """
        batch = read_batch(body)
        with tracing.request(batch.traceparent, "process notifications"):
            self._process(batch, message_id)

    def _process(self, batch: NotificationBatch, message_id: str) -> None:
        if batch.is_rich:
            try:
                self._rich.check(batch.validation_tokens, batch.received_at)
            except SuspiciousBatchError as error:
                self._drop(batch, message_id, str(error))
                return
        opened = Opened()
        declared = self._declared(batch.notifications)
        events: dict[str, Event] = {}
        refused: list[tuple[Any, str]] = []
        for index, item in enumerate(batch.notifications):
            try:
                event = self._read(item, batch.received_at, index, opened, declared)
                events.setdefault(event.dedupe_key, event)
            except (EnqueueError, ValueError) as error:
                refused.append((item, str(error)))
        recorded = self._record(list(events.values()), refused)
        for item, reason in refused:
            self._keep(item, reason, batch.received_at)
        for alert in opened.alerts():
            self._alerts.tell(alert)
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
                "decrypted": opened.contents,
                "undecrypted": opened.faults.total(),
            },
        )

    def _drop(self, batch: NotificationBatch, message_id: str, reason: str) -> None:
        """Nothing of it is recorded: a forged item must not take the place of the genuine one."""
        items = len(batch.notifications)
        log.error("notifications.suspicious", extra={"message_id": message_id, "received": items, "error": reason})
        self._alerts.tell(suspicious_batch(reason, items))

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

    def _declared(self, items: Sequence[Any]) -> Mapping[str, str]:
        """What the users of what has changed are called in the declarations: Graph names them by id."""
        found = {
            item["subscriptionId"]
            for item in items
            if isinstance(item, dict)
            and all(isinstance(item.get(name), str) for name in ("subscriptionId", "resource"))
            and (is_users(item["resource"]) or is_mail(find_target(item["resource"])))
        }
        return self._events.declared_users(found) if found else {}

    def _read(
        self, item: Any, received_at: datetime | None, index: int, opened: Opened, declared: Mapping[str, str]
    ) -> Event:
        if not isinstance(item, dict):
            raise ValueError("a notification must be an object")
        raw = {name: value for name, value in item.items() if name not in UNRECORDED}
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
            change = change.lower()
            target = find_target(resource)
            outcome = "ignored"
            brings = target is not None and target.queue in BRINGS_CONTENT
            content = self._rich.open(item, opened) if brings else None
            key = change_key(item, target, position, content)
            if change in CHANGES:
                job = (
                    self._job(target, item, change, key, content, declared.get(subscription))
                    if target
                    else changed_job(resource, subscription, key, declared.get(subscription), _odata_type(item))
                )
        else:
            key = lifecycle_key(item, received_at)
            job = lifecycle_job(subscription, lifecycle, key)
        if job is not None:
            # The trace of the delivery goes on, where it came with one.
            job = replace(job, correlation_id=tracing.correlation_id() or job.correlation_id)
            outcome, job = "enqueued", self._producer.validate(job)
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

    def _job(
        self,
        target: Target,
        item: dict[str, Any],
        change: str,
        key: str,
        content: dict[str, Any] | None,
        declared: str | None,
    ) -> NewJob:
        payload: dict[str, Any] = {"changeType": change} | {
            name: value
            for name in ("resource", "subscriptionId", "tenantId")
            if (value := _text(item, name)) is not None
        }
        if content is not None:
            payload["message"] = content
        return NewJob(
            target.queue,
            payload,
            idempotency_key=f"notification:{key}",
            correlation_id=f"notification:{key[:16]}",
            limit_key=_limit_key(target, declared) if content is None else None,
        )

    def _keep(self, item: Any, reason: str, received_at: datetime | None) -> None:
        body = json.dumps(item)
        source = f"{QUEUE}/item/{digest(body, received_at.isoformat() if received_at else '')}"
        reason = without_secrets(reason)  # the database's own may quote the row
        if self._bury(QUEUE, body, reason, source):
            log.error("notification.buried", extra={"error": reason})
            self._producer.wake("dead-letter")


def _limit_key(target: Target, declared: str | None) -> str | None:
    """What Graph's limits for reading this mailbox or chat count by; a sync names a mailbox by its declaration too."""
    key = QUEUES[target.queue].limit_key
    names = (declared,) if declared is not None and is_mail(target) else target.place
    return key.named(*names) if key is not None else None


def _odata_type(item: dict[str, Any]) -> str:
    data = item.get("resourceData")
    return text_of(data.get("@odata.type")) if isinstance(data, dict) else ""


def _text(item: dict[str, Any], name: str) -> str | None:
    value = item.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > LONGEST_RESOURCE:
        raise ValueError(f"{name}: it must be a text of at most {LONGEST_RESOURCE} characters")
    return value.replace("\x00", REPLACEMENT)
