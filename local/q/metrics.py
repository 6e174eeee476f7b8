"""Figures over time."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from local.q.client import Json
from local.q.output import brief, moment, say, show_json, show_table, span
from local.q.session import AsJson, client_of

COUNTS = ("enqueued", "completed", "failed", "dead", "cancelled")
PERCENTILES = ("p50Seconds", "p95Seconds", "p99Seconds")
COLUMNS = [*COUNTS, "p50", "p95", "p99", "ready"]


def metrics(
    context: typer.Context,
    queue: Annotated[str | None, typer.Argument(help="One queue, step by step; all of them summed up without.")] = None,
    time_range: Annotated[str, typer.Option("--range", help="1h, 6h, 24h, 7d or 30d, until now.")] = "24h",
    json: AsJson = False,
) -> None:
    """Show how it went: of each queue in all, or of one queue step by step."""
    found = client_of(context).call("showMetrics", query={"timeRange": time_range, "queue": queue})
    if json:
        show_json(found)
        return
    rows = _queues(found["buckets"]) if queue is None else [_row(moment(one["at"]), [one]) for one in found["buckets"]]
    show_table(["queue" if queue is None else "from", *COLUMNS], rows)
    if not rows:
        say("Nothing is measured in this time: statistics are kept every five minutes.")
        return
    step = span(found["stepSeconds"])
    say(f"\n{time_range}; failed are attempts; p50 to p99 from due to ended, the highest of a step of {step};"
        " ready is the highest", "dim")  # fmt: skip


def _queues(buckets: list[Json]) -> list[list[Any]]:
    names = dict.fromkeys(one["queue"] for one in buckets)
    return [_row(name, [one for one in buckets if one["queue"] == name]) for name in names]


def _row(name: str | None, buckets: list[Json]) -> list[Any]:
    """Counts are added up; of percentiles and of the backlog the highest counts."""
    sums = [sum(one[count] for one in buckets) for count in COUNTS]
    return [name, *sums, *(brief(_most(buckets, share)) for share in PERCENTILES), _most(buckets, "ready")]


def _most(buckets: list[Json], name: str) -> float | None:
    return max((one[name] for one in buckets if one[name] is not None), default=None)
