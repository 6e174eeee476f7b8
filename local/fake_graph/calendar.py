"""Calendars: events, single occurrences of series among them, and the delta of a window."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local.fake_graph import delta
from local.fake_graph.call import Answer, Call, Json, bad_request, not_found, seconds_text, utc_now
from local.fake_graph.ids import new_etag, new_outlook_id

if TYPE_CHECKING:
    from local.fake_graph.state import User, World

ALLOWED = {"startDateTime", "endDateTime"}


@dataclass(slots=True)
class Calendars:
    """Events by user and id."""

    events: dict[str, dict[str, Json]] = field(default_factory=dict)

    def of(self, user: User) -> dict[str, Json]:
        return self.events.setdefault(user.id, {})

    def put(self, user: User, event: Json) -> str:
        """Add an event, or change the properties that are given of the one with this id."""
        events = self.of(user)
        known = events.get(str(event.get("id")), _new(user))
        events[known["id"]] = (
            known
            | event
            | {
                "id": event.get("id") or known["id"],
                "@odata.etag": new_etag(),
                "lastModifiedDateTime": event.get("lastModifiedDateTime") or seconds_text(utc_now()),
            }
        )
        if event.get("id") and event["id"] != known["id"]:
            events[event["id"]] = events.pop(known["id"])
        return str(event.get("id") or known["id"])

    def remove(self, user: User, event_id: str) -> None:
        if self.of(user).pop(event_id, None) is None:
            raise not_found("The specified object was not found in the store.", "ErrorItemNotFound")


def calendar_view_delta(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    if delta.given_token(call) is None:
        if not ALLOWED.issubset(call.query):
            raise bad_request(
                "This request requires a time window: startDateTime and endDateTime.", "ErrorInvalidParameter"
            )
        if set(call.query) - ALLOWED:
            raise bad_request(f"calendarView/delta takes no {sorted(set(call.query) - ALLOWED)}.")
    options = delta.options_of(world.deltas, call)
    start, end = (_instant(options[name]) for name in ("startDateTime", "endDateTime"))
    events = {
        key: event for key, event in world.calendars.of(user).items()
        if event["type"] == "seriesMaster" or (_moment(event["start"]) < end and _moment(event["end"]) > start)
    }  # fmt: skip
    whole = delta.DeltaSet(
        {key: event["@odata.etag"] for key, event in events.items()},
        lambda key: _shown(events[key]),
        f"Collection(event)/users('{user.id}')",
    )
    return delta.page(world.deltas, call, whole, options, delta.page_size(call))


def _shown(event: Json) -> Json:
    """An occurrence comes with its times only: the rest is its series'."""
    if event["type"] != "occurrence":
        return event
    names = ("@odata.etag", "id", "type", "seriesMasterId", "start", "end")
    return {name: event[name] for name in names}


def _new(user: User) -> Json:
    now = seconds_text(utc_now())
    event_id = new_outlook_id("AAkALg")
    return {
        "id": event_id,
        "createdDateTime": now,
        "categories": [],
        "originalStartTimeZone": "UTC",
        "originalEndTimeZone": "UTC",
        "iCalUId": f"local-{event_id[-20:]}",
        "hasAttachments": False,
        "subject": "",
        "bodyPreview": "",
        "importance": "normal",
        "sensitivity": "normal",
        "isAllDay": False,
        "isCancelled": False,
        "isOrganizer": True,
        "isOnlineMeeting": False,
        "seriesMasterId": None,
        "showAs": "busy",
        "type": "singleInstance",
        "webLink": "https://outlook.example/calendar/",
        "onlineMeeting": None,
        "recurrence": None,
        "responseStatus": {"response": "organizer", "time": "0001-01-01T00:00:00Z"},
        "body": {"contentType": "html", "content": ""},
        "start": {"dateTime": "2026-01-01T08:00:00.0000000", "timeZone": "UTC"},
        "end": {"dateTime": "2026-01-01T09:00:00.0000000", "timeZone": "UTC"},
        "location": {"displayName": ""},
        "attendees": [],
        "organizer": {"emailAddress": {"name": user.name, "address": user.upn}},
    }


def _moment(value: Json) -> datetime:
    return datetime.fromisoformat(value["dateTime"]).replace(tzinfo=UTC)


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(f"'{text}' is no time.", "ErrorInvalidParameter") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
