"""The dashboard: a page and its files. They hold no data and need no key; the admin API answers what the page shows."""

from __future__ import annotations

from urllib.parse import urlsplit

import azure.functions as func

from functions.problem import METHODS, problem, wrong_method
from shared.web import files as web

bp = func.Blueprint()  # type: ignore[no-untyped-call]

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
FOR_GOOD = "public, max-age=31536000, immutable"


@bp.function_name("show_dashboard")
@bp.route("queue/dashboard", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def show_dashboard(req: func.HttpRequest) -> func.HttpResponse:
    """The page. Its links are relative: whatever stands before the address, they lead back here."""
    refusal = wrong_method(req, "GET")
    if refusal is not None:
        return refusal
    prefix = "" if urlsplit(req.url).path.endswith("/") else "dashboard/"
    headers = HEADERS | {"Cache-Control": "no-store"}
    return func.HttpResponse(web.files().page(prefix), headers=headers, mimetype="text/html", charset="utf-8")


@bp.function_name("show_dashboard_file")
@bp.route("queue/dashboard/{version}/{*file}", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def show_dashboard_file(req: func.HttpRequest) -> func.HttpResponse:
    """A file: for good under its version; under another, which a deployment has replaced, to be asked for again."""
    refusal = wrong_method(req, "GET")
    if refusal is not None:
        return refusal
    known = web.files()
    name = req.route_params.get("file", "")
    found = known.files.get(name) if name != web.PAGE else None
    if found is None:
        return problem(404, "the dashboard has no such file")
    current = req.route_params.get("version") == known.version
    headers = HEADERS | {"ETag": found.etag, "Cache-Control": FOR_GOOD if current else "no-cache"}
    if found.etag in (part.strip() for part in req.headers.get("If-None-Match", "").split(",")):
        return func.HttpResponse(status_code=304, headers=headers, mimetype=found.media)
    return func.HttpResponse(found.body, headers=headers, mimetype=found.media, charset="utf-8")
