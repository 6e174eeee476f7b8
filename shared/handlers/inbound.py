"""What both inbound handlers share: the reference that a notification gives, and what a missing message means."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import unquote

from shared.engine.errors import NetworkError
from shared.engine.job import Completed, ErrorClass, Job, NewJob
from shared.graph.errors import GraphError
from shared.handlers.graph_errors import job_error
from shared.handlers.payload_fields import Payload
from shared.handlers.services import OutgoingEvent, Recorded

#: A message that is not there is looked for again this often: it may have been a passing copy, or come late.
LOOKS_FOR_MISSING = 2
#: The breaker: a machine that answers our answers. The application hears of so many automatic messages in a thread
#: within the window, and of no more.
MOST_AUTOMATIC = 20
AUTOMATIC_WINDOW = timedelta(minutes=10)


class NotificationReference(Payload):
    """What a change notification says about a message. Only ids are taken from `resource`; it is never followed."""

    resource: str
    change_type: Literal["created", "updated", "deleted"] = "created"
    subscription_id: str | None = None
    tenant_id: str | None = None


def ids(pattern: re.Pattern[str], resource: str) -> dict[str, str | None]:
    """The ids in a resource path, by the pattern's group names. ValueError when it is another kind of path."""
    match = pattern.fullmatch(resource.strip("/"))
    if match is None:
        raise ValueError("is not the path of a message as Graph writes it")
    found = {name: value and unquote(value.replace("''", "'")) for name, value in match.groupdict().items()}
    if any(value in (".", "..") or value == "" for value in found.values()):
        raise ValueError("names an id that is none")
    return found


def segment(name: str) -> str:
    """A pattern for an id in a path, written name('id') or name/id."""
    return rf"(?:\('(?P<{name}>(?:[^'/]|'')+)'\)|/(?P<{name}_>[^/'()]+))"


def either(found: dict[str, str | None], name: str) -> str | None:
    """The id that `segment` found in one of its two spellings."""
    return found.get(name) or found.get(f"{name}_")


def look_again(job: Job, error: GraphError) -> None:
    """Raise to have a missing message (404) looked for again soon; return when it is gone for good."""
    if job.failures(ErrorClass.NETWORK) < LOOKS_FOR_MISSING:
        details = job_error(error, send=False).details
        raise NetworkError("the message is not there yet, or no more", details=details) from error


class Told:
    """Ends an inbound job: with what became of the message, and with the job that tells the application of it.

    `endpoint` names the outgoing webhook that is told; without one, the application reads `outgoing_events`.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint

    def of(self, recorded: Recorded, job: Job, channel: Literal["teams", "outlook"]) -> Completed:
        if recorded.event is None:
            return Completed({"outcome": recorded.outcome})
        result = {"outcome": recorded.outcome, "event_id": str(recorded.event.id)}
        return Completed(result, self._jobs(recorded.event, job, channel))

    def _jobs(self, event: OutgoingEvent, job: Job, channel: str) -> tuple[NewJob, ...]:
        if self._endpoint is None:
            return ()
        payload = {
            "channel": "webhook",
            "endpoint": self._endpoint,
            "type": event.kind,
            "title": event.kind,
            "data": {"eventId": str(event.id), "messageId": str(event.message_id), "channel": channel},
        }
        key = f"outgoing-event:{event.id}"
        return (NewJob("notifications", payload, idempotency_key=key, correlation_id=job.correlation_id),)


def moment(text: Any) -> datetime | None:
    """An instant of Graph's JSON, in UTC; None for none, for nonsense, and for the year 1."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo and found.year > 1 else None
    except (TypeError, ValueError, OverflowError):
        return None


def sortable(text: Any) -> str | None:
    """An instant of Graph's JSON in the one form in which texts sort as instants do."""
    found = moment(text)
    return found.isoformat(timespec="microseconds") if found else None


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; whatever else it holds, or is, is left out."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def child(value: Any, name: str) -> dict[str, Any]:
    """A property that is an object; {} when it is missing, null or something else."""
    inner = value.get(name) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}
