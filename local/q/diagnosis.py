"""Prints what the server says of a job, each step with the command that takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from shlex import quote

from local.q.client import Json
from local.q.output import say

#: Of an order with a longer payload only the first fields are spelled out.
LONGEST_ORDER = 600
_STYLES = {"bad": "red", "good": "green", "waits": "cyan", "plain": ""}
#: By Step.action, from the step and its job.
COMMANDS: dict[str, Callable[[Json, Json], str]] = {
    "redrive": lambda step, _: f"./dev q redrive {step['target']}",
    "discard": lambda step, _: f"./dev q discard {step['target']}",
    "retry": lambda step, _: f"./dev q retry {step['target']}",
    "cancel": lambda step, _: f"./dev q cancel {step['target']}",
    "resume-queue": lambda step, _: f"./dev q resume {step['target']}",
    "sign-in": lambda step, _: f"./dev sign-in --account {step['target']}",
    "show-job": lambda step, _: f"./dev q show {step['target']}",
    "show-letter": lambda step, _: f"./dev q show {step['target']}",
    "show-alert": lambda step, _: f"./dev q alerts show {step['target']}",
    "show-limits": lambda step, _: f"./dev q limits {step['target']}",
    "show-subscriptions": lambda *_: "./dev q subscriptions",
    "enqueue-anew": lambda step, job: _anew(step, job),
    "look-at-logs": lambda *_: "./dev logs host",
    "doctor": lambda *_: "./dev q doctor",
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
        command = COMMANDS[step["action"]](step, job) if step["action"] else None
        lines.append(f"- {step['text']}" + (f"  {command}" if command else ""))
    return [*lines, f"To whoever asks: {told['tell']}."]


def _anew(step: Json, job: Json) -> str:
    """The order that makes it anew, to be corrected; its values only where they are shown, and as many as are short."""
    command = f"./dev q enqueue {step['target']}"
    if not step["payload"]:
        return command
    options = [f"--priority {job['priority']}"]
    if job["correlationId"]:
        options.append(f"--correlation-id {quote(job['correlationId'])}")
    for part in [*_fields(step["payload"]), *options]:
        if len(command) + 1 + len(part) > LONGEST_ORDER:
            return f"{command} …"
        command = f"{command} {part}"
    return command


def _fields(payload: Json) -> list[str]:
    spelled = [
        f"{name}={value}" if isinstance(value, str) else f"{name}:={json.dumps(value)}"
        for name, value in payload.items()
    ]
    return [quote(one) for one in spelled]
