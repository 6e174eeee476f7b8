from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.engine.context import Context
from shared.engine.errors import StoreUnavailableError, TransportUnavailableError, UnreadableMessageError
from shared.engine.job import Job, JobState
from shared.engine.messages import (
    LONGEST_READABLE,
    MOST_JOBS_PER_WAKE_UP,
    decode_body,
    read_wake_up,
    readable_body,
    wake_up_body,
)
from tests.unit.engine.bench import QUEUE, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_wake_up_runs_jobs(bench: Bench) -> None:
    bench.enqueue(2)
    bench.receiver.receive(QUEUE, wake_up_body(QUEUE, 2).encode(), "m-1")
    assert bench.states() == ["completed"] * 2


def test_a_wake_up_delivered_again_while_its_job_runs_and_after_it_runs_nothing(bench: Bench) -> None:
    """The message became visible again, or its deletion failed."""
    message = wake_up_body(QUEUE, 1).encode()

    def handler(job: Job, payload: Any, context: Context) -> None:
        bench.receiver.receive(QUEUE, message, "m-1")
        assert bench.states() == ["active"]

    bench.handler = handler
    bench.enqueue()
    bench.wake_ups()
    for _ in range(2):
        bench.receiver.receive(QUEUE, message, "m-1")
    assert len(bench.ran) == 1 and bench.states() == ["completed"]
    assert bench.wake_ups() == []


@pytest.mark.parametrize(
    "encode", [lambda b: b, base64.b64encode, lambda b: b"\xef\xbb\xbf" + b], ids=["json", "base64", "bom"]
)
def test_a_foreign_job_is_adopted_whatever_its_encoding(bench: Bench, encode: Any) -> None:
    bench.receiver.receive(QUEUE, encode(body({"payload": {"n": 1}, "priority": 2})), "m-1")
    [job] = bench.store.jobs(QUEUE)
    assert (job.payload, job.priority, job.state) == ({"n": 1}, 2, JobState.READY)
    assert bench.wake_ups() == [(1, timedelta())]


def test_a_foreign_job_delivered_twenty_times_is_one_job(bench: Bench) -> None:
    for _ in range(20):
        bench.receiver.receive(QUEUE, body({"payload": {"n": 1}}), "m-1")
    bench.receiver.receive(QUEUE, body({"payload": {"n": 1}}), "m-2")
    assert len(bench.store.jobs(QUEUE)) == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"[1, 2, 3]",
        b'"text"',
        b"\x80\x04\x95pickle",
        b"{" * 100_000,
        b'{"wake": 5, "jobs": 1}',
        b'{"wake": "alerts", "jobs": "many"}',
        b"{}",
        b'{"payload": []}',
        b'{"payload": {}, "task": "os.system"}',
        b'{"payload": {"bad": 1}}',
        b'{"payload": {}, "priority": 11}',
        b'{"payload": {}, "priority": true}',
        b'{"payload": {}, "runAt": "2026-01-01T00:00:00"}',
        b'{"payload": {}, "runAt": "soon"}',
        b'{"payload": {}, "delaySeconds": 1e300}',
        b'{"payload": {}, "idempotencyKey": 5}',
    ],
    ids=lambda raw: raw[:24].decode("latin-1"),
)
def test_an_unreadable_message_becomes_one_dead_letter_with_the_raw_text(bench: Bench, raw: bytes) -> None:
    bench.receiver.receive(QUEUE, raw, "m-1")
    bench.receiver.receive(QUEUE, raw, "m-1")
    [letter] = bench.store.letters
    assert letter.queue == QUEUE and letter.body == raw.decode("utf-8", "backslashreplace")
    assert bench.wake_ups("dead-letter") == [(1, timedelta())] and bench.states() == []


def test_a_foreign_job_for_a_closed_queue_is_buried_with_the_reason(bench: Bench) -> None:
    bench.receiver.receive("closed", body({"payload": {}}), "m-1")
    assert "it has no worker" in bench.store.letters[0].message


def test_I8_with_the_database_away_the_body_comes_back_as_a_new_message(bench: Bench) -> None:
    bench.enqueue()
    bench.transport.sent.clear()
    bench.store.failures["settings"] = 1
    bench.receiver.receive(QUEUE, wake_up_body(QUEUE, 1).encode(), "m-1")
    [(queue, text, delay)] = bench.transport.sent
    assert (queue, text) == (QUEUE, wake_up_body(QUEUE, 1))
    assert timedelta(seconds=2) <= delay <= timedelta(seconds=20)


