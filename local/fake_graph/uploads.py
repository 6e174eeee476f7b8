"""Upload sessions: large files come in chunks to an address that carries its own token.

As at Outlook's own address: no Authorization header, chunks in order, 200 with the next byte while some are missing,
201 with the Location when the file is whole; after that the session is gone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote

from local.fake_graph.call import Answer, Call, GraphError, Json, bad_request, not_found, utc_now

#: Below it are upload sessions; Graph's own addresses begin with /v1.0.
PREFIX = "/api/gv1.0/"
CHUNK_BYTES = 4 * 1024 * 1024
LIFETIME = timedelta(hours=1)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class CutError(Exception):
    """The connection is to be cut, with part of the chunk kept."""


@dataclass(slots=True)
class Upload:
    """One session. `finish` takes the whole file and returns where it is now."""

    token: str
    size: int
    finish: Callable[[bytes], str]
    expires_at: datetime
    content: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Uploads:
    """All sessions, by path. The next chunk is kept only up to `cut_after` bytes, and its connection cut."""

    sessions: dict[str, Upload] = field(default_factory=dict)
    cut_after: int | None = None

    def begin(self, base_url: str, place: str, size: int, finish: Callable[[bytes], str]) -> Json:
        """Graph's uploadSession of a new one; `place` is what the file belongs to."""
        path = f"{PREFIX}{place}/AttachmentSessions('{secrets.token_hex(8)}')"
        upload = Upload(secrets.token_urlsafe(24), size, finish, utc_now() + LIFETIME)
        self.sessions[path] = upload
        return {
            "@odata.context": f"{base_url}/v1.0/$metadata#microsoft.graph.uploadSession",
            "uploadUrl": f"{base_url}{quote(path)}?authtoken={upload.token}",
            "expirationDateTime": upload.expires_at.isoformat(),
            "nextExpectedRanges": ["0-"],
        }

    def expire(self) -> int:
        """End all sessions; how many there were."""
        count = len(self.sessions)
        self.sessions.clear()
        return count

    def answer(self, method: str, path: str, call: Call) -> Answer:
        """A request to a session. Raises GraphError, CutError."""
        if "authorization" in call.headers:
            raise GraphError(
                401, "InvalidAuthenticationToken", "The audience is invalid: an upload URL takes no token.",
                violation=True,
            )  # fmt: skip
        upload = self.sessions.get(path)
        if upload is None or upload.expires_at < utc_now():
            raise not_found("The upload session was not found.", "ErrorItemNotFound")
        if not secrets.compare_digest(upload.token, call.query.get("authtoken", "")):
            raise GraphError(401, "InvalidAuthenticationToken", "The authtoken is wrong.", violation=True)
        match method:
            case "GET":
                return Answer(200, _state(upload))
            case "DELETE":
                del self.sessions[path]
                return Answer(204)
            case "PUT":
                return self._put(path, upload, call)
        raise GraphError(405, "ErrorInvalidRequest", f"The method {method} is not allowed here.", violation=True)

    def _put(self, path: str, upload: Upload, call: Call) -> Answer:
        chunk = call.raw
        start, end, total = _range(call)
        if total != upload.size or end - start + 1 != len(chunk) or not chunk or end >= total:
            raise bad_request("Content-Range does not fit the body, or the size of the session.", "ErrorInvalidRequest")
        if len(chunk) >= CHUNK_BYTES:
            raise GraphError(413, "ErrorMessageSizeExceeded", "A range has less than 4 MB.", violation=True)
        if start != len(upload.content):
            raise GraphError(416, "InvalidRange", "The range is not the one that is expected.")
        if self.cut_after is not None:
            upload.content += chunk[: self.cut_after]
            self.cut_after = None
            raise CutError
        upload.content += chunk
        if len(upload.content) < upload.size:
            return Answer(200, _state(upload))
        del self.sessions[path]
        return Answer(201, None, {"Location": upload.finish(bytes(upload.content))})


def _range(call: Call) -> tuple[int, int, int]:
    match = _RANGE.fullmatch(call.headers.get("content-range", ""))
    if match is None:
        raise bad_request("The header Content-Range is missing or wrong.", "ErrorInvalidRequest")
    return int(match[1]), int(match[2]), int(match[3])


def _state(upload: Upload) -> Json:
    return {"ExpirationDateTime": upload.expires_at.isoformat(), "nextExpectedRanges": [str(len(upload.content))]}
