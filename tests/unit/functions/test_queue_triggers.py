"""Queue and poison triggers: each message reaches what its queue carries, and none is left for dead."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import azure.functions as func
import pytest
from azure.functions.queue import QueueMessage

import functions.poison
import functions.queues
from shared.engine.enqueue import Producer
from shared.engine.errors import StoreUnavailableError, TransportUnavailableError, UnreadableMessageError
from shared.engine.memory import MemoryStore, MemoryTransport
from shared.engine.receive import Receiver
from shared.engine.worker import Worker
from shared.handlers.inbox import MOST_DELIVERIES, Inbox, PoisonSweep
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES

CHAT = {"chatId": "19:dispatch@thread.v2", "content": "on my way"}
BATCH = {"notifications": [], "receivedAt": "2026-11-25T08:00:00+00:00"}


def triggers(blueprint: func.Blueprint) -> dict[str, Callable[[func.QueueMessage], None]]:
    """The plain functions of a blueprint by the queue that triggers them."""
    app = func.FunctionApp()
    app.register_functions(blueprint)
    built = app.get_functions()
    return {json.loads(f.get_raw_bindings()[0])["queueName"]: f.get_user_function() for f in built}


RUN = triggers(functions.queues.bp)
POISON = triggers(functions.poison.bp)


class Bench:
    """An inbox on an engine in memory; `processed` lists the batches of notifications."""

    def __init__(self) -> None:
        closed = {name: spec.closed for name, spec in QUEUES.items() if spec.closed}
        self.store = MemoryStore(list(QUEUES), closed)
        self.transport = MemoryTransport()
        self.ran: list[str] = []
        self.processed: list[dict[str, Any]] = []
        self.error: Exception | None = None
        producer = Producer(self.store, self.transport, QUEUES, parse_payload)
        worker = Worker(
            self.store, producer, lambda queue: lambda *_: self.ran.append(queue), parse_payload, Random(1), "w"
        )
        self.receiver = Receiver(self.store, self.transport, producer, worker, Random(1))
        self.inbox = Inbox(self.receiver, self._process)

    def _process(self, body: dict[str, Any], message_id: str) -> None:
        if self.error:
            raise self.error
        if "notifications" not in body:
            raise UnreadableMessageError("no batch")
        self.processed.append(body)

    @property
    def sent(self) -> list[tuple[str, str]]:
        return [(queue, body) for queue, body, _ in self.transport.sent]

    @property
    def buried(self) -> list[str]:
        return [letter.queue for letter in self.store.letters]


@pytest.fixture
def bench(built: dict[str, Any]) -> Bench:
    built["inbox"] = (bench := Bench()).inbox
    return bench


def message(body: Any, dequeue_count: Any = 1, message_id: str = "m1") -> QueueMessage:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return QueueMessage(id=message_id, body=raw, dequeue_count=dequeue_count)  # type: ignore[no-untyped-call]


def test_every_queue_has_a_trigger_and_a_poison_trigger() -> None:
    assert set(RUN) == set(QUEUES)
    assert set(POISON) == {spec.poison for spec in QUEUES.values()}


def test_a_wake_up_runs_the_jobs_of_its_queue(bench: Bench) -> None:
    bench.store.enqueue([])
    RUN["teams-outbound"](message({"payload": CHAT}))
    RUN["teams-outbound"](message({"wake": "teams-outbound", "jobs": 1}))
    assert bench.ran == ["teams-outbound"]


def test_notifications_go_to_the_processor_whole(bench: Bench) -> None:
    RUN["webhooks"](message(BATCH))
    assert bench.processed == [BATCH]


@pytest.mark.parametrize("queue", [name for name, spec in QUEUES.items() if spec.closed and spec.carries == "jobs"])
def test_a_job_put_into_a_closed_queue_is_kept_with_the_reason(bench: Bench, queue: str) -> None:
    RUN[queue](message({"payload": {}}))
    assert bench.buried == [queue]
    assert bench.ran == []


@pytest.mark.parametrize("queue", list(QUEUES))
@pytest.mark.parametrize("body", [b"", b"not json", b"\x80\x04\x95pickle", b'{"task": "os.system"}', b"[1,2,3]"])
def test_an_unreadable_message_is_kept_and_ends(bench: Bench, queue: str, body: bytes) -> None:
    RUN[queue](message(body))
    POISON[f"{queue}-poison"](message(body, message_id="m2"))
    assert bench.buried == [queue, queue]


def test_the_triggers_cope_with_a_message_that_has_no_id(bench: Bench) -> None:
    RUN["webhooks"](func.QueueMessage(body=json.dumps(BATCH).encode()))
    assert len(bench.processed) == 1


@pytest.mark.parametrize("count", [None, 1, "3", 0, 4])
def test_a_poison_handler_that_fails_is_delivered_again(bench: Bench, count: Any) -> None:
    bench.store.bury = raising(RuntimeError("a bug"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        POISON["webhooks-poison"](message(b"unreadable", count))
    assert bench.sent == []


@pytest.mark.parametrize("count", [MOST_DELIVERIES, str(MOST_DELIVERIES), 9])
def test_at_the_last_delivery_a_poison_message_is_put_back_as_a_new_one(bench: Bench, count: Any) -> None:
    bench.store.bury = raising(RuntimeError("a bug"))  # type: ignore[method-assign]
    POISON["webhooks-poison"](message(b"unreadable", count))
    assert bench.sent == [("webhooks-poison", "unreadable")]


def test_with_the_database_away_a_poison_message_stays_poison_and_costs_no_delivery(bench: Bench) -> None:
    bench.error = StoreUnavailableError("away")
    POISON["webhooks-poison"](message(BATCH))
    assert [(queue, json.loads(body)) for queue, body in bench.sent] == [("webhooks-poison", BATCH)]


def test_the_sweep_handles_what_it_finds_and_leaves_what_fails(bench: Bench) -> None:
    poison = FakeMessages({"webhooks-poison": [BATCH, "unreadable"], "sync-poison": ["lost"]})
    bench.store.bury = raising_once(bench.store.bury)  # type: ignore[method-assign]
    assert PoisonSweep(poison, bench.inbox, QUEUES.values()).run() == 2
    assert bench.processed == [BATCH]
    assert bench.buried == ["sync"]
    assert poison.left == ["unreadable"]


def test_a_queue_that_cannot_be_read_does_not_stop_the_sweep(bench: Bench) -> None:
    poison = FakeMessages({"sync-poison": ["lost"]}, away={"teams-outbound-poison"})
    assert PoisonSweep(poison, bench.inbox, QUEUES.values()).run() == 1


class FakeMessage:
    def __init__(self, owner: FakeMessages, body: Any, number: int) -> None:
        self.id, self.owner, self.given = f"m{number}", owner, body
        self.body = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def delete(self) -> None:
        self.owner.left.remove(self.given)


class FakeMessages:
    def __init__(self, bodies: dict[str, list[Any]], away: set[str] | None = None) -> None:
        self.bodies, self.away = bodies, away or set()
        self.left = [body for queue in bodies.values() for body in queue]

    def receive(self, queue: str, limit: int, visibility: timedelta) -> Any:
        if queue in self.away:
            raise TransportUnavailableError("away")
        return iter([FakeMessage(self, body, n) for n, body in enumerate(self.bodies.get(queue, []))][:limit])


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def raising_once(then: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[int] = []

    def call(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return then(*args)

    return call
