"""Upload sessions: what their answers mean, and that what is kept of them opens for nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from shared.graph.errors import AnswerLost, GraphError, UploadGone
from shared.graph.uploads import MOST_LOOKS, UploadClient, UploadUrls
from shared.sealing import KeyRing

URL = "https://outlook.office.com/api/v2.0/x?authtoken=SECRET"
KEYS = KeyRing(bytes(32))


class Session:
    """Answers as it is told; keeps the requests."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str | None]] = []

    def request(self, method: str, url: str, **more: Any) -> requests.Response:
        self.requests.append((method, more["headers"].get("Content-Range")))
        status, body = self.answers.pop(0)
        if status == 0:
            raise requests.ConnectionError("cut")
        response = requests.Response()
        response.status_code = status
        response._content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return response


def client(session: Session) -> UploadClient:
    return UploadClient(session, "https://graph.microsoft.com/v1.0")  # type: ignore[arg-type]


def expect(start: Any) -> tuple[int, Any]:
    return 200, {"nextExpectedRanges": [start]}


def send(*answers: tuple[int, Any], total: int = 10, chunk: int = 4) -> Session:
    session = Session(*answers)
    client(session).send(URL, lambda at, size: b"x" * size, total, chunk=chunk)
    assert session.answers == []
    return session


@pytest.mark.parametrize("start", ["26", "26-", "26-99", " 26-"])
def test_the_next_byte_is_read_in_every_form(start: str) -> None:
    assert client(Session(expect(start))).next_byte(URL) == 26
    assert client(Session((200, {"NextExpectedRanges": ["99-", start]}))).next_byte(URL) == 26


@pytest.mark.parametrize("body", [b"", b"[]", {"nextExpectedRanges": []}, {"nextExpectedRanges": "26"}, b"<html>"])
def test_a_state_that_says_nothing_is_a_session_that_is_gone(body: Any) -> None:
    with pytest.raises(UploadGone):
        client(Session((200, body))).next_byte(URL)


def test_chunks_follow_what_the_session_says() -> None:
    session = send(expect("4"), expect("6-"), (201, b""))
    assert session.requests == [("PUT", "bytes 0-3/10"), ("PUT", "bytes 4-7/10"), ("PUT", "bytes 6-9/10")]


def test_202_goes_on_and_200_without_ranges_is_the_end_as_on_drives() -> None:
    session = send((202, {"nextExpectedRanges": ["4-9"]}), (202, {"nextExpectedRanges": ["8-"]}), (200, {"id": "1"}))
    assert [one[1] for one in session.requests] == ["bytes 0-3/10", "bytes 4-7/10", "bytes 8-9/10"]


def test_a_range_at_the_end_is_not_the_end() -> None:
    """The session has all bytes and does not say that the file is whole: it is asked, and then given up for now."""
    with pytest.raises(AnswerLost):
        send(*[expect("10") for _ in range(MOST_LOOKS + 1)])


def test_a_session_that_does_not_move_on_is_given_up_for_now() -> None:
    with pytest.raises(AnswerLost):
        send(*[expect("0") for _ in range(MOST_LOOKS + 1)])


def test_a_session_that_answers_only_errors_is_given_up_for_now() -> None:
    answers: list[tuple[int, Any]] = [(503, {}), expect("0")] * MOST_LOOKS
    with pytest.raises(GraphError):
        send(*answers, (503, {}))


@pytest.mark.parametrize("lost", [(0, b""), (500, {}), (416, {}), (409, {}), (202, {})])
def test_after_a_chunk_without_a_good_answer_the_session_is_asked(lost: tuple[int, Any]) -> None:
    session = send(lost, expect("4"), expect("8"), (201, b""))
    assert [method for method, _ in session.requests] == ["PUT", "GET", "PUT", "PUT"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_session_that_is_gone_is_told_as_such(status: int) -> None:
    with pytest.raises(UploadGone):
        send((status, {"error": {"code": "x", "message": URL}}))
    client(Session((status, b""))).cancel(URL)


def test_no_failure_repeats_the_address_even_when_the_answer_does() -> None:
    error = {"error": {"code": "BadRequest", "message": f"cannot take {URL}"}}
    with pytest.raises(GraphError) as caught:
        send((400, error))
    assert "SECRET" not in str(caught.value) and caught.value.code == "BadRequest"


@given(st.text(min_size=1), st.text())
def test_what_is_kept_opens_only_for_what_it_is_for(purpose: str, other: str) -> None:
    urls = UploadUrls(KEYS)
    kept = urls.seal(URL, purpose)
    assert "SECRET" not in json.dumps(kept)
    assert urls.open(kept, purpose) == URL
    assert other == purpose or urls.open(kept, other) is None


@pytest.mark.parametrize("kept", [None, "x", {}, {"key": "k", "sealed": "@@@"}, {"key": 1, "sealed": None}])
def test_what_cannot_be_opened_is_as_if_it_were_not_kept(kept: Any) -> None:
    assert UploadUrls(KEYS).open(kept, "p") is None
    other = UploadUrls(KeyRing(b"\1" * 32)).seal(URL, "p")
    assert UploadUrls(KEYS).open(other, "p") is None
