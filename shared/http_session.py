"""HTTP sessions in which every call ends by its deadline, and nothing is repeated behind our back."""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import DecodeError, HTTPError, ReadTimeoutError

from shared.http_connection import DeadlineConnection, Resolve, SecureDeadlineConnection, addresses_of, call_within

CONNECT_SECONDS = 10.0
READ_SECONDS = 20.0
#: Below the shortest usual lease (45 s), so that a call never outlives it.
TOTAL_SECONDS = 35.0


class _Pool(HTTPConnectionPool):
    ConnectionCls = DeadlineConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = SecureDeadlineConnection


class _DeadlineAdapter(HTTPAdapter):
    """Connections that keep to the call's deadline."""

    pools: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": _Pool, "https": _SecurePool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools


class HttpSession(requests.Session):
    """A session; one per process and kind of peer, shared by all its threads.

    `ca_file` replaces the usual certificates; `trust_env` lets proxies and CA files of the environment in. `resolve`
    says where each new connection may go.
    """

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        trust_env: bool = False,
        pool_size: int = 64,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        resolve: Resolve = addresses_of,
    ) -> None:
        super().__init__()
        self.trust_env = trust_env
        self.verify = ca_file or True
        self._timeout = (connect_seconds, read_seconds)
        self._total_seconds = total_seconds
        self._resolve = resolve
        # No retries here: urllib3 would sleep Retry-After in the thread, and send twice what may be sent once.
        adapter = _DeadlineAdapter(pool_connections=8, pool_maxsize=pool_size, max_retries=0)
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def request(
        self, method: str | bytes, url: str | bytes, *args: Any, at_most: int | None = None, **kwargs: Any
    ) -> requests.Response:
        """As requests', but always with a timeout and a deadline, and redirects are answers, not orders.

        The body is read in here: whole, or its first `at_most` bytes, and then no more of it is taken in.
        """
        kwargs.setdefault("timeout", self._timeout)
        kwargs["allow_redirects"] = False
        kwargs["stream"] = at_most is not None
        with call_within(self._total_seconds, self._resolve):
            response = super().request(method, url, *args, **kwargs)
            if at_most is not None:
                with response:
                    content = _start(response, at_most)
                response._content = content  # what requests keeps a body in that it has read
        return response


def _start(response: requests.Response, at_most: int) -> bytes:
    """The start of the body; what goes wrong on the way is told as requests tells it of a body that it reads itself."""
    try:
        # One more byte, so that a body of just that length is read to its end and its connection used again.
        content: bytes = response.raw.read(at_most + 1, decode_content=True)
    except ReadTimeoutError as error:
        raise requests.exceptions.ReadTimeout(error) from error
    except DecodeError as error:
        raise requests.exceptions.ContentDecodingError(error) from error
    except HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error
    return content[:at_most]
