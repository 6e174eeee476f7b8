"""What a call to Graph may end with, grouped by what the caller can do.

GraphFailure                  every failure; `.call` names the request, `.retry_after` what the peer asked for
├── GraphError                Graph answered with an error: `.status`, `.code` (most specific), `.message`
├── GraphUnreachable          nothing was sent: no such host, refused, TLS; a repeat does no harm
├── GraphTimeout              no answer in time; `.sent` says whether the request may have gone out
├── AnswerLost                the request went out, and no usable answer came: cut, broken, or not what was due
├── TokenFailure              no token, so nothing was sent
│   ├── TokenUnavailable      the authority is away or throttles: later
│   ├── TokenRefused          a wrong or expired credential or setting: `.remedy`
│   └── SignInRequired        the service account must sign in again: `.identity`, `.remedy`
├── LinkRefused               a link that leads off Graph's host: it was not followed
└── UploadGone                an upload session has ended: whole, cancelled or out of time
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.graph.credentials import APPLICATION
from shared.redaction import without_secrets


@dataclass(slots=True)
class GraphCall:
    """One request to a `peer` as kept on the attempt. `template` is the path without ids of people or chats."""

    method: str
    template: str
    client_request_id: str
    status: int | None = None
    request_id: str | None = None
    peer: str = "Graph"

    def as_details(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "path": self.template,
            "status": self.status,
            "request_id": self.request_id,
            "client_request_id": self.client_request_id,
        }

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


class GraphFailure(Exception):
    """A call to Graph that did not succeed. `sent` is False when it surely never reached Graph."""

    sent = False

    def __init__(self, message: str, *, call: GraphCall | None = None, retry_after: timedelta | None = None) -> None:
        super().__init__(without_secrets(message))
        self.call = call
        self.retry_after = retry_after

    @property
    def request_id(self) -> str | None:
        return self.call.request_id if self.call else None

    @property
    def client_request_id(self) -> str | None:
        return self.call.client_request_id if self.call else None


class GraphError(GraphFailure):
    """Graph answered with an error status. `code` is the most specific one that it gave, `codes` are all; `location`
    is where it sends the client (410: where a new delta begins)."""

    sent = True

    def __init__(
        self,
        status: int,
        codes: tuple[str, ...],
        message: str,
        *,
        call: GraphCall | None = None,
        retry_after: timedelta | None = None,
        location: str | None = None,
    ) -> None:
        self.status = status
        self.location = location
        self.codes = codes
        self.code = codes[-1] if codes else ""
        self.message = without_secrets(message)
        named = f"{status} {self.code}".strip()
        where = f" to {call}" if call else ""
        peer = call.peer if call else "Graph"
        super().__init__(f"{peer} answered {named}{where}: {message}", call=call, retry_after=retry_after)


class GraphUnreachable(GraphFailure):
    """Nothing was sent."""


class GraphTimeout(GraphFailure):
    """No answer in time."""

    def __init__(self, message: str, *, sent: bool, call: GraphCall | None = None) -> None:
        super().__init__(message, call=call)
        self.sent = sent


class AnswerLost(GraphFailure):
    """The request went out, and no usable answer came back."""

    sent = True


class TokenFailure(GraphFailure):
    """There is no token to call Graph with. `identity`: "application", or the service account that has none."""

    def __init__(
        self, message: str, *, identity: str = APPLICATION, remedy: str = "", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.identity = identity
        self.remedy = remedy


class TokenUnavailable(TokenFailure):
    """The authority cannot give a token now."""


class TokenRefused(TokenFailure):
    """The authority refuses this application: a person must change a setting."""

    def __init__(self, message: str, *, remedy: str, codes: tuple[int, ...] = (), identity: str = APPLICATION) -> None:
        super().__init__(f"{message} {remedy}", remedy=remedy, identity=identity)
        self.codes = codes


class SignInRequired(TokenFailure):
    """The service account is not signed in (any more)."""

    def __init__(self, account: str, reason: str, command: str, first: str = "") -> None:
        remedy = f"{first} Run `{command}` and sign in as {account}.".strip()
        super().__init__(f"The account {account} is not signed in: {reason} {remedy}", identity=account, remedy=remedy)


class LinkRefused(GraphFailure):
    """A link in an answer leads off Graph's own host."""


class UploadGone(GraphFailure):
    """There is no such upload session (any more): look whether the file is there, and begin anew if not."""
