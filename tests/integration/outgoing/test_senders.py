"""Signed webhooks and push against servers that check signatures themselves."""

from __future__ import annotations

import base64
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from local.fake_graph.hubs import HUB, KEY, KEY_NAME
from local.fake_graph.process import FakeGraph
from local.fake_graph.receivers import SECRET
from shared.graph.errors import AnswerLost, GraphError, GraphTimeout, GraphUnreachable
from shared.http_session import HttpSession
from shared.outgoing.addresses import PublicAddresses
from shared.outgoing.hubs import Hub, NotificationHub
from shared.outgoing.session import ANSWER_BYTES, PublicSession
from shared.outgoing.webhooks import Endpoint, WebhookSender

KEY_BYTES = base64.b64decode(SECRET.removeprefix("whsec_"))
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGraph]:
    with FakeGraph(tmp_path_factory.mktemp("graph")) as graph:
        yield graph


@pytest.fixture
def graph(server: FakeGraph) -> FakeGraph:
    server.reset()
    return server


def session(graph: FakeGraph, *, also: Any = LOOPBACK) -> PublicSession:
    return PublicSession(PublicAddresses(also), ca_file=str(graph.ca_file), read_seconds=1, total_seconds=2)


def send(
    graph: FakeGraph, session_: PublicSession, keys: tuple[bytes, ...] = (KEY_BYTES,), path: str = "fleet"
) -> None:
    endpoint = Endpoint("fleet", f"{graph.base_url}/receivers/{path}", keys)
    WebhookSender(session_).send(endpoint, "message-1", b'{"type": "trip.late"}', datetime.now(UTC))


def test_a_receiver_that_checks_signatures_takes_each_message_once(graph: FakeGraph) -> None:
    with session(graph) as http:
        send(graph, http)
        send(graph, http)
        send(graph, http, keys=(b"another key, of a rotation", KEY_BYTES))
        with pytest.raises(GraphError) as caught:
            send(graph, http, keys=(b"only another key of somebody",))
    assert caught.value.status == 401
    assert graph.control("GET", "received/fleet") == [{"type": "trip.late", "id": "message-1"}]


def test_the_specifications_own_library_verifies_what_we_sign(graph: FakeGraph) -> None:
    with session(graph) as http:
        send(graph, http)
    [request] = graph.requests()
    body = json.dumps(request["body"])
    assert Webhook(SECRET).verify(body, request["headers"]) == {"type": "trip.late"}


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ({"kind": "status", "status": 410}, GraphError),
        ({"kind": "status", "status": 429, "headers": {"Retry-After": "30"}}, GraphError),
        ({"kind": "status", "status": 302, "headers": {"Location": "http://169.254.169.254/"}}, AnswerLost),
        ({"kind": "lose-answer"}, AnswerLost),
        ({"kind": "delay", "seconds": 3}, GraphTimeout),
    ],
)
def test_failures_are_told_apart_and_never_name_the_address(graph: FakeGraph, fault: Any, failure: type) -> None:
    graph.control("POST", "faults", {"match": {"path": "/receivers/"}, "times": 1, "fault": fault})
    with session(graph) as http, pytest.raises(failure) as caught:
        send(graph, http, path="secret-path")
    assert "secret-path" not in str(caught.value)
    if "headers" in fault and fault["status"] == 429:
        assert caught.value.retry_after.total_seconds() == 30  # type: ignore[attr-defined]


def test_an_endpoint_inside_our_network_gets_no_connection(graph: FakeGraph) -> None:
    with session(graph, also=()) as http, pytest.raises(GraphUnreachable):
        send(graph, http)
    assert graph.requests() == []


