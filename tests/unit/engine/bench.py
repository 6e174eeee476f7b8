"""An engine in memory with a scripted handler, for unit tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

from shared.engine.context import Context
from shared.engine.enqueue import Producer
from shared.engine.errors import (
    NewerPayloadError,
    PayloadError,
    Problem,
    StoreUnavailableError,
    TransportUnavailableError,
)
from shared.engine.heartbeat import Heartbeat
from shared.engine.job import Completed, Deferred, Job
from shared.engine.memory import MemoryClock, MemoryStore, MemoryTransport
from shared.engine.receive import Receiver
from shared.engine.relay import Relay
from shared.engine.rescue import Rescue
from shared.engine.worker import Worker

QUEUE = "alerts"
QUEUES = (QUEUE, "mails", "closed", "dead-letter")
CLOSED = {"closed": "it has no worker"}


class FailingTransport(MemoryTransport):
    """Refuses while `down`."""

    down = False

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None:
        if self.down:
            raise TransportUnavailableError("storage is away")
        super().send(queue, body, delay)


class FailingStore(MemoryStore):
    """Raises StoreUnavailableError for the next `failures` calls of the verbs named."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.failures: dict[str, int] = {}
        super().__init__(*args, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in ("failures", "__dict__") or not self.failures.get(name):
            return value
        self.failures[name] -= 1

        def fail(*_: Any, **__: Any) -> None:
            raise StoreUnavailableError("the database is away")

        return fail


@dataclass
class Bench:
    """`handler` is what runs; replace it in a test. `ran` lists the jobs that it was given."""

    clock: MemoryClock = field(default_factory=MemoryClock)
    handler: Callable[[Job, Any, Context], Completed | Deferred | None] = lambda job, payload, context: None
    ran: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = FailingStore(QUEUES, CLOSED, self.clock)
        self.transport = FailingTransport()
        specs = {name: SimpleNamespace(name=name, closed=CLOSED.get(name, ""), limit_key=None) for name in QUEUES}
        self.producer = Producer(self.store, self.transport, specs, parse)
        self.heartbeat = Heartbeat(self.store)
        random = Random(7)
        self.worker = Worker(
            self.store, self.producer, lambda _: self._handle, parse, random, "host-1", self.heartbeat, now=self.clock
        )
        self.receiver = Receiver(self.store, self.transport, self.producer, self.worker, random)
        self.relay = Relay(self.store, self.transport)
        self.rescue = Rescue(self.store, self.producer, random)

    def _handle(self, job: Job, payload: Any, context: Context) -> Completed | Deferred | None:
        self.ran.append(job)
        return self.handler(job, payload, context)

    def enqueue(self, n: int = 1, **options: Any) -> list[Any]:
        return [self.producer.enqueue(QUEUE, {"n": i}, **options).id for i in range(n)]

    def wake_ups(self, queue: str = QUEUE) -> list[tuple[int, timedelta]]:
        """Jobs and delay of each wake-up sent to the queue, removing them."""
        found = [(json.loads(body)["jobs"], delay) for name, body, delay in self.transport.sent if name == queue]
        kept = [message for message in self.transport.sent if message[0] != queue]
        self.transport.sent.clear()
        self.transport.sent.extend(kept)
        return found

    def states(self) -> list[str]:
        return [job.state.value for job in self.store.jobs(QUEUE)]


def parse(queue: str, text: str) -> Any:
    payload = json.loads(text)
    if "bad" in payload:
        raise PayloadError("bad: remove it", [Problem("bad", "remove it")])
    if "newer" in payload:
        raise NewerPayloadError("newer: it is not known")
    return payload
