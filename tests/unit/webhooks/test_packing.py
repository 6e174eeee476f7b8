"""Items travel in as few messages as fit, in ASCII, whole, and without their secret."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.graph.notifications import LARGEST_MESSAGE_BYTES, item_text, pack, read_items

AT = "2026-11-25T08:00:00+00:00"


def item(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"subscriptionId": "s1", "clientState": "secret", "resource": f"users/u/messages/{number}"} | more


def unpacked(messages: list[str]) -> list[Any]:
    return [each for message in messages for each in json.loads(message)["notifications"]]


def test_a_hundred_usual_items_take_two_messages() -> None:
    items = [item(n, encryptedContent=None, padding="x" * 500) for n in range(100)]
    messages, unfit = pack(items, AT)
    assert (len(messages), unfit) == (2, 0)
    assert [each["resource"] for each in unpacked(messages)] == [each["resource"] for each in items]


def test_no_items_make_no_message() -> None:
    assert pack([], AT) == ([], 0)


def test_the_secret_does_not_travel() -> None:
    messages, _ = pack([item()], AT)
    assert "secret" not in messages[0]
    assert json.loads(messages[0])["receivedAt"] == AT


def test_an_item_that_is_too_large_alone_loses_its_encrypted_content_only() -> None:
    messages, unfit = pack([item(1, encryptedContent={"data": "x" * 60_000}, id="a"), item(2)], AT)
    assert unfit == 0
    assert unpacked(messages)[0] == {"subscriptionId": "s1", "resource": "users/u/messages/1", "id": "a"}


def test_an_item_that_is_too_large_all_the_same_is_counted_and_the_others_go() -> None:
    messages, unfit = pack([item(1), item(2, junk="x" * 60_000), item(3)], AT)
    assert unfit == 1
    assert [each["resource"][-1] for each in unpacked(messages)] == ["1", "3"]


def test_a_number_that_is_none_costs_only_its_item() -> None:
    items = read_items(b'{"value": [{"a": 1e999}, {"a": 1}]}')
    messages, unfit = pack(items, AT)
    assert (unpacked(messages), unfit) == ([{"a": 1}], 1)


@pytest.mark.parametrize("text", ["\x00\x01\x0b", "\ufffe\uffff", "\ud83d", "😀" * 1000, "<&>" * 2000, "\u2028"])
def test_any_text_comes_through_unchanged_as_plain_ascii(text: str) -> None:
    messages, unfit = pack([item(subject=text)], AT)
    assert unfit == 0
    assert messages[0].isascii()
    assert not any(ord(character) < 32 for character in messages[0])
    assert escape(messages[0]) == messages[0], "it must not grow in the XML of a put"
    assert unpacked(messages)[0]["subject"] == text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50_000), max_size=12))
def test_no_message_is_too_large_and_neighbours_would_not_have_fitted_together(sizes: list[int]) -> None:
    messages, unfit = pack([item(n, padding="x" * size) for n, size in enumerate(sizes)], AT)
    assert all(len(message) <= LARGEST_MESSAGE_BYTES for message in messages)
    assert len(unpacked(messages)) + unfit == len(sizes)
    for one, two in pairwise(messages):
        first = json.dumps(json.loads(two)["notifications"][0], separators=(",", ":"))
        assert len(one) + 1 + len(first) > LARGEST_MESSAGE_BYTES


def test_an_item_that_fills_its_message_exactly_is_kept() -> None:
    room = LARGEST_MESSAGE_BYTES - len(json.dumps({"notifications": [], "receivedAt": AT}, separators=(",", ":")))
    frame = len(item_text({"p": ""}) or "")
    messages, unfit = pack([{"p": "x" * (room - frame)}], AT)
    assert (len(messages[0]), unfit) == (LARGEST_MESSAGE_BYTES, 0)
    assert pack([{"p": "x" * (room - frame + 1)}], AT) == ([], 1)


def test_a_body_with_a_byte_order_mark_is_read() -> None:
    assert read_items(b"\xef\xbb\xbf" + b'{"value": [1]}') == [1]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"5", b"null", b'"x"', b"{}", b'{"value": null}', b'{"value": {}}', b'{"value": "x"}', b"{",
        b'{"value": [NaN]}', b'{"value": [' + b"9" * 5000 + b"]}", b"[" * 100_000, b"\xff\xfe", b"\x80",
        '{"value": []}'.encode("utf-16"),
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_whatever_is_not_graphs_form_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds, all of them told to the caller as 400
        read_items(body)
