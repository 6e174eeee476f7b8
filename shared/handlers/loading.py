"""Loads what the registry names: payload models and handlers, on first use and once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from shared.engine.errors import NewerPayloadError, PayloadError, Problem
from shared.engine.spelling import unknown_field
from shared.handlers.registry import QUEUES

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from shared.engine.context import Handler
    from shared.handlers.services import Services


def parse_payload(queue: str, text: str, context: Mapping[str, Any] | None = None) -> BaseModel:
    """The payload model of a queue, filled from JSON text. Raises PayloadError naming every wrong field, or
    NewerPayloadError where a newer release of this system must have made it.

    `context` is what a model may ask about the settings, by name; each value is called when it is needed.
    """
    from pydantic import ValidationError

    try:
        return payload_model(queue).model_validate_json(text, context=context)
    except ValidationError as error:
        problems = [_problem(queue, error, index) for index in range(error.error_count())]
        kind = NewerPayloadError if QUEUES[queue].made_here and has_only_unknown_fields(error) else PayloadError
        raise kind("; ".join(f"{p.field}: {p.message}" for p in problems), problems) from None


def has_only_unknown_fields(error: ValidationError) -> bool:
    """Whether a newer release, which has these fields, would find nothing wrong."""
    return all(found["type"] == "extra_forbidden" for found in error.errors(include_url=False, include_input=False))


@cache
def payload_model(queue: str) -> type[BaseModel]:
    model: type[BaseModel] = _load(QUEUES[queue].payload)
    return model


def build_handler(queue: str, services: Services) -> Handler:
    """A new handler of a queue."""
    build: Callable[[Services], Handler] = _load(QUEUES[queue].build)
    return build(services)


def _load(name: str) -> Any:
    module, attribute = name.split(":")
    return getattr(import_module(module), attribute)


def _problem(queue: str, error: ValidationError, index: int) -> Problem:
    """Pydantic's finding without the value: payloads are nobody's business in logs and error answers."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[index]
    field = ".".join(str(part) for part in found["loc"])
    text = found["msg"].removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        text = unknown_field(str(found["loc"][-1]), _fields_at(payload_model(queue), found["loc"][:-1]))
    return Problem(f"payload.{field}" if field else "payload", text)


def _fields_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The fields that there are at a place of a payload, as callers spell them."""
    schema = model.model_json_schema(by_alias=True)
    found = [schema]
    for step in place:
        found = [_follow(part, step) for one in found for part in _choices(schema, one)]
    return sorted({name for one in found for part in _choices(schema, one) for name in part.get("properties", {})})


def _choices(schema: dict[str, Any], part: dict[str, Any]) -> list[dict[str, Any]]:
    """What a part of a JSON Schema may be: behind its reference, and each of its alternatives."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    rest = part.get("anyOf") or part.get("oneOf")
    return [one for choice in rest for one in _choices(schema, choice)] if rest else [part]


def _follow(part: dict[str, Any], step: int | str) -> dict[str, Any]:
    """One step of an error's place: a field, an entry of a list, or the alternative that was tried."""
    if isinstance(step, int):
        return dict(part.get("items", {}))
    return dict(part.get("properties", {}).get(step, part))
