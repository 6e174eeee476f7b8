"""What an alert means, what to do now, and what it is about: by the beginning of its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from shared.monitoring.error_classes import advice
from shared.monitoring.rules import RULES

Kind = Literal["queue", "dead-letters", "limits", "schedule", "job", "subscriptions", "audit"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Where to look. `name` is a queue, a schedule or a job; empty for subscriptions and the audit log."""

    kind: Kind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Meaning:
    """`remedy` is what to do now."""

    meaning: str
    remedy: str
    about: tuple[Subject, ...] = ()


@dataclass(frozen=True, slots=True)
class _Family:
    """Alerts whose keys begin alike. Their own `remedy`, in their details, comes before this one."""

    meaning: str
    remedy: str
    about: Callable[[str, Mapping[str, Any]], tuple[Subject, ...]] = lambda _scope, _details: ()


def _queue(scope: str, _details: Mapping[str, Any]) -> tuple[Subject, ...]:
    return (Subject("queue", scope), Subject("limits", scope))


def _letters(scope: str, _details: Mapping[str, Any]) -> tuple[Subject, ...]:
    return (Subject("dead-letters", scope), Subject("queue", scope))


def _letters_of_class(scope: str, details: Mapping[str, Any]) -> tuple[Subject, ...]:
    queue = str(details.get("queue") or scope.partition(":")[0])
    last = details.get("lastJobId")
    return (Subject("dead-letters", queue), *([Subject("job", str(last))] if last else []))


def _schedule(scope: str, _details: Mapping[str, Any]) -> tuple[Subject, ...]:
    return (Subject("schedule", scope),)


def _subscriptions(_scope: str, _details: Mapping[str, Any]) -> tuple[Subject, ...]:
    return (Subject("subscriptions"),)


_LOOK = "Look at its details, mend the cause, then acknowledge it so that others know."
FAMILIES: Mapping[str, _Family] = {
    "backlog": _Family(
        "More jobs are ready than usual: they come in faster than they end, or none end at all.",
        RULES["backlog"].remedy,
        _queue,
    ),
    "failure-rate": _Family(
        "An unusual share of the attempts fails. Jobs are tried again; those that use up their attempts die.",
        RULES["failure-rate"].remedy,
        _letters,
    ),
    "processing-time": _Family(
        "Attempts take long, so that the queue gets less done, and a function may reach its time limit.",
        RULES["processing-time"].remedy,
        _queue,
    ),
    "dead-letters": _Family(
        "Jobs have used up their attempts and run no more until somebody decides on them.",
        RULES["dead-letters"].remedy,
        _letters,
    ),
    "oldest-ready": _Family(
        "A job may run and no worker takes it: what is behind it waits as long.",
        RULES["oldest-ready"].remedy,
        _queue,
    ),
    "stalled": _Family(
        "Jobs come in and none ends: workers do not run, or what they run does not come back.",
        RULES["stalled"].remedy,
        _queue,
    ),
    "timer": _Family(
        "A timer of the app does not finish. Without relay and rescue due jobs and those of dead workers wait.",
        RULES["timer"].remedy,
    ),
    "dead-letter": _Family(
        "Jobs of this queue died of this class of error; the first one was told at once.",
        "Read the last one's error, mend its cause, then redrive, review or discard them: that resolves the alert.",
        _letters_of_class,
    ),
    "subscriptions": _Family(
        "What happens in Microsoft 365 is not reported, or soon will not be, for some watched resources.",
        "Look at the subscriptions that fail: each says what Graph answered. They are tried again by themselves.",
        _subscriptions,
    ),
    "identity": _Family(
        "There is no token for this identity. Its jobs wait and lose no attempt; they go on by themselves.",
        "Sign the account in again, or mend the application's credential.",
    ),
    "certificate": _Family(
        "After its end the application gets no token, and nothing is sent or received.",
        "Make a new one, upload it to the app registration beside the old one, then put it into the setting.",
    ),
    "encryption-key": _Family(
        "Payloads are sealed with a key that is not in the settings. Their jobs wait, and lose nothing.",
        "Put the key back into ENCRYPTION_KEYS_PREVIOUS; reseal before a key is taken away.",
    ),
    "schedule": _Family(
        "The schedule makes no jobs, or left out a slot.",
        "Read its problem, correct its expression, time zone or payload; the next job that it makes closes this.",
        _schedule,
    ),
    "automatic": _Family(
        "A machine answers our messages, and we would answer it for ever: its messages are kept from the application.",
        "Look at the conversation, and have the other robot made quiet. What was held back is in communication_logs.",
    ),
    "resource-data": _Family(
        "Notifications with contents could not be trusted or opened; what is genuine is fetched from Graph instead.",
        "Its details say why. Compare tenant, application id and certificates in the settings with the subscriptions'.",
        _subscriptions,
    ),
    "admin": _Family(
        "Somebody tries keys or tokens of the admin API. Wrong ones are slowed down; right ones pass.",
        "See in the app's log where they come from. Change the key if it may be known.",
        lambda _scope, _details: (Subject("audit"),),
    ),
}


def explain(key: str, details: Mapping[str, Any]) -> Meaning:
    """Of an alert's key and details; of an unknown kind too."""
    name, _, scope = key.partition(":")
    family = FAMILIES.get(name)
    own = details.get("remedy")
    if family is None:
        queue = details.get("queue")
        about = (Subject("queue", str(queue)),) if queue else ()
        return Meaning("Something reported trouble; its title and details say what.", str(own or _LOOK), about)
    known = advice(details.get("errorClass"))
    meaning, remedy = [family.meaning], [str(own or family.remedy)]
    if known is not None:
        meaning.append(known.meaning)
        remedy.append(known.remedy)
    return Meaning(" ".join(meaning), " ".join(remedy), family.about(scope, details))