@pytest.mark.parametrize("encode", [bytes, base64.b64encode], ids=["plain", "base64"])
def test_I8_a_foreign_job_whose_storing_got_no_answer_is_one_job(
    bench: Bench, encode: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = bench.store.enqueue

    def stored_without_an_answer(*args: Any) -> Any:
        enqueue(*args)
        monkeypatch.undo()
        raise StoreUnavailableError("the connection was cut after the commit")

    monkeypatch.setattr(bench.store, "enqueue", stored_without_an_answer)
    bench.receiver.receive(QUEUE, encode(body({"payload": {"n": 1}})), "m-1")
    [(queue, text, _)] = bench.transport.sent
    bench.receiver.receive(queue, text.encode(), "m-2")
    assert bench.states() == ["ready"]


@pytest.mark.parametrize(
    "message",
    [{"payload": {"n": 1}, "idempotencyKey": "mine"}, {"payload": {"text": "\u00e9" * 20_000}}],
    ids=["key of its own", "too large for a key"],
)
def test_I8_a_foreign_job_with_a_key_or_without_room_for_one_comes_back_as_it_was(bench: Bench, message: Any) -> None:
    bench.store.failures["enqueue"] = 1
    raw = json.dumps(message, ensure_ascii=False)
    bench.receiver.receive(QUEUE, raw.encode(), "m-1")
    assert [text for _, text, _ in bench.transport.sent] == [raw]


def test_I8_an_unreadable_message_too_waits_for_the_database(bench: Bench) -> None:
    bench.store.failures["bury"] = 1
    bench.receiver.receive(QUEUE, b"\xff\xfe nonsense", "m-1")
    assert len(bench.transport.sent) == 1 and bench.store.letters == []


def test_with_database_and_storage_away_the_host_keeps_the_message(bench: Bench) -> None:
    bench.store.failures["settings"] = 1
    bench.transport.down = True
    with pytest.raises(TransportUnavailableError):
        bench.receiver.receive(QUEUE, wake_up_body(QUEUE, 1).encode(), "m-1")


def test_what_a_wake_up_had_no_time_for_is_sent_again(bench: Bench) -> None:
    bench.enqueue(3)
    bench.wake_ups()
    bench.worker.stop()
    bench.receiver.receive(QUEUE, wake_up_body(QUEUE, 3).encode(), "m-1")
    assert bench.wake_ups() == [(3, timedelta())]


def test_notifications_go_to_their_processor(bench: Bench) -> None:
    seen: list[Any] = []
    bench.receiver.receive_notifications("webhooks", b'{"notifications": []}', "m-1", lambda m, i: seen.append((m, i)))
    assert seen == [({"notifications": []}, "m-1")]


def test_I8_notifications_wait_for_the_database(bench: Bench) -> None:
    def away(message: dict[str, Any], message_id: str) -> None:
        raise StoreUnavailableError("away")

    bench.receiver.receive_notifications("webhooks", b'{"notifications": [1]}', "m-1", away)
    [(queue, text, _)] = bench.transport.sent
    assert (queue, text) == ("webhooks", '{"notifications": [1]}')


def test_unreadable_notifications_are_buried(bench: Bench) -> None:
    def refuse(message: dict[str, Any], message_id: str) -> None:
        raise UnreadableMessageError("no `notifications`")

    bench.receiver.receive_notifications("webhooks", b"{}", "m-1", refuse)
    bench.receiver.receive_notifications("webhooks", b"nonsense", "m-2", refuse)
    assert [letter.queue for letter in bench.store.letters] == ["webhooks", "webhooks"]


def test_a_buried_message_keeps_no_token(bench: Bench) -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJhcHAifQabc.c2lnbmF0dXJl-_"

    def refuse(message: dict[str, Any], message_id: str) -> None:
        raise UnreadableMessageError("no `notifications`")

    bench.receiver.receive_notifications("webhooks", body({"validationTokens": [token], "x": 1}), "m-1", refuse)
    [letter] = bench.store.letters
    assert "eyJ" not in (letter.body or "") and '"x": 1' in (letter.body or "")


# ------------------------------------------------------------------ poison


def test_a_poisoned_wake_up_is_sent_again_while_its_jobs_wait(bench: Bench) -> None:
    bench.receiver.receive_poison(QUEUE, wake_up_body(QUEUE, 4).encode(), "p-1")
    [(jobs, delay)] = bench.wake_ups()
    assert jobs == 4 and delay <= timedelta(seconds=30) and bench.store.letters == []


def test_a_poisoned_job_is_tracked_as_a_dead_one_once(bench: Bench) -> None:
    for _ in range(2):
        bench.receiver.receive_poison(QUEUE, body({"payload": {"n": 1}, "correlationId": "c"}), "p-1")
    [job] = bench.store.jobs(QUEUE)
    assert job.state is JobState.DEAD and job.correlation_id == "c"
    assert bench.wake_ups("dead-letter") == [(1, timedelta())]


def test_an_unreadable_poison_message_becomes_a_dead_letter(bench: Bench) -> None:
    bench.receiver.receive_poison(QUEUE, b"\x00\xff", "p-1")
    assert bench.store.letters[0].body is not None


def test_a_poison_handler_with_the_database_away_keeps_the_message_in_its_queue(bench: Bench) -> None:
    bench.store.failures["bury"] = 1
    bench.receiver.receive_poison(QUEUE, b"nonsense", "p-1")
    assert [message[0] for message in bench.transport.sent] == [f"{QUEUE}-poison"]


def test_poisoned_notifications_are_tried_once_more_and_then_buried(bench: Bench) -> None:
    seen = []
    bench.receiver.receive_poison_notifications("webhooks", b"{}", "p-1", lambda m, i: seen.append(i))
    assert seen == ["p-1"] and bench.store.letters == []

    def fail(message: dict[str, Any], message_id: str) -> None:
        raise ZeroDivisionError

    bench.receiver.receive_poison_notifications("webhooks", b"{}", "p-2", fail)
    assert bench.store.letters[0].message.startswith("ZeroDivisionError")


def test_a_wake_up_is_bounded(bench: Bench) -> None:
    wake_up = read_wake_up(decode_body(b'{"wake": "alerts", "jobs": 999999999}'))
    assert wake_up is not None and wake_up.jobs == MOST_JOBS_PER_WAKE_UP


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("not json", "not json"),
        ("eyJoZWxsbyI6ICJ3w7ZybGQifQ==", '{"hello": "wörld"}'),
        ("AAECAw==", "AAECAw=="),
        ("test", "test"),
        ("<b>\x1b[31m\u202e\x00", "<b>�[31m��"),
        ("x" * (LONGEST_READABLE + 1), "x" * LONGEST_READABLE + " …"),
    ],
)
def test_a_strangers_message_is_shown_decoded_and_tame(body: str, text: str) -> None:
    assert readable_body(body) == text


def test_a_strangers_token_is_hidden_though_it_came_encoded() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
    assert token not in readable_body(base64.b64encode(f"key={token}".encode()).decode())
