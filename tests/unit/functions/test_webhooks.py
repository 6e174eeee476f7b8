"""The webhook's HTTP side: handshakes, refusals, and what a delivery is answered with."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any
from urllib.parse import parse_qs

import azure.functions as func
import pytest

from functions import webhooks
from functions.apart import THREADS, run_apart
from functions.webhooks import LARGEST_DELIVERY_BYTES
from shared.engine.errors import TransportUnavailableError
from shared.handlers.intake import DeliveryError
from tests.unit.functions.requests import assert_problem, request

TOKEN = "Validation: Testing client application reachability for subscription Request-Id: 11111111-1111-1111-1111-1111"


def take_notifications(req: func.HttpRequest) -> func.HttpResponse:
    """As the worker calls it."""
    response: func.HttpResponse = asyncio.run(webhooks.take_notifications(req))
    return response


def take_lifecycle_notifications(req: func.HttpRequest) -> func.HttpResponse:
    response: func.HttpResponse = asyncio.run(webhooks.take_lifecycle_notifications(req))
    return response


ROUTES = [take_notifications, take_lifecycle_notifications]


class FakeIntake:
    """Records what it is given; raises `error` if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.bodies: list[bytes] = []

    def take(self, body: bytes, until: float) -> None:
        self.bodies.append(body)
        if self.error:
            raise self.error

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def intake(built: dict[str, Any]) -> FakeIntake:
    built["intake"] = intake = FakeIntake()
    return intake


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["validationToken", "validationtoken", "VALIDATIONTOKEN"])
def test_a_handshake_answers_the_token_as_plain_text_without_any_settings(route: Any, name: str) -> None:
    response = route(request(params={name: TOKEN}, headers={"content-type": "text/plain; charset=utf-8"}))
    assert response.status_code == 200
    assert response.get_body() == TOKEN.encode()
    assert (response.mimetype, response.charset) == ("text/plain", "utf-8")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_delivery_is_taken_while_askers_hang_on_all_threads_of_theirs(intake: FakeIntake) -> None:
    hanging, go_on = threading.Semaphore(0), threading.Event()

    def hang() -> None:
        hanging.release()
        go_on.wait(10)

    async def deliver() -> func.HttpResponse:
        askers = [asyncio.create_task(run_apart("people", hang)) for _ in range(2 * THREADS)]
        await asyncio.to_thread(lambda: [hanging.acquire(timeout=10) for _ in range(THREADS)])
        taken: func.HttpResponse = await webhooks.take_notifications(request("POST", body=b"{}"))
        assert not go_on.is_set()
        go_on.set()
        await asyncio.gather(*askers)
        return taken

    assert asyncio.run(deliver()).status_code == 202


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("Validation%3a+Testing+client%3A", "Validation: Testing client:"),
        ("a%2Bb", "a+b"),
        ("a%252Bb", "a%2Bb"),
        ("100%25", "100%"),
        ("%C3%A9%F0%9F%98%80", "é😀"),
    ],
)
def test_the_token_is_decoded_exactly_once(sent: str, expected: str) -> None:
    given = parse_qs(f"validationToken={sent}", strict_parsing=True)["validationToken"][0]  # as the host does
    assert take_notifications(request(params={"validationToken": given})).get_body().decode() == expected


def test_a_handshake_comes_before_any_look_at_the_body(intake: FakeIntake) -> None:
    response = take_notifications(request(params={"validationToken": "t"}, body=b"\xff not json"))
    assert response.status_code == 200
    assert intake.bodies == []


@pytest.mark.parametrize(
    "token",
    [
        "<script>alert(1)</script>",
        "a<b",
        "a>b",
        "x" * 2049,
        "é" * 1025,
        "a\r\nSet-Cookie: x",
        "\x00",
        "\ud83d",
        "x" * 100_000,
    ],
    ids=lambda token: repr(token[:12]),
)
def test_markup_control_characters_and_very_long_tokens_are_refused_and_not_repeated(token: str) -> None:
    response = take_notifications(request(params={"validationToken": token}))
    assert_problem(response, 400)
    assert token.encode("utf-8", "replace") not in response.get_body()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("route", ROUTES)
def test_other_methods_are_answered_405_even_with_a_token(route: Any, method: str) -> None:
    response = route(request(method, params={"validationToken": "<b>"}))
    assert_problem(response, 405)
    assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize("route", ROUTES)
def test_a_delivery_that_is_durable_is_answered_202_on_either_address(route: Any, intake: FakeIntake) -> None:
    response = route(request(body=b'{"value": []}', headers={"content-type": "application/json;charset='utf-8'"}))
    assert (response.status_code, response.get_body()) == (202, b"")
    assert intake.bodies == [b'{"value": []}']


def test_a_delivery_that_is_not_wholly_queued_is_answered_503_so_that_graph_repeats_it(built: dict[str, Any]) -> None:
    built["intake"] = FakeIntake(TransportUnavailableError("away: AccountKey=hidden"))
    response = take_notifications(request(body=b'{"value": []}'))
    assert_problem(response, 503)
    assert b"hidden" not in response.get_body()


def test_a_delivery_of_another_form_is_answered_400(built: dict[str, Any]) -> None:
    built["intake"] = FakeIntake(DeliveryError('the body must be an object with a list in "value"'))
    assert_problem(take_notifications(request(body=b"[]")), 400)


def test_a_delivery_over_the_limit_is_refused_unread(intake: FakeIntake) -> None:
    assert_problem(take_notifications(request(body=b" " * (LARGEST_DELIVERY_BYTES + 1))), 413)
    assert intake.bodies == []


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "gzip, identity"])
def test_a_compressed_delivery_is_refused_unread(intake: FakeIntake, encoding: str) -> None:
    assert_problem(take_notifications(request(body=b"\x1f\x8b", headers={"Content-Encoding": encoding})), 415)
    assert intake.bodies == []


def test_without_a_webhook_secret_nothing_is_taken_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    response = take_notifications(request(body=b'{"value": []}'))
    assert_problem(response, 503)
    assert "WEBHOOK_SECRET" not in response.get_body().decode(), "settings are nobody's business outside"
    assert any("WEBHOOK_SECRET" in getattr(r, "error", "") and r.levelno == logging.ERROR for r in caplog.records)


def test_a_short_webhook_secret_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", "x" * 31)
    monkeypatch.setenv("QueueStorage", "UseDevelopmentStorage=true")
    assert_problem(take_notifications(request(body=b'{"value": []}')), 503)


def test_a_key_in_the_query_reaches_no_log(intake: FakeIntake, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    intake.error = TransportUnavailableError("away")
    take_notifications(
        request(body=b"{}", params={"code": "SECRET-KEY-1234"}, path="/webhooks/graph?code=SECRET-KEY-1234")
    )
    assert "SECRET-KEY-1234" not in " ".join(str(vars(record)) for record in caplog.records)


def test_the_handlers_can_be_called_with_plain_requests() -> None:
    assert isinstance(take_notifications(func.HttpRequest("GET", "/", body=b"")), func.HttpResponse)
