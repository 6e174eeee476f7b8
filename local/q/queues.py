"""Queues: their figures, pause, resume, clear."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from local.q import jobs
from local.q.client import Json
from local.q.errors import CommandError, Exit, usage
from local.q.output import counted, note, say, show_json, show_table, span
from local.q.search import NOT_KEPT, WHAT
from local.q.session import AsJson, Cursor, From, Limit, Queue, To, client_of
from local.q.times import read_time

State = Annotated[
    str | None, typer.Option("--status", help="scheduled, waiting, ready, active, completed, dead or cancelled.")
]
Search = Annotated[str | None, typer.Option(help="What a caller has of it: see ./dev q show --help.")]
OfClass = Annotated[str | None, typer.Option("--error-class", help="Only dead ones of this class, e.g. auth.")]


def list_(
    context: typer.Context,
    queue: Annotated[str | None, typer.Argument(help="A queue, for its jobs; with an option, all have them.")] = None,
    status: State = None,
    search: Search = None,
    error_class: OfClass = None,
    from_: From = None,
    to: To = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Show all queues; or jobs, newest first: of a queue, or (with an option) of all."""
    client = client_of(context)
    times = {"from": read_time("--from", from_), "to": read_time("--to", to)}
    asked = {"status": status, "search": search, "errorClass": error_class, **times, "cursor": cursor}
    if queue is None and not any(asked.values()):
        stats = client.call("showStats")
        show_json(stats) if json else _show_stats(stats)
        return
    query = asked | {"limit": limit}
    if queue is not None:
        page = client.call("listJobs", queue=queue, query=query)
    else:
        page = client.call("findJobs", query=query)
    show_json(page) if json else jobs.show_page(page, with_queue=queue is None)
    if search and not page["items"] and not json:
        note(f"{WHAT}\n{NOT_KEPT}")


def _show_stats(stats: Json) -> None:
    columns = ["queue", "ready", "active", "sched", "retry", "wait", "dead", "oldest", "in/out", "fail", "state"]
    queues = stats["queues"]
    rows = [_row(one) for one in queues]
    styles = ["red" if one["deadLetters"] else "yellow" if one["paused"] else "" for one in queues]
    show_table(columns, rows, styles=styles)
    say("\nsched with those that are tried again (retry); in/out: jobs a minute; fail: share of attempts", "dim")
    alerts = {level: count for level, count in stats["openAlerts"].items() if count}
    if alerts:
        counts = ", ".join(f"{count} {level}" for level, count in alerts.items())
        say(f"Open alerts: {counts}. See ./dev q alerts", "bold")


def _row(one: Json) -> list[Any]:
    recent = one["recent"]
    rates = f"{recent['enqueuedPerMinute']:.1f}/{recent['endedPerMinute']:.1f}" if recent else ""
    failing = recent["failureRate"] if recent else None
    state = "paused" if one["paused"] else "closed" if one["closed"] else ""
    return [
        *(one[name] for name in ("queue", "ready", "active", "scheduled", "retrying", "waiting", "deadLetters")),
        span(one["oldestReadySeconds"]),
        rates,
        f"{failing:.0%}" if failing is not None else "",
        state,
    ]


def pause(context: typer.Context, queue: Queue, json: AsJson = False) -> None:
    """Start no more jobs of a queue; running ones go on."""
    done = client_of(context).call("pauseQueue", queue=queue)
    show_json(done) if json else say(f"{queue} {'is' if done['changed'] else 'was already'} paused.")


def resume(context: typer.Context, queue: Queue, json: AsJson = False) -> None:
    """Start jobs of a queue again."""
    done = client_of(context).call("resumeQueue", queue=queue)
    show_json(done) if json else say(f"{queue} {'goes on' if done['changed'] else 'was not paused'}.")


def clear(
    context: typer.Context,
    queue: Queue,
    yes: Annotated[
        str | None, typer.Option(metavar="QUEUE", help="The queue's name again, in place of asking.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Cancel what has not started; asks for the queue's name."""
    client = client_of(context)
    if yes is None and not sys.stdin.isatty():
        raise usage("nobody can be asked here.", hint=f"Add --yes {queue} to cancel its jobs without a question.")
    typed = yes if yes is not None else typer.prompt("Type the queue's name to cancel all its jobs that wait", err=True)
    if typed.strip() != queue:
        raise CommandError(Exit.ATTENTION, f"{typed!r} is not {queue}: nothing was cancelled.")
    cancelled, more = 0, True
    while more:
        answer = client.call("clearQueue", queue=queue, query={"confirm": "yes"})
        cancelled, more = cancelled + answer["cancelled"], answer["more"] and answer["cancelled"] > 0
    done = {"queue": queue, "cancelled": cancelled}
    show_json(done) if json else say(f"{counted(cancelled, 'job is', 'jobs are')} cancelled in {queue}.")
