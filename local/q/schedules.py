"""Recurring schedules."""

from __future__ import annotations

from typing import Annotated

import typer

from local.q.client import Json
from local.q.enqueue import read_payload
from local.q.errors import usage
from local.q.output import ago, moment, say, show_json, show_table
from local.q.session import AsJson, Queue, client_of, confirm

app = typer.Typer(help="Show, create, change, pause, resume, run, delete schedules.")
Name = Annotated[str, typer.Argument(help="The schedule's name.")]
CatchUp = Annotated[
    str, typer.Option(help="After an outage: once (one job for all that were missed), skip (none) or all.")
]


@app.callback(invoke_without_command=True)
def schedules(context: typer.Context, json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_(context, json)


@app.command("list")
def list_(context: typer.Context, json: AsJson = False) -> None:
    """All schedules, by name."""
    found = client_of(context).call("listSchedules")
    if json:
        show_json(found)
        return
    rows = [
        [one["name"], one["queue"], one["cron"], one["timeZone"], _next(one), ago(one["lastRunAt"]), one["problem"]]
        for one in found["items"]
    ]
    show_table(["schedule", "queue", "cron", "time zone", "next", "last", "problem"], rows)


def _next(one: Json) -> str | None:
    return "paused" if one["paused"] else moment(one["nextRunAt"])


@app.command()
def create(
    context: typer.Context,
    name: Name,
    queue: Queue,
    cron: Annotated[str, typer.Argument(help='As "0 7 * * mon-fri".')],
    fields: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=TEXT | KEY:=JSON]...", help="Fields of the payload.")
    ] = None,
    file: Annotated[str | None, typer.Option("-f", "--file", help="The payload as JSON; - is standard input.")] = None,
    time_zone: Annotated[str, typer.Option(help="As Europe/Berlin.")] = "UTC",
    priority: Annotated[int | None, typer.Option(help="1 (first) to 10 (last).")] = None,
    catch_up: CatchUp = "once",
    paused: Annotated[bool, typer.Option("--paused", help="It makes no jobs before it is resumed.")] = False,
    json: AsJson = False,
) -> None:
    """Make a schedule."""
    body = {
        "name": name, "queue": queue, "cron": cron, "payload": read_payload(file, fields or []),
        "timeZone": time_zone, "priority": priority, "catchUp": catch_up, "paused": paused,
    }  # fmt: skip
    done = client_of(context).call("createSchedule", body=body)
    show_json(done) if json else say(
        f"{name} makes its next job at {_next(done)}." if not paused else f"{name} is paused."
    )


@app.command()
def change(
    context: typer.Context,
    name: Name,
    fields: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=TEXT | KEY:=JSON]...", help="Another payload, whole.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("-f", "--file", help="Another payload as JSON; - is standard input.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue.")] = None,
    cron: Annotated[str | None, typer.Option(help="Other times.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Another time zone.")] = None,
    priority: Annotated[int | None, typer.Option(help="1 (first) to 10 (last).")] = None,
    catch_up: Annotated[str | None, typer.Option(help="once, skip or all.")] = None,
    json: AsJson = False,
) -> None:
    """Change a schedule; what is not named stays."""
    given = {"queue": queue, "cron": cron, "timeZone": time_zone, "priority": priority, "catchUp": catch_up}
    body: Json = {name: value for name, value in given.items() if value is not None}
    if fields or file:
        body["payload"] = read_payload(file, fields or [])
    if not body:
        raise usage("name what is to change: --cron, --time-zone, --queue, --priority, --catch-up, or a payload")
    done = client_of(context).call("changeSchedule", name=name, body=body)
    show_json(done) if json else say(
        f"{name} is changed. It is paused." if done["paused"] else f"{name} makes its next job at {_next(done)}."
    )


@app.command()
def times(
    context: typer.Context,
    cron: Annotated[str, typer.Argument(help='As "0 7 * * mon-fri".')],
    time_zone: Annotated[str, typer.Option(help="As Europe/Berlin.")] = "UTC",
    json: AsJson = False,
) -> None:
    """When an expression is due next; nothing is made of it."""
    found = client_of(context).call("planSchedule", query={"cron": cron, "timeZone": time_zone})
    if json:
        show_json(found)
        return
    for at in found["times"]:
        say(f"{moment(at)}  {ago(at)}")


@app.command()
def pause(context: typer.Context, name: Name, json: AsJson = False) -> None:
    """Make no more jobs."""
    done = client_of(context).call("changeSchedule", name=name, body={"paused": True})
    show_json(done) if json else say(f"{name} is paused.")


@app.command()
def resume(context: typer.Context, name: Name, json: AsJson = False) -> None:
    """Make jobs again."""
    done = client_of(context).call("changeSchedule", name=name, body={"paused": False})
    show_json(done) if json else say(f"{name} makes its next job at {_next(done)}.")


@app.command()
def run(context: typer.Context, name: Name, json: AsJson = False) -> None:
    """Make a job now, besides the slots."""
    done = client_of(context).call("runSchedule", name=name)
    show_json(done) if json else say(f"{done['id']}  {'enqueued' if done['created'] else 'was there already'}")


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: AsJson = False,
) -> None:
    """Forget a schedule; jobs that it made stay. Asks."""
    confirm(f"Delete the schedule {name}?", yes)
    client_of(context).call("deleteSchedule", name=name)
    show_json({"name": name, "deleted": True}) if json else say(f"{name} is deleted.")
