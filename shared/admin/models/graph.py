"""What is watched and synced in Microsoft 365."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from shared.admin.models.base import ListQuery, Model, Page, ShortText


class SubscriptionCounts(Model):
    """How well all that is declared is watched; `nextExpiryAt` is the soonest, `pausedUntil` is when Graph may be asked
    again."""

    declared: int
    covered: int
    uncovered: int
    failing: int
    expiring: int
    strays: int
    gaps_not_synced: int
    next_expiry_at: datetime | None
    paused_until: datetime | None


class SubscriptionsQuery(ListQuery):
    """Which watched resources."""

    status: Literal["covered", "uncovered", "failing"] | None = None


class Subscription(Model):
    """A resource that is watched, and its subscription at Graph (null: none now)."""

    id: UUID
    resource: str
    change_types: str
    declared_at: datetime
    due_at: datetime
    tries: int
    problem: str | None
    problem_since: datetime | None
    subscription_id: str | None
    expires_at: datetime | None
    renewed_at: datetime | None


class SubscriptionPage(Page[Subscription]):
    """Some of them, newest first, and the counts of all."""

    counts: SubscriptionCounts


class SyncsQuery(ListQuery):
    """Which rounds."""

    account: ShortText | None = None
    resource_type: ShortText | None = None


class Sync(Model):
    """A round of a sync. `outcome` is null while it goes on."""

    id: UUID
    resource_type: str
    account: str
    kind: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    pages: int
    resyncs: int
    created_count: int
    updated_count: int
    deleted_count: int
    job_id: UUID | None
    error_message: str | None


class SyncPage(Page[Sync]):
    """Some rounds."""
