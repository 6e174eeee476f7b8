"""Dead letters: grouped or one by one, review, redrive, discard."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from local.q.client import Client, Json
from local.q.errors import Exit, usage
from local.q.jobs import show_end
from local.q.output import ago, say, show_json, show_table
from local.q.search import letter_id
from local.q.session import AsJson, Cursor, From, Limit, To, client_of, confirm, confirm_count, finite
from local.q.times import HOW, read_time

MOST_ORDERED = 500
MOST_ROWS = 200
#: How the list names what orders name otherwise.
LISTED = {"diedAfter": "from", "diedBefore": "to"}
Letter = Annotated[str, typer.Argument(help="What show takes.")]
OfQueue = Annotated[str | None, typer.Option("--queue", help="Only those of this queue.")]
OfClass = Annotated[str | None, typer.Option("--error-class", help="Only those of this class, e.g. auth.")]
OfPattern = Annotated[
    str | None, typer.Option("--pattern", help="Only those of a group: its pattern, as dead shows it.")
]
Reviewed = Annotated[
    bool | None, typer.Option("--reviewed/--unreviewed", help="Only those that somebody has, or has not, reviewed.")
]
One = Annotated[str | None, typer.Argument(help="One: what show takes. Several: the options below.")]
DiedAfter = Annotated[str | None, typer.Option(metavar="TIME", help=HOW)]
DiedBefore = Annotated[str | None, typer.Option(metavar="TIME")]
Most = Annotated[int, typer.Option(min=1, max=MOST_ORDERED, help="So many at most, oldest first.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def dead(
    context: typer.Context,
    queue: OfQueue = None,
    reviewed: Reviewed = None,
    each: Annotated[bool, typer.Option("--each", help="One by one, newest first, in place of groups.")] = False,
    error_class: OfClass = None,
    pattern: OfPattern = None,
    from_: From = None,
    to: To = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Show open dead letters, grouped by their error."""
    client = client_of(context)
    if each:
        query = _filter(queue, error_class, pattern, reviewed) | {"status": "open", "cursor": cursor, "limit": limit}
        query |= {"from": read_time("--from", from_), "to": read_time("--to", to)}
        page = client.call("listDeadLetters", query=query)
        show_json(page) if json else _show_letters(page)
        return
    if error_class or pattern or from_ or to or cursor:
        raise usage("--error-class, --pattern, --from, --to and --cursor go with --each")
    groups = client.call("groupDeadLetters", query={"queue": queue, "reviewed": reviewed})
    show_json(groups) if json else _show_groups(groups)


def _times(died_after: str | None, died_before: str | None) -> dict[str, str | None]:
    after, before = read_time("--died-after", died_after), read_time("--died-before", died_before)
    return {"diedAfter": after, "diedBefore": before}


def _show_groups(found: Json) -> None:
    if not found["groups"]:
        say("There are no open dead letters.")
        return
    rows = [
        [
            one["count"],
            one["unreviewed"],
            one["queue"],
            "not ours" if one["foreign"] else one["errorClass"],
            ago(one["lastAt"]),
            one["exampleId"],
            _error(one),
        ]
        for one in found["groups"]
    ]
    show_table(["letters", "unreviewed", "queue", "class", "last", "example", "pattern, and the example's error"], rows)
    if not found["complete"]:
        say(f"Only the newest {found['counted']:,} are in these groups.")
    say("\nLook at one: ./dev q show EXAMPLE   Run a group again: ./dev q redrive --queue … --pattern …")
    say("What a redrive cannot help (validation, what is not ours): ./dev q discard --queue … --pattern … --note …")


def _error(group: Json) -> str:
    pattern, example = group["pattern"], group["exampleMessage"]
    return str(pattern) if pattern == example else f"{pattern}  (“{example[:200]}”)"


def _show_letters(page: Json) -> None:
    rows = [
        [one["id"], one["queue"], ago(one["diedAt"]), one["reviewedBy"], f"{one['errorClass']}: {one['errorMessage']}"]
        for one in page["items"]
    ]
    show_table(["dead letter", "queue", "died", "reviewed by", "error"], rows)
    show_end(page, "such dead letters")


