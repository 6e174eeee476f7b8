"""From a lifecycle notification to the job that acts on it; recorded and enqueued in one transaction with the event."""

from __future__ import annotations

from shared.engine.job import NewJob

QUEUE = "subscriptions"
EVENTS = ("reauthorizationRequired", "subscriptionRemoved", "missed")


def lifecycle_job(subscription_id: str, event: str, key: str) -> NewJob | None:
    """The job for one event of a subscription; None for an event that asks nothing of us. `key` is the event's own."""
    if event not in EVENTS:
        return None
    return NewJob(
        QUEUE,
        {"subscriptionId": subscription_id, "lifecycleEvent": event},
        idempotency_key=f"notification:{key}",
        correlation_id=f"notification:{key[:16]}",
    )
