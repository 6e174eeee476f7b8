"""The admin API: one function for each address of shared.admin.routes, which takes all its methods."""

from __future__ import annotations

import re
from collections.abc import Mapping

import azure.functions as func

from functions.apart import run_apart
from functions.problem import HEADERS, METHODS, problem
from shared import tracing
from shared.admin.routes import PATHS, hidden_paths
from shared.handlers.registry import QUEUES

bp = func.Blueprint()  # type: ignore[no-untyped-call]

#: It has a trigger of its own, which loads nothing of this.
ELSEWHERE = ("health",)


def serve(path: str, req: func.HttpRequest, given: Mapping[str, str] | None = None) -> func.HttpResponse:
    """Answer a request to an address of the routes; `given` are parameters that the address spells out."""
    from shared import bootstrap
    from shared.admin.dispatch import Request, answer
    from shared.admin.errors import RefusalError

    request = Request(
        method=req.method,
        parameters={**req.route_params, **(given or {})},
        query=dict(req.params),
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
    )
    try:
        with tracing.request(req.headers.get("traceparent"), f"{req.method} /api/queue/{path}"):
            reply = answer(PATHS[path], request, bootstrap.admin_access, bootstrap.admin)
    except RefusalError as error:
        return problem(error.status, str(error), error.problems, error.headers)
    return func.HttpResponse(
        reply.body, status_code=reply.status, headers=HEADERS | dict(reply.headers), mimetype=reply.media
    )


def _add(address: str, path: str, given: Mapping[str, str]) -> None:
    async def run(req: func.HttpRequest) -> func.HttpResponse:
        return await run_apart("people", serve, path, req, given)

    trigger = bp.route(f"queue/{address}", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
    bp.function_name(function_name(address))(trigger(run))


def function_name(address: str) -> str:
    """`admin_` and the address, as far as names of functions go."""
    return "admin_" + re.sub(r"\W+", "_", address).strip("_")


def addresses() -> dict[str, tuple[str, dict[str, str]]]:
    """Every address with its path in the routes and the parameters that it spells out."""
    found: dict[str, tuple[str, dict[str, str]]] = {path: (path, {}) for path in PATHS if path not in ELSEWHERE}
    for address, (path, queue) in hidden_paths([*QUEUES]).items():
        found[address] = (path, {"queue": queue})
    return found


for _address, (_path, _given) in addresses().items():
    _add(_address, _path, _given)
