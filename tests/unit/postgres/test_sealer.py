"""Payloads into rows and out of them: plain, compressed, sealed."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engine.enqueue import LARGEST_PAYLOAD_BYTES
from shared.engine.errors import StoreUnavailableError
from shared.engine.job import NewJob, Unreadable
from shared.engine.json_text import to_json
from shared.postgres.sealer import LARGEST_OPENED_BYTES, ZIP_ABOVE_BYTES, Sealer, of_job, of_schedule
from shared.sealing import KeyRing, UnknownKeyError, key_id

OLD, NEW = b"o" * 32, b"n" * 32
SECRET, OPEN = "secret", "open"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
PAYLOADS = st.dictionaries(st.text().filter(lambda name: not name.startswith("$")), JSON, max_size=6)


def sealer(*keys: bytes) -> Sealer:
    ring = KeyRing(*keys)
    return Sealer([SECRET], lambda: ring)


def stored(row: dict[str, Any]) -> str:
    """The payload as jsonb gives it back: with blanks, and the keys in another order."""
    payload = json.loads(to_json(row["payload"]))
    return json.dumps(dict(sorted(payload.items(), key=lambda item: (len(item[0]), item[0]))), ensure_ascii=False)


def read(row: dict[str, Any], by: Sealer, queue: str = SECRET) -> Any:
    text = by.open_text(of_job(queue, UUID(row["id"]) if "id" in row else uuid4()), stored(row))
    return text if isinstance(text, Unreadable) else json.loads(text)


@settings(max_examples=200)
@given(PAYLOADS, st.sampled_from([SECRET, OPEN]), st.sampled_from([1, 300, 70_000]))
def test_what_was_stored_is_read_again(payload: dict[str, Any], queue: str, times: int) -> None:
    payload = {"many": ["words and words"] * (times - 1)} | payload
    row = sealer(NEW).new_row(NewJob(queue, payload))
    assert read(row, sealer(NEW), queue) == json.loads(to_json(payload))
    assert ("id" in row) == (queue == SECRET)


def test_a_sealed_row_shows_the_key_and_nothing_of_the_payload() -> None:
    row = sealer(NEW).new_row(NewJob(SECRET, {"chatId": "19:abc", "content": "gate 3"}))
    assert set(row["payload"]) == {"key", "$sealed"} and row["payload"]["key"] == key_id(NEW)
    raw = base64.b64decode(row["payload"]["$sealed"])
    assert b"gate" not in raw and b"chatId" not in raw


def test_a_payload_is_bound_to_its_job_and_its_queue() -> None:
    one, other = (sealer(NEW).new_row(NewJob(SECRET, {"n": n})) for n in (1, 2))
    for row in ({**one, "payload": other["payload"]}, {**one, "id": other["id"]}):
        moved = read(row, sealer(NEW))
        assert isinstance(moved, Unreadable) and moved.key_id is None and "something else" in moved.reason
    assert isinstance(read(one, sealer(NEW), "another queue"), Unreadable)
    schedule = {**one, "payload": sealer(NEW).seal(SECRET, of_schedule("report"), {"n": 1})}
    assert isinstance(read(schedule, sealer(NEW)), Unreadable)


def test_a_redrive_opens_what_it_repeats() -> None:
    first = sealer(NEW).new_row(NewJob(SECRET, {"n": 1}))
    again = sealer(NEW).new_row(NewJob(SECRET, {"n": 1}, redrive_of=UUID(first["id"])))
    assert again["id"] != first["id"]
    assert read({**again, "id": first["id"]}, sealer(NEW)) == {"n": 1}


def test_a_key_that_is_not_here_can_still_come() -> None:
    row = sealer(NEW).new_row(NewJob(SECRET, {"n": 1}))
    missing = read(row, sealer(OLD))
    assert isinstance(missing, Unreadable) and missing.key_id == key_id(NEW) and key_id(NEW) in missing.reason
    assert read(row, sealer(OLD, NEW)) == {"n": 1}


def test_without_any_key_nothing_is_sealed_and_what_is_sealed_waits() -> None:
    def none() -> KeyRing:
        raise UnknownKeyError("ENCRYPTION_KEY: it is not set")

    row = sealer(NEW).new_row(NewJob(SECRET, {"n": 1}))
    for without in (Sealer([SECRET], none), Sealer([SECRET])):
        with pytest.raises(StoreUnavailableError, match="cannot be sealed"):
            without.new_row(NewJob(SECRET, {"n": 1}))
        assert without.new_row(NewJob(OPEN, {"n": 1})) == {"payload": {"n": 1}}
        waiting = read(row, without)
        assert isinstance(waiting, Unreadable) and waiting.key_id == key_id(NEW)


def test_every_flipped_bit_and_a_forged_flag_are_found() -> None:
    payload = {"n": "a text that is compressed " * 100}
    row = sealer(NEW).new_row(NewJob(SECRET, payload))
    assert row["payload"]["zip"] is True and read(row, sealer(NEW)) == payload
    raw = base64.b64decode(row["payload"]["$sealed"])
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]
        broken = {**row["payload"], "$sealed": base64.b64encode(changed).decode()}
        assert isinstance(read({**row, "payload": broken}, sealer(NEW)), Unreadable)
    flag = {name: value for name, value in row["payload"].items() if name != "zip"}
    assert isinstance(read({**row, "payload": flag}, sealer(NEW)), Unreadable)


BROKEN = [
    {"$sealed": 5, "key": key_id(NEW)},
    {"$sealed": None, "key": key_id(NEW)},
    {"$sealed": "not base64!", "key": key_id(NEW)},
    {"$sealed": "", "key": key_id(NEW)},
    {"$sealed": "AAAA"},
    {"$sealed": "AAAA", "key": 5},
    {"$sealed": "AAAA", "key": key_id(NEW), "zip": "yes"},
    {"$sealed": "AAAA", "key": key_id(NEW), "chatId": "x"},
    {"$zip": "AAAA"},
    {"$zip": 5},
    {"$zip": base64.b64encode(zlib.compress(b"{}")).decode(), "chatId": "x"},
    {"$zip": base64.b64encode(zlib.compress(b"{}")[:-1]).decode()},
    {"$zip": base64.b64encode(zlib.compress(b"{}") + b"more").decode()},
    {"$zip": base64.b64encode(zlib.compress(b"\xff\xfe")).decode()},
    {"$zip": base64.b64encode(zlib.compress(b"[]")).decode()},
]


@pytest.mark.parametrize("envelope", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_envelope_is_never_read(envelope: dict[str, Any]) -> None:
    broken = read({"payload": envelope}, sealer(NEW))
    assert isinstance(broken, Unreadable) and broken.key_id is None
    assert sealer(NEW).show(b"", envelope) == envelope | {"problem": broken.reason}


def test_the_marks_inside_a_payload_are_ordinary_text() -> None:
    payload = {"content": '"$sealed" and "$zip"', "deep": {"$sealed": "x", "$zip": "y"}}
    assert read({"payload": payload}, sealer(NEW)) == payload == sealer(NEW).show(b"", payload)


def test_large_payloads_are_compressed_and_only_when_that_helps() -> None:
    words = {"body": "tyres and gates " * 20_000}
    row = sealer(NEW).new_row(NewJob(OPEN, words))
    assert set(row["payload"]) == {"$zip"} and len(to_json(row)) < len(to_json(words)) / 10
    assert read(row, sealer(NEW), OPEN) == words == sealer(NEW).show(b"", row["payload"])
    noise = {"body": KeyRing(NEW).seal(b"", bytes(300_000)).ciphertext.hex(), "n": 1}
    noise["body"] = base64.b85encode(bytes.fromhex(str(noise["body"]))).decode()
    assert sealer(NEW).new_row(NewJob(OPEN, noise)) == {"payload": noise}


@pytest.mark.parametrize(("character", "bytes_each"), [("a", 1), ("é", 2), ("\U0001f69a", 4), ("\x01", 6), ('"', 2)])
def test_the_border_counts_bytes_of_json(character: str, bytes_each: int) -> None:
    room = ZIP_ABOVE_BYTES - len('{"t":""}')
    small = {"t": character * (room // bytes_each)}
    assert sealer(NEW).new_row(NewJob(OPEN, small)) == {"payload": small}
    large = {"t": character * (room // bytes_each + 1)}
    assert set(sealer(NEW).new_row(NewJob(OPEN, large))["payload"]) == {"$zip"}


def test_the_largest_payload_goes_through_and_a_bomb_is_not_blown_up() -> None:
    largest = {"t": "x" * (LARGEST_PAYLOAD_BYTES - 8)}
    for queue in (OPEN, SECRET):
        assert read(sealer(NEW).new_row(NewJob(queue, largest)), sealer(NEW), queue) == largest
    bomb = base64.b64encode(zlib.compress(b"{" + b" " * 10 * LARGEST_OPENED_BYTES + b"}")).decode()
    blown = read({"payload": {"$zip": bomb}}, sealer(NEW))
    assert isinstance(blown, Unreadable) and "larger than" in blown.reason
