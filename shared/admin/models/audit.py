"""The audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from shared.admin.models.base import ListQuery, Model, Page, ShortText


class AuditQuery(ListQuery):
    """Which changes."""

    who: ShortText | None = None
    action: ShortText | None = Field(None, description="as in job.cancel")
    target: ShortText | None = Field(None, description="as in job:<id>, queue:<name>")


class AuditEntry(Model):
    """A change: who, what, and how it was before and after."""

    id: UUID
    at: datetime
    who: str
    kind: str
    role: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    correlation_id: str


class AuditPage(Page[AuditEntry]):
    """Some changes."""
