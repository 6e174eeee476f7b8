"""HTTP connections of which every step ends by the deadline of its call: look-up, connect, TLS, sending, answer.

`requests` limits each wait on the socket, not their sum: a server that sends a byte now and then would hold a
thread for ever. So the connection reads its answers (head and body) through a file that knows the call's
deadline. A look-up of a name cannot be ended; it has a thread of its own, which is left behind when it is late.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import zip_longest
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

#: The addresses of a host and port. Raises socket.gaierror, or another OSError that says why there is none.
Resolve = Callable[[str, int], Sequence[str]]

#: Of a host's addresses so many are tried, of both families in turn; they share the time that there is.
MOST_ADDRESSES = 4
#: Look-ups at once, the late ones that nobody waits for among them.
MOST_LOOKUPS = 32

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
_resolve: ContextVar[Resolve | None] = ContextVar("resolve", default=None)
_lookups = threading.BoundedSemaphore(MOST_LOOKUPS)


def addresses_of(host: str, port: int) -> list[str]:
    """Every address of a host, the best first. Raises socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@contextmanager
def call_within(seconds: float, resolve: Resolve) -> Iterator[None]:
    """Connections that are used inside the block keep to this time; new ones go where `resolve` says."""
    marks = _deadline.set(time.monotonic() + seconds), _resolve.set(resolve)
    try:
        yield
    finally:
        _deadline.reset(marks[0])
        _resolve.reset(marks[1])


def _left(usual: float | None) -> float | None:
    """Of the time that a step usually has, what the deadline leaves. Raises TimeoutError when that is nothing."""
    deadline = _deadline.get()
    if deadline is None:
        return usual
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the call has passed")
    return left if usual is None else min(usual, left)


class _UntilDeadline(io.RawIOBase):
    """The socket's bytes, none after the deadline. The socket's own timeout is put back after each read."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, deadline: float) -> None:
        super().__init__()
        self._sock, self._raw, self._deadline = sock, raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the call has passed")
        usual = self._sock.gettimeout()
        self._sock.settimeout(left if usual is None else min(usual, left))
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(usual)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        deadline = _deadline.get()
        if deadline is not None:
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_UntilDeadline(sock, raw, deadline))


class DeadlineConnection(HTTPConnection):
    """Connects, sends and reads until the call's deadline."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _connect(self)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_left(self.sock.gettimeout()))
        super().send(data)


class SecureDeadlineConnection(DeadlineConnection, HTTPSConnection):
    """The same over TLS."""


def _connect(connection: HTTPConnection) -> socket.socket:
    """A socket to one of the host's addresses; the host's name stays what TLS verifies."""
    host, port = connection.host, connection.port
    timeout = connection.timeout if isinstance(connection.timeout, (int, float)) else None
    try:
        left = _left(timeout)
        until = None if left is None else time.monotonic() + left
        found = _alternating(_look_up(host, port, left))[:MOST_ADDRESSES]
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, f"no address of {host} in time") from error
    except socket.gaierror as error:
        raise NameResolutionError(host, connection, error) from error
    except UnicodeError as error:
        raise NewConnectionError(connection, f"{host} is no name of a host") from error
    except OSError as error:
        raise NewConnectionError(connection, str(error)) from error
    failure: OSError | None = None
    for number, address in enumerate(found):
        rest = None if until is None else max(0.001, until - time.monotonic())
        share = rest and rest / (len(found) - number)
        try:
            sock = socket.create_connection((address, port), share, connection.source_address)
        except OSError as error:
            failure = error
            continue
        for option in connection.socket_options or ():
            sock.setsockopt(*option)
        sock.settimeout(rest)  # for the handshake, which ends by its socket's timeout as a whole
        return sock
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, f"no connection to {host} in time") from failure
    raise NewConnectionError(connection, f"no connection to {host}") from failure


def _look_up(host: str, port: int, seconds: float | None) -> Sequence[str]:
    """Ask the resolver in a thread. Raises TimeoutError when it is late, or so many are late that none may start."""
    until = None if seconds is None else time.monotonic() + seconds
    if not _lookups.acquire(timeout=seconds):
        raise TimeoutError("the resolver answers nobody")
    resolve = _resolve.get() or addresses_of
    found: Future[Sequence[str]] = Future()

    def ask() -> None:
        try:
            found.set_result(resolve(host, port))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            found.set_exception(error)
        finally:
            _lookups.release()

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return found.result(None if until is None else max(0.0, until - time.monotonic()))


def _alternating(addresses: Sequence[str]) -> list[str]:
    """In the resolver's order, but the families take turns: one that leads nowhere must not use up the tries."""
    is_first = [":" in address for address in addresses[:1]]
    families = (
        [address for address in addresses if [":" in address] == is_first],
        [address for address in addresses if [":" in address] != is_first],
    )
    return [address for pair in zip_longest(*families) for address in pair if address is not None]
