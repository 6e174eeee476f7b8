"""What the routes of alerts and of their thresholds do."""

from __future__ import annotations

from typing import Any

from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.errors import RefusalError, not_found, wrong_field
from shared.admin.jobs import read_id
from shared.admin.models.alerts import Alert, AlertPage, Subject, Threshold, ThresholdChange, Thresholds
from shared.admin.ports import Call, Order, Row
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
    def order(order: Order) -> None:
        before = {(one.rule, one.scope): one.threshold for one in order.thresholds.list()}
        for number, change in enumerate(call.body.items):
            _set(order, call.who.name, number, change)
            told = _told(before.get((change.rule, change.scope)))
            after = None if change.reset else {"warning": change.warning, "critical": change.critical}
            order.record("threshold.change", f"threshold:{change.rule}:{change.scope}", told, after)

    call.order(order)
    return thresholds(call)


def _set(order: Order, by: str, number: int, change: ThresholdChange) -> None:
    try:
        if change.reset:
            order.thresholds.reset(change.rule, change.scope)
        else:
            order.thresholds.set(change.rule, change.scope, Values(change.warning, change.critical), by)
    except ThresholdError as error:
        raise wrong_field(f"items.{number}.{error.field}", str(error).removeprefix(f"{error.field}: ")) from error


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
