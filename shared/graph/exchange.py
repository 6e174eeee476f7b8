"""One HTTP exchange with a peer: kept on the attempt, and every way that it can fail becomes a typed failure."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import requests
import urllib3.exceptions

from shared import tracing
from shared.graph.errors import AnswerLost, GraphCall, GraphError, GraphFailure, GraphTimeout, GraphUnreachable
from shared.graph.retry_after import retry_after
from shared.http_session import HttpSession

LONGEST_TEXT = 500

_calls: ContextVar[list[GraphCall] | None] = ContextVar("calls", default=None)


@contextmanager
def recorded_calls() -> Iterator[list[GraphCall]]:
    """Every call that this thread makes inside the block, in order, answered or not."""
    calls: list[GraphCall] = []
    mark = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(mark)


def exchange(
    session: HttpSession,
    call: GraphCall,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    at_most: int | None = None,
) -> requests.Response:
    """Send one request and take its answer, whatever its status; `call` learns status and request id.

    Of the answer's body only the first `at_most` bytes are read, where that is given.

    Raises GraphUnreachable, GraphTimeout, or AnswerLost; the text never has the URL, which may be a secret.
    """
    calls = _calls.get()
    if calls is not None:
        calls.append(call)
    with tracing.span(f"{call.method} {call.template}", "client") as span:
        try:
            limit = {} if at_most is None else {"at_most": at_most}
            sent = {**headers, **tracing.headers()}
            response = session.request(call.method, url, data=body, headers=sent, **limit)
        except requests.RequestException as error:
            raise _failure(error, call) from error
        call.status = response.status_code
        call.request_id = response.headers.get("request-id")
        span.set("http.request.method", call.method)
        span.set("http.response.status_code", call.status)
        span.set("fleet_queue.client_request_id", call.client_request_id)
    return response


def error_of(response: requests.Response, call: GraphCall) -> GraphError:
    """The failure that an error status stands for, with the peer's own codes and words."""
    try:
        data = response.json()
    except ValueError:
        data = None
    codes, message, request_id = read_error(data)
    call.request_id = call.request_id or request_id
    return GraphError(
        response.status_code,
        codes,
        message or _plain(response),
        call=call,
        retry_after=retry_after(response.headers),
        location=response.headers.get("Location"),
    )


def read_error(data: Any) -> tuple[tuple[str, ...], str, str | None]:
    """Codes from the outermost to the most specific, the message, and the request id that a body names."""
    error = data.get("error") if isinstance(data, dict) else None
    if isinstance(error, str):
        return (error,), str(data.get("error_description") or data.get("message") or ""), None
    codes: list[str] = []
    message, request_id = "", None
    while isinstance(error, dict):
        code = error.get("code")
        if isinstance(code, str) and code and not code.isdigit():
            codes.append(code)
        if not message and isinstance(error.get("message"), str):
            message = error["message"][:LONGEST_TEXT]
        if isinstance(error.get("request-id"), str):
            request_id = error["request-id"]
        error = error.get("innerError") or error.get("innererror")
    return tuple(codes), message, request_id


def _plain(response: requests.Response) -> str:
    """What a person can use of an answer that is no JSON: its title or its first words."""
    text = response.text[:20_000]
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    words = " ".join((title.group(1) if title else re.sub(r"<[^>]*>", " ", text)).split())[:LONGEST_TEXT]
    return words or response.reason or "no text"


#: While connecting: the request itself never went out.
_NOT_SENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ProxyError,
    ssl.SSLCertVerificationError,
)
_TIMED_OUT = (TimeoutError, urllib3.exceptions.TimeoutError)


def _failure(error: requests.RequestException, call: GraphCall) -> GraphFailure:
    causes = list(_causes(error))
    root = type(causes[-1]).__name__  # not its text: that has the whole URL
    if isinstance(error, requests.ConnectTimeout):
        return GraphTimeout(f"{call}: no connection to {call.peer} in time", sent=False, call=call)
    if any(isinstance(cause, _NOT_SENT) for cause in causes):
        return GraphUnreachable(f"{call}: {call.peer} cannot be reached ({root})", call=call)
    if isinstance(error, requests.Timeout) or any(isinstance(cause, _TIMED_OUT) for cause in causes):
        return GraphTimeout(f"{call}: no answer in time", sent=True, call=call)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader)):
        return GraphUnreachable(f"{call}: the request cannot be sent ({root})", call=call)
    return AnswerLost(f"{call}: the answer was lost ({root})", call=call)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = inner or error.__cause__ or error.__context__
