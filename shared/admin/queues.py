"""What the routes of a queue do: pause, resume, clear, limits."""

from __future__ import annotations

from datetime import timedelta

from shared.admin.errors import wrong_field
from shared.admin.models.queues import Cleared, KeyFill, LimitsChange, QueueLimits, QueueState, RateLimit
from shared.admin.ports import Call, Order
from shared.engine.control import CLEARABLE, CLEARED_AT_ONCE
from shared.engine.ports import Limits, Rate
from shared.handlers.registry import QUEUES

#: Transactions of one request that clears: an answer comes before any proxy gives up.
CLEARS_A_REQUEST = 20


def pause(call: Call) -> QueueState:
    return _switch(call, True)


def resume(call: Call) -> QueueState:
    return _switch(call, False)


def _switch(call: Call, paused: bool) -> QueueState:
    queue = call.parameters["queue"]

    def order(order: Order) -> QueueState:
        changed = order.control.pause(queue) if paused else order.control.resume(queue)
        action = "queue.pause" if paused else "queue.resume"
        order.record(action, target(queue), {"paused": paused is not changed}, {"paused": paused})
        return QueueState(queue=queue, paused=paused, changed=changed)

    return call.order(order)


def clear(call: Call) -> Cleared:
    """A thousand jobs a transaction, each with its row in the audit log."""
    queue, cancelled = call.parameters["queue"], 0

    def order(order: Order) -> int:
        count = order.store.clear(queue, queue, CLEARABLE, CLEARED_AT_ONCE)
        order.record("queue.clear", target(queue), None, {"cancelled": count})
        return count

    for _ in range(CLEARS_A_REQUEST):
        count = call.order(order)
        cancelled += count
        if count < CLEARED_AT_ONCE:
            return Cleared(queue=queue, cancelled=cancelled, more=False)
    return Cleared(queue=queue, cancelled=cancelled, more=True)


def show_limits(call: Call) -> QueueLimits:
    row = call.admin.reads.limits(call.parameters["queue"])
    return QueueLimits(
        queue=row["queue"],
        built_in=_change(QUEUES[row["queue"]].limits),
        rate=_rate(row["rate_limit"], row["rate_seconds"]),
        concurrency=row["concurrency"],
        key_rate=_rate(row["key_rate_limit"], row["key_rate_seconds"]),
        key_concurrency=row["key_concurrency"],
        job_cost=row["job_cost"],
        used_in_window=row["used_in_window"],
        in_use=row["in_use"],
        blocked_until=row["blocked_until"],
        changed_at=row["changed_at"],
        keys=[KeyFill.model_validate(one) for one in row["keys"]],
    )


def change_limits(call: Call) -> QueueLimits:
    queue, body = call.parameters["queue"], call.body
    if body.rate is not None and body.job_cost > body.rate.limit:
        raise wrong_field("jobCost", "it is above the rate, so that no job could ever start")
    limits = Limits(
        _read_rate(body.rate), body.concurrency, _read_rate(body.key_rate), body.key_concurrency, body.job_cost
    )

    def order(order: Order) -> None:
        before = order.limits(queue)
        order.control.set_limits(queue, limits)
        order.record("queue.limits", target(queue), _told(before), _told(limits))

    call.order(order)
    return show_limits(call)


def reset_limits(call: Call) -> QueueLimits:
    """What the registry declares, now and after each migration, as if nobody had ever set others."""
    queue = call.parameters["queue"]

    def order(order: Order) -> None:
        before, limits = order.limits(queue), QUEUES[queue].limits
        order.control.set_limits(queue, limits)
        order.forget_limits_change(queue)
        order.record("queue.limits", target(queue), _told(before), _told(limits) | {"builtIn": True})

    call.order(order)
    return show_limits(call)


def target(queue: str) -> str:
    """How the audit log names a queue."""
    return f"queue:{queue}"


def _rate(limit: int | None, seconds: float | None) -> RateLimit | None:
    return RateLimit(limit=limit, window_seconds=seconds) if limit is not None and seconds is not None else None


def _read_rate(given: RateLimit | None) -> Rate | None:
    return Rate(given.limit, timedelta(seconds=given.window_seconds)) if given is not None else None


def _told(limits: Limits) -> dict[str, object]:
    return _change(limits).model_dump(mode="json", by_alias=True)


def _change(limits: Limits) -> LimitsChange:
    def rate(given: Rate | None) -> RateLimit | None:
        return _rate(given.limit, given.window.total_seconds()) if given is not None else None

    return LimitsChange(
        rate=rate(limits.rate),
        concurrency=limits.concurrency,
        key_rate=rate(limits.key_rate),
        key_concurrency=limits.key_concurrency,
        job_cost=limits.job_cost,
    )
