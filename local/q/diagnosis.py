"""Prints what the server says of a job, each step with the command that takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from shlex import quote

from local.q.client import Json
from local.q.output import say

#: An order with a longer payload is not spelled out.
LONGEST_ORDER = 600
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
    fields = [
        f"{name}={value}" if isinstance(value, str) else f"{name}:={json.dumps(value)}"
        for name, value in job["payload"].items()
    ]
    spelled = " ".join([command, *map(quote, fields)])
    return spelled if len(spelled) <= LONGEST_ORDER else f"{command} …"
