"""What the routes of figures do."""

from __future__ import annotations

from shared.admin.dispatch import Reply
from shared.admin.models.figures import Bucket, Metrics, OpenAlerts, QueueFigures, RecentFigures, Stats
from shared.admin.ports import Call
from shared.admin.queue_names import check_name
from shared.handlers.registry import QUEUES
from shared.monitoring.prometheus import CONTENT_TYPE, exposition
from shared.monitoring.statistics import RANGES, Activity, QueueNow


def stats(call: Call) -> Stats:
    now, counts = call.admin.reads.open_alerts()
    alerts = OpenAlerts(
        info=counts.get("info", 0), warning=counts.get("warning", 0), critical=counts.get("critical", 0)
    )
    return Stats(at=now, queues=[_queue(one) for one in call.admin.overview()], open_alerts=alerts)


def metrics(call: Call) -> Metrics:
    span = RANGES[call.query.time_range]
    series = call.admin.statistics().series(call.query.time_range, call.query.queue)
    if not series:
        check_name(call, "queue", call.query.queue)
    return Metrics(
        time_range=call.query.time_range,
        step_seconds=span.step.total_seconds(),
        buckets=[_bucket(one) for one in series],
    )


def prometheus(call: Call) -> Reply:
    now, counts = call.admin.reads.open_alerts()
    kept = call.admin.statistics()
    text = exposition(call.admin.overview(), kept.totals(), kept.timers(), counts, now)
    return Reply(200, text.encode(), CONTENT_TYPE)


def _queue(one: QueueNow) -> QueueFigures:
    spec = QUEUES.get(one.queue)
    return QueueFigures(
        queue=one.queue,
        queue_class=spec.klass if spec else "unknown",
        paused=one.paused,
        closed=(spec.closed or None) if spec else "it is no longer declared",
        ready=one.ready,
        active=one.active,
        scheduled=one.scheduled,
        waiting=one.waiting,
        retrying=one.retrying,
        dead_letters=one.dead_letters,
        oldest_ready_seconds=one.oldest_ready_seconds,
        recent=_recent(one, one.recent) if one.recent is not None else None,
    )


def _recent(queue: QueueNow, recent: Activity) -> RecentFigures:
    return RecentFigures(
        at=recent.at,
        enqueued=recent.enqueued,
        completed=recent.completed,
        failed=recent.failed,
        dead=recent.dead,
        enqueued_per_minute=queue.enqueued_per_minute or 0.0,
        ended_per_minute=queue.ended_per_minute or 0.0,
        failure_rate=recent.failure_rate,
        average_seconds=recent.average_processing_seconds,
        p50_seconds=recent.latency_at(0.5),
        p95_seconds=recent.latency_at(0.95),
    )


def _bucket(one: Activity) -> Bucket:
    return Bucket(
        at=one.at,
        queue=one.queue,
        enqueued=one.enqueued,
        completed=one.completed,
        failed=one.failed,
        dead=one.dead,
        cancelled=one.cancelled,
        failures=dict(one.failures),
        ready=one.ready,
        active=one.active,
        scheduled=one.scheduled,
        waiting=one.waiting,
        dead_letters=one.dead_letters,
        oldest_ready_seconds=one.oldest_ready_seconds,
        average_seconds=one.average_processing_seconds,
        p50_seconds=one.latency_at(0.5),
        p95_seconds=one.latency_at(0.95),
        p99_seconds=one.latency_at(0.99),
    )
