"""Upload sessions: a large file goes to an uploadUrl in chunks, and goes on where an interruption left it.

An uploadUrl carries its own token. So it gets no Authorization header, it is sealed wherever it is kept, and it is in
no log and no error. What it says of the next byte is what counts, never what we believe to have sent.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from requests import Response

from shared.graph.errors import AnswerLost, GraphCall, GraphError, GraphFailure, GraphTimeout, LinkRefused, UploadGone
from shared.graph.exchange import exchange, read_error
from shared.graph.retry_after import retry_after
from shared.graph.session import GraphSession
from shared.sealing import CannotOpenError, KeyRing, Sealed

#: Every chunk but the last is a multiple of this (drives); mail wants less than 4 MB.
CHUNK_UNIT = 320 * 1024
MAIL_CHUNK = 12 * CHUNK_UNIT
#: A chunk whose answer was lost is looked for this often in a row before the attempt ends.
MOST_LOOKS = 3
#: Where Microsoft's upload sessions are, in its clouds; a name that begins with a dot stands for all below it.
UPLOAD_HOSTS = (
    "outlook.office.com",
    "outlook.office365.com",
    ".outlook.office365.us",
    "outlook.office365.us",
    "partner.outlook.cn",
    ".sharepoint.com",
    ".sharepoint.us",
    ".sharepoint-mil.us",
    ".sharepoint.cn",
)

_GONE = {401, 403, 404, 410}
#: The chunk may have arrived, or the other side knows better where we are: ask.
_ASK = {409, 412, 416, 500, 502, 503, 504}


class UploadClient:
    """Talks to uploadUrls; safe to share. `graph_url`: of Graph itself, whose host may serve sessions too."""

    def __init__(self, session: GraphSession, graph_url: str, hosts: Sequence[str] = UPLOAD_HOSTS) -> None:
        self._session = session
        parts = urlsplit(graph_url)
        self._graph = (parts.scheme, parts.netloc)
        self._hosts = tuple(hosts)

    def check(self, url: Any) -> str:
        """The uploadUrl of a new session. Raises LinkRefused when it leads anywhere but to Microsoft."""
        try:
            parts = urlsplit(url if isinstance(url, str) else "")
            port = parts.port
        except ValueError:
            raise LinkRefused("the address of the upload session is none") from None
        host = (parts.hostname or "").lower()
        known = any(host == name or (name[0] == "." and host.endswith(name)) for name in self._hosts)
        is_theirs = parts.scheme == "https" and known and "@" not in parts.netloc and port in (None, 443)
        if not is_theirs and (parts.scheme, parts.netloc) != self._graph:
            raise LinkRefused(f"the upload session leads to {parts.scheme}://{host}, which is not Microsoft's")
        return str(url)

    def next_byte(self, url: str) -> int:
        """Where the session goes on. Raises UploadGone, GraphFailure."""
        call, response = self._exchange("GET", url, None, {})
        if response.status_code != 200:
            if 400 <= response.status_code < 500 and response.status_code != 429:
                raise UploadGone("the upload session has ended", call=call)
            raise _error(response, call)
        start = _next_start(response)
        if start is None:
            raise UploadGone("the upload session does not say where it goes on", call=call)
        return start

    def put(self, url: str, chunk: bytes, start: int, total: int) -> int | None:
        """Send a chunk; where the next begins, or None when the file is whole. Raises UploadGone, GraphFailure."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"bytes {start}-{start + len(chunk) - 1}/{total}",
        }
        call, response = self._exchange("PUT", url, chunk, headers)
        if response.status_code in _GONE:
            raise UploadGone("the upload session has ended", call=call)
        if response.status_code not in (200, 201, 202):
            raise _error(response, call)
        if response.status_code == 201:
            return None
        start_of_next = _next_start(response)
        if start_of_next is None and response.status_code == 202:
            raise AnswerLost(f"{call} answered 202 without saying where to go on", call=call)
        return start_of_next

    def cancel(self, url: str) -> None:
        """End a session that is no longer wanted; one that has ended is fine. Raises GraphFailure."""
        call, response = self._exchange("DELETE", url, None, {})
        if response.status_code >= 400 and response.status_code not in _GONE:
            raise _error(response, call)

    def send(
        self,
        url: str,
        read: Callable[[int, int], bytes],
        total: int,
        *,
        start: int = 0,
        chunk: int = MAIL_CHUNK,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        """Send a file of `total` bytes from `start` on; `read(at, size)` gives its parts.

        `before_each` is called before each request. A chunk whose answer is lost is looked for at once. Raises
        UploadGone, GraphFailure; both leave the session as it is.
        """
        at, looks = start, 0
        while True:
            try:
                before_each()
                if at >= total:  # all has arrived, and yet it is not whole
                    raise AnswerLost("the upload session has every byte and has not ended")
                following = self.put(url, read(at, min(chunk, total - at)), at, total)
            except GraphFailure as failure:
                if looks >= MOST_LOOKS or not _may_have_arrived(failure):
                    raise
                looks += 1
                before_each()
                at = self.next_byte(url)
                continue
            if following is None:
                return
            looks = 0 if following > at else looks + 1
            if looks > MOST_LOOKS:
                raise AnswerLost("the upload session takes chunks and does not move on")
            at = following

    def _exchange(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[GraphCall, Response]:
        call = GraphCall(method, "uploadUrl", str(uuid.uuid4()))
        return call, exchange(self._session, call, url, headers=headers, body=body)


class UploadUrls:
    """Seals uploadUrls for keeping between attempts. Each is bound to what it is for and opens for nothing else."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def seal(self, url: str, purpose: str) -> dict[str, str]:
        """JSON that may be stored."""
        sealed = self._keys.seal(_bound_to(purpose), url.encode())
        return {"key": sealed.key_id, "sealed": base64.b64encode(sealed.ciphertext).decode()}

    def open(self, kept: Any, purpose: str) -> str | None:
        """The uploadUrl, or None when this was sealed for something else, or with a key that is not here."""
        if not isinstance(kept, dict):
            return None
        try:
            ciphertext = base64.b64decode(str(kept.get("sealed")), validate=True)
            return self._keys.open(_bound_to(purpose), Sealed(str(kept.get("key")), ciphertext)).decode()
        except (binascii.Error, CannotOpenError):
            return None


def _error(response: Response, call: GraphCall) -> GraphError:
    """With the peer's codes and not its words: they may repeat the address."""
    try:
        codes = read_error(response.json())[0]
    except ValueError:
        codes = ()
    after = retry_after(response.headers)
    return GraphError(response.status_code, codes, "the upload session refused it", call=call, retry_after=after)


def _bound_to(purpose: str) -> bytes:
    return b"fleet-queue upload session\0" + purpose.encode()


def _next_start(response: Response) -> int | None:
    """The first byte that is missing: "26-", "26-99", and for mail only "26"; None when the answer has none."""
    try:
        data = response.json()
    except ValueError:
        return None
    named = {str(key).lower(): value for key, value in data.items()} if isinstance(data, dict) else {}
    ranges = named.get("nextexpectedranges")
    starts = [str(one).partition("-")[0].strip() for one in ranges] if isinstance(ranges, list) else []
    return min((int(start) for start in starts if start.isascii() and start.isdigit()), default=None)


def _may_have_arrived(failure: GraphFailure) -> bool:
    if isinstance(failure, GraphError):
        return failure.status in _ASK and failure.retry_after is None
    return isinstance(failure, AnswerLost) or (isinstance(failure, GraphTimeout) and failure.sent)
