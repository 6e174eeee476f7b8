"""Every step of a call ends by the call's deadline: look-up, connect, TLS, sending. Sockets are real."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import requests

from shared import http_connection
from shared.graph.errors import GraphCall, GraphTimeout, GraphUnreachable
from shared.graph.exchange import exchange
from shared.http_session import HttpSession

LONG = 30.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def session(total: float, *addresses: str, connect: float = LONG) -> HttpSession:
    """Every name leads to these addresses."""
    return HttpSession(
        connect_seconds=connect, read_seconds=LONG, total_seconds=total, resolve=lambda host, port: addresses
    )


def call(http: HttpSession, port: int, scheme: str = "http", body: bytes = b"{}") -> requests.Response:
    return exchange(http, GraphCall("POST", "x", "id"), f"{scheme}://receiver.example:{port}/", headers={}, body=body)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@contextmanager
def listening(address: str, port: int = 0, *, full: bool = False) -> Iterator[int]:
    """Accepts connections and says nothing; `full`: its queue takes no more, so that a connect waits."""
    with ExitStack() as steps:
        listener = steps.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0 if full else 16)
        port = listener.getsockname()[1]
        for _ in range(4 if full else 0):
            filler = steps.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield port


@contextmanager
def answering(address: str, port: int) -> Iterator[None]:
    with socket.create_server((address, port)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(ANSWER)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(5)


def test_addresses_that_do_not_answer_share_the_time_that_there_is() -> None:
    dead = [f"127.0.0.{number}" for number in range(1, 7)]
    with listening("0.0.0.0", full=True) as port, session(1.0, *dead) as http, within(3):
        with pytest.raises(GraphTimeout) as caught:
            call(http, port)
    assert not caught.value.sent


def test_one_dead_address_does_not_use_up_the_time_of_the_next() -> None:
    with listening("127.0.0.2", full=True) as port, answering("127.0.0.1", port):
        with session(LONG, "127.0.0.2", "127.0.0.1", connect=1.0) as http, within(3):
            assert call(http, port).json() == {}


def test_a_few_addresses_are_tried_and_the_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(address: tuple[str, int], *_: object) -> socket.socket:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with session(LONG, *(f"::{n}" for n in range(1, 9)), "127.0.0.1", "127.0.0.2") as http:
        with pytest.raises(GraphUnreachable):
            call(http, 9)
    assert tried == ["::1", "127.0.0.1", "::2", "127.0.0.2"]


def test_a_resolver_that_does_not_answer_holds_nobody() -> None:
    """Late look-ups count until they end; when all places are taken, the next call waits for one no longer."""
    released, ended = threading.Event(), threading.Semaphore(0)

    def hang(host: str, port: int) -> Sequence[str]:
        released.wait(LONG)
        ended.release()
        return ()

    with HttpSession(total_seconds=0.2, resolve=hang) as http:
        try:
            for _ in range(2):
                with within(2), pytest.raises(GraphTimeout) as caught:
                    call(http, 9)
                assert not caught.value.sent
            taken = http_connection.MOST_LOOKUPS - 2
            assert [http_connection._lookups.acquire(timeout=1) for _ in range(taken)] == [True] * taken
            with within(2), pytest.raises(GraphTimeout, match="no connection"):
                call(http, 9)
            for _ in range(taken):
                http_connection._lookups.release()
        finally:
            released.set()
    assert [ended.acquire(timeout=5) for _ in range(2)] == [True, True]
    with listening("127.0.0.1") as port:
        pass
    with session(LONG, "127.0.0.1") as http, pytest.raises(GraphUnreachable):
        call(http, port)


def test_a_name_that_is_none_cannot_be_reached() -> None:
    with HttpSession() as http, pytest.raises(GraphUnreachable):
        exchange(http, GraphCall("GET", "x", "id"), f"http://{'a' * 64}.example/", headers={})


def test_a_peer_that_is_silent_in_the_handshake_ends_at_the_deadline() -> None:
    with listening("127.0.0.1") as port, session(0.5, "127.0.0.1") as http, within(3), pytest.raises(GraphTimeout):
        call(http, port, "https")


def test_a_peer_that_takes_no_bytes_ends_at_the_deadline() -> None:
    body = b"x" * 64_000_000
    with listening("127.0.0.1") as port, session(0.5, "127.0.0.1") as http, within(4):
        with pytest.raises(GraphTimeout) as caught:
            call(http, port, body=body)
    assert caught.value.sent
