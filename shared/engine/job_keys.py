"""The keys of a job in the JSON form that queue messages and the HTTP API share.

singletonKey, singletonPolicy (reject, return_existing, replace_scheduled); debounceKey, debounceSeconds,
debounceAtMostSeconds; throttleKey, throttleSeconds; orderingKey, orderingOnDead (release, block); concurrencyKey,
concurrencyLimit; fairnessKey; dependsOn (ids), ifDependencyFails (die, cancel, run); batchId.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from shared.engine.errors import Problem
from shared.engine.job import (
    ConcurrencyKey,
    Debounce,
    FairnessKey,
    IfDependencyFails,
    Lane,
    OnDead,
    OrderingKey,
    Singleton,
    SingletonPolicy,
    Throttle,
    Unique,
)

_UNIQUE = {
    "singletonKey": ("singletonPolicy",),
    "debounceKey": ("debounceSeconds", "debounceAtMostSeconds"),
    "throttleKey": ("throttleSeconds",),
}
_LANE = {"orderingKey": ("orderingOnDead",), "concurrencyKey": ("concurrencyLimit",), "fairnessKey": ()}
KEY_FIELDS = frozenset(
    {"dependsOn", "ifDependencyFails", "batchId"}.union(
        *({key, *options} for kinds in (_UNIQUE, _LANE) for key, options in kinds.items())
    )
)
E = TypeVar("E", bound=StrEnum)
#: What stands in for a window that is missing or wrong, beside the problem that says so.
_NO_WINDOW = timedelta(seconds=1)


def read_unique(message: dict[str, Any], problems: list[Problem]) -> Unique | None:
    kind, key = _one_key(_UNIQUE, message, problems)
    match kind:
        case "singletonKey":
            policy = _choice("singletonPolicy", message, SingletonPolicy.RETURN_EXISTING, problems)
            return Singleton(key, policy)
        case "debounceKey":
            window = _window("debounceSeconds", message, problems)
            return Debounce(key, window, read_duration("debounceAtMostSeconds", message, problems))
        case "throttleKey":
            return Throttle(key, _window("throttleSeconds", message, problems))
    return None


def read_lane(message: dict[str, Any], problems: list[Problem]) -> Lane | None:
    kind, key = _one_key(_LANE, message, problems)
    match kind:
        case "orderingKey":
            return OrderingKey(key, _choice("orderingOnDead", message, OnDead.RELEASE, problems))
        case "concurrencyKey":
            limit = message.get("concurrencyLimit")
            if isinstance(limit, bool) or not isinstance(limit, int):
                problems.append(Problem("concurrencyLimit", "it must be a whole number from 1 on"))
                return None
            return ConcurrencyKey(key, limit)
        case "fairnessKey":
            return FairnessKey(key)
    return None


def read_dependencies(message: dict[str, Any], problems: list[Problem]) -> tuple[tuple[UUID, ...], IfDependencyFails]:
    given = message.get("dependsOn")
    ids: list[UUID] = []
    if isinstance(given, list):
        for index, value in enumerate(given):
            job_id = _uuid(f"dependsOn.{index}", value, problems)
            ids += [job_id] if job_id is not None else []
    elif given is not None:
        problems.append(Problem("dependsOn", "it must be a list of job ids"))
    return tuple(ids), _choice("ifDependencyFails", message, IfDependencyFails.DIE, problems)


def read_batch(message: dict[str, Any], problems: list[Problem]) -> UUID | None:
    value = message.get("batchId")
    return _uuid("batchId", value, problems) if value is not None else None


def read_duration(name: str, message: dict[str, Any], problems: list[Problem]) -> timedelta | None:
    seconds = message.get(name)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        problems.append(Problem(name, "it must be a number of seconds"))
        return None
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        problems.append(Problem(name, "it is too large"))
        return None


def _one_key(
    kinds: dict[str, tuple[str, ...]], message: dict[str, Any], problems: list[Problem]
) -> tuple[str | None, str]:
    """The one key of these that is given, or none; options without their key are refused."""
    given = [name for name in kinds if message.get(name) is not None]
    for name, options in kinds.items():
        if name not in given:
            problems += [Problem(o, f"it goes with {name}") for o in options if message.get(o) is not None]
    if len(given) > 1:
        problems.append(Problem(given[1], f"a job has one of {', '.join(kinds)}"))
    if not given:
        return None, ""
    key = message[given[0]]
    if not isinstance(key, str):
        problems.append(Problem(given[0], "it must be a string"))
        return None, ""
    return given[0], key


def _choice(name: str, message: dict[str, Any], default: E, problems: list[Problem]) -> E:
    value = message.get(name)
    choices = type(default)
    if value is None or value in list(choices):
        return default if value is None else choices(value)
    problems.append(Problem(name, f"it must be one of {', '.join(choices)}"))
    return default


def _window(name: str, message: dict[str, Any], problems: list[Problem]) -> timedelta:
    if message.get(name) is None:
        problems.append(Problem(name, "it is missing: the length of the window in seconds"))
    return read_duration(name, message, problems) or _NO_WINDOW


def _uuid(name: str, value: Any, problems: list[Problem]) -> UUID | None:
    try:
        return UUID(value)
    except (AttributeError, TypeError, ValueError):
        problems.append(Problem(name, "it must be an id, as 019ab0e4-7b3c-7c1e-8f00-5a6b7c8d9e0f"))
        return None
