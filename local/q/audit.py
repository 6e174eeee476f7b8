"""The audit log."""

from __future__ import annotations

import json as json_text
from typing import Annotated

import typer

from local.q.client import Json
from local.q.jobs import show_end
from local.q.output import moment, show_json, show_table
from local.q.session import AsJson, Cursor, Limit, client_of


def audit(
    context: typer.Context,
    who: Annotated[str | None, typer.Option(help="Only changes of this one.")] = None,
    action: Annotated[str | None, typer.Option(help="As job.cancel.")] = None,
    target: Annotated[str | None, typer.Option(help="As job:ID or queue:NAME.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Show who changed what, newest first."""
    query = {"who": who, "action": action, "target": target, "cursor": cursor, "limit": limit}
    page = client_of(context).call("listAudit", query=query)
    if json:
        show_json(page)
        return
    rows = [[moment(one["at"]), one["who"], one["action"], one["target"], _change(one)] for one in page["items"]]
    show_table(["at", "who", "action", "target", "after"], rows)
    show_end(page, "such changes")


def _change(one: Json) -> str:
    return json_text.dumps(one["after"], ensure_ascii=False) if one["after"] else ""
