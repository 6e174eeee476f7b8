"""Whom a dead job was for, so that it is found by that: kept as digests, since its payload is sealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shared.handlers.registry import QUEUES


def names_in(queue: str, payload: Mapping[str, Any]) -> set[str]:
    """The people, chats and channels that the payload names in the fields that its queue declares, in small letters."""
    return {name for field in QUEUES[queue].names for name in _texts(payload.get(field)) if name}


def searched(text: str) -> str:
    """The form in which names are compared."""
    return text.strip().lower()


def _texts(value: Any) -> Iterator[str]:
    """Of an address, a recipient with a name, or a list of either."""
    if isinstance(value, str):
        yield searched(value)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, Mapping):
        yield from _texts(value.get("address"))
