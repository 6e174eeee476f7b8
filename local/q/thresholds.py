"""What alerts are raised at."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from local.q.client import Json
from local.q.errors import usage
from local.q.output import ago, show_json, show_table
from local.q.session import AsJson, client_of

NEVER = "never"
FORM = (
    "RULE=WARNING/CRITICAL or RULE:SCOPE=WARNING/CRITICAL, as backlog:teams-outbound=5000/20000; "
    "never: no alert; 5000/ leaves the other as it is"
)


def thresholds(
    context: typer.Context,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="RULE[:SCOPE]=WARNING/CRITICAL", help=FORM)] = None,
    reset: Annotated[
        list[str] | None, typer.Option("--reset", metavar="RULE[:SCOPE]", help="The built-in values again.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show what alerts are raised at; --set and --reset change it, all together or not at all."""
    changes = [_read(text) for text in set_ or []] + [_place(text) | {"reset": True} for text in reset or []]
    client = client_of(context)
    found = client.call("changeThresholds", body={"items": changes}) if changes else client.call("showThresholds")
    show_json(found) if json else _show(found)


def _place(text: str) -> Json:
    rule, _, scope = text.partition(":")
    return {"rule": rule, "scope": scope}


def _read(text: str) -> Json:
    place, sign, values = text.partition("=")
    warning, slash, critical = values.partition("/")
    given = {name: value for name, value in (("warning", warning), ("critical", critical)) if value}
    if not (sign and slash and given):
        raise usage(f"--set {text}: write {FORM}")
    return _place(place) | {name: _value(text, value) for name, value in given.items()}


def _value(text: str, value: str) -> float | None:
    if value == NEVER:
        return None
    try:
        if math.isfinite(number := float(value)):
            return number
    except ValueError:
        pass
    raise usage(f"--set {text}: {value!r} is no number; write {FORM}")


def _show(found: Json) -> None:
    rows = [
        [
            one["rule"],
            one["scope"] or "all others",
            _spelled(one["warning"]),
            _spelled(one["critical"]),
            f"{_spelled(one['builtInWarning'])}/{_spelled(one['builtInCritical'])}",
            one["unit"],
            f"{ago(one['changedAt'])} by {one['changedBy']}" if one["changedBy"] else "",
        ]
        for one in found["items"]
    ]
    styles = ["cyan" if one["changedBy"] else "" for one in found["items"]]
    show_table(["rule", "of", "warning", "critical", "built in", "unit", "changed"], rows, styles=styles)


def _spelled(value: Any) -> str:
    return NEVER if value is None else f"{value:g}"
