"""What the routes of figures do."""

from __future__ import annotations

from shared.admin.models.figures import Bucket, Metrics, QueueFigures, Stats, TimeRange
from shared.admin.ports import Call

#: Length and bucket of each range, in seconds: about a hundred points, never more than a chart can show.
RANGES = {
    TimeRange.HOUR: (3600, 300),
    TimeRange.DAY: (86_400, 900),
    TimeRange.WEEK: (7 * 86_400, 7200),
    TimeRange.MONTH: (30 * 86_400, 28_800),
}
_GAUGES = ("ready", "active", "scheduled", "waiting", "dead", "oldest_ready_seconds")


def stats(call: Call) -> Stats:
    row = call.admin.reads.stats()
    queues = [QueueFigures.model_validate(one) for one in row["queues"]]
    return Stats(at=row["at"], queues=queues, open_alerts=row["open_alerts"])


def metrics(call: Call) -> Metrics:
    length, bucket = RANGES[call.query.time_range]
    rows = call.admin.reads.buckets(call.query.queue, length, bucket)
    unknown = {"p50_seconds": None, "p95_seconds": None, "p99_seconds": None}
    buckets = [Bucket.model_validate(unknown | dict(row)) for row in rows]
    return Metrics(time_range=call.query.time_range, bucket_seconds=bucket, buckets=buckets)


def prometheus(call: Call) -> str:
    """Text that Prometheus reads: a gauge for each figure of each queue."""
    found = stats(call)
    lines = []
    for name in _GAUGES:
        lines.append(f"# TYPE fleet_queue_{name} gauge")
        for one in found.queues:
            value = getattr(one, name)
            if value is not None:
                lines.append(f'fleet_queue_{name}{{queue="{one.queue}"}} {value}')
    lines.append("# TYPE fleet_queue_paused gauge")
    lines += [f'fleet_queue_paused{{queue="{one.queue}"}} {int(one.paused)}' for one in found.queues]
    lines += ["# TYPE fleet_queue_open_alerts gauge", f"fleet_queue_open_alerts {found.open_alerts}"]
    return "\n".join(lines) + "\n"
