"""From a request to its answer: method, who asks, whether they may, what they give; then the route's function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.access import KEY_HEADER, AdminAccess, Principal, TokensUnavailableError, Verdict
from shared.admin.errors import RefusalError, not_found
from shared.admin.masking import masked
from shared.admin.models.base import is_storable
from shared.admin.ports import Admin, Call
from shared.admin.routes import JSON, Route
from shared.engine.errors import (
    ControlError,
    EnqueueError,
    Problem,
    QueueClosedError,
    StoreNotReadyError,
    StoreUnavailableError,
    TransportUnavailableError,
    UnknownQueueError,
)
from shared.engine.spelling import unknown_queue
from shared.handlers.registry import QUEUES
from shared.settings_errors import SettingsError

log = logging.getLogger(__name__)

LARGEST_BODY_BYTES = 16 * 1024 * 1024
RETRY_SOON = {"Retry-After": "10"}
CHALLENGE = {"WWW-Authenticate": "AdminKey, Bearer"}
CORRELATION_HEADER = "x-correlation-id"


@dataclass(frozen=True, slots=True)
class Request:
    """What came in. Header names are in small letters; `parameters` are those of the path."""

    method: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out."""

    status: int
    body: bytes = b""
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(
    routes: Mapping[str, Route], request: Request, access: Callable[[], AdminAccess], admin: Callable[[], Admin]
) -> Reply:
    """Raises RefusalError for everything that is not done."""
    route = routes.get(request.method)
    if route is None:
        allowed = ", ".join(sorted(routes))
        raise RefusalError(405, f"this address takes {allowed} only", headers={"Allow": allowed})
    try:
        who = _identify(access, request)
        _allow(who, route)
        _refuse_cross_site(who, request)
        call = Call(
            admin=admin(),
            who=who,
            correlation_id=_correlation_id(request),
            parameters=_parameters(request),
            query=_query(route, request),
            body=_body(route, request),
            raw=request.body,
        )
        return _reply(route, call, load("shared.admin", route.run)(call))
    except UnknownQueueError as error:
        raise RefusalError(404, str(error)) from error
    except (QueueClosedError, ControlError) as error:
        raise RefusalError(409, str(error)) from error
    except EnqueueError as error:
        raise RefusalError(422, str(error), error.problems) from error
    except StoreNotReadyError as error:
        log.error("admin.store_not_ready", extra={"error": str(error)})
        raise RefusalError(503, f"the database: {error.state}. {error.remedy}", headers=RETRY_SOON) from error
    except (StoreUnavailableError, TransportUnavailableError, SettingsError) as error:
        log.warning("admin.unavailable", extra={"error": str(error)})
        raise RefusalError(503, "the job store cannot be used now; try again", headers=RETRY_SOON) from error


def load(package: str, name: str) -> Any:
    """What a route names as "module:name"."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"{package}.{module}"), attribute)


def load_model(name: str) -> type[BaseModel]:
    model: type[BaseModel] = load("shared.admin.models", name)
    return model


def _identify(access: Callable[[], AdminAccess], request: Request) -> Principal:
    """Fails closed: without a usable key in the settings nobody gets in."""
    try:
        found = access().identify(request.headers)
    except SettingsError as error:
        log.error("admin.not_configured", extra={"error": str(error)})
        raise RefusalError(503, "the admin API has no key yet", headers=RETRY_SOON) from error
    except TokensUnavailableError as error:
        log.warning("admin.tokens_unavailable", extra={"error": str(error)})
        raise RefusalError(503, "tokens cannot be checked now; try again", headers=RETRY_SOON) from error
    if found is Verdict.SLOWED:
        raise RefusalError(429, "too many wrong keys or tokens", headers={"Retry-After": "60"})
    if not isinstance(found, Principal):
        by_token = KEY_HEADER not in request.headers and "authorization" in request.headers
        what = "the token is none for this app" if by_token else f"the header {KEY_HEADER} must carry a valid key"
        raise RefusalError(401, what, headers=CHALLENGE)
    return found


def _allow(who: Principal, route: Route) -> None:
    if route.role is not None and (who.role is None or who.role < route.role):
        has = f"has the role {who.role.title}" if who.role else "has no role"
        log.warning("admin.forbidden", extra={"who": who.name, "operation": route.operation})
        raise RefusalError(403, f"this takes the role {route.role.title}; {who.name} {has}")


def _refuse_cross_site(who: Principal, request: Request) -> None:
    """App Service signs in by a cookie, which a browser sends along from any page: a change must come from ours."""
    site = request.headers.get("sec-fetch-site") or _site_of(request.headers)
    if who.kind == "app-service" and request.method != "GET" and site not in ("same-origin", "none"):
        log.warning("admin.cross_site", extra={"who": who.name, "site": site})
        raise RefusalError(403, "a change must not come from a page of another site")


def _site_of(headers: Mapping[str, str]) -> str:
    """As `Sec-Fetch-Site` says it, for browsers without that header."""
    origin = headers.get("origin")
    if origin is None:
        return "none"
    host = origin.partition("://")[2]
    return "same-origin" if host and host == headers.get("host") else "cross-site"


def _correlation_id(request: Request) -> str:
    given = request.headers.get(CORRELATION_HEADER, "")
    return given if given.isascii() and given.isprintable() and 0 < len(given) <= 200 else str(uuid4())


def _parameters(request: Request) -> Mapping[str, str]:
    queue = request.parameters.get("queue")
    if queue is not None and queue not in QUEUES:
        raise RefusalError(404, unknown_queue(queue, QUEUES))
    if not all(map(is_storable, request.parameters.values())):
        raise not_found("thing of this name")
    return request.parameters


def _query(route: Route, request: Request) -> BaseModel | None:
    if not route.query:
        return None
    return _checked("the query", lambda: load_model(route.query).model_validate(dict(request.query), by_name=False))


def _body(route: Route, request: Request) -> BaseModel | None:
    if not route.body:
        return None
    _refuse_body(request)
    if route.checks:
        return None
    return _checked("the body", lambda: load_model(route.body).model_validate_json(request.body, strict=True))


def _checked(what: str, check: Callable[[], BaseModel]) -> BaseModel:
    try:
        return check()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = [Problem(".".join(map(str, one["loc"])), _message(one)) for one in found]
        raise RefusalError(422, f"{what} is wrong: {_spelled(problems)}", problems) from None


def _message(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "this field is not known: remove it"
    return error["msg"].removeprefix("Value error, ")


def _spelled(problems: list[Problem]) -> str:
    return "; ".join(f"{one.field}: {one.message}".removeprefix(": ") for one in problems[:5])


def _refuse_body(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise RefusalError(415, "the body must be application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RefusalError(415, "a compressed body is not taken")
    if len(request.body) > LARGEST_BODY_BYTES:
        raise RefusalError(413, f"a body has at most {LARGEST_BODY_BYTES:,} bytes")


def _reply(route: Route, call: Call, result: Any) -> Reply:
    headers = {CORRELATION_HEADER: call.correlation_id}
    if isinstance(result, Reply):
        return Reply(result.status, result.body, result.media, headers | dict(result.headers))
    if isinstance(result, BaseModel):
        result = masked(result, call.who.role)
        return Reply(route.status, result.model_dump_json(by_alias=True).encode(), JSON, headers)
    body = result.encode() if isinstance(result, str) else b""
    return Reply(route.status, body, route.media, headers)
