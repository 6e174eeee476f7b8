"""A tiny server that answers exactly what a test scripts, byte by byte where it must."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from shared.graph.client import GraphClient
from shared.graph.session import GraphSession

#: Called with the connected socket after the request was read; what it sends is the answer.
Act = Callable[[socket.socket], None]


def answer(status: int, body: str | bytes = b"", **headers: str) -> Act:
    """A whole answer with Content-Length; header names have _ for -."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Text", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda sock: sock.sendall("\r\n".join([*lines, "", ""]).encode() + data)


def raw(*parts: bytes) -> Act:
    """These bytes, then the end of the connection."""

    def act(sock: socket.socket) -> None:
        for part in parts:
            sock.sendall(part)
        sock.shutdown(socket.SHUT_RDWR)

    return act


class Script:
    """Answers each request with the next act; keeps the requests. Listens on loopback."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def then(self, *acts: Act) -> None:
        self.acts.extend(acts)

    def stop(self) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(0.2)
            while not self.stopping.is_set():
                try:
                    request = self._read(sock)
                    if request is None:
                        return
                    self.requests.append(request)
                    self.acts.pop(0)(sock)
                except OSError:
                    return

    def _read(self, sock: socket.socket) -> tuple[str, dict[str, str], bytes] | None:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self._receive(sock)
            if not chunk:
                return None
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += self._receive(sock)
        return first.rsplit(" ", 1)[0], headers, body

    def _receive(self, sock: socket.socket) -> bytes:
        while not self.stopping.is_set():
            try:
                return sock.recv(65536)
            except TimeoutError:
                continue
        return b""


class Tokens:
    """A TokenSource that counts: token-1, then one more for each refusal."""

    def __init__(self) -> None:
        self.number = 1
        self.asked: list[tuple[str | None, str | None]] = []

    def token(self, *, refused: str | None = None, claims: str | None = None) -> str:
        if refused is not None:
            self.asked.append((refused, claims))
            self.number += 1
        return f"token-{self.number}"


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.stop()


@pytest.fixture
def session() -> Iterator[GraphSession]:
    with GraphSession(connect_seconds=0.5, read_seconds=0.4, total_seconds=0.9) as session:
        yield session


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def client(script: Script, session: GraphSession, tokens: Tokens) -> GraphClient:
    return GraphClient(session, tokens, f"{script.url}/v1.0")