def redrive(
    context: typer.Context,
    letter: One = None,
    queue: OfQueue = None,
    error_class: OfClass = None,
    pattern: OfPattern = None,
    reviewed: Reviewed = None,
    died_after: DiedAfter = None,
    died_before: DiedBefore = None,
    limit: Most = 100,
    rate: Annotated[
        float | None, typer.Option(metavar="PER SECOND", callback=finite, help="So many a second, one after the other.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="WHEN", help="With --rate: when the first is due, as the order before said.")
    ] = None,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Run one dead job again, or all that fit; asks then."""
    client = client_of(context)
    chosen = _filter(queue, error_class, pattern, reviewed) | _times(died_after, died_before)
    fitting = _fitting(letter, chosen)
    if letter is not None:
        order: Json = {"ids": [client.call("showDeadLetter", id=letter_id(client, letter))["id"]]}
    else:
        confirm(f"Run up to {limit} dead jobs again ({_spelled(fitting)})?", yes)
        order = {"filter": fitting, "limit": limit}
    if rate is not None:
        order["ratePerSecond"] = rate
    if start is not None:
        order["startAt"] = start
    done = client.call("redriveDeadLetters", body=order)
    show_json(done) if json else _show_redriven(done)
    if done["skipped"] and not done["redriven"]:
        raise typer.Exit(Exit.REFUSED)


def _show_redriven(done: Json) -> None:
    for one in done["redriven"]:
        say(f"{one['id']}  runs again as {one['jobId']}")
    for one in done["skipped"]:
        say(f"{one['id']}  left as it is: {one['reason']}", "yellow")
    if not done["redriven"] and not done["skipped"]:
        say("No open dead letter fits.")
    if done["more"]:
        after = f" with --start {done['nextAt']}" if done["nextAt"] else ""
        say(f"More of them fit: run it again{after}.")


def review(
    context: typer.Context,
    letter: Letter,
    note: Annotated[str, typer.Argument(help="What was found out.")],
    json: AsJson = False,
) -> None:
    """Note what was found out about a dead letter."""
    client = client_of(context)
    done = client.call("reviewDeadLetter", id=letter_id(client, letter), body={"note": note})
    show_json(done) if json else say(f"{done['id']} is reviewed by {done['reviewedBy']}.")


def discard(
    context: typer.Context,
    letter: One = None,
    queue: OfQueue = None,
    error_class: OfClass = None,
    pattern: OfPattern = None,
    reviewed: Reviewed = None,
    foreign: Annotated[
        bool | None, typer.Option("--foreign/--jobs", help="Only messages that are no jobs of ours, or only jobs.")
    ] = None,
    died_after: DiedAfter = None,
    died_before: DiedBefore = None,
    limit: Most = 100,
    note: Annotated[str | None, typer.Option(help="Why; several need it.")] = None,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Give up one dead letter for good, or all that fit; asks."""
    client = client_of(context)
    times = _times(died_after, died_before)
    fitting = _fitting(letter, _filter(queue, error_class, pattern, reviewed) | times | {"foreign": foreign})
    if letter is not None:
        found = client.call("showDeadLetter", id=letter_id(client, letter))
        confirm(f"Give up {found['queue']} {found['errorClass']}: {found['errorMessage'][:100]}?", yes)
        if note is None:
            done = client.call("discardDeadLetter", id=found["id"])
            show_json(done) if json else say(f"{done['id']} is given up.")
            return
        order: Json = {"ids": [found["id"]]}
    else:
        if note is None:
            raise usage("--note: say why these are given up; it is kept at each of them")
        count = _count(client, fitting, limit)
        if count == 0:
            say("No open dead letter fits.")
            return
        confirm_count(f"Give up {count} dead letters for good ({_spelled(fitting)})?", count, yes)
        order = {"filter": fitting, "limit": count}  # oldest first: what dies meanwhile is not among them
    done = client.call("discardDeadLetters", body=order | {"note": note})
    show_json(done) if json else _show_discarded(done)


def _count(client: Client, fitting: Json, limit: int) -> int:
    """How many open ones fit, up to the limit."""
    named = {LISTED.get(name, name): value for name, value in fitting.items()}
    count, cursor = 0, None
    while count < limit:
        query = named | {"status": "open", "cursor": cursor, "limit": min(MOST_ROWS, limit - count)}
        page = client.call("listDeadLetters", query=query)
        count, cursor = count + len(page["items"]), page["next"]
        if cursor is None:
            break
    return count


def _show_discarded(done: Json) -> None:
    say(f"{len(done['discarded'])} are given up.")
    for one in done["skipped"]:
        say(f"{one['id']}  left as it is: {one['reason']}", "yellow")
    if done["more"]:
        say("More of them fit: run it again.")


def _fitting(letter: str | None, chosen: Json) -> Json:
    """What of the options is given. Raises CommandError unless there is either that or one dead letter."""
    fitting = {name: value for name, value in chosen.items() if value is not None}
    if (letter is None) == (not fitting):
        raise usage("name one dead letter, or say which ones by --queue, --error-class, --pattern, --reviewed or times")
    return fitting


def _spelled(fitting: Json) -> str:
    return ", ".join(f"{name} {value}" for name, value in fitting.items())


def _filter(queue: str | None, error_class: str | None, pattern: str | None, reviewed: bool | None) -> dict[str, Any]:
    return {"queue": queue, "errorClass": error_class, "pattern": pattern, "reviewed": reviewed}
