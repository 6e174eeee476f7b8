"""What the routes of subscriptions and syncs do."""

from __future__ import annotations

from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.models.graph import Subscription, SubscriptionCounts, SubscriptionPage, Sync, SyncPage
from shared.admin.ports import Call


def list_subscriptions(call: Call) -> SubscriptionPage:
    query, reads = call.query, call.admin.reads
    rows = reads.subscriptions(query.status, read_cursor(query.cursor), query.limit)
    page, following = cut(rows, query.limit, lambda row: Place(row["declared_at"], row["id"]))
    items = [Subscription.model_validate(row) for row in page]
    return SubscriptionPage(
        items=items, next=following, counts=SubscriptionCounts.model_validate(reads.subscription_counts())
    )


def list_syncs(call: Call) -> SyncPage:
    query = call.query
    filters = query.model_dump(exclude={"cursor", "limit"})
    rows = call.admin.reads.syncs(filters, read_cursor(query.cursor), query.limit)
    page, following = cut(rows, query.limit, lambda row: Place(row["started_at"], row["id"]))
    return SyncPage(items=[Sync.model_validate(row) for row in page], next=following)
