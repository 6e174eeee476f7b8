"""Alerts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from local.q.client import Json
from local.q.jobs import show_end
from local.q.output import ago, moment, say, show_fields, show_json, show_table
from local.q.session import AsJson, Cursor, Limit, client_of
from shared.monitoring.rules import RULES

app = typer.Typer(help="Show open alerts, or all; look at one, acknowledge it.")
#: The command that shows what an alert is about.
LOOKS = {
    "queue": "Its jobs: ./dev q list {name}",
    "dead-letters": "Its dead letters: ./dev q dead --queue {name}",
    "limits": "Its limits: ./dev q limits {name}",
    "schedule": "The schedule {name}: ./dev q schedules",
    "job": "The job: ./dev q show {name}",
    "subscriptions": "Subscriptions: ./dev q subscriptions --status failing",
    "audit": "Who did what: ./dev q audit",
}
#: What details are called; others keep their name. SILENT ones are said otherwise.
NAMES = {
    "was": "was", "value": "measured", "now": "now", "threshold": "alert above", "lastMessage": "newest error",
    "lastJobId": "newest job", "lastDeadLetterId": "newest dead letter", "openedBy": "first dead letter",
    "errorClass": "class of errors",
}  # fmt: skip
SILENT = ("remedy", "rule", "unit")
STYLES = {"critical": "red", "warning": "yellow"}


@app.callback(invoke_without_command=True)
def alerts(context: typer.Context, json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_(context, json=json)


@app.command("list")
def list_(
    context: typer.Context,
    status: Annotated[str, typer.Option(help="open, resolved or all.")] = "open",
    level: Annotated[str | None, typer.Option(help="info, warning or critical.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Alerts, newest first."""
    query = {"status": None if status == "all" else status, "level": level, "cursor": cursor, "limit": limit}
    page = client_of(context).call("listAlerts", query=query)
    if json:
        show_json(page)
        return
    rows = [[one["id"], one["level"], ago(one["openedAt"]), _state(one), _what(one)] for one in page["items"]]
    styles = [STYLES.get(one["level"], "") for one in page["items"]]
    show_table(["alert", "level", "opened", "state", "what, and what to do"], rows, styles=styles)
    show_end(page, "such alerts")


def _state(one: Json) -> str:
    if one["resolvedAt"]:
        return f"resolved {ago(one['resolvedAt'])}"
    return f"seen by {one['acknowledgedBy']}" if one["acknowledgedAt"] else "open"


def _what(one: Json) -> str:
    return f"{one['title']}. {one['remedy']}"


@app.command()
def show(
    context: typer.Context,
    alert: Annotated[str, typer.Argument(help="An alert's id.")],
    json: AsJson = False,
) -> None:
    """Show one alert: what it means, what to do now, and where to look."""
    found = client_of(context).call("showAlert", id=alert)
    if json:
        show_json(found)
        return
    say(f"{found['id']}  {found['key']}  {found['level']}, {_state(found)}", "bold")
    say(found["title"], STYLES.get(found["level"], ""))
    say(f"\n{found['meaning']}\n")
    details = found["details"]
    own = {
        NAMES.get(name, name): _written(name, value, details) for name, value in details.items() if name not in SILENT
    }
    show_fields([
        ("opened", moment(found["openedAt"])), ("last seen", moment(found["updatedAt"])),
        ("seen", f"{found['occurrences']} times"), *own.items(),
    ])  # fmt: skip
    if found["resolvedAt"]:
        return
    say("\nWhat to do now", "bold")
    say(found["remedy"])
    for one in found["about"]:
        say(LOOKS[one["kind"]].format(name=one["name"]))
    if not found["acknowledgedAt"]:
        say(f"You look after it: ./dev q alerts ack {found['id']}")


def _written(name: str, value: Any, details: Json) -> Any:
    """A figure with its unit."""
    rule = RULES.get(details.get("rule", ""))
    if rule is None or value is None or name not in ("value", "now", "threshold"):
        return value
    return rule.measured(value)


@app.command()
def ack(
    context: typer.Context,
    alert: Annotated[str, typer.Argument(help="An alert's id.")],
    json: AsJson = False,
) -> None:
    """Say that somebody looks after an alert: nothing more of it is told."""
    done = client_of(context).call("acknowledgeAlert", id=alert)
    show_json(done) if json else say(f"{done['key']} is acknowledged by {done['acknowledgedBy']}.")
