"""What the routes of alerts and of their thresholds do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.errors import RefusalError, not_found, wrong_fields
from shared.admin.jobs import read_id
from shared.admin.models.alerts import Alert, AlertPage, Subject, Threshold, ThresholdChange, Thresholds
from shared.admin.ports import Call, Order, Row
from shared.engine.errors import Problem
from shared.monitoring.meaning import explain
from shared.monitoring.rules import RULES, SetThreshold, ThresholdError, threshold_of
from shared.monitoring.rules import Threshold as Values

UNKNOWN = "alert with this id"


def list_alerts(call: Call) -> AlertPage:
    query = call.query
    filters = query.model_dump(exclude={"cursor", "limit"})
    rows = call.admin.reads.alerts(filters, read_cursor(query.cursor), query.limit)
    page, following = cut(rows, query.limit, lambda row: Place(row["opened_at"], row["id"]))
    return AlertPage(items=[_alert(row) for row in page], next=following)


def show(call: Call) -> Alert:
    row = call.admin.reads.alert(read_id(call.parameters["id"], UNKNOWN))
    if row is None:
        raise not_found(UNKNOWN)
    return _alert(row)


def _alert(row: Row) -> Alert:
    told = explain(row["key"], row["details"])
    about = [Subject(kind=one.kind, name=one.name) for one in told.about]
    return Alert.model_validate({**row, "meaning": told.meaning, "remedy": told.remedy, "about": about})


def acknowledge(call: Call) -> Alert:
    alert_id = read_id(call.parameters["id"], UNKNOWN)

    def order(order: Order) -> Row:
        before = order.alert(alert_id)
        if before is None:
            raise not_found(UNKNOWN)
        if before["resolved_at"] is not None:
            raise RefusalError(409, "the alert is resolved")
        order.acknowledge(alert_id, call.who.name)
        told = {"acknowledgedBy": before["acknowledged_by"]}
        order.record("alert.acknowledge", f"alert:{alert_id}", told, {"acknowledgedBy": call.who.name})
        return order.alert(alert_id) or before

    return _alert(call.order(order))


def thresholds(call: Call) -> Thresholds:
    """The rules' own, for all and for single scopes, and in their place what somebody set."""
    given = {(one.rule, one.scope): one for one in call.admin.thresholds().list()}
    own = {(rule.name, scope): values for rule in RULES.values() for scope, values in _own(rule.name).items()}
    places = sorted({*own, *given}, key=lambda place: ([*RULES].index(place[0]) if place[0] in RULES else 99, place))
    return Thresholds(items=[_shown(*place, given.get(place), own.get(place)) for place in places])


def change_thresholds(call: Call) -> Thresholds:
    items: Sequence[ThresholdChange] = call.body.items
    problems = _misfits(items)
    if problems:
        raise wrong_fields(problems)

    def order(order: Order) -> None:
        before = order.held_thresholds()
        wrong = [_change(order, call.who.name, number, change, before) for number, change in enumerate(items)]
        if any(wrong):
            raise wrong_fields([one for one in wrong if one])

    call.order(order)
    return thresholds(call)


def _misfits(items: Sequence[ThresholdChange]) -> list[Problem]:
    """What is wrong whatever holds now."""
    found: list[Problem] = []
    first: dict[tuple[str, str], int] = {}
    for number, change in enumerate(items):
        field = f"items.{number}"
        if change.reset and change.levels():
            found.append(Problem(f"{field}.reset", "it takes neither warning nor critical: leave them out"))
        if not change.reset and not change.levels():
            found.append(Problem(f"{field}.warning", "give warning, critical (null: never) or reset"))
        other = first.setdefault((change.rule, change.scope), number)
        if other != number:
            found.append(Problem(f"{field}.scope", f"items.{other} has this rule and scope already: each goes once"))
    return found


def _change(
    order: Order, by: str, number: int, change: ThresholdChange, before: Mapping[tuple[str, str], Values]
) -> Problem | None:
    """Change and record it, or what is wrong with it. What a level was is what held before the whole order."""
    place, given = (change.rule, change.scope), change.levels()
    now = replace(threshold_of(RULES[change.rule], change.scope, before), **given) if change.rule in RULES else None
    try:
        if change.reset:
            if not order.thresholds.reset(*place):
                return None
        else:
            order.thresholds.set(*place, now or Values(None, None), by)
    except ThresholdError as error:
        return _problem(f"items.{number}", error, now, given)
    after = None if change.reset else _told(now)
    order.record("threshold.change", f"threshold:{change.rule}:{change.scope}", _told(before.get(place)), after)
    return None


def _problem(field: str, error: ThresholdError, now: Values | None, given: Mapping[str, float | None]) -> Problem:
    if error.field == "critical" and "critical" not in given and now is not None:
        return Problem(f"{field}.warning", f"it must not be above critical, which stays {now.critical:g}")
    return Problem(f"{field}.{error.field}", str(error).removeprefix(f"{error.field}: "))


def _own(rule: str) -> dict[str, Values]:
    return {"": RULES[rule].threshold, **RULES[rule].scopes}


def _shown(rule: str, scope: str, given: SetThreshold | None, own: Values | None) -> Threshold:
    values = given.threshold if given else own or Values(None, None)
    declared = RULES.get(rule)
    built_in = threshold_of(declared, scope, {}) if declared else Values(None, None)
    return Threshold(
        rule=rule,
        scope=scope,
        warning=values.warning,
        critical=values.critical,
        built_in_warning=built_in.warning,
        built_in_critical=built_in.critical,
        unit=declared.unit if declared else "",
        remedy=declared.remedy if declared else "the rule is no longer declared",
        changed_at=given.changed_at if given else None,
        changed_by=given.changed_by if given else None,
    )


def _told(values: Values | None) -> dict[str, Any] | None:
    return {"warning": values.warning, "critical": values.critical} if values is not None else None
