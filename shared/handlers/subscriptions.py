"""Jobs that keep subscriptions: a pass of the reconciler, and what Graph tells of a subscription's life."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from shared.engine.context import Context, Handler
from shared.engine.enqueue import Producer
from shared.engine.job import Completed, Job, NewJob, Singleton
from shared.handlers.payload_fields import Payload
from shared.handlers.reconciler import ROWS_A_PASS, Reconciler
from shared.handlers.services import Services

log = logging.getLogger(__name__)

QUEUE = "subscriptions"
#: One pass is enough for most; after a mass of changes a few work side by side.
MOST_PASSES = 4
LifecycleEvent = Literal["reauthorizationRequired", "subscriptionRemoved", "missed"]


class SubscriptionUpkeep(Payload):
    """Nothing for a pass over all that is due; or what Graph told of the life of one subscription."""

    subscription_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    lifecycle_event: LifecycleEvent | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.subscription_id is None) != (self.lifecycle_event is None):
            raise ValueError("subscriptionId and lifecycleEvent go together; give both or none")
        return self


class LifecycleRecords(Protocol):
    """Where lifecycle events are noted; each is False for a subscription that is not live here. Idempotent."""

    def note_removed(self, subscription_id: str) -> bool: ...

    def note_reauthorize(self, subscription_id: str) -> bool: ...

    def note_missed(self, subscription_id: str, key: str) -> bool: ...


class UpkeepRecords(Protocol):
    """What the timer asks and tells."""

    def due(self) -> tuple[int, bool]:
        """How many rows are due, and whether there is anything else for a pass to do."""
        ...

    def tell(self) -> None:
        """Enqueue what gaps have no sync yet; open and close the alerts on what is not watched, fails or runs out."""
        ...


class SubscriptionHandler:
    """Notes what Graph told, and makes a pass over all that is due, which that is now."""

    def __init__(self, reconciler: Reconciler, records: LifecycleRecords) -> None:
        self._reconciler = reconciler
        self._records = records

    def __call__(self, job: Job, payload: SubscriptionUpkeep, context: Context) -> Completed:
        if payload.subscription_id is not None and not self._note(job, payload, payload.subscription_id):
            return Completed({"noted": False})
        tally = self._reconciler.run(context.take_permits)
        result: dict[str, Any] = {"outcomes": dict(tally.outcomes)}
        if tally.has_more:
            return Completed(result, follow_ups=(NewJob(QUEUE, {}, idempotency_key=f"after:{job.id}"),))
        return Completed(result)

    def _note(self, job: Job, payload: SubscriptionUpkeep, subscription_id: str) -> bool:
        match payload.lifecycle_event:
            case "subscriptionRemoved":
                noted = self._records.note_removed(subscription_id)
            case "reauthorizationRequired":
                noted = self._records.note_reauthorize(subscription_id)
            case _:
                noted = self._records.note_missed(subscription_id, str(job.id))
        log.info(
            "lifecycle.noted",
            extra={"event": payload.lifecycle_event, "subscription_id": subscription_id, "is_live": noted},
        )
        return noted


class UpkeepTimer:
    """Enqueues passes when there is something to do, and tells of what goes wrong."""

    def __init__(self, records: UpkeepRecords, producer: Producer) -> None:
        self._records = records
        self._producer = producer

    def run(self) -> int:
        """How many passes there should be now."""
        rows, more = self._records.due()
        passes = min(MOST_PASSES, -(-rows // ROWS_A_PASS)) or int(more)
        self._producer.enqueue_many([upkeep_job(number) for number in range(passes)])
        self._records.tell()
        return passes


def upkeep_job(number: int = 0) -> NewJob:
    """A pass; one that is enqueued already stands for it."""
    return NewJob(QUEUE, {}, unique=Singleton("upkeep" if number == 0 else f"upkeep-{number}"))


def build(services: Services) -> Handler:
    return SubscriptionHandler(services.reconciler, services.subscription_records)
