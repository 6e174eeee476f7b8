"""From Graph's JSON to plain columns: what an item shows becomes a value, what it leaves out is left out.

Graph may send a changed item in part. What is not there keeps what is known of it, and what is null clears it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Convert = Callable[[Any], Any]
#: Column: the property that it is made of, and how. None for what is null, or not of the kind that it should be.
Columns = Mapping[str, tuple[str, Convert]]
#: Of items as they are stored: links that let anybody in for a while.
_SECRET = ("@microsoft.graph.downloadUrl", "@content.downloadUrl")
_DROPPED = ("@odata.context", "@odata.id", "@removed", *_SECRET)


def read(item: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The columns that the item tells something about, as JSON values; instants in UTC as ISO 8601 texts."""
    return {name: convert(item[key]) for name, (key, convert) in columns.items() if key in item}


def stored(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as it is kept whole: without Graph's own notes and without pre-authenticated links."""
    return {name: value for name, value in item.items() if name not in _DROPPED}


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def there(value: Any) -> bool:
    """A facet: what counts is that it is there."""
    return value is not None


def texts(value: Any) -> list[str] | None:
    return [part for part in value if isinstance(part, str)] if isinstance(value, list) else None


def document(value: Any) -> Any:
    """An object or a list as it stands."""
    return value if isinstance(value, (dict, list)) else None


def inner(*path: str, convert: Convert = text) -> Convert:
    """What stands at the path inside an object."""

    def find(value: Any) -> Any:
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return convert(value)

    return find


def instant(value: Any) -> str | None:
    """An instant with its offset, in UTC; None for nonsense and for the year 1."""
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC).isoformat() if found.tzinfo and found.year > 1 else None
    except (TypeError, ValueError, OverflowError):
        return None


def zoned(value: Any) -> str | None:
    """A dateTimeTimeZone, in UTC; None when its zone is none that is known here."""
    try:
        found = datetime.fromisoformat(value["dateTime"])
        zone = value.get("timeZone") or "UTC"
        found = found if found.tzinfo else found.replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone))
        return found.astimezone(UTC).isoformat() if found.year > 1 else None
    except (KeyError, TypeError, ValueError, OverflowError, ZoneInfoNotFoundError, AttributeError):
        return None
