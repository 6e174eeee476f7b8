"""Health, and documents that are no models."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, RootModel

from shared.admin.models.base import Model


class FieldProblem(Model):
    """One wrong field (dotted path) and what to do about it."""

    field: str
    message: str


class Problem(Model):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None


class SettingProblem(Model):
    """A variable that is missing or wrong, and never its value."""

    name: str
    problem: str


class Health(Model):
    """What is there and what is not."""

    status: str
    checks: dict[str, str]
    settings: list[SettingProblem]


class Openapi(RootModel[dict[str, Any]]):
    """An OpenAPI document."""
