"""Prints what the server says of a job, each step with the command that takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from shlex import quote
from typing import Any

from local.q.client import Json
from local.q.output import say

#: An order with a longer payload is not spelled out.
LONGEST_ORDER = 600
PEOPLE = ("to", "cc", "bcc")
_STYLES = {"bad": "red", "good": "green", "waits": "cyan", "plain": ""}
#: By Step.action; `target` is the step's.
COMMANDS: dict[str, Callable[[str, Json], str]] = {
    "redrive": lambda target, _: f"./dev q redrive {target}",
    "discard": lambda target, _: f"./dev q discard {target}",
    "retry": lambda target, _: f"./dev q retry {target}",
    "cancel": lambda target, _: f"./dev q cancel {target}",
    "resume-queue": lambda target, _: f"./dev q resume {target}",
    "sign-in": lambda target, _: f"./dev sign-in --account {target}",
    "show-job": lambda target, _: f"./dev q show {target}",
    "show-letter": lambda target, _: f"./dev q show {target}",
    "show-alert": lambda target, _: f"./dev q alerts show {target}",
    "show-limits": lambda target, _: f"./dev q limits {target}",
    "show-subscriptions": lambda _target, _: "./dev q subscriptions",
    "enqueue-anew": lambda target, job: _enqueue(target, job),
    "look-at-logs": lambda _target, _: "./dev logs host",
    "doctor": lambda _target, _: "./dev q doctor",
}


def show_headline(job: Json) -> None:
    told = job["diagnosis"]
    say(told["headline"], _STYLES[told["tone"]])
    for text in told["why"]:
        say(text)


def what_now(job: Json) -> list[str]:
    """Lines: what to do, and then what to tell."""
    told = job["diagnosis"]
    lines = []
    for step in told["next"]:
        command = COMMANDS[step["action"]](step["target"], job) if step["action"] else None
        lines.append(f"- {step['text']}" + (f"  {command}" if command else ""))
    return [*lines, f"To whoever asks: {told['tell']}."]


def _enqueue(queue: str, job: Json) -> str:
    """The order that made the job, to be corrected; its values only where they are shown and short."""
    command = f"./dev q enqueue {queue}"
    if job["payloadMasked"] or not job["payload"]:
        return command
    if job.get("deliveryFailures"):
        people, rest = _failed_only(job)
        command, payload = " ".join([command, *_fields(people)]), rest
    else:
        payload = job["payload"]
    spelled = " ".join([command, *_fields(payload)])
    return spelled if len(spelled) <= LONGEST_ORDER else f"{command} …"


def _fields(payload: Json) -> list[str]:
    spelled = [
        f"{name}={value}" if isinstance(value, str) else f"{name}:={json.dumps(value)}"
        for name, value in payload.items()
    ]
    return [quote(one) for one in spelled]


def _failed_only(job: Json) -> tuple[Json, Json]:
    """A mail's payload for those whom it did not reach, where they stood, and what else is in it. An address that does
    not exist is a text that an enqueue refuses, until somebody corrects it."""
    statuses: dict[str, list[str]] = {}
    for one in job["deliveryFailures"]:
        statuses.setdefault(one["recipient"].lower(), []).append(one["status"])
    payload, people, found = job["payload"], {}, set()
    for name in PEOPLE:
        kept = [one for one in payload.get(name) or () if _address(one).lower() in statuses]
        found |= {_address(one).lower() for one in kept}
        if kept:
            people[name] = [_corrected(one, statuses) for one in kept]
    # Who is behind a list or another name of the same person stands in no field.
    others = [_corrected(one, statuses) for one in statuses if one not in found]
    if others:
        people["to"] = [*people.get("to", ()), *others]
    rest = {name: value for name, value in payload.items() if name not in PEOPLE}
    if isinstance(rest.get("original"), dict):
        # A reply would go to those who have it, too.
        rest["original"] = rest["original"] | {"action": "forward"}
    return people, rest


def _address(recipient: Any) -> str:
    return str(recipient.get("address") if isinstance(recipient, dict) else recipient)


def _corrected(recipient: Any, statuses: dict[str, list[str]]) -> Any:
    address = _address(recipient)
    if any(status.startswith("5.1.") for status in statuses[address.lower()]):
        address = f"CORRECT-ADDRESS of {address}"
    return recipient | {"address": address} if isinstance(recipient, dict) else address
