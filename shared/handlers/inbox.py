"""Queue messages on their way in: each to what its queue carries, and the poison queues looked after."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Protocol

from shared.engine.errors import TransportUnavailableError
from shared.engine.receive import NotificationProcessor, Receiver
from shared.handlers.registry import QueueSpec

log = logging.getLogger(__name__)

#: host.json's maxDequeueCount: a message of a poison queue that failed so often is never run again by the host.
MOST_DELIVERIES = 5
SWEPT_AT_ONCE = 100
#: A swept message that fails comes back after this, for the next sweep.
HIDDEN_FOR = timedelta(minutes=2)


class Message(Protocol):
    """A received message; `delete` ends it."""

    @property
    def id(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    def delete(self) -> None: ...


class Messages(Protocol):
    """What the sweep needs of the Storage Queue."""

    def receive(self, queue: str, limit: int, visibility: timedelta) -> Iterator[Message]: ...


class Inbox:
    """What the queue triggers and the poison triggers call, once a message."""

    def __init__(self, receiver: Receiver, process: NotificationProcessor) -> None:
        self._receiver = receiver
        self._process = process

    def receive(self, spec: QueueSpec, body: bytes, message_id: str) -> None:
        """A message of the queue itself. An exception makes the host deliver it again."""
        if spec.carries == "notifications":
            self._receiver.receive_notifications(spec.name, body, message_id, self._process)
        else:
            self._receiver.receive(spec.name, body, message_id)

    def receive_poison(self, spec: QueueSpec, body: bytes, message_id: str, delivery: int | str | None) -> None:
        """A message of its poison queue; `delivery` is the host's count of it.

        What fails at the last delivery is put back as a new message: the host would keep the old one unread
        until it expires.
        """
        try:
            self.handle_poison(spec, body, message_id)
        except Exception as error:
            if int(delivery or 1) < MOST_DELIVERIES:
                raise
            log.exception("poison.failed", extra={"queue": spec.poison, "message_id": message_id})
            self._receiver.put_back(spec.poison, body, error)

    def handle_poison(self, spec: QueueSpec, body: bytes, message_id: str) -> None:
        if spec.carries == "notifications":
            self._receiver.receive_poison_notifications(spec.name, body, message_id, self._process)
        else:
            self._receiver.receive_poison(spec.name, body, message_id)


class PoisonSweep:
    """Handles what lies in the poison queues although their triggers run; what fails stays for the next time."""

    def __init__(self, messages: Messages, inbox: Inbox, specs: Iterable[QueueSpec]) -> None:
        self._messages = messages
        self._inbox = inbox
        self._specs = tuple(specs)

    def run(self) -> int:
        """One pass; returns how many messages were handled."""
        handled = 0
        for spec in self._specs:
            try:
                for message in self._messages.receive(spec.poison, SWEPT_AT_ONCE, HIDDEN_FOR):
                    handled += self._handle(spec, message)
            except TransportUnavailableError as error:
                log.warning("poison_sweep.queue_failed", extra={"queue": spec.poison, "error": str(error)})
        return handled

    def _handle(self, spec: QueueSpec, message: Message) -> bool:
        try:
            self._inbox.handle_poison(spec, message.body, message.id)
        except Exception:
            # One message must not hold up the others; this one comes back.
            log.exception("poison_sweep.message_failed", extra={"queue": spec.poison, "message_id": message.id})
            return False
        message.delete()
        return True
