"""Calendars: the window that is kept in step, and what of an event becomes a column."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from shared.graph.client import IMMUTABLE_IDS
from shared.graph.columns import Columns, document, flag, inner, instant, read, stored, text, texts, zoned
from shared.graph.delta import DeltaQuery

PAGE = 200
#: What is kept in step, from now; the window stands in Graph's token, so it moves by a new full pass.
PAST = timedelta(days=30)
FUTURE = timedelta(days=365)
#: The window moves when so much of its future has passed.
MOVES_AFTER = timedelta(days=30)

COLUMNS: Columns = {
    "ical_uid": ("iCalUId", text),
    "type": ("type", text),
    "series_master_id": ("seriesMasterId", text),
    "subject": ("subject", text),
    "preview": ("bodyPreview", text),
    "start_at": ("start", zoned),
    "start_time_zone": ("originalStartTimeZone", text),
    "end_at": ("end", zoned),
    "end_time_zone": ("originalEndTimeZone", text),
    "is_all_day": ("isAllDay", flag),
    "is_cancelled": ("isCancelled", flag),
    "is_online_meeting": ("isOnlineMeeting", flag),
    "online_meeting_url": ("onlineMeeting", inner("joinUrl")),
    "show_as": ("showAs", text),
    "sensitivity": ("sensitivity", text),
    "importance": ("importance", text),
    "organizer_name": ("organizer", inner("emailAddress", "name")),
    "organizer_address": ("organizer", inner("emailAddress", "address")),
    "attendees": ("attendees", document),
    "location": ("location", inner("displayName")),
    "recurrence": ("recurrence", document),
    "categories": ("categories", texts),
    "response": ("responseStatus", inner("response")),
    "web_link": ("webLink", text),
    "etag": ("@odata.etag", text),
    "modified_at": ("lastModifiedDateTime", instant),
}


def window(now: datetime) -> tuple[str, str]:
    """The window that is kept in step from now on: start and end, as Graph writes them."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return f"{day - PAST:%Y-%m-%dT%H:%M:%S}Z", f"{day + FUTURE:%Y-%m-%dT%H:%M:%S}Z"


def is_over(end: str, now: datetime) -> bool:
    """Whether a window that ends so has come too near to its end."""
    return datetime.fromisoformat(end) < now + FUTURE - MOVES_AFTER


def query(user: str, start: str, end: str) -> DeltaQuery:
    """All events of a user's calendar that overlap the window, single occurrences of series too."""
    return DeltaQuery(
        "/users/{user}/calendarView/delta",
        {"user": user},
        {"startDateTime": start, "endDateTime": end},
        (IMMUTABLE_IDS, 'outlook.timezone="UTC"', f"odata.maxpagesize={PAGE}"),
    )


def columns(item: dict[str, Any]) -> dict[str, Any]:
    """The columns of `calendar_events` that an event, or a part of one, tells."""
    return read(item, COLUMNS) | {"raw": stored(item)}
