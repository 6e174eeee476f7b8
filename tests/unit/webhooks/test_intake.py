"""The intake: what is answered with 202 is durable, what is forged goes nowhere, and nothing takes too long."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from shared.engine.errors import TransportUnavailableError
from shared.engine.memory import MemoryTransport
from shared.graph.notifications import ClientStates
from shared.handlers.intake import DeliveryError, Intake, Taken

SECRET = "the-secret-that-nobody-may-see-0123456789"
STATES = ClientStates(SECRET.encode())


class Transport(MemoryTransport):
    """Fails the puts whose number is in `failing`, and lets the others wait for `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[str] = []
        self.failing: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None:
        self.calls += 1
        call = self.calls
        self.gate.wait(10)
        if call in self.failing:
            raise TransportUnavailableError("storage is away")
        assert queue == "webhooks"
        self.bodies.append(body)

    @property
    def items(self) -> list[dict[str, Any]]:
        return [item for body in self.bodies for item in json.loads(body)["notifications"]]


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def intake(transport: Transport) -> Iterator[Intake]:
    intake = Intake(transport, STATES)
    yield intake
    transport.gate.set()
    intake.close()


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


def delivery(*items: Any) -> bytes:
    return json.dumps({"value": items}).encode()


def genuine(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "subscriptionId": f"s{number}",
        "clientState": STATES.new(),
        "changeType": "created",
        "resource": f"users/u/messages/{number}",
    } | more


def test_I9_every_item_is_queued_before_the_delivery_counts_as_taken(intake: Intake, transport: Transport) -> None:
    items = [genuine(n) for n in range(5)]
    assert intake.take(delivery(*items), soon()) == Taken(queued=5, messages=1)
    assert [item["resource"] for item in transport.items] == [item["resource"] for item in items]


def test_every_items_client_state_is_checked_and_the_good_ones_are_kept(
    intake: Intake, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    items = [genuine(1), genuine(2, clientState="forged-state"), genuine(3)]
    assert intake.take(delivery(*items), soon()) == Taken(queued=2, forged=1, messages=1)
    assert [item["subscriptionId"] for item in transport.items] == ["s1", "s3"]
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert "forged" in logged
    for secret in (SECRET, "forged-state", items[0]["clientState"]):
        assert secret not in logged + "".join(transport.bodies)


@pytest.mark.parametrize("state", [None, "", "é", 5, [], "\ud83d", "absent"], ids=repr)
def test_an_item_without_a_good_client_state_is_dropped(intake: Intake, transport: Transport, state: Any) -> None:
    item = genuine()
    item.pop("clientState")
    if state != "absent":
        item["clientState"] = state
    assert intake.take(delivery(item), soon()).forged == 1
    assert transport.calls == 0


def test_bad_items_are_counted_and_good_ones_kept(intake: Intake, transport: Transport) -> None:
    body = delivery(None, 5, "x", [], {"subscriptionId": 7}, genuine())
    assert intake.take(body, soon()) == Taken(queued=1, forged=1, malformed=4, messages=1)


def test_a_lifecycle_item_is_taken_like_any_other(intake: Intake, transport: Transport) -> None:
    item = {"subscriptionId": "s1", "lifecycleEvent": "missed", "clientState": STATES.new()}
    assert intake.take(delivery(item), soon()).queued == 1
    assert transport.items == [{"subscriptionId": "s1", "lifecycleEvent": "missed"}]


def test_an_odd_date_or_an_unknown_field_does_not_lose_the_item(intake: Intake, transport: Transport) -> None:
    for date in ("2026-03-01T10:00:00.1234567Z", "2026-03-01T10:00:00.4Z", "0001-01-01T00:00:00Z", "tomorrow", 5):
        assert intake.take(delivery(genuine(subscriptionExpirationDateTime=date, new=[{}])), soon()).queued == 1


def test_an_empty_delivery_is_taken_and_queues_nothing(intake: Intake, transport: Transport) -> None:
    assert intake.take(b'{"value": []}', soon()) == Taken(queued=0)
    assert transport.calls == 0


def test_a_body_of_another_form_is_a_delivery_error(intake: Intake) -> None:
    with pytest.raises(DeliveryError):
        intake.take(b'{"value": null}', soon())


def test_when_one_message_of_several_is_not_queued_the_delivery_is_not_taken(
    intake: Intake, transport: Transport
) -> None:
    transport.failing = {2}
    with pytest.raises(TransportUnavailableError):
        intake.take(delivery(*(genuine(n, padding="x" * 20_000) for n in range(6))), soon())
    assert transport.calls == 3


def test_a_put_that_hangs_ends_at_the_deadline(intake: Intake, transport: Transport) -> None:
    transport.gate.clear()
    started = time.monotonic()
    with pytest.raises(TransportUnavailableError):
        intake.take(delivery(genuine()), soon(0.2))
    assert 0.15 < time.monotonic() - started < 2


def test_puts_that_hang_do_not_pile_up_behind_each_other(intake: Intake, transport: Transport) -> None:
    transport.gate.clear()
    for _ in range(40):
        with pytest.raises(TransportUnavailableError):
            intake.take(delivery(genuine()), soon(0.01))
    transport.gate.set()
    assert intake.take(delivery(genuine()), soon()).queued == 1
    assert transport.calls <= 18, "puts that were given up before they began must not run later"


def test_several_messages_are_put_at_the_same_time(intake: Intake, transport: Transport) -> None:
    transport.gate.clear()
    items = [genuine(n, padding="x" * 40_000) for n in range(8)]
    taking = threading.Thread(target=intake.take, args=(delivery(*items), soon()))
    taking.start()
    deadline = soon()
    while transport.calls < 8 and time.monotonic() < deadline:
        taking.join(0.005)
    transport.gate.set()
    taking.join(5)
    assert transport.calls == 8
    assert len(transport.bodies) == 8
