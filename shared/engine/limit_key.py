"""What a queue's keyed limits count by: a name that is made of fields of the payload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LimitKey:
    """`fields`: lists of payload fields (dotted paths), as they stand in the JSON; the first list of which a payload
    has all, as text, makes the key. Queues with the same `scope` share the counts of their keys, and
    must have the same limits for each key: jobs of a key wait in one line, whichever queue they are of. Without fields
    whoever makes a job names its key, by `named`.

    The database does the same for jobs that come by SQL (queue.limit_key_of).
    """

    scope: str
    fields: tuple[tuple[str, ...], ...]

    def of(self, payload: Mapping[str, Any]) -> str | None:
        """The key of a payload, as "scope:value", or None when it has none of the fields."""
        for names in self.fields:
            parts = [_text(payload, name) for name in names]
            found = [part for part in parts if part is not None]
            if len(found) == len(parts):
                return self.named(*found)
        return None

    def named(self, *names: str) -> str:
        """The key of what is called so."""
        return f"{self.scope}:{'/'.join(names).lower()}"


def _text(payload: Mapping[str, Any], path: str) -> str | None:
    value: Any = payload
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value if isinstance(value, str) else None
