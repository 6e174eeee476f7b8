"""From a queue message to what it asks for: run jobs, adopt a foreign one, or keep what cannot be read.

A function that returns deletes its message (I7). So everything here ends well, or puts the body back as a new
message, or raises: then the host delivers again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

from shared.engine.enqueue import DEAD_LETTERS, Producer
from shared.engine.errors import EnqueueError, MessageHeldError, StoreUnavailableError, UnreadableMessageError
from shared.engine.messages import decode_body, read_job, read_wake_up, without_tokens
from shared.engine.ports import Store, Transport
from shared.engine.worker import Worker
from shared.redaction import without_secrets

log = logging.getLogger(__name__)

#: While the database is away a body comes back after so many seconds, at random so that they spread.
PUT_BACK_SECONDS = (2.0, 20.0)
#: What a storage-queue message holds.
LARGEST_MESSAGE_BYTES = 64 * 1024
#: A wake-up from a poison queue had five crashes behind it: no hurry.
SECOND_CHANCE = timedelta(seconds=30)

#: Takes the decoded message and its id. Raises MessageHeldError for a message that has to wait.
NotificationProcessor = Callable[[dict[str, Any], str], None]


class Receiver:
    """What the queue triggers call, once a message."""

    def __init__(self, store: Store, transport: Transport, producer: Producer, worker: Worker, random: Random) -> None:
        self._store = store
        self._transport = transport
        self._producer = producer
        self._worker = worker
        self._random = random

    def receive(self, queue: str, body: bytes, message_id: str) -> None:
        """A message of a job queue: a wake-up, a foreign producer's job, or something unreadable."""
        try:
            try:
                message = decode_body(body)
                wake_up = read_wake_up(message)
                if wake_up is None:
                    self._adopt(queue, message, message_id)
                    return
            except (UnreadableMessageError, EnqueueError) as error:
                self._bury(queue, body, str(error), message_id)
                return
            report = self._worker.run(queue, wake_up.jobs)
        except StoreUnavailableError as error:
            self.put_back(queue, _with_key(body, message_id), error)
        else:
            if report.left > 0:
                self._producer.wake(queue, report.left)

    def receive_notifications(self, queue: str, body: bytes, message_id: str, process: NotificationProcessor) -> None:
        """A message that carries Graph's notifications, whole."""
        try:
            try:
                process(decode_body(body), message_id)
            except UnreadableMessageError as error:
                self._bury(queue, body, str(error), message_id)
        except (StoreUnavailableError, MessageHeldError) as error:
            self.put_back(queue, body, error)

    def receive_poison(self, queue: str, body: bytes, message_id: str) -> None:
        """A message that the host gave up on, of a job queue: its deliveries failed before our code could settle."""
        try:
            try:
                message = decode_body(body)
                if read_wake_up(message) is None:
                    self._bury_job(queue, message, message_id)
                else:
                    # Its jobs are rows and merely still waiting, or they are done and it finds nothing.
                    self._transport.send(queue, body.decode(), SECOND_CHANCE)
                    log.warning("wake_up.sent_again", extra={"queue": queue})
            except (UnreadableMessageError, EnqueueError) as error:
                self._bury(queue, body, str(error), message_id)
        except StoreUnavailableError as error:
            self.put_back(f"{queue}-poison", body, error)

    def receive_poison_notifications(
        self, queue: str, body: bytes, message_id: str, process: NotificationProcessor
    ) -> None:
        """Notifications that the host gave up on: tried once more here; what still fails becomes a dead letter."""
        try:
            try:
                process(decode_body(body), message_id)
            except (StoreUnavailableError, MessageHeldError):
                raise
            except Exception as error:
                log.exception("notifications.failed", extra={"queue": queue})
                self._bury(queue, body, f"{type(error).__name__}: {error}", message_id)
        except (StoreUnavailableError, MessageHeldError) as error:
            self.put_back(f"{queue}-poison", body, error)

    def put_back(self, queue: str, body: bytes, reason: Exception) -> None:
        """The body as a new message, later: the host's deliveries are not used up while something is away.

        Put before the old one is deleted: dying in between makes a double, never a gap. Raises
        TransportUnavailableError; then the host delivers the old one again.
        """
        delay = timedelta(seconds=self._random.uniform(*PUT_BACK_SECONDS))
        self._transport.send(queue, body.decode("utf-8", "backslashreplace"), delay)
        log.warning(
            "message.put_back",
            extra={"queue": queue, "delay_seconds": delay.total_seconds(), "error": str(reason)},
        )

    def _adopt(self, queue: str, message: dict[str, Any], message_id: str) -> None:
        """A whole job put into the queue by somebody else becomes a row, once for a message however often it comes."""
        job = read_job(queue, message)
        self._producer.enqueue_many([replace(job, idempotency_key=job.idempotency_key or _key(message_id))])
        log.info("message.adopted", extra={"queue": queue, "message_id": message_id})

    def _bury(self, queue: str, body: bytes, reason: str, message_id: str) -> None:
        text, reason = without_tokens(body.decode("utf-8", "backslashreplace")), without_secrets(reason)
        if self._store.bury(queue, text, reason, f"{queue}/{message_id}"):
            log.error("message.buried", extra={"queue": queue, "message_id": message_id, "error": reason})
            self._producer.wake(DEAD_LETTERS)

    def _bury_job(self, queue: str, message: dict[str, Any], message_id: str) -> None:
        job = self._producer.validate(read_job(queue, message))
        reason = "the host gave the message up: its workers died or were stopped at every delivery"
        if self._store.bury_job(job, reason, f"{queue}/{message_id}") is not None:
            log.error("job.buried", extra={"queue": queue, "message_id": message_id})
            self._producer.wake(DEAD_LETTERS)


def _key(message_id: str) -> str:
    """What makes a foreign message one job."""
    return f"message:{message_id}"


def _with_key(body: bytes, message_id: str) -> bytes:
    """A foreign job's body that names its key: its new message has another id, and the row may be stored already.

    Other bodies stay as they are, and so does one that would grow beyond what a message holds.
    """
    try:
        message = decode_body(body)
    except UnreadableMessageError:
        return body
    if "payload" not in message or message.get("idempotencyKey") is not None:
        return body
    keyed = json.dumps(message | {"idempotencyKey": _key(message_id)}).encode()
    return keyed if len(keyed) <= LARGEST_MESSAGE_BYTES else body
