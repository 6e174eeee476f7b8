"""Queue triggers of the development host: the rules of Azure's host, one by one, on a real Azurite."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from itertools import islice, pairwise
from typing import Any

import pytest

from local.host import Host
from local.host_queues import Delivery, delays, poison_name
from local.process import wait_until
from tests.local import probe
from tests.local.conftest import Queue

StartHost = Callable[..., Host]
Eventually = Callable[[Callable[[], bool]], None]

SEE = """
@app.queue_trigger("message", "%QUEUE%", "Storage")
def see(message: func.QueueMessage):
    probe.saw(message)
"""
FAIL = """
@app.queue_trigger("message", "%QUEUE%", "Storage")
def fail(message: func.QueueMessage):
    probe.saw(message.dequeue_count)
    raise RuntimeError("on purpose")
"""
GATED = """
@app.queue_trigger("message", "%QUEUE%", "Storage")
def gated(message: func.QueueMessage):
    probe.saw(message)
    probe.pass_gate("gate")
"""
POISON_OF_FAIL = """
@app.queue_trigger("message", "%QUEUE%-poison", "Storage")
def see_poison(message: func.QueueMessage):
    probe.saw(message.get_body())
"""


def test_a_message_is_given_as_azure_gives_it_and_deleted_afterwards(
    start_host: StartHost, queue: Queue, eventually: Eventually
) -> None:
    start_host(SEE, queue=queue)
    queue.put('{"wake": "äöü"}')
    message = probe.next_seen()
    assert message.get_body() == '{"wake": "äöü"}'.encode()
    assert message.dequeue_count == 1
    assert message.id and message.pop_receipt
    assert message.insertion_time.utcoffset() is not None
    assert message.expiration_time.year == 9999
    eventually(lambda: queue.count() == 0)


def test_a_failing_message_runs_max_dequeue_count_times_and_is_poisoned(
    start_host: StartHost, queue: Queue, eventually: Eventually
) -> None:
    start_host(FAIL, queue=queue, maxDequeueCount=3)
    queue.put("bad")
    assert [probe.next_seen() for _ in range(3)] == [1, 2, 3]
    eventually(lambda: queue.count() == 0)
    assert queue.poison_bodies() == ["bad"]
    assert probe.nothing_more()


def test_a_failed_message_comes_back_after_the_visibility_timeout_of_host_json(
    start_host: StartHost, queue: Queue, eventually: Eventually
) -> None:
    start_host(FAIL, queue=queue, visibilityTimeout="00:05:00")
    queue.put("later")
    assert probe.next_seen() == 1
    with queue.client() as client:
        eventually(lambda: not list(client.peek_messages(1)))
    assert queue.count() == 1


def test_a_message_above_max_dequeue_count_is_poisoned_without_a_run(
    start_host: StartHost, queue: Queue, eventually: Eventually
) -> None:
    queue.put("crashed its hosts")
    with queue.client() as client:
        for _ in range(2):
            message = client.receive_message(visibility_timeout=30)
            assert message is not None
            client.update_message(message, visibility_timeout=0)
    start_host(SEE, queue=queue, maxDequeueCount=2)
    eventually(lambda: queue.count() == 0)
    assert queue.poison_bodies() == ["crashed its hosts"]
    assert probe.nothing_more()


def test_base64_bodies_are_decoded(start_host: StartHost, queue: Queue) -> None:
    start_host(SEE, queue=queue, messageEncoding="base64")
    queue.put(base64.b64encode(b"\x00\xffplain").decode())
    assert probe.next_seen().get_body() == b"\x00\xffplain"


def test_a_body_that_is_not_base64_goes_raw_to_the_poison_queue_without_a_run(
    start_host: StartHost, queue: Queue, eventually: Eventually
) -> None:
    start_host(SEE, queue=queue, messageEncoding="base64")
    queue.put('{"job": 1}')
    eventually(lambda: queue.count() == 0)
    assert queue.poison_bodies() == ['{"job": 1}']
    assert probe.nothing_more()


def test_a_poison_queue_has_no_poison_queue_and_its_failed_messages_are_not_released(
    start_host: StartHost, queue: Queue, eventually: Eventually
) -> None:
    poison = Queue(f"{queue.name}-poison", queue.connection)
    with poison.client() as client:
        client.create_queue()
    host = start_host(FAIL, queue=poison, maxDequeueCount=1)
    poison.put("bad")
    assert probe.next_seen() == 1
    eventually(lambda: not host.listeners[0].in_flight)
    with poison.client() as client:
        assert not list(client.receive_messages(max_messages=1))
    assert poison.count() == 1


def test_names_that_are_too_long_for_the_suffix_have_no_poison_queue() -> None:
    assert poison_name("jobs") == "jobs-poison"
    assert poison_name("jobs-poison") is None
    assert poison_name("q" * 56) == "q" * 56 + "-poison"
    assert poison_name("q" * 57) is None


def test_a_poisoned_message_wakes_the_function_of_the_poison_queue(start_host: StartHost, queue: Queue) -> None:
    host = start_host(FAIL + POISON_OF_FAIL, queue=queue, maxDequeueCount=1, maxPollingInterval="01:00:00")
    poison = next(part for part in host.listeners if part.queue.queue_name.endswith("-poison"))
    woken = threading.Event()

    class Wake(threading.Event):
        def set(self) -> None:
            woken.set()
            super().set()

    poison.wake = Wake()
    queue.put("bad")
    host.listeners[0].wake.set()
    assert woken.wait(probe.SECONDS)


def test_at_most_batch_size_plus_threshold_messages_are_in_flight(start_host: StartHost, queue: Queue) -> None:
    queue.put(*map(str, range(10)))
    start_host(GATED, queue=queue, batchSize=2, newBatchThreshold=1)
    for _ in range(2):
        probe.next_seen()
    probe.open_gate("gate")  # one left in flight: the threshold, so that another batch comes
    for _ in range(2):
        probe.next_seen()
    probe.open_gate("gate", 9)
    for _ in range(6):
        probe.next_seen()
    assert probe.most_active == 3


def test_batch_size_1_and_threshold_0_is_strictly_serial(start_host: StartHost, queue: Queue) -> None:
    queue.put(*map(str, range(5)))
    probe.open_gate("gate", 5)
    start_host(GATED, queue=queue, batchSize=1, newBatchThreshold=0)
    for _ in range(5):
        probe.next_seen()
    assert probe.most_active == 1


def test_a_long_run_keeps_its_message_and_deletes_it_with_the_newest_receipt(
    start_host: StartHost, queue: Queue, eventually: Eventually
) -> None:
    host = start_host(GATED, queue=queue, lease=2)
    queue.put("long")
    first = probe.next_seen()
    (delivery,) = host.listeners[0].in_flight
    receipts = {first.pop_receipt}

    def renewed_twice() -> bool:
        receipts.add(delivery._receipt)
        return len(receipts) == 3

    eventually(renewed_twice)
    probe.open_gate("gate")
    eventually(lambda: queue.count() == 0)
    assert probe.nothing_more()


def test_a_message_that_another_receiver_took_over_is_left_to_it(queue: Queue) -> None:
    queue.put("mine, then yours")
    with queue.client() as client:
        message = client.receive_message(visibility_timeout=30)
        assert message is not None
        delivery = Delivery(client, message)
        client.update_message(message, visibility_timeout=0)
        other = client.receive_message(visibility_timeout=30)
        assert other is not None
        delivery.renew(lease=0)
        delivery.settle()
        delivery.settle(visible_after=0)
        assert queue.count() == 1
        client.delete_message(other)
        delivery.settle()


def test_renewal_ends_for_good_after_a_failure(queue: Queue) -> None:
    queue.put("lost")
    with queue.client() as client:
        message = client.receive_message(visibility_timeout=30)
        assert message is not None
        delivery = Delivery(client, message)
        client.delete_message(message)
        delivery.renew(lease=0)
        assert delivery._renewed_at is None


def test_a_missing_queue_is_waited_for_and_not_created(
    start_host: StartHost, queue: Queue, eventually: Eventually
) -> None:
    with queue.client() as client:
        client.delete_queue()
        host = start_host(SEE, queue=queue)
        polls = threading.Event()
        fetch = host.listeners[0]._fetch

        def counted() -> bool:
            found = fetch()
            polls.set()
            return found

        host.listeners[0].__dict__["_fetch"] = counted
        assert polls.wait(probe.SECONDS)
        client.create_queue()  # raises when it exists
    queue.put("at last")
    assert probe.next_seen().get_body() == b"at last"


def test_polling_goes_on_when_the_storage_is_away(start_host: StartHost, queue: Queue, monkeypatch: Any) -> None:
    from azure.core.exceptions import ServiceRequestError

    host = start_host(SEE, queue=queue)
    real, failed = host.listeners[0].queue.receive_messages, threading.Event()

    def away(**options: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise ServiceRequestError("away")
        return real(**options)

    monkeypatch.setattr(host.listeners[0].queue, "receive_messages", away)
    assert failed.wait(probe.SECONDS)
    queue.put("back again")
    assert probe.next_seen().get_body() == b"back again"


def test_waits_after_empty_polls_grow_to_the_limit() -> None:
    pauses = list(islice(delays(2.0), 12))
    assert pauses[0] == 0.1
    assert 0.18 <= pauses[1] <= 0.22
    assert 0.26 <= pauses[2] <= 0.34
    assert all(earlier <= later for earlier, later in pairwise(pauses))
    assert pauses[-1] == 2.0
    assert list(islice(delays(0.05), 3)) == [0.05] * 3
    assert next(islice(delays(60), 5_000, None)) == 60


def test_stopping_finishes_what_has_begun_and_takes_nothing_new(start_host: StartHost, queue: Queue) -> None:
    host = start_host(GATED, queue=queue, batchSize=1, newBatchThreshold=0)
    queue.put("begun")
    probe.next_seen()
    result: list[bool] = []
    stopper = threading.Thread(target=lambda: result.append(host.stop(20)))
    stopper.start()
    assert wait_until(lambda: host.listeners[0]._stopping, 5)
    queue.put("too late")
    probe.open_gate("gate")
    stopper.join(20)
    assert result == [True]
    assert probe.nothing_more()
    with queue.client() as client:
        left = list(client.receive_messages(max_messages=32))
    assert [(message.content, message.dequeue_count) for message in left] == [("too late", 1)]


def test_a_stop_that_outlasts_its_grace_says_so(start_host: StartHost, queue: Queue) -> None:
    host = start_host(GATED, queue=queue)
    queue.put("stuck")
    probe.next_seen()
    assert host.stop(0.1) is False
    probe.open_gate("gate")


@pytest.mark.parametrize("thread_count", [1, 3])
def test_functions_share_a_pool_of_the_workers_size(start_host: StartHost, queue: Queue, thread_count: int) -> None:
    queue.put(*map(str, range(6)))
    start_host(GATED, queue=queue, threads=thread_count)
    for _ in range(thread_count):
        probe.next_seen()
    probe.open_gate("gate", 6)
    for _ in range(6 - thread_count):
        probe.next_seen()
    assert probe.most_active == thread_count
