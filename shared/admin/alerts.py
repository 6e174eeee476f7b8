"""What the routes of alerts do."""

from __future__ import annotations

from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.errors import RefusalError, not_found
from shared.admin.jobs import read_id
from shared.admin.models.alerts import Alert, AlertPage
from shared.admin.ports import Call, Order, Row

UNKNOWN = "alert with this id"


def list_alerts(call: Call) -> AlertPage:
    query = call.query
    filters = query.model_dump(exclude={"cursor", "limit"})
    rows = call.admin.reads.alerts(filters, read_cursor(query.cursor), query.limit)
    page, following = cut(rows, query.limit, lambda row: Place(row["opened_at"], row["id"]))
    return AlertPage(items=[Alert.model_validate(row) for row in page], next=following)


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

    return Alert.model_validate(call.order(order))
