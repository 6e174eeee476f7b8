"""Items travel in as few messages as fit, in ASCII, whole, and without their secret."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.graph.notifications import LARGEST_MESSAGE_BYTES, item_text, pack, read_delivery

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
    items = read_delivery(b'{"value": [{"a": 1e999}, {"a": 1}]}').items
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


@settings(max_examples=60)
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
    assert read_delivery(b"\xef\xbb\xbf" + b'{"value": [1]}').items == [1]


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
        read_delivery(body)


def tokens_of(message: str) -> list[str]:
    return list(json.loads(message)["validationTokens"])


def test_every_message_of_a_delivery_carries_its_tokens_and_has_its_usual_size() -> None:
    tokens = ["eyJ." + "t" * 2000]
    items = [item(n, encryptedContent={"data": "x" * 9000}) for n in range(12)]
    messages, unfit = pack(items, AT, tokens)
    assert (unfit, len(messages)) == (0, 3)
    assert all(tokens_of(message) == tokens and len(message) <= LARGEST_MESSAGE_BYTES for message in messages)
    assert all("encryptedContent" in each for each in unpacked(messages))


def test_without_tokens_a_message_has_no_place_for_them() -> None:
    assert "validationTokens" not in json.loads(pack([item()], AT)[0][0])


def test_tokens_that_take_too_much_room_are_left_out_with_the_data_that_they_vouch_for() -> None:
    messages, unfit = pack([item(1, encryptedContent={"data": "x"}), item(2)], AT, ["t" * 20_000])
    assert unfit == 0
    assert "validationTokens" not in json.loads(messages[0])
    assert [each["resource"][-1] for each in unpacked(messages)] == ["1", "2"]
    assert not any("encryptedContent" in each for each in unpacked(messages))


@pytest.mark.parametrize("tokens", ["text", 5, {"a": 1}, [5], [["x"]]], ids=repr)
def test_tokens_of_another_form_are_not_graphs(tokens: Any) -> None:
    body = json.dumps({"value": [], "validationTokens": tokens}).encode()
    with pytest.raises(ValueError, match="validationTokens"):
        read_delivery(body)


def test_tokens_may_be_missing_null_or_empty() -> None:
    for tokens in (None, [], [None, ""]):
        assert read_delivery(json.dumps({"value": [], "validationTokens": tokens}).encode()).tokens == []
