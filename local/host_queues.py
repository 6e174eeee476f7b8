"""Queue triggers as Azure's host runs them: polling, batches, visibility renewal, retries, poison queues."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, Literal

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.functions.queue import QueueMessage
from azure.storage.queue import QueueClient
from azure.storage.queue import QueueMessage as StoredMessage
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from local.worker import Function

LOST = ("MessageNotFound", "PopReceiptMismatch", "QueueNotFound")
logger = logging.getLogger("host.queues")


class QueueSettings(BaseModel):
    """extensions.queues of host.json, with the defaults of Azure's host in a development environment."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")
    batch_size: int = Field(16, ge=1, le=32)
    new_batch_threshold: int = Field(8 * (os.cpu_count() or 1), ge=0)
    max_polling_interval: timedelta = Field(timedelta(seconds=2), ge=timedelta(seconds=0.1))
    visibility_timeout: timedelta = timedelta()
    max_dequeue_count: int = Field(5, ge=1)
    message_encoding: Literal["base64", "none"] = "base64"


def poison_name(queue: str) -> str | None:
    """The queue for messages that fail again and again; None for one that has none (names end at 63)."""
    return None if queue.endswith("-poison") or len(queue) > 63 - len("-poison") else f"{queue}-poison"


def delays(longest: float) -> Iterator[float]:
    """Seconds to wait after each empty poll in a row: 0.1, then ever longer with jitter, to `longest`."""
    yield min(0.1, longest)
    for number in count():
        yield min(longest, 0.1 + random.uniform(0.8, 1.2) * 0.1 * 2 ** min(number, 30))


class Delivery:
    """One received message and its newest pop receipt: a renewal makes the one before worthless."""

    def __init__(self, queue: QueueClient, message: StoredMessage) -> None:
        self.queue = queue
        self.message = message
        self.dequeue_count = message.dequeue_count or 1
        self._receipt = message.pop_receipt or ""
        self._lock = threading.Lock()
        self._renewed_at: float | None = time.monotonic()  # None when it is not renewed any more

    def renew(self, lease: int) -> None:
        """Extend the visibility timeout when half of it is over; after a failure never again."""
        with self._lock:
            if self._renewed_at is None or time.monotonic() < self._renewed_at + lease / 2:
                return
            try:
                updated = self.queue.update_message(
                    self.message.id, self._receipt, visibility_timeout=lease, retry_total=0
                )
                self._receipt, self._renewed_at = updated.pop_receipt or "", time.monotonic()
            except AzureError as error:
                self._renewed_at = None
                logger.warning("lease.lost", extra={"message_id": self.message.id, "error": str(error)})

    def settle(self, *, visible_after: int | None = None) -> None:
        """Delete it, or make it visible after so many seconds; one that is another's by now is left to it."""
        with self._lock:
            self._renewed_at = None
            try:
                if visible_after is None:
                    self.queue.delete_message(self.message.id, self._receipt)
                else:
                    self.queue.update_message(self.message.id, self._receipt, visibility_timeout=visible_after)
            except HttpResponseError as error:
                if getattr(error, "error_code", None) not in LOST:
                    raise


@dataclass(eq=False)
class QueueListener:
    """The poll loop of one function; at most batchSize + newBatchThreshold messages are in flight."""

    function: Function
    queue: QueueClient
    poison: QueueClient | None
    settings: QueueSettings
    lease: int
    invoke: Callable[[Function, Any], Future[Any]]
    completions: Executor
    notify: Callable[[str], None]
    in_flight: set[Delivery] = field(default_factory=set)
    wake: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stopping: bool = False

    def run(self) -> None:
        """Poll until `stop()`; `wake` ends a wait."""
        longest = self.settings.max_polling_interval.total_seconds()
        pauses = delays(longest)
        while self._wait_for_room():
            if self._fetch():
                pauses = delays(longest)
            else:
                self.wake.wait(next(pauses))
                self.wake.clear()

    def stop(self) -> None:
        """Receive nothing more; what is in flight goes on."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.wake.set()

    def wait_idle(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self.in_flight, seconds)

    def _wait_for_room(self) -> bool:
        threshold = self.settings.new_batch_threshold
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self.in_flight) <= threshold)
            return not self._stopping

    def _fetch(self) -> bool:
        """Receive a batch and begin it; whether there was a message. A missing queue is like an empty one."""
        size = self.settings.batch_size
        try:
            pages = self.queue.receive_messages(
                messages_per_page=size, max_messages=size, visibility_timeout=self.lease, retry_total=0
            ).by_page()
            deliveries = [Delivery(self.queue, message) for message in next(pages, ())]
        except AzureError as error:
            if not isinstance(error, ResourceNotFoundError):
                logger.warning("poll.failed", extra={"queue": self.queue.queue_name, "error": str(error)})
            return False
        with self._changed:
            self.in_flight.update(deliveries)
        for delivery in deliveries:
            self._begin(delivery)
        return bool(deliveries)

    def _begin(self, delivery: Delivery) -> None:
        message, body = delivery.message, delivery.message.content
        try:
            if self.settings.message_encoding == "base64":
                body = base64.b64decode(body, validate=True)
            readable = True
        except ValueError:
            readable = False
        if not readable or delivery.dequeue_count > self.settings.max_dequeue_count:
            self.completions.submit(self._complete, delivery, self._give_up)
            return
        given = QueueMessage(  # type: ignore[no-untyped-call]
            id=message.id, body=body, dequeue_count=message.dequeue_count, pop_receipt=message.pop_receipt,
            expiration_time=message.expires_on, insertion_time=message.inserted_on,
            time_next_visible=message.next_visible_on,
        )  # fmt: skip

        def ended(future: Future[Any]) -> None:
            step = self._fail if future.exception() else Delivery.settle
            self.completions.submit(self._complete, delivery, step)

        self.invoke(self.function, given).add_done_callback(ended)

    def _complete(self, delivery: Delivery, step: Callable[[Delivery], None]) -> None:
        try:
            step(delivery)
        except AzureError as error:  # it comes back when its visibility timeout is over
            logger.error("message.not_settled", extra={"message_id": delivery.message.id, "error": str(error)})
        finally:
            with self._changed:
                self.in_flight.discard(delivery)
                self._changed.notify_all()

    def _fail(self, delivery: Delivery) -> None:
        if delivery.dequeue_count >= self.settings.max_dequeue_count:
            self._give_up(delivery)
        elif self.poison is not None:
            delivery.settle(visible_after=int(self.settings.visibility_timeout.total_seconds()))

    def _give_up(self, delivery: Delivery) -> None:
        """Put it into the poison queue, then delete it: a crash between the two leaves two, never none. Without
        a poison queue it stays invisible until its timeout ends, as Azure's host leaves it."""
        if self.poison is None:
            return
        with contextlib.suppress(ResourceExistsError):
            self.poison.create_queue()
        self.poison.send_message(delivery.message.content)
        logger.warning("message.poisoned", extra={"message_id": delivery.message.id, "to": self.poison.queue_name})
        self.notify(self.poison.queue_name)
        delivery.settle()
