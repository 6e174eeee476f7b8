"""How texts for operators name times, numbers, jobs, places and what an attempt ended with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from shared.admin.models.diagnosis import Action, Step
from shared.engine.job import Attempt, ErrorClass, JobRecord

#: What the queues send; the others send nothing.
SENT_THINGS = {"teams-outbound": "message", "outlook-outbound": "mail", "notifications": "notification"}
_KEYS = {
    "chat": "this chat",
    "mailbox": "this mailbox",
    "chat-reads": "this chat or channel",
    "mailbox-reads": "this mailbox",
}
_WITHOUT_ANSWER = {
    ErrorClass.TIMEOUT: "no answer came in time",
    ErrorClass.NETWORK: "{peer} could not be reached",
    ErrorClass.UNCERTAIN: "the answer was lost",
    ErrorClass.WORKER_LOST: "its worker died or stood still",
    ErrorClass.UNKNOWN: "its handler failed",
    ErrorClass.RATE_LIMIT: "{peer} asked to slow down",
    ErrorClass.AUTH: "{peer} refused it",
    ErrorClass.VALIDATION: "our own check refused it",
}


def sends(job: JobRecord) -> bool:
    return job.queue in SENT_THINGS


def thing(job: JobRecord) -> str:
    return SENT_THINGS.get(job.queue, "job")


def clock(at: datetime) -> str:
    """`2026-11-25 14:12:56 UTC`. The dashboard writes it anew in the reader's zone (inZone in shared/web/format.js)."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(time: timedelta) -> str:
    seconds = max(0, round(time.total_seconds()))
    if seconds < 1:
        return "a second"
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172800 else f"{seconds // 86400} days"


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def once(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def place(job: JobRecord) -> str | None:
    """Where it goes, or from where: the chat, the channel, the mailbox."""
    found = {name: value for name, value in job.payload.items() if isinstance(value, str)}
    if "chatId" in found:
        return f"the chat {found['chatId']}"
    if "channelId" in found and "teamId" in found:
        return f"the channel {found['channelId']} of team {found['teamId']}"
    if job.queue == "outlook-outbound" and (sender := mailbox(job)):
        return f"the mailbox {sender}"
    return None


def mailbox(job: JobRecord) -> str | None:
    """From which a mail goes."""
    value = job.payload.get("from")
    address = value.get("sender") or value.get("address") if isinstance(value, Mapping) else value
    return address if isinstance(address, str) else None


def key_of(job: JobRecord) -> str:
    """What its limit key stands for."""
    scope = (job.limit_key or "").partition(":")[0]
    if scope == "chat" and "chatId" not in job.payload:
        return "this channel" if "channelId" in job.payload else "this workflow"
    return _KEYS.get(scope, "this key")


def goes(job: JobRecord) -> str:
    """What jobs of its limit key do there."""
    return "is read from" if job.limit_key is not None and "-reads:" in job.limit_key else "goes to"


def peer(job: JobRecord) -> str:
    return "the other side" if job.queue == "notifications" else "Graph"


def failed_call(attempt: Attempt) -> Mapping[str, Any]:
    call = attempt.details.get("failed_call", attempt.details)
    return call if isinstance(call, Mapping) else {}


def status(attempt: Attempt) -> int | None:
    found = failed_call(attempt).get("status")
    return found if isinstance(found, int) else None


def ended(job: JobRecord, attempt: Attempt) -> str:
    """How it failed, in half a sentence: `Graph answered 503 Service Unavailable`."""
    found = status(attempt)
    if found is not None:
        phrase = HTTPStatus(found).phrase if found in set(HTTPStatus) else ""
        return f"{peer(job)} answered {found} {phrase}".strip()
    return _WITHOUT_ANSWER.get(attempt.error_class or ErrorClass.UNKNOWN, "it failed").format(peer=peer(job))


def tally(job: JobRecord, attempts: Iterable[Attempt]) -> str:
    """`5 times Graph answered 503 Service Unavailable, once no answer came in time`."""
    found: dict[str, int] = {}
    for attempt in attempts:
        if attempt.error_class is not None:
            text = ended(job, attempt)
            found[text] = found.get(text, 0) + 1
    return ", ".join(f"{once(times)} {text}" for text, times in found.items())


def upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def step(
    text: str, action: Action | None = None, target: object = None, payload: Mapping[str, Any] | None = None
) -> Step:
    return Step(
        text=text,
        action=action,
        target=None if target is None else str(target),
        payload=None if payload is None else dict(payload),
    )
