"""HTTP sessions in which every call ends by its deadline, and nothing is repeated behind our back.

`requests` limits each wait on the socket, not their sum: a server that sends a byte now and then would hold a
thread for ever. So the connection reads its answers (head and body) through a file that knows the call's
deadline.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from contextvars import ContextVar
from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

CONNECT_SECONDS = 10.0
READ_SECONDS = 20.0
#: Below the shortest usual lease (45 s), so that a call never outlives it.
TOTAL_SECONDS = 35.0

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


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
    """Reads its answers until the call's deadline."""

    response_class = _Response


class SecureDeadlineConnection(HTTPSConnection):
    """The same over TLS."""

    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = DeadlineConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = SecureDeadlineConnection


class DeadlineAdapter(HTTPAdapter):
    """Connections that keep to the call's deadline; `pools` are the classes of their pools, by scheme."""

    pools: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": _Pool, "https": _SecurePool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools


class HttpSession(requests.Session):
    """A session; one per process and kind of peer, shared by all its threads.

    `ca_file` replaces the usual certificates; `trust_env` lets proxies and CA files of the environment in.
    """

    adapter: ClassVar[type[DeadlineAdapter]] = DeadlineAdapter

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        trust_env: bool = False,
        pool_size: int = 64,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        super().__init__()
        self.trust_env = trust_env
        self.verify = ca_file or True
        self._timeout = (connect_seconds, read_seconds)
        self._total_seconds = total_seconds
        # No retries here: urllib3 would sleep Retry-After in the thread, and send twice what may be sent once.
        adapter = self.adapter(pool_connections=8, pool_maxsize=pool_size, max_retries=0)
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As requests', but always with a timeout and a deadline, and redirects are answers, not orders."""
        kwargs.setdefault("timeout", self._timeout)
        kwargs["allow_redirects"] = False
        mark = _deadline.set(time.monotonic() + self._total_seconds)
        try:
            return super().request(method, url, *args, **kwargs)  # without `stream` the body is read in here as well
        finally:
            _deadline.reset(mark)
