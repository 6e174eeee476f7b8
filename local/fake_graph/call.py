"""What passes between the front of the fake Graph and its handlers: a call, an answer, an error."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from local.fake_graph.tokens import Token

Json = dict[str, Any]


def utc_now() -> datetime:
    return datetime.now(UTC)


def seconds_text(moment: datetime) -> str:
    """Mail's form of an instant: whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def milliseconds_text(moment: datetime) -> str:
    """Teams' form of an instant: milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Answer:
    """An HTTP answer: `body` is JSON, or bytes that are sent as they are with `content_type`."""

    status: int
    body: Json | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class GraphError(Exception):
    """An error that Graph answers with. `violation` says what in the request breaks Graph's published contract."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        violation: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.violation = violation
        self.headers = dict(headers or {})


def bad_request(message: str, code: str = "BadRequest") -> GraphError:
    """A request that breaks the published contract."""
    return GraphError(400, code, message, violation=True)


def not_found(what: str, code: str = "NotFound") -> GraphError:
    return GraphError(404, code, what)


@dataclass(slots=True)
class Call:
    """One request to Graph after routing: decoded path parameters, query, headers in lower case, parsed body."""

    method: str
    path: str
    params: dict[str, str]
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    base_url: str
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    body: Any = None
    bearer: Token | None = None

    @property
    def token(self) -> Token:
        """The checked token; every handler runs behind that check."""
        if self.bearer is None:
            raise RuntimeError(f"{self.method} {self.path} was not authorised")
        return self.bearer

    @property
    def wants_immutable_ids(self) -> bool:
        return any(part.replace(" ", "").lower() == 'idtype="immutableid"' for part in self.preferences())

    @property
    def wants_text_body(self) -> bool:
        return 'outlook.body-content-type="text"' in self.preferences()

    def preferences(self) -> list[str]:
        return [part.strip() for part in self.headers.get("prefer", "").split(",")]

    @property
    def client_request_id(self) -> str:
        return self.headers.get("client-request-id", self.request_id)

    def failure(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """An answer in Graph's error shape."""
        inner = {
            "date": utc_now().strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": self.request_id,
            "client-request-id": self.client_request_id,
        }
        body = {"error": {"code": code, "message": message, "innerError": inner}}
        return Answer(status, body, dict(headers or {}))
