"""What the route of the audit log does."""

from __future__ import annotations

from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.models.audit import AuditEntry, AuditPage
from shared.admin.ports import Call


def list_audit(call: Call) -> AuditPage:
    query = call.query
    filters = query.model_dump(exclude={"cursor", "limit"})
    rows = call.admin.reads.audit(filters, read_cursor(query.cursor), query.limit)
    page, following = cut(rows, query.limit, lambda row: Place(row["at"], row["id"]))
    return AuditPage(items=[AuditEntry.model_validate(row) for row in page], next=following)