def test_a_name_that_resolves_anew_is_connected_to_where_it_was_checked(
    graph: FakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check and the connection share one answer of the resolver (no rebinding in between)."""
    asked = 0
    resolve = socket.getaddrinfo

    def once(host: Any, *rest: Any, **options: Any) -> Any:
        nonlocal asked
        if host == "localhost":
            asked += 1
            return resolve("127.0.0.1", *rest, **options)
        return resolve(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", once)
    with session(graph) as http:
        url = f"https://localhost:{graph.port}/receivers/fleet"
        WebhookSender(http).send(Endpoint("fleet", url, (KEY_BYTES,)), "m", b"{}", datetime.now(UTC))
    assert asked == 1


def test_a_name_that_does_not_resolve_in_time_holds_nobody(graph: FakeGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the other steps keep to the deadline: tests/unit/test_http_connection.py."""
    released, ended = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        released.wait(30)
        ended.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with PublicSession(PublicAddresses(LOOPBACK), connect_seconds=10, total_seconds=0.3) as http:
        started = time.monotonic()
        with pytest.raises(GraphTimeout) as caught:
            send(graph, http)
    assert not caught.value.sent and time.monotonic() - started < 5
    released.set()
    assert ended.wait(5)


def test_an_endless_answer_is_cut_off() -> None:
    with endless() as port, PublicSession(PublicAddresses(LOOPBACK), total_seconds=5) as http:
        response = http.request("POST", f"http://127.0.0.1:{port}/", data=b"{}")
    assert len(response.content) == ANSWER_BYTES


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"Content-Length: 100\r\n\r\nabc", AnswerLost),
        (b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", AnswerLost),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", AnswerLost),
        (None, GraphTimeout),
    ],
)
def test_a_body_that_breaks_off_is_a_lost_answer(answer: bytes | None, failure: type[Exception]) -> None:
    with serving(answer) as port, PublicSession(PublicAddresses(LOOPBACK), read_seconds=0.2) as http:
        url = f"http://127.0.0.1:{port}/secret-path"
        with pytest.raises(failure) as caught:
            WebhookSender(http).send(Endpoint("fleet", url, (KEY_BYTES,)), "m", b"{}", datetime.now(UTC))
    assert "secret-path" not in str(caught.value)


@contextmanager
def endless() -> Iterator[int]:
    """A server that answers without an end."""
    with serving(b"\r\n", forever=b"x" * 65536) as port:
        yield port


@contextmanager
def serving(answer: bytes | None, forever: bytes = b"") -> Iterator[int]:
    """A server that answers one request with 200 and this, and then without an end; None: it falls silent instead."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + (answer or b"Content-Length: 9\r\n\r\n"))
            try:
                while forever:
                    connection.sendall(forever)
                while answer is None and connection.recv(65536):
                    pass  # until the other side gives up
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


def hub(graph: FakeGraph, key: str = KEY, clock: Any = time.time) -> NotificationHub:
    return NotificationHub(
        HttpSession(ca_file=str(graph.ca_file)), Hub(f"{graph.base_url}/hubs", HUB, KEY_NAME, key), clock
    )


def test_push_reaches_the_users_devices_by_tag(graph: FakeGraph) -> None:
    notice_id = hub(graph).send("alex.driver@fleet.example", {"title": "Tor 7 frei ☕", "body": ""})
    [notice] = graph.control("GET", "push-notices")
    assert notice["id"] == notice_id and notice["title"] == "Tor 7 frei ☕"
    assert notice["tags"] == "$UserId:{alex.driver@fleet.example}"


def test_a_wrong_key_and_a_wrong_clock_are_refused_by_name(graph: FakeGraph) -> None:
    for broken in (hub(graph, key="wrong"), hub(graph, clock=lambda: time.time() - 3600)):
        with pytest.raises(GraphError) as caught:
            broken.send("alex", {"title": "x"})
        assert caught.value.status == 401 and "SharedAccessSignature" not in str(caught.value)


def test_secrets_are_in_no_representation(tmp_path: Path) -> None:
    shown = repr(Hub("https://x", "h", "name", "the-key")) + repr(Endpoint("n", "https://x/secret", (b"the-key",)))
    assert "the-key" not in shown and "secret" not in shown
