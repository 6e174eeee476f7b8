"""Enqueue: a payload from arguments, a file or standard input."""

from __future__ import annotations

import json as json_text
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from local.q.client import Json
from local.q.errors import CommandError, usage
from local.q.output import say, show_json
from local.q.session import AsJson, Queue, client_of, finite

MOST_JOBS = 1000


def enqueue(
    context: typer.Context,
    queue: Queue,
    fields: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=TEXT | KEY:=JSON]...", help="Fields of the payload.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("-f", "--file", help="JSON: one payload or a list of them; - is standard input.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="1 (first) to 10 (last).")] = None,
    delay: Annotated[
        float | None, typer.Option(metavar="SECONDS", callback=finite, help="Not before so many seconds.")
    ] = None,
    run_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not before, as 2026-12-01T08:00:00+01:00.")
    ] = None,
    expires_in: Annotated[
        float | None, typer.Option(metavar="SECONDS", callback=finite, help="Dead if not started by then.")
    ] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key again gives the same job.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="For tracing.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TEXT",
            help="Any other option of docs/reference/http.md, e.g. orderingKey=truck-7; NAME:=JSON.",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Enqueue a job, or a list of them (all or none)."""
    payloads = _payloads(file, fields or [])
    named = {
        "priority": priority, "delaySeconds": delay, "runAt": run_at, "expiresInSeconds": expires_in,
        "idempotencyKey": idempotency_key, "correlationId": correlation_id,
    }  # fmt: skip
    options = {name: value for name, value in named.items() if value is not None}
    options |= dict(read_option(text) for text in option or [])
    if isinstance(payloads, dict):
        body: Any = {"payload": payloads, **options}
    else:
        if "idempotencyKey" in options:
            raise usage("--idempotency-key goes with one job: all jobs of a list would be the same one")
        body = [{"payload": one, **options} for one in payloads]
    try:
        answer = client_of(context).call("enqueueJobs", queue=queue, body=body)
    except CommandError as error:
        raise _as_options(error) from None
    if json:
        show_json(answer)
        return
    for one in answer.get("jobs", [answer]):
        say(f"{one['id']}  {'enqueued' if one['created'] else _was_there(one)}")


def _was_there(receipt: Json) -> str:
    differs = " Its payload is another one than yours!" if receipt.get("differs") else ""
    return f"was there already, with one of these keys: nothing new was stored.{differs}"


def _payloads(file: str | None, fields: list[str]) -> dict[str, Any] | list[Any]:
    if file is None:
        if not fields:
            raise usage("the payload is missing: give KEY=TEXT fields, or --file (- for standard input)")
        return dict(map(_field, fields))
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
        found = _parsed(text)
    except (OSError, ValueError, RecursionError) as error:
        raise usage(f"--file {file}: it cannot be read as JSON: {error}") from error
    if isinstance(found, dict):
        return found | dict(map(_field, fields))
    if not isinstance(found, list) or not 0 < len(found) <= MOST_JOBS:
        raise usage(f"--file {file}: it must hold an object, or a list of 1 to {MOST_JOBS} of them")
    extra = dict(map(_field, fields))
    return [one | extra if isinstance(one, dict) else one for one in found]


def read_payload(file: str | None, fields: list[str]) -> dict[str, Any]:
    """One payload. Raises CommandError."""
    found = _payloads(file, fields)
    if not isinstance(found, dict):
        raise usage(f"--file {file}: it must hold one object")
    return found


def _field(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip(":"):
        raise usage(f"{text!r} is no field: write KEY=TEXT, or KEY:=JSON for what is no text")
    return (name[:-1], _json(text, value)) if name.endswith(":") else (name, value)


def read_option(text: str) -> tuple[str, Any]:
    """An option of the API. Raises CommandError."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip(":"):
        raise usage(f"--option {text}: write NAME=TEXT, or NAME:=JSON for what is no text")
    if name.endswith(":"):
        return name[:-1], _json(text, value)
    if name == "dependsOn" and not value.startswith("["):
        return name, [one.strip() for one in value.split(",")]
    is_json = name.endswith(("Seconds", "Limit")) or name in ("priority", "dependsOn")
    return (name, _json(text, value)) if is_json else (name, value)


#: How the fields that have an option of their own are spelled here.
OPTIONS = {
    "priority": "--priority", "delay": "--delay", "delaySeconds": "--delay", "runAt": "--run-at",
    "expiresIn": "--expires-in", "expiresInSeconds": "--expires-in", "idempotencyKey": "--idempotency-key",
    "correlationId": "--correlation-id",
}  # fmt: skip


def _as_options(error: CommandError) -> CommandError:
    """The fields of a refusal as somebody has typed them here: KEY of the payload, or an option."""
    problems = [(_typed(field), message) for field, message in error.problems]
    return CommandError(error.code, str(error), problems=problems, hint=error.hint)


def _typed(field: str) -> str:
    """`payload.contnt` → `contnt`, `3.expiresIn` → `3.--expires-in`."""
    number, _, rest = field.partition(".")
    if number.isdigit() and rest:
        return f"{number}.{_typed(rest)}"
    return OPTIONS.get(field, field.removeprefix("payload."))


def _json(text: str, value: str) -> Any:
    try:
        return _parsed(value)
    except (ValueError, RecursionError) as error:
        raise usage(f"{text!r}: the value is not JSON: {error}") from error


def _parsed(text: str) -> Any:
    """Raises ValueError, also for what Python reads and JSON has not: NaN, Infinity, 1e400."""
    found = json_text.loads(text)
    json_text.dumps(found, allow_nan=False)
    return found
