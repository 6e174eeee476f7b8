"""What is watched and synced in Microsoft 365."""

from __future__ import annotations

from typing import Annotated

import typer

from local.q.client import Json
from local.q.jobs import show_end
from local.q.output import ago, show_json, show_table
from local.q.session import AsJson, Cursor, Limit, client_of


def subscriptions(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="covered, uncovered or failing.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Show what is watched at Graph, and how its subscriptions are."""
    page = client_of(context).call("listSubscriptions", query={"status": status, "cursor": cursor, "limit": limit})
    if json:
        show_json(page)
        return
    rows = [
        [one["resource"], one["changeTypes"], ago(one["expiresAt"]) or "none now", one["subscriptionId"], _problem(one)]
        for one in page["items"]
    ]
    show_table(["watched", "changes", "ends", "subscription", "problem"], rows)
    show_end(page, "such watched resources")


def _problem(one: Json) -> str:
    return f"{one['problem']} ({ago(one['problemSince'])}, {one['tries']} tries)" if one["problem"] else ""


def syncs(
    context: typer.Context,
    account: Annotated[str | None, typer.Option(help="Only this user or team.")] = None,
    resource_type: Annotated[str | None, typer.Option("--type", help="Only these, e.g. emails.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Show rounds of syncs, newest first."""
    query = {"account": account, "resourceType": resource_type, "cursor": cursor, "limit": limit}
    page = client_of(context).call("listSyncs", query=query)
    if json:
        show_json(page)
        return
    rows = [
        [
            one["resourceType"],
            one["account"],
            one["kind"],
            ago(one["startedAt"]),
            one["outcome"] or "goes on",
            *_counts(one),
        ]
        for one in page["items"]
    ]
    show_table(["type", "account", "kind", "begun", "outcome", "new", "changed", "gone", "error"], rows)
    show_end(page, "such syncs")


def _counts(one: Json) -> list[object]:
    return [one["createdCount"], one["updatedCount"], one["deletedCount"], one["errorMessage"]]
