"""Calls Graph: one request in, a checked answer or a typed failure out. Knows nothing of mails or chats."""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any, Protocol
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import requests

from shared.graph.errors import AnswerLost, GraphCall, LinkRefused
from shared.graph.exchange import error_of, exchange
from shared.graph.permissions import lacks_all_permissions
from shared.graph.session import GraphSession

#: Ids that stay the same when a mail moves between folders; asked for on every call that touches mail.
IMMUTABLE_IDS = 'IdType="ImmutableId"'
#: No list that we read has this many pages: the peer is going round in circles.
MOST_PAGES = 200
_PORTS = {"https": 443, "http": 80}


class TokenSource(Protocol):
    """Where access tokens come from; cheap when it has a good one. Raises TokenFailure."""

    def token(self, *, refused: str | None = None, claims: str | None = None) -> str:
        """A token; not the one that Graph has just `refused`, and one that meets `claims` (JSON)."""
        ...


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    template: str
    body: bytes | None
    prefer: tuple[str, ...]
    at_most: int | None = None


class GraphClient:
    """Calls Graph, or a `peer` that speaks like it, with the tokens of one identity. Safe to share between threads."""

    def __init__(
        self,
        session: GraphSession,
        tokens: TokenSource,
        base_url: str = "https://graph.microsoft.com/v1.0",
        peer: str = "Graph",
    ) -> None:
        self._session = session
        self._tokens = tokens
        self._base_url = base_url.rstrip("/")
        self._peer = peer

    def call(
        self,
        method: str,
        template: str,
        *,
        expect: int | tuple[int, ...] = 200,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        prefer: Sequence[str] = (),
        **segments: str,
    ) -> dict[str, Any]:
        """One request. `template` is a path such as "/users/{user}/messages"; `segments` fill it, escaped.

        Returns the JSON object, or {} where 202 or 204 is due, whose bodies mean nothing. Raises GraphFailure: any
        other status than `expect`, even a good one, is not the answer that was due.
        """
        request = self._request(method, template, segments, query, prefer)
        if body is not None:
            request = replace(request, body=to_bytes(body))
        return self._answer(request, expect)

    def follow(self, link: str, template: str, *, prefer: Sequence[str] = ()) -> dict[str, Any]:
        """The page behind a nextLink or deltaLink; `template` is what the call is named by. Raises GraphFailure,
        LinkRefused before anything is sent when the link leads elsewhere."""
        self.guard(link)
        return self._answer(_Request("GET", link, template, None, tuple(prefer)), 200)

    def pages(
        self,
        template: str,
        *,
        query: Mapping[str, str] | None = None,
        prefer: Sequence[str] = (),
        **segments: str,
    ) -> Iterator[dict[str, Any]]:
        """The items of a list, page by page, along its nextLinks. Raises GraphFailure."""
        request = self._request("GET", template, segments, query, prefer)
        page = self._answer(request, 200)
        seen: set[str] = set()
        while True:
            yield from items(page)
            link = page.get("@odata.nextLink")
            if link is None:
                return
            self.guard(link)
            if link in seen or len(seen) >= MOST_PAGES:
                raise LinkRefused(f"the pages of {template} go round in circles")
            seen.add(link)
            page = self._answer(replace(request, url=link), 200)

    def page(self, template: str, *, link: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
        """One page of a list, the first or that of a nextLink, and the link to the next. Raises GraphFailure."""
        request = self._request("GET", template, {}, None, ())
        if link is not None:
            self.guard(link)
            request = replace(request, url=link)
        page = self._answer(request, 200)
        following = page.get("@odata.nextLink")
        if following is not None:
            self.guard(following)
        return items(page), following

    def content(self, template: str, *, at_most: int, prefer: Sequence[str] = (), **segments: str) -> bytes:
        """The first `at_most` bytes of what is no JSON (a $value); no more is read. Raises GraphFailure."""
        request = replace(self._request("GET", template, segments, None, prefer), at_most=at_most)
        _, response = self._checked(request, 200)
        return response.content

    def _request(
        self,
        method: str,
        template: str,
        segments: Mapping[str, str],
        query: Mapping[str, str] | None,
        prefer: Sequence[str],
    ) -> _Request:
        url = self._base_url + _path(template, segments)
        if query:
            url += "?" + urlencode(query, quote_via=quote, safe="$")
        return _Request(method, url, template, None, tuple(prefer))

    def guard(self, link: Any) -> None:
        """Refuse a link that would carry our token to anybody but Graph, or into another version of it."""
        base = urlsplit(self._base_url)
        try:
            parts = urlsplit(link if isinstance(link, str) else "")
            is_graph = _origin(parts) == _origin(base) and "@" not in parts.netloc
        except ValueError:
            raise LinkRefused("a link of the answer is no address") from None
        if not is_graph:
            raise LinkRefused(f"a link of the answer leads to {parts.scheme}://{parts.hostname}, not to Graph")
        if not parts.path.startswith(f"{base.path}/"):
            raise LinkRefused(f"a link of the answer leads out of {base.path} of Graph")

    def _answer(self, request: _Request, expect: int | tuple[int, ...]) -> dict[str, Any]:
        call, response = self._checked(request, expect)
        return {} if expect in (202, 204) else _json(response, call)

    def _checked(self, request: _Request, expect: int | tuple[int, ...]) -> tuple[GraphCall, requests.Response]:
        """Send it, once more with another token after a 401; raises for any answer but the one that is due."""
        token = self._tokens.token()
        call, response = self._send(request, token)
        if response.status_code == 401 or (response.status_code == 403 and lacks_all_permissions(token)):
            token = self._tokens.token(refused=token, claims=_claims(response.headers))
            call, response = self._send(request, token)
        if not 200 <= response.status_code < 300:
            raise error_of(response, call)
        if response.status_code not in (expect if isinstance(expect, tuple) else (expect,)):
            raise AnswerLost(f"{call} answered {response.status_code}, where {expect} was due", call=call)
        return call, response

    def _send(self, request: _Request, token: str) -> tuple[GraphCall, requests.Response]:
        call = GraphCall(request.method, request.template, str(uuid.uuid4()), peer=self._peer)
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "client-request-id": call.client_request_id,
            "return-client-request-id": "true",
        }
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if request.prefer:
            headers["Prefer"] = ", ".join(request.prefer)
        return call, exchange(
            self._session, call, request.url, headers=headers, body=request.body, at_most=request.at_most
        )


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """Whom an address leads to, however it is spelled. Raises ValueError for a port that is none."""
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def to_bytes(body: Mapping[str, Any]) -> bytes:
    """The request's body as it goes over the wire; what UTF-8 cannot carry becomes a question mark."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def items(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a list's page; whatever else stands there is left out."""
    value = page.get("value")
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _path(template: str, segments: Mapping[str, str]) -> str:
    wanted = {name for _, name, _, _ in Formatter().parse(template) if name}
    if wanted != segments.keys():
        raise ValueError(f"{template} needs {sorted(wanted)}, not {sorted(segments)}")
    for name, value in segments.items():
        if value in ("", ".", ".."):
            raise ValueError(f"{name} of {template} is {value!r}")
    return template.format_map({name: quote(value, safe="") for name, value in segments.items()})


def _json(response: requests.Response, call: GraphCall) -> dict[str, Any]:
    try:
        data = response.json()
    except ValueError as error:
        raise AnswerLost(f"{call} answered {response.status_code} without readable JSON", call=call) from error
    if not isinstance(data, dict):
        raise AnswerLost(f"{call} answered {response.status_code} with no JSON object", call=call)
    return data


def _claims(headers: Mapping[str, str]) -> str | None:
    """The JSON of a claims challenge; Graph sends it in base64."""
    found = re.search(r'\bclaims="([^"]+)"', headers.get("WWW-Authenticate") or "")
    if not found:
        return None
    text = found.group(1)
    try:
        claims = base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4))
        json.loads(claims)
        return claims.decode()
    except (binascii.Error, ValueError):
        return None
