"""Whether the app can work: public, cheap, and silent about everything but names."""

from __future__ import annotations

import azure.functions as func

from functions.apart import run_apart
from functions.problem import METHODS, answer, wrong_method

bp = func.Blueprint()  # type: ignore[no-untyped-call]


@bp.function_name("show_health")
@bp.route("queue/health", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def show_health(req: func.HttpRequest) -> func.HttpResponse:
    """200 when everything is there, else 503 and what lacks."""
    refusal = wrong_method(req, "GET")
    return refusal if refusal is not None else await run_apart("people", _report)


def _report() -> func.HttpResponse:
    from shared import bootstrap

    report = bootstrap.health().report()
    document = {
        "status": "ok" if report.is_healthy else "unavailable",
        "checks": dict(report.checks),
        "settings": [{"name": problem.field, "problem": problem.message} for problem in report.settings],
    }
    return answer(200 if report.is_healthy else 503, document)
