"""Where a page of a list ends: the time and the id of its last row, as text that callers pass back as it is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from shared.admin.errors import wrong_field

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Rows of a page come after it: older, or as old with a smaller id."""

    at: datetime
    id: UUID


def write_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place.at.isoformat()} {place.id}".encode()).decode().rstrip("=")


def read_cursor(text: str | None) -> Place | None:
    """Raises RefusalError for what write_cursor did not make."""
    if text is None:
        return None
    try:
        at, job_id = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode().split(" ")
        place = Place(datetime.fromisoformat(at), UUID(job_id))
        if place.at.tzinfo is None or not 1970 <= place.at.year <= 9000:
            raise ValueError("it is no instant")
    except (ValueError, binascii.Error):
        raise wrong_field("cursor", "it is none of ours: pass `next` of the page before as it is") from None
    return place


def cut(rows: Sequence[T], limit: int, place: Callable[[T], Place]) -> tuple[list[T], str | None]:
    """The page out of one row more than it holds, and its cursor."""
    page = list(rows[:limit])
    return page, write_cursor(place(page[-1])) if len(rows) > limit else None
