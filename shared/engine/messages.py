"""The bodies of queue messages: wake-ups, and jobs that foreign producers put into a queue as they are.

A wake-up is {"wake": queue, "jobs": n}; a job is {"payload": {…}, "priority"?, "runAt"?, "delaySeconds"?, "expiresAt"?,
"expiresInSeconds"?, "idempotencyKey"?, "correlationId"?} and the keys of job_keys.py, the same form as the HTTP API
takes. Bodies are ASCII JSON, or base64 of JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.engine.errors import PayloadError, Problem, UnreadableMessageError
from shared.engine.job import NewJob
from shared.engine.job_keys import KEY_FIELDS, read_batch, read_dependencies, read_duration, read_lane, read_unique
from shared.engine.spelling import unknown_field
from shared.redaction import TOKEN

MOST_JOBS_PER_WAKE_UP = 1000
#: So many characters of a message are shown.
LONGEST_READABLE = 4000
_FIELDS = {
    "payload",
    "priority",
    "runAt",
    "delaySeconds",
    "expiresAt",
    "expiresInSeconds",
    "idempotencyKey",
    "correlationId",
    *KEY_FIELDS,
}


@dataclass(frozen=True, slots=True)
class WakeUp:
    """The queue may have up to `jobs` runnable jobs."""

    queue: str
    jobs: int


def wake_up_body(queue: str, jobs: int) -> str:
    return json.dumps({"wake": queue, "jobs": jobs})


def decode_body(body: bytes) -> dict[str, Any]:
    """The JSON object in a message body. Raises UnreadableMessageError."""
    for candidate in (body, _from_base64(body)):
        if candidate is None:
            continue
        try:
            value = json.loads(candidate.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    raise UnreadableMessageError("the body is neither a JSON object nor base64 of one")


def _from_base64(body: bytes) -> bytes | None:
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None


def readable_body(body: str) -> str:
    """The text of a message body, decoded where it is base64 of one: the beginning, without control characters."""
    decoded = _from_base64(body.strip().encode()) or b""
    try:
        inner = without_tokens(decoded.decode("utf-8-sig"))
    except UnicodeDecodeError:
        inner = ""
    text = inner if inner and all(map(_is_shown, inner)) else body
    cut = "".join(char if _is_shown(char) else "�" for char in text[:LONGEST_READABLE])
    return cut if len(text) <= LONGEST_READABLE else f"{cut} …"


def _is_shown(char: str) -> bool:
    return char.isprintable() or char in "\r\n\t"


def read_wake_up(message: dict[str, Any]) -> WakeUp | None:
    """The wake-up in a decoded body, or None when it is something else. Raises UnreadableMessageError."""
    if "wake" not in message:
        return None
    queue, jobs = message["wake"], message.get("jobs", 1)
    if not isinstance(queue, str) or not isinstance(jobs, int) or isinstance(jobs, bool):
        raise UnreadableMessageError("a wake-up needs a queue name in `wake` and a number in `jobs`")
    return WakeUp(queue, min(max(jobs, 1), MOST_JOBS_PER_WAKE_UP))


def read_job(queue: str, message: dict[str, Any]) -> NewJob:
    """The job in a decoded body. Raises PayloadError naming the fields; the payload itself is not checked here."""
    problems = [Problem(name, unknown_field(name, _FIELDS)) for name in sorted(set(message) - _FIELDS)]
    payload = message.get("payload")
    if not isinstance(payload, dict):
        problems.append(Problem("payload", "it must be a JSON object"))
    run_at = _moment("runAt", message, problems)
    expires_at = _moment("expiresAt", message, problems)
    delay = read_duration("delaySeconds", message, problems)
    expires_in = read_duration("expiresInSeconds", message, problems)
    for name in ("idempotencyKey", "correlationId"):
        if not isinstance(message.get(name), str | None):
            problems.append(Problem(name, "it must be a string"))
    unique, lane = read_unique(message, problems), read_lane(message, problems)
    depends_on, if_dependency_fails = read_dependencies(message, problems)
    batch_id = read_batch(message, problems)
    priority = message.get("priority")
    if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int)):
        problems.append(Problem("priority", "it must be a whole number from 1 (first) to 10 (last)"))
    if problems:
        raise PayloadError(_summary(problems), problems)
    return NewJob(
        queue=queue,
        payload=payload or {},
        priority=priority,
        run_at=run_at,
        delay=delay,
        idempotency_key=message.get("idempotencyKey"),
        correlation_id=message.get("correlationId"),
        expires_at=expires_at,
        expires_in=expires_in,
        unique=unique,
        lane=lane,
        depends_on=depends_on,
        if_dependency_fails=if_dependency_fails,
        batch_id=batch_id,
    )


def _moment(name: str, message: dict[str, Any], problems: list[Problem]) -> datetime | None:
    value = message.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        problems.append(Problem(name, "it must be an ISO 8601 time with an offset, as 2026-11-25T08:00:00+01:00"))
        return None
    if moment.tzinfo is None:
        problems.append(Problem(name, "it needs an offset, as Z or +01:00"))
        return None
    return moment


def _summary(problems: list[Problem]) -> str:
    return "; ".join(f"{problem.field}: {problem.message}" for problem in problems)


def without_tokens(text: str) -> str:
    """The text as it may be kept for people: tokens (JWTs), which some messages carry, are left out."""
    return TOKEN.sub("(token)", text)
