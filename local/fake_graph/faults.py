"""Faults on demand: which requests fail, how often and how."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from typing import Any

from local.fake_graph.call import Json

KINDS = (
    "status", "html", "bad-json", "empty", "claims-challenge", "reset", "lose-answer", "status-after", "delay",
)  # fmt: skip
#: Of these, the request is carried out first.
CARRIED_OUT = ("lose-answer", "status-after", "delay")
_CODES = {
    400: "BadRequest", 401: "InvalidAuthenticationToken", 403: "ErrorAccessDenied", 404: "ErrorItemNotFound",
    409: "Conflict", 413: "RequestEntityTooLarge", 429: "TooManyRequests", 500: "InternalServerError",
    502: "UnknownError", 503: "serviceNotAvailable", 504: "UnknownError",
}  # fmt: skip
_number = itertools.count(1)


class FaultError(ValueError):
    """The description of a fault is not understood."""


@dataclass(slots=True)
class Fault:
    """Fires for the next `times` matching requests. `path` and `body` are regular expressions that are searched for."""

    kind: str
    times: int
    method: str | None = None
    path: re.Pattern[str] | None = None
    body: re.Pattern[str] | None = None
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    payload: Any = None
    seconds: float = 0.0
    id: int = field(default_factory=lambda: next(_number))

    def matches(self, method: str, path: str, raw: bytes) -> bool:
        if self.method is not None and self.method != method:
            return False
        if self.path is not None and not self.path.search(path):
            return False
        return self.body is None or any(self.body.search(text) for text in _readings(raw))

    @property
    def code(self) -> str:
        return _CODES.get(self.status, "UnknownError")


class Faults:
    """The faults that are set, oldest first; the first that matches fires."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, description: Json) -> Fault:
        """From {match?, times?, fault}; FaultError says what is wrong with it."""
        fault = parse(description)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        self._faults.clear()

    def left(self) -> list[Json]:
        return [{"id": fault.id, "kind": fault.kind, "times": fault.times} for fault in self._faults]

    def take(self, method: str, path: str, raw: bytes) -> Fault | None:
        """The fault for this request, one time used up."""
        for fault in self._faults:
            if fault.matches(method, path, raw):
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None


def parse(description: Json) -> Fault:
    wanted, match = description.get("fault") or {}, description.get("match") or {}
    unknown = (
        (set(description) - {"match", "times", "fault"})
        | (set(match) - {"method", "path", "body"})
        | (set(wanted) - {"kind", "status", "headers", "body", "seconds"})
    )
    if unknown:
        raise FaultError(f"unknown: {sorted(unknown)}")
    if wanted.get("kind") not in KINDS:
        raise FaultError(f"the kind must be one of {', '.join(KINDS)}")
    try:
        return Fault(
            kind=wanted["kind"],
            times=int(description.get("times", 1)),
            method=str(match["method"]).upper() if match.get("method") else None,
            path=re.compile(match["path"]) if match.get("path") else None,
            body=re.compile(match["body"]) if match.get("body") else None,
            status=int(wanted.get("status") or 503),
            headers={str(name): str(value) for name, value in (wanted.get("headers") or {}).items()},
            payload=wanted.get("body"),
            seconds=float(wanted.get("seconds") or 0),
        )
    except (re.error, TypeError, ValueError) as error:
        raise FaultError(str(error)) from error


def _readings(raw: bytes) -> list[str]:
    """The body as it was sent, and for JSON without its escapes, so that a pattern may hold any character."""
    text = raw.decode("utf-8", errors="replace")
    try:
        return [text, json.dumps(json.loads(text), ensure_ascii=False)]
    except ValueError:
        return [text]
