"""What the fake has seen: every request with its answer, and every violation of Graph's contract."""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from contextlib import suppress
from typing import Any

from local.fake_graph.call import Answer, Json

#: Older ones are forgotten.
KEPT = 20_000
_SECRET_FIELDS = (
    "client_secret",
    "refresh_token",
    "client_assertion",
    "access_token",
    "id_token",
    "device_code",
    "code",
    "code_verifier",
    "uploadUrl",
)
_SECRET_OPTIONS = ("authtoken",)
_SECRET_HEADERS = ("cookie", "proxy-authorization", "x-identity-header")


class Journal:
    def __init__(self) -> None:
        self.requests: deque[Json] = deque(maxlen=KEPT)
        self.violations: list[Json] = []

    def clear(self) -> None:
        self.requests.clear()
        self.violations.clear()

    def open(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: Any, query_string: str
    ) -> Json:
        """Note a request as it comes in; `close` adds its answer."""
        entry: Json = {
            "method": method,
            "path": path,
            "query": {name: "***" if name in _SECRET_OPTIONS else value for name, value in query.items()},
            "queryString": "***" if any(name in query for name in _SECRET_OPTIONS) else query_string,
            "headers": {name: value for name, value in headers.items() if name not in _SECRET_HEADERS},
            "body": body,
            "status": None,
            "at": time.monotonic(),
        }
        self.requests.append(entry)
        return entry

    def close(self, entry: Json, answer: Answer | None, outcome: str = "answered") -> None:
        """Note the answer that was carried out; `outcome` says when the client did not get it."""
        entry |= {"outcome": outcome, "seconds": time.monotonic() - entry["at"]}
        if answer is not None:
            entry |= {"status": answer.status, "answer": readable(answer.body), "answerHeaders": answer.headers}

    def violation(self, entry: Json, side: str, message: str) -> None:
        """`side` is who broke the contract: request or answer."""
        found = {"side": side, "message": message, "method": entry["method"], "path": entry["path"]}
        self.violations.append(found | {"query": entry["query"], "body": entry["body"]})


def readable(body: Any) -> Any:
    """JSON as it is, bytes as text or base64, secrets blackened."""
    if isinstance(body, dict):
        return {key: "***" if key in _SECRET_FIELDS else value for key, value in body.items()}
    if isinstance(body, bytes):
        try:
            return body.decode()
        except UnicodeDecodeError:
            return base64.b64encode(body).decode()
    return body


def parsed(raw: bytes, content_type: str) -> Any:
    """A request's body for the record: JSON where it is JSON."""
    if not raw:
        return None
    if "json" in content_type:
        with suppress(ValueError):
            return json.loads(raw)
    return readable(raw)
