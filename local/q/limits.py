"""Limits of queues, and how full they are."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from local.q.client import Client, Json
from local.q.errors import usage
from local.q.output import ago, moment, say, show_fields, show_json, show_table
from local.q.session import AsJson, client_of

NONE = "none"
NAMES = ("rate", "concurrency", "keyRate", "keyConcurrency", "jobCost")


def limits(
    context: typer.Context,
    queue: Annotated[str | None, typer.Argument(help="A queue's name; all of them without.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="rate=400/20 (in seconds), keyRate, concurrency=3, keyConcurrency, jobCost; none takes one away.",
        ),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="The built-in limits again.")] = False,
    json: AsJson = False,
) -> None:
    """Show limits and how full they are; --set and --reset change a queue's."""
    client = client_of(context)
    if queue is None:
        if set_ or reset:
            raise usage("--set and --reset go with a queue: ./dev q limits QUEUE")
        _show_all(client, json)
        return
    if set_ and reset:
        raise usage("--set or --reset, one of the two")
    if reset:
        now = client.call("resetLimits", queue=queue)
    else:
        now = client.call("showLimits", queue=queue)
        if set_:
            change = {name: now[name] for name in NAMES} | dict(map(_read_limit, set_))
            now = client.call("changeLimits", queue=queue, body=change)
    show_json(now) if json else _show_limits(now)


def _show_all(client: Client, json: bool) -> None:
    names = [one["queue"] for one in client.call("showStats")["queues"]]
    found = [client.call("showLimits", queue=name) for name in names]
    if json:
        show_json({"items": found})
        return
    rows = [
        [
            one["queue"],
            _rate(one["rate"], one["usedInWindow"]),
            f"{one['inUse']} of {one['concurrency']}" if one["concurrency"] else NONE,
            _rate(one["keyRate"], None),
            one["keyConcurrency"] or NONE,
            ago(one["changedAt"]) or "built in",
        ]
        for one in found
    ]
    show_table(["queue", "rate", "at once", "rate of each key", "at once of each key", "changed"], rows)


def _read_limit(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if name not in NAMES:
        raise usage(f"--set {text}: there is no limit {name!r}; there are {', '.join(NAMES)}")
    if value == NONE and name != "jobCost":
        return name, None
    rate = re.fullmatch(r"(\d+)/(\d+(?:\.\d+)?)s?", value)
    if name in ("rate", "keyRate"):
        if rate is None:
            raise usage(f"--set {text}: it must be like {name}=400/20 (400 in 20 seconds), or {name}=none")
        return name, {"limit": int(rate[1]), "windowSeconds": float(rate[2])}
    if not re.fullmatch(r"\d{1,9}", value):
        raise usage(f"--set {text}: it must be a whole number")
    return name, int(value)


def _show_limits(now: Json) -> None:
    rate, key_rate = now["rate"], now["keyRate"]
    show_fields([
        ("queue", now["queue"]),
        ("rate", _rate(rate, now["usedInWindow"])),
        ("concurrency", f"{now['inUse']} of {now['concurrency']} in use" if now["concurrency"] else "none"),
        ("rate of each key", _rate(key_rate, None)),
        ("concurrency of each key", now["keyConcurrency"] or "none"),
        ("cost of a job", now["jobCost"]),
        ("held back until", moment(now["blockedUntil"])),
        ("changed", ago(now["changedAt"]) or "never: these are the built-in ones"),
    ])  # fmt: skip
    if now["keys"]:
        say("\nThe fullest keys", "bold")
        rows = [[one["usedInWindow"], one["inUse"], moment(one["blockedUntil"]), one["key"]] for one in now["keys"]]
        show_table(["in the window", "in use", "held back until", "key"], rows)


def _rate(rate: Json | None, used: int | None) -> str:
    if rate is None:
        return NONE
    text = f"{rate['limit']:,} in {rate['windowSeconds']:g} s"
    return text if used is None else f"{used:,} of {text} used"
