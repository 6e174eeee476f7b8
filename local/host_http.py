"""HTTP triggers as Azure's host serves them: routes, methods, keys, bodies."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import azure.functions as func
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from local.worker import AppError, Function

MAX_BODY = 100 * 1024 * 1024
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: Which keys open a function of each level.
LEVELS = {"anonymous": (), "function": ("function", "admin"), "admin": ("admin",)}
PLACEHOLDER = re.compile(r"\{(\*?)(\w+)(?::(\w+))?\}")
CONSTRAINTS = {None: "str", "int": "int", "guid": "uuid"}
logger = logging.getLogger("host.http")
Invoke = Callable[[Function, Any], Future[Any]]


class TooLargeError(Exception):
    """A body above what Azure's host takes."""


def make_app(functions: Sequence[Function], prefix: str, keys: Mapping[str, str], invoke: Invoke) -> Starlette:
    """The HTTP functions as an ASGI app; `keys` has one for each of "function" and "admin"."""
    routes = [_route(function, prefix, keys, invoke) for function in sorted(functions, key=_rank)]
    ping = Route("/admin/host/ping", lambda _request: Response())
    # A known path with another method is a 404 in Azure, too.
    statuses: dict[Any, int] = {404: 404, 405: 404, ClientDisconnect: 400, TooLargeError: 413}
    answers = {kind: lambda *_, status=status: Response(status_code=status) for kind, status in statuses.items()}
    app = Starlette(routes=[ping, *routes], exception_handlers=answers)
    app.router.redirect_slashes = False
    return app


def _route(function: Function, prefix: str, keys: Mapping[str, str], invoke: Invoke) -> Route:
    levels = LEVELS[str(function.trigger.get("authLevel") or "function").lower()]

    async def answer(request: Request) -> Response:
        query = request.query_params
        # The worker gets one string a name, and none that is empty.
        params = {name: text for name in query if (text := ",".join(query.getlist(name)))}
        key = (request.headers.get("x-functions-key") or params.get("code", "")).encode()
        if levels and not any(hmac.compare_digest(keys[level].encode(), key) for level in levels):
            return Response(status_code=401)
        given = func.HttpRequest(
            request.method, str(request.url), headers=dict(request.headers), params=params,
            route_params={name: str(value) for name, value in request.path_params.items()},
            body=await _read_body(request),
        )  # fmt: skip
        try:
            return _response(await asyncio.wrap_future(invoke(function, given)))
        except Exception as error:  # noqa: BLE001 - it is logged; the caller learns nothing of it
            logger.error("request.failed", extra={"function": function.name, "error": str(error)})
            return Response(status_code=500)

    path = f"/{prefix}/{_template(function)}" if prefix else f"/{_template(function)}"
    methods = [str(method) for method in function.trigger.get("methods") or METHODS]
    route = Route(PLACEHOLDER.sub(_placeholder, path), answer, methods=methods)
    route.methods = set(methods)  # starlette adds HEAD to GET, Azure does not
    return route


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    if int(request.headers.get("content-length") or 0) > MAX_BODY:
        raise TooLargeError
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise TooLargeError
    return bytes(body)


def _response(result: Any) -> Response:
    if result is None or isinstance(result, str):
        return Response(result, 204 if result is None else 200, media_type="text/plain")
    if not isinstance(result, func.HttpResponse):
        raise TypeError(f"a function returned {type(result).__name__} for an HTTP response")
    response = Response(result.get_body(), result.status_code)
    if "content-type" not in result.headers:
        charset = f"; charset={result.charset}" if result.mimetype.startswith("text/") else ""
        response.headers["content-type"] = result.mimetype + charset
    for name, value in result.headers.items():
        if name.lower() != "content-length":
            response.headers.append(name, value)
    return response


def _template(function: Function) -> str:
    return str(function.trigger.get("route") or function.name).strip("/")


def _placeholder(match: re.Match[str]) -> str:
    """A placeholder of a route template as starlette writes it."""
    catch_all, name, constraint = match.groups()
    if constraint not in CONSTRAINTS:
        raise AppError(f"a route has the constraint {constraint!r}, which this host does not know")
    return f"{{{name}:{'path' if catch_all else CONSTRAINTS[constraint]}}}"


def _rank(function: Function) -> list[int]:
    """Literal segments win over constrained placeholders, these over plain ones; a catch-all comes last."""
    parts = _template(function).split("/")
    return [3 if "{*" in part else 0 if "{" not in part else 1 if ":" in part else 2 for part in parts]
