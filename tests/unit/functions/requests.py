"""HTTP requests as the worker hands them to a function."""

from __future__ import annotations

import json
from typing import Any

import azure.functions as func

BASE = "https://app.example/api"


def request(
    method: str = "POST",
    path: str = "/webhooks/graph",
    *,
    body: bytes = b"",
    params: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    route: dict[str, str] | None = None,
) -> func.HttpRequest:
    return func.HttpRequest(
        method, BASE + path, headers=headers or {}, params=params or {}, route_params=route or {}, body=body
    )


def document(response: func.HttpResponse) -> dict[str, Any]:
    value = json.loads(response.get_body())
    assert isinstance(value, dict)
    return value


def assert_problem(response: func.HttpResponse, status: int) -> dict[str, Any]:
    """The answer is a problem document with this status."""
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    found = document(response)
    assert found["status"] == status
    assert found["title"]
    return found
