"""The Transport on a real Azurite."""

from __future__ import annotations

import base64
import json
import os
import threading
from datetime import timedelta

import pytest

from local.azurite import KEY, Azurite
from local.process import wait_until
from shared.engine.errors import TransportUnavailableError
from shared.engine.messages import decode_body
from shared.storage.queues import StorageQueues

QUEUE = "teams-outbound"
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"text": 'He said "x\\y"\n\u2028\t<b>&amp;</b> \u0000 \ufffe \ud83d 🚚'}),
        json.dumps({"n": "x" * 48_000}),
        base64.b64encode(b'{"a": 1}').decode(),
    ],
    ids=["odd characters", "48 kB", "base64"],
)
def test_a_body_comes_back_as_it_was_sent(storage: StorageQueues, body: str) -> None:
    storage.send(QUEUE, body)
    [message] = storage.receive(QUEUE, 32, MINUTE)
    assert message.body.decode() == body
    assert isinstance(decode_body(message.body), dict)
    message.delete()
    assert storage.count(QUEUE) == 0


def test_a_message_never_expires(storage: StorageQueues, azurite: Azurite) -> None:
    storage.send(QUEUE, "{}")
    [message] = storage._client(QUEUE).peek_messages()
    assert message.expires_on is not None and message.expires_on.year > 9000


def test_a_delayed_message_is_not_visible_but_counted(storage: StorageQueues) -> None:
    storage.send(QUEUE, "{}", timedelta(seconds=29.5))
    assert storage.visible(QUEUE, 32) == 0 and storage.count(QUEUE) == 1


def test_visible_counts_up_to_a_page(storage: StorageQueues) -> None:
    for _ in range(40):
        storage.send(QUEUE, "{}")
    assert storage.visible(QUEUE, 5) == 5 and storage.visible(QUEUE, 100) == 32


def test_receiving_ends_although_a_producer_goes_on(storage: StorageQueues) -> None:
    for _ in range(100):
        storage.send(QUEUE, "{}")
    got = []
    for message in storage.receive(QUEUE, 64, MINUTE):
        got.append(message)
        storage.send(QUEUE, "{}")
    assert len(got) == 64 and storage.visible(QUEUE, 32) == 32


def test_deleting_what_another_has_deleted_is_no_error(storage: StorageQueues) -> None:
    storage.send(QUEUE, "{}")
    [message] = storage.receive(QUEUE, 1, MINUTE)
    message.delete()
    message.delete()


def test_deleting_after_the_visibility_ended_leaves_the_message_to_its_new_receiver(storage: StorageQueues) -> None:
    storage.send(QUEUE, "{}")
    [late] = storage.receive(QUEUE, 1, timedelta(seconds=1))
    assert wait_until(lambda: storage.visible(QUEUE, 1) == 1, 10)
    [current] = storage.receive(QUEUE, 1, MINUTE)
    late.delete()
    assert storage.count(QUEUE) == 1 and current.dequeue_count == 2
    current.delete()
    assert storage.count(QUEUE) == 0


def test_a_visibility_below_a_second_is_a_second_and_never_refused(storage: StorageQueues) -> None:
    storage.send(QUEUE, "{}")
    [message] = storage.receive(QUEUE, 100, timedelta())
    assert message.body == b"{}"


def test_renewing_the_visibility_alone_keeps_the_body(storage: StorageQueues) -> None:
    """The host renews so; some client libraries have erased the body."""
    storage.send(QUEUE, '{"wake": "x"}')
    client = storage._client(QUEUE)
    message = client.receive_message(visibility_timeout=30)
    assert message is not None
    client.update_message(message.id, message.pop_receipt, visibility_timeout=0)
    [again] = storage.receive(QUEUE, 1, MINUTE)
    assert again.body == b'{"wake": "x"}'


def test_azurite_renews_a_message_whose_visibility_has_ended(storage: StorageQueues) -> None:
    """Azure need not: so a test of a lost message has a second receiver, and does not wait for an error here."""
    storage.send(QUEUE, "{}")
    client = storage._client(QUEUE)
    message = client.receive_message(visibility_timeout=1)
    assert message is not None
    assert wait_until(lambda: storage.visible(QUEUE, 1) == 1, 10)
    client.update_message(message.id, message.pop_receipt, visibility_timeout=30)
    assert storage.visible(QUEUE, 1) == 0


def test_a_wrong_key_is_told_by_its_code_and_without_the_key(azurite: Azurite) -> None:
    wrong = base64.b64encode(b"another key").decode()
    storage = StorageQueues(azurite.connection_string.replace(KEY, wrong))
    with pytest.raises(TransportUnavailableError, match=r"AuthorizationFailure|AuthenticationFailed") as caught:
        storage.send(QUEUE, "{}")
    assert wrong not in str(caught.value)


def test_storage_that_is_away_is_told_so() -> None:
    storage = StorageQueues(
        "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=c2VjcmV0;QueueEndpoint=http://127.0.0.1:9/a"
    )
    with pytest.raises(TransportUnavailableError) as caught:
        storage.send(QUEUE, "{}")
    assert "c2VjcmV0" not in str(caught.value)


def test_many_threads_share_one_client_and_its_connections(
    storage: StorageQueues, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[BaseException] = []

    def send() -> None:
        try:
            for _ in range(5):
                storage.send(QUEUE, "{}")
        except TransportUnavailableError as error:
            failures.append(error)

    def all_send() -> int:
        """How many files and sockets this process has open afterwards."""
        threads = [threading.Thread(target=send) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(os.listdir("/proc/self/fd"))

    before = len(os.listdir("/proc/self/fd"))
    first, second = all_send(), all_send()
    assert failures == [] and storage.count(QUEUE) == 320
    assert first - before <= 32 and second - before <= 32
    assert "pool is full" not in caplog.text, "connections are kept, and not thrown away"


def test_creating_a_queue_twice_is_no_error(storage: StorageQueues) -> None:
    storage.create(QUEUE)
    storage.reach(QUEUE)


def test_a_missing_queue_is_told_so(storage: StorageQueues) -> None:
    with pytest.raises(TransportUnavailableError, match="QueueNotFound"):
        storage.send("no-such-queue", "{}")
