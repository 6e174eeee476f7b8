"""Daily reports."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from local.q.client import Client, Json
from local.q.errors import CommandError, Exit
from local.q.jobs import show_end
from local.q.output import ago, brief, moment, say, show_fields, show_json, show_table
from local.q.session import AsJson, Cursor, Limit, client_of


def reports(context: typer.Context, cursor: Cursor = None, limit: Limit = 50, json: AsJson = False) -> None:
    """Show which daily reports there are, newest first."""
    page = client_of(context).call("listReports", query={"cursor": cursor, "limit": limit})
    if json:
        show_json(page)
        return
    show_table(["day", "made", "in short"], [[one["day"], ago(one["madeAt"]), one["subject"]] for one in page["items"]])
    show_end(page, "reports yet: the first is made after the first midnight (UTC)")


def report(
    context: typer.Context,
    day: Annotated[str | None, typer.Argument(help="As 2026-11-24; the newest when left out.")] = None,
    json: AsJson = False,
) -> None:
    """Show the report of a day (UTC), or the newest."""
    client = client_of(context)
    found = client.call("showReport", day=day or _newest(client))
    show_json(found) if json else _show(found)


def _newest(client: Client) -> str:
    items = client.call("listReports", query={"limit": 1})["items"]
    if not items:
        raise CommandError(Exit.NOT_FOUND, "there is no report yet: the first is made after the first midnight (UTC)")
    return str(items[0]["day"])


def _show(found: Json) -> None:
    figures = found["figures"]
    say(found["subject"], "bold")
    say(f"made {moment(found['madeAt'])}")
    _trend("The day, and the same day a week before", figures["total"], figures["totalWeekBefore"])
    _trend("The week up to it, and the week before", figures["week"], figures["previousWeek"])
    names = ("enqueued", "completed", "failed", "dead")
    rows: list[list[Any]] = [
        [*(one[name] for name in ("queue", *names)), *map(brief, (one["meanSeconds"], one["p50"], one["p95"]))]
        for one in figures["queues"]
    ]
    _section("Queues", ["queue", *names, "mean run", "p50", "p95"], rows)
    _section(
        "Failed attempts",
        ["times", "queue", "class"],
        [[one["times"], one["queue"], one["errorClass"]] for one in figures["failures"]],
    )
    slowest = [[brief(one["seconds"]), one["queue"], one["id"]] for one in figures["slowest"]]
    _section("Slowest jobs", ["ran for", "queue", "job"], slowest)
    letters = [[one["count"], one["queue"], one["errorClass"], one["newest"]] for one in figures["deadLetters"]]
    _section("Dead letters that waited for somebody", ["number", "queue", "class", "newest (UTC)"], letters)
    alerts = [
        [one["level"], one["openedAt"], one["resolvedAt"] or "still open", one["title"]] for one in figures["alerts"]
    ]
    _section("Alerts", ["level", "opened (UTC)", "resolved (UTC)", "what"], alerts)
    watched = figures["subscriptions"]
    say("\nSubscriptions", "bold")
    show_fields([
        ("watched", watched["watched"]), ("live", watched["live"]),
        ("with a problem", watched["withProblem"]), ("next end (UTC)", watched["nextExpiry"]),
    ])  # fmt: skip


def _trend(title: str, now: Json, before: Json) -> None:
    names = ("enqueued", "completed", "failed", "dead", "cancelled")
    rows = [[name, now[name], before[name], _change(now[name], before[name])] for name in names]
    shares = (now["failureRate"], before["failureRate"])
    rows.append(["failure rate", *(f"{share:.1%}" if share is not None else "" for share in shares), ""])
    _section(title, ["", "number", "before", "change"], rows)


def _section(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    say(f"\n{title}", "bold")
    if rows:
        show_table(columns, rows)
    else:
        say("None.")


def _change(now: int, before: int) -> str:
    if not before:
        return "new" if now else ""
    return f"{(now - before) / before:+.0%}"
