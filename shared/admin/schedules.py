"""What the routes of recurring schedules do."""

from __future__ import annotations

from typing import Any

from shared.admin.errors import RefusalError, not_found, wrong_field
from shared.admin.models.jobs import Receipt
from shared.admin.models.schedules import Plan, Schedule, Schedules
from shared.admin.ports import Call, Order
from shared.engine.schedules import Schedule as Stored

UNKNOWN = "schedule of this name"


def list_schedules(call: Call) -> Schedules:
    return Schedules(items=[_shown(one) for one in call.admin.schedules().list()])


def plan(call: Call) -> Plan:
    found, times = call.admin.schedules().upcoming(call.query.cron, call.query.time_zone)
    return Plan(cron=found.expression, time_zone=found.zone.key, times=times)


def create(call: Call) -> Schedule:
    body = call.body

    def order(order: Order) -> Stored:
        if order.schedules.take(body.name) is not None:
            raise RefusalError(409, f'there is a schedule "{body.name}" already')
        made = order.schedules.put(
            body.name,
            body.queue,
            body.payload,
            body.cron,
            time_zone=body.time_zone,
            priority=body.priority,
            catch_up=body.catch_up,
            paused=body.paused,
            replace_other=False,
        )
        order.record("schedule.create", target(body.name), None, _told(made))
        return made

    return _shown(call.order(order))


def change(call: Call) -> Schedule:
    name, given = call.parameters["name"], call.body.model_dump(exclude_unset=True)

    def order(order: Order) -> Stored:
        before = _held(order, name)
        if before.unreadable is not None and "payload" not in given:
            raise wrong_field("payload", f"it cannot be read and must be given: {before.unreadable.reason}")
        now: dict[str, Any] = {
            "queue": before.queue,
            "payload": before.payload,
            "cron": before.cron,
            "time_zone": before.time_zone,
            "priority": before.priority,
            "catch_up": before.catch_up,
            "paused": before.paused,
        } | given
        after = order.schedules.put(name, **now)
        told = _told(after) | ({"payload": "changed"} if "payload" in given else {})
        order.record("schedule.change", target(name), _told(before), told)
        return after

    return _shown(call.order(order))


def delete(call: Call) -> None:
    name = call.parameters["name"]

    def order(order: Order) -> None:
        before = _held(order, name)
        order.schedules.delete(name)
        order.record("schedule.delete", target(name), _told(before), None)

    call.order(order)


def run_now(call: Call) -> Receipt:
    name = call.parameters["name"]

    def order(order: Order) -> Receipt:
        made = order.schedules.run_now(name)
        if made is None:
            raise not_found(UNKNOWN)
        order.record("schedule.run", target(name), None, {"jobId": str(made.id)})
        return Receipt(id=made.id, created=made.created, replaced=made.replaced)

    return call.order(order)


def target(name: str) -> str:
    """How the audit log names a schedule."""
    return f"schedule:{name}"


def _held(order: Order, name: str) -> Stored:
    """Nobody else changes it until the order ends."""
    found = order.schedules.take(name)
    if found is None:
        raise not_found(UNKNOWN)
    return found


def _shown(one: Stored) -> Schedule:
    return Schedule(
        name=one.name,
        queue=one.queue,
        cron=one.cron,
        time_zone=one.time_zone,
        priority=one.priority,
        catch_up=one.catch_up,
        paused=one.paused,
        next_run_at=one.next_run_at,
        last_run_at=one.last_run_at,
        last_job_id=one.last_job_id,
        problem=one.problem,
        payload=one.payload,
    )


def _told(one: Stored) -> dict[str, Any]:
    """Without the payload: the audit log holds no messages."""
    return {
        "queue": one.queue,
        "cron": one.cron,
        "timeZone": one.time_zone,
        "priority": one.priority,
        "catchUp": one.catch_up.value,
        "paused": one.paused,
    }
