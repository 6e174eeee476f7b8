"""Dead letters: grouped or one by one, review, redrive, discard."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from local.q.client import Json
from local.q.errors import usage
from local.q.jobs import show_end
from local.q.output import ago, say, show_json, show_table
from local.q.session import AsJson, Cursor, Limit, client_of, confirm

MOST_REDRIVEN = 500
Letter = Annotated[str, typer.Argument(help="The id of a dead letter or of its job.")]
OfQueue = Annotated[str | None, typer.Option("--queue", help="Only those of this queue.")]
OfClass = Annotated[str | None, typer.Option("--error-class", help="Only those of this class, e.g. auth.")]
OfPattern = Annotated[
    str | None, typer.Option("--pattern", help="Only those of a group: its pattern, as dead shows it.")
]
Reviewed = Annotated[
    bool | None, typer.Option("--reviewed/--unreviewed", help="Only those that somebody has, or has not, reviewed.")
]


def dead(
    context: typer.Context,
    queue: OfQueue = None,
    reviewed: Reviewed = None,
    each: Annotated[bool, typer.Option("--each", help="One by one, newest first, in place of groups.")] = False,
    error_class: OfClass = None,
    pattern: OfPattern = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Show open dead letters, grouped by their error."""
    client = client_of(context)
    if each:
        query = _filter(queue, error_class, pattern, reviewed) | {"status": "open", "cursor": cursor, "limit": limit}
        page = client.call("listDeadLetters", query=query)
        show_json(page) if json else _show_letters(page)
        return
    if error_class or pattern or cursor:
        raise usage("--error-class, --pattern and --cursor go with --each")
    groups = client.call("groupDeadLetters", query={"queue": queue, "reviewed": reviewed})
    show_json(groups) if json else _show_groups(groups)


def _show_groups(found: Json) -> None:
    if not found["groups"]:
        say("There are no open dead letters.")
        return
    rows = [
        [
            one["count"],
            one["unreviewed"],
            one["queue"],
            one["errorClass"],
            ago(one["lastAt"]),
            one["exampleId"],
            one["pattern"],
        ]
        for one in found["groups"]
    ]
    show_table(["letters", "unreviewed", "queue", "class", "last", "example", "pattern"], rows)
    if not found["complete"]:
        say(f"Only the newest {found['counted']:,} are in these groups.")
    say("\nLook at one: ./dev q show EXAMPLE   Run a group again: ./dev q redrive --queue … --pattern …")


def _show_letters(page: Json) -> None:
    rows = [
        [one["id"], one["queue"], ago(one["diedAt"]), one["reviewedBy"], f"{one['errorClass']}: {one['errorMessage']}"]
        for one in page["items"]
    ]
    show_table(["dead letter", "queue", "died", "reviewed by", "error"], rows)
    show_end(page, "such dead letters")


def redrive(
    context: typer.Context,
    letter: Annotated[str | None, typer.Argument(help="One: its id or its job's. Several: the options below.")] = None,
    queue: OfQueue = None,
    error_class: OfClass = None,
    pattern: OfPattern = None,
    reviewed: Reviewed = None,
    died_after: Annotated[str | None, typer.Option(metavar="TIME", help="As 2026-12-01T08:00:00Z.")] = None,
    died_before: Annotated[str | None, typer.Option(metavar="TIME")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_REDRIVEN, help="So many at most, oldest first.")] = 100,
    rate: Annotated[
        float | None, typer.Option(metavar="PER SECOND", help="So many a second, one after the other.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: AsJson = False,
) -> None:
    """Run one dead job again, or all that fit; asks then."""
    client = client_of(context)
    chosen = _filter(queue, error_class, pattern, reviewed) | {"diedAfter": died_after, "diedBefore": died_before}
    fitting = {name: value for name, value in chosen.items() if value is not None}
    if (letter is None) == (not fitting):
        raise usage("name one dead letter, or say which ones by --queue, --error-class, --pattern, --reviewed or times")
    if letter is not None:
        order: Json = {"ids": [client.call("showDeadLetter", id=letter)["id"]]}
    else:
        spelled = ", ".join(f"{name} {value}" for name, value in fitting.items())
        confirm(f"Run up to {limit} dead jobs again ({spelled})?", yes)
        order = {"filter": fitting, "limit": limit}
    if rate is not None:
        order["ratePerSecond"] = rate
    done = client.call("redriveDeadLetters", body=order)
    show_json(done) if json else _show_redriven(done)


def _show_redriven(done: Json) -> None:
    for one in done["redriven"]:
        say(f"{one['id']}  runs again as {one['jobId']}")
    for one in done["skipped"]:
        say(f"{one['id']}  left as it is: {one['reason']}", "yellow")
    if not done["redriven"] and not done["skipped"]:
        say("No open dead letter fits.")
    if done["more"]:
        say("More of them fit: run it again.")


def review(
    context: typer.Context,
    letter: Letter,
    note: Annotated[str, typer.Argument(help="What was found out.")],
    json: AsJson = False,
) -> None:
    """Note what was found out about a dead letter."""
    done = client_of(context).call("reviewDeadLetter", id=letter, body={"note": note})
    show_json(done) if json else say(f"{done['id']} is reviewed by {done['reviewedBy']}.")


def discard(
    context: typer.Context,
    letter: Letter,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: AsJson = False,
) -> None:
    """Give a dead letter up for good; asks."""
    client = client_of(context)
    found = client.call("showDeadLetter", id=letter)
    confirm(f"Give up {found['queue']} {found['errorClass']}: {found['errorMessage'][:100]}?", yes)
    done = client.call("discardDeadLetter", id=letter)
    show_json(done) if json else say(f"{done['id']} is given up.")


def _filter(queue: str | None, error_class: str | None, pattern: str | None, reviewed: bool | None) -> dict[str, Any]:
    return {"queue": queue, "errorClass": error_class, "pattern": pattern, "reviewed": reviewed}
