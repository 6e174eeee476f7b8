"""Answers that more than one trigger gives: JSON, and problem documents (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import azure.functions as func

from shared.engine.errors import Problem

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def answer(
    status: int,
    document: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    mimetype: str = "application/json",
) -> func.HttpResponse:
    """A JSON answer, or an empty one."""
    body = json.dumps(document).encode() if document is not None else b""
    return func.HttpResponse(body, status_code=status, headers=HEADERS | dict(headers or {}), mimetype=mimetype)


def problem(
    status: int,
    detail: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> func.HttpResponse:
    """A problem document; `problems` become its `errors`, one for each wrong field."""
    document: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    document["detail"] = detail
    if problems:
        document["errors"] = [{"field": p.field, "message": p.message} for p in problems]
    return answer(status, document, headers, "application/problem+json")


def wrong_method(req: func.HttpRequest, allowed: str) -> func.HttpResponse | None:
    """The 405 for any other method than `allowed`. Azure's host itself would say 404."""
    if req.method == allowed:
        return None
    return problem(405, f"this address takes {allowed} only", headers={"Allow": allowed})
