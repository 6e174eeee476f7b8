"""A job's attempts and its timeline: newest attempt first, and what is the same again said once."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from local.q.client import Json
from local.q.output import moment, say, seconds_between, show_table, span

_ATTEMPT = re.compile(r"(attempt \d+) ?(.*)", re.DOTALL)


def show_attempts(attempts: Sequence[Json]) -> None:
    """Attempts in a row that ended alike are one, that of the newest."""
    newest_first = sorted(attempts, key=lambda one: int(one["number"]), reverse=True)
    for _, found in groupby(newest_first, key=_likeness):
        newest, *others = found
        _show(newest)
        if others:
            first, last = others[-1]["number"], others[0]["number"]
            numbers = f"attempt {last}" if first == last else f"attempts {first} to {last}"
            say(f"   The same at {numbers}, from {moment(others[-1]['startedAt'])} on (each whole: --json).")


def show_timeline(timeline: Sequence[Json]) -> None:
    rows = [[moment(one["at"]), one["event"], one["by"], one["text"]] for one in folded(timeline)]
    show_table(["at", "what", "by", "details"], rows)


def folded(timeline: Sequence[Json]) -> list[Json]:
    """Each attempt named once: no start of one that has ended, ends in a row that are alike on one line."""
    lines = [_named(one) for one in timeline]
    ended = {one["event"] for one in lines if one.get("ends")}
    kept = [one for one in lines if one.get("ends") is not False or one["event"] not in ended]
    found: list[Json] = []
    for _, alike in groupby(kept, key=lambda one: one["text"] if one.get("ends") else id(one)):
        first, *rest = alike
        if rest:
            first = rest[-1] | {"event": f"attempts {first['event'][8:]} to {rest[-1]['event'][8:]}"}
        found.append(first)
    return found


def _named(one: Json) -> Json:
    """The line of an attempt, `attempt 3` as what it is about, and whether it `ends`."""
    said = _ATTEMPT.match(one["text"]) if one["event"] in ("attempt", "started") else None
    return one | {"event": said[1], "text": said[2] or "started", "ends": one["event"] == "attempt"} if said else one


def _likeness(one: Json) -> tuple[Any, ...]:
    calls = [(call.get("method"), call.get("path"), call.get("status")) for call in calls_of(one["details"])]
    return one["errorClass"], one["message"], tuple(calls)


def _show(one: Json) -> None:
    took = span(seconds_between(one["startedAt"], one["finishedAt"]))
    say(f"{one['number']}  {moment(one['startedAt'])}  {one['outcome']} after {took}  {one['worker']}")
    if one["errorClass"]:
        say(f"   {one['errorClass']}: {one['message']}", "red")
    for call in calls_of(one["details"]):
        say(f"   {_call(call)}")
    facts = {name: value for name, value in one["details"].items() if name not in ("graph_calls", "failed_call")}
    if facts and not _is_call(facts):
        say("   " + ", ".join(f"{name} {_short(value)}" for name, value in facts.items()))


def calls_of(details: Json) -> list[Json]:
    """Each request once, though it is among the calls and the one that failed."""
    failed = details.get("failed_call")
    found = [*details.get("graph_calls", []), *([failed] if failed else []), *([details] if _is_call(details) else [])]
    return list({json.dumps(call, sort_keys=True): call for call in found if isinstance(call, dict)}.values())


def _is_call(details: Json) -> bool:
    return "method" in details and "path" in details


def _call(call: Json) -> str:
    """A request to Graph, with the ids that Microsoft's support asks for."""
    ids = [f"{name.replace('_', '-')} {call[name]}" for name in ("request_id", "client_request_id") if call.get(name)]
    return "  ".join(
        [str(call.get("method", "")), str(call.get("path", "")), str(call.get("status") or "no answer"), *ids]
    )


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
