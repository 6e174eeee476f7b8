"""Loads what the registry names: payload models and handlers, on first use and once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from shared.engine.errors import PayloadError, Problem
from shared.handlers.registry import QUEUES

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from shared.engine.context import Handler
    from shared.handlers.services import Services


def parse_payload(queue: str, text: str, context: Mapping[str, Any] | None = None) -> BaseModel:
    """The payload model of a queue, filled from JSON text. Raises PayloadError naming every wrong field.

    `context` is what a model may ask about the settings, by name; each value is called when it is needed.
    """
    from pydantic import ValidationError

    try:
        return payload_model(queue).model_validate_json(text, context=context)
    except ValidationError as error:
        problems = [_problem(error, index) for index in range(error.error_count())]
        raise PayloadError("; ".join(f"{p.field}: {p.message}" for p in problems), problems) from None


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


def _problem(error: ValidationError, index: int) -> Problem:
    """Pydantic's finding without the value: payloads are nobody's business in logs and error answers."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[index]
    field = ".".join(str(part) for part in found["loc"])
    return Problem(f"payload.{field}" if field else "payload", found["msg"].removeprefix("Value error, "))
