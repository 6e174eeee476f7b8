"""The HTTP session for addresses that come from settings: it connects to the public internet only."""

from __future__ import annotations

import socket
from contextvars import ContextVar
from typing import Any, ClassVar

import requests
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

from shared.http_session import DeadlineAdapter, DeadlineConnection, HttpSession, SecureDeadlineConnection
from shared.outgoing.addresses import AddressRefused, PublicAddresses

#: Nobody needs more of an answer to a webhook than this.
ANSWER_BYTES = 64 * 1024

_addresses: ContextVar[PublicAddresses] = ContextVar("addresses")


def _connect(connection: DeadlineConnection | SecureDeadlineConnection) -> socket.socket:
    """A socket to one of the host's addresses, each checked; the host's name stays what TLS verifies."""
    host, port = connection.host, connection.port
    try:
        found = _addresses.get().resolve(host, port)
    except AddressRefused as error:
        raise NewConnectionError(connection, str(error)) from error
    except socket.gaierror as error:
        raise NameResolutionError(host, connection, error) from error
    failure: OSError | None = None
    for address in found:
        try:
            timeout = connection.timeout if isinstance(connection.timeout, (int, float)) else None
            sock = socket.create_connection((address, port), timeout, connection.source_address)
        except OSError as error:
            failure = error
            continue
        for option in connection.socket_options or ():
            sock.setsockopt(*option)
        return sock
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, f"no connection to {host} in time") from failure
    raise NewConnectionError(connection, f"no connection to {host}") from failure


class _Connection(DeadlineConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _SecureConnection(SecureDeadlineConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(DeadlineAdapter):
    pools: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": _Pool, "https": _SecurePool}


class PublicSession(HttpSession):
    """Checks the address of every connection at the moment it is made, and reads no more than ANSWER_BYTES."""

    adapter = _Adapter

    def __init__(self, addresses: PublicAddresses, **options: Any) -> None:
        super().__init__(**options)
        self._addresses = addresses

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        mark = _addresses.set(self._addresses)
        try:
            response = super().request(method, url, *args, stream=True, **kwargs)
        finally:
            _addresses.reset(mark)
        with response:
            content = _start(response)
        response._content = content[:ANSWER_BYTES]  # what requests keeps a body in that it has read
        return response


def _start(response: requests.Response) -> bytes:
    """The start of the body; what goes wrong on the way is told as requests tells it of a body that it reads itself."""
    try:
        content: bytes = response.raw.read(ANSWER_BYTES + 1, decode_content=True)
    except ReadTimeoutError as error:
        raise requests.exceptions.ReadTimeout(error) from error
    except DecodeError as error:
        raise requests.exceptions.ContentDecodingError(error) from error
    except HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error
    return content
