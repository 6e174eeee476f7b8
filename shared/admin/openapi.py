"""The OpenAPI 3.1 document, out of the routes and their models."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from shared.access import KEY_HEADER
from shared.admin.dispatch import load_model
from shared.admin.models.documents import Problem
from shared.admin.routes import JSON, ROUTES, TEXT, Route
from shared.handlers.registry import QUEUES

VERSION = "1.0.0"
BASE = "/api/queue"
PROBLEM = "application/problem+json"
_REF = "#/components/schemas/{model}"
_PHRASES = {
    401: "No valid key or token",
    403: "The role does not allow it",
    404: "There is no such thing",
    405: "Another method",
    409: "Its state does not allow it",
    413: "The body is too large",
    415: "The body is not plain JSON",
    422: "A field is wrong: `errors` names it",
    429: "Too many wrong keys: later again",
    503: "Something that it needs is away: try again",
}


@cache
def document() -> dict[str, Any]:
    """The whole document; the same at every call."""
    schemas, definitions = _schemas()
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(f"/{route.path}", {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fleet Queue",
            "version": VERSION,
            "description": "The admin API. Errors are problem documents (RFC 9457); lists page by cursor.",
        },
        "servers": [{"url": BASE}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


Schemas = dict[tuple[type[BaseModel], JsonSchemaMode], dict[str, Any]]


def _schemas() -> tuple[Schemas, dict[str, Any]]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
    for route in ROUTES:
        if route.answer:
            wanted.append((load_model(route.answer), "serialization"))
        if route.body:
            wanted.append((load_model(route.body), "validation"))
    unique = list(dict.fromkeys(wanted))
    found, top = models_json_schema(unique, by_alias=True, ref_template=_REF)
    return {(model, mode): schema for (model, mode), schema in found.items() if issubclass(model, BaseModel)}, top[
        "$defs"
    ]


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.path.split("/")[0 if not route.path.startswith("{") else 1]],
        "parameters": [*map(_path_parameter, route.parameters), *_query_parameters(route)],
        "responses": {str(route.status): _answer(route, schemas)},
        "security": [] if route.role is None else [{"key": []}, {"token": []}],
    }
    if route.role is not None:
        operation["x-role"] = route.role.title
    if route.body:
        schema = schemas[load_model(route.body), "validation"]
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    for status in route.refusals:
        if route.role is None and status == route.also[0]:  # health says what lacks, in its own form
            operation["responses"][str(status)] = {**_answer(route, schemas), "description": _PHRASES[status]}
            continue
        refusal: dict[str, Any] = {"description": _PHRASES[status]}
        refusal["content"] = {PROBLEM: {"schema": schemas[Problem, "serialization"]}}
        operation["responses"][str(status)] = refusal
    return operation


def _answer(route: Route, schemas: Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {"description": route.summary}
    if route.answer:
        found["content"] = {JSON: {"schema": schemas[load_model(route.answer), "serialization"]}}
    elif route.media == TEXT:
        found["content"] = {TEXT: {"schema": {"type": "string"}}}
    return found


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "enum": [*QUEUES]} if name == "queue" else {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if not route.query:
        return []
    schema = load_model(route.query).model_json_schema(by_alias=True, ref_template=_REF)
    local = schema.get("$defs", {})
    required = schema.get("required", [])
    found = []
    for name, given in schema["properties"].items():
        inner = _inlined(given, local)
        text = inner.pop("description", "")
        found.append({"name": name, "in": "query", "required": name in required, "schema": inner})
        if text:
            found[-1]["description"] = text
    return found


def _inlined(schema: dict[str, Any], local: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema on its own; a parameter is left out, never null."""
    options = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "title", "default")}
    if schema.get("default") is not None:
        rest["default"] = schema["default"]
    if len(options) == 1:
        rest = options[0] | rest
    if "$ref" in rest:
        rest = {**local[rest.pop("$ref").rsplit("/", 1)[1]], **rest}
    return {name: value for name, value in rest.items() if name != "title"}
