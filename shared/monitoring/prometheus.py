"""Figures as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from shared.monitoring.rules import LEVELS
from shared.monitoring.statistics import QueueNow, TimerRun, Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_Value = Callable[[QueueNow], float | None]

#: name, help, what of a queue; a queue without the value has no line.
GAUGES: Sequence[tuple[str, str, _Value]] = (
    ("fleet_queue_paused", "1 while the queue hands out nothing.", lambda q: q.paused),
    ("fleet_queue_ready_jobs", "Jobs that may run now.", lambda q: q.ready),
    ("fleet_queue_active_jobs", "Jobs that run.", lambda q: q.active),
    ("fleet_queue_scheduled_jobs", "Jobs that are due later, retries among them.", lambda q: q.scheduled),
    ("fleet_queue_retrying_jobs", "Jobs that failed and are due again later.", lambda q: q.retrying),
    ("fleet_queue_waiting_jobs", "Jobs that wait for a key or for other jobs.", lambda q: q.waiting),
    ("fleet_queue_dead_letters", "Dead letters that nobody has dealt with.", lambda q: q.dead_letters),
    ("fleet_queue_oldest_ready_seconds", "Age of the ready job that is due longest.", lambda q: q.oldest_ready_seconds),
    ("fleet_queue_enqueued_per_minute", "Jobs enqueued, over five minutes.", lambda q: q.enqueued_per_minute),
    ("fleet_queue_ended_per_minute", "Jobs ended, over five minutes.", lambda q: q.ended_per_minute),
    (
        "fleet_queue_failure_ratio",
        "Share of attempts that failed, over five minutes.",
        lambda q: q.recent.failure_rate if q.recent else None,
    ),
    (
        "fleet_queue_processing_seconds",
        "Mean time that an attempt took, over five minutes.",
        lambda q: q.recent.average_processing_seconds if q.recent else None,
    ),
)
#: name without `_total`, help, what of the totals.
COUNTERS: Sequence[tuple[str, str, Callable[[Totals], int]]] = (
    ("fleet_queue_enqueued_jobs", "Jobs enqueued, counted every five minutes.", lambda t: t.enqueued),
    ("fleet_queue_completed_jobs", "Jobs completed, counted every five minutes.", lambda t: t.completed),
    ("fleet_queue_failed_attempts", "Attempts that failed, counted when their job ends.", lambda t: t.failed),
    ("fleet_queue_dead_jobs", "Jobs that ended dead, counted every five minutes.", lambda t: t.dead),
    ("fleet_queue_cancelled_jobs", "Jobs cancelled, counted every five minutes.", lambda t: t.cancelled),
)


def exposition(
    queues: Sequence[QueueNow],
    totals: Sequence[Totals],
    timers: Sequence[TimerRun],
    open_alerts: Mapping[str, int],
    now: datetime,
) -> str:
    """The whole answer. `open_alerts` counts them by level."""
    lines: list[str] = []
    for name, text, value in GAUGES:
        lines += _family(name, text, "queue", {queue.queue: value(queue) for queue in queues})
    for name, text, total in COUNTERS:
        lines += _family(f"{name}_total", text, "queue", {one.queue: total(one) for one in totals}, "counter")
    shares = {
        (queue.queue, share): queue.recent.latency_at(share) for queue in queues if queue.recent for share in SHARES
    }
    lines += _head("fleet_queue_latency_seconds", "Time from due to ended, over five minutes.")
    lines += [
        f'fleet_queue_latency_seconds{{queue="{_escape(queue)}",quantile="{share}"}} {seconds}'
        for (queue, share), seconds in shares.items()
        if seconds is not None
    ]
    ages = {run.timer: (now - run.finished_at).total_seconds() for run in timers if run.finished_at is not None}
    lines += _family("fleet_queue_timer_age_seconds", "Time since a timer last finished.", "timer", ages)
    counts: dict[str, float | None] = {level: open_alerts.get(level, 0) for level in LEVELS}
    lines += _family("fleet_queue_open_alerts", "Alerts that are open.", "level", counts)
    return "\n".join(lines) + "\n"


SHARES = (0.5, 0.95, 0.99)


def _family(name: str, text: str, label: str, values: Mapping[str, float | None], kind: str = "gauge") -> Iterator[str]:
    yield from _head(name, text, kind)
    for key, value in values.items():
        if value is not None:
            yield f'{name}{{{label}="{_escape(key)}"}} {float(value)}'


def _head(name: str, text: str, kind: str = "gauge") -> Sequence[str]:
    return (f"# HELP {name} {text}", f"# TYPE {name} {kind}")


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
