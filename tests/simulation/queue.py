"""A simulated storage account: visibility, dequeue counts, pop receipts, and what networks do to puts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.simulation.history import History
from tests.simulation.loop import Loop


@dataclass(slots=True)
class Message:
    id: str
    queue: str
    body: bytes
    visible_at: float
    deliveries: int = 0
    receipt: int = 0

    @property
    def delivery(self) -> str:
        """Its name and number."""
        return f"{self.id}/{self.deliveries}"


class StorageAccount:
    """`on_visible(queue, when)` is told when a message can be received."""

    def __init__(self, loop: Loop, random: Random, history: History) -> None:
        self._loop = loop
        self._random = random
        self._history = history
        self._queues: dict[str, dict[str, Message]] = {}
        self._numbers = itertools.count(1)
        self.on_visible: Callable[[str, float], None] = lambda queue, when: None

    def put(self, queue: str, body: str, delay: float = 0.0) -> Message:
        message = Message(f"m{next(self._numbers)}", queue, body.encode(), self._loop.now + delay)
        self._queues.setdefault(queue, {})[message.id] = message
        self._history.add("message.put", message.id, queue=queue, body=body, delay=round(delay, 3))
        self.on_visible(queue, message.visible_at)
        return message

    def visible(self, queue: str, cap: int) -> int:
        return min(cap, len(self._visible(queue)))

    def receive(
        self, queue: str, hidden_for: float, *, out_of_order: bool = False, most_deliveries: int | None = None
    ) -> Message | None:
        """Take one message, the oldest visible one unless `out_of_order`; a copy with this delivery's receipt."""
        visible = [m for m in self._visible(queue) if most_deliveries is None or m.deliveries < most_deliveries]
        if not visible:
            return None
        message = self._random.choice(visible) if out_of_order else visible[0]
        message.deliveries += 1
        message.receipt += 1
        message.visible_at = self._loop.now + hidden_for
        self.on_visible(queue, message.visible_at)
        return Message(message.id, queue, message.body, message.visible_at, message.deliveries, message.receipt)

    def delete(self, received: Message) -> bool:
        """False when somebody else has received it since, or deleted it."""
        message = self._current(received)
        if message is None:
            return False
        del self._queues[received.queue][received.id]
        self._history.add("message.deleted", received.id, queue=received.queue)
        return True

    def show(self, received: Message, after: float) -> None:
        """Make a received message visible after so many seconds."""
        message = self._current(received)
        if message is not None:
            message.visible_at = self._loop.now + after
            self.on_visible(message.queue, message.visible_at)

    def messages(self, queue: str | None = None) -> list[Message]:
        names = self._queues if queue is None else [queue]
        return [message for name in names for message in self._queues.get(name, {}).values()]

    def _visible(self, queue: str) -> list[Message]:
        return [m for m in self._queues.get(queue, {}).values() if m.visible_at <= self._loop.now]

    def _current(self, received: Message) -> Message | None:
        message = self._queues.get(received.queue, {}).get(received.id)
        return message if message is not None and message.receipt == received.receipt else None
