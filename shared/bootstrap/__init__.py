"""Builds everything, on first use and once in a process. The only package that knows all parts.

Settings are read here, group by group: what needs a group that is not there raises SettingsError, and the rest
works. Nothing is imported before it is needed, so that a cold start pays for what it uses.
"""

from shared.bootstrap.admin import admin, admin_access
from shared.bootstrap.engine import (
    blobs,
    control,
    database,
    handler_for,
    heartbeat,
    key_ring,
    partitions,
    producer,
    queues,
    receiver,
    relay,
    rescue,
    reseal,
    scheduler,
    schedules,
    sealer,
    store,
    worker,
)
from shared.bootstrap.graph import activity_feed, application_client, bot, delta, mail, teams, teams_as, workflows
from shared.bootstrap.identity import (
    application,
    graph_session,
    identity_waits,
    identity_watch,
    service_account_tokens,
    service_accounts,
    sign_in,
)
from shared.bootstrap.monitoring import alert_watch, overview, report_timer, reports, statistics, thresholds
from shared.bootstrap.once import built, stop
from shared.bootstrap.receiving import encryption_certificates, notification_processor
from shared.bootstrap.services import delivery_failures
from shared.bootstrap.watching import reconciler, subscription_records, upkeep_timer, watched_resources
from shared.bootstrap.ways_in import (
    client_states,
    health,
    inbox,
    intake,
    missing_key_problems,
    poison_sweep,
)

__all__ = [
    "activity_feed",
    "admin",
    "admin_access",
    "alert_watch",
    "application",
    "application_client",
    "blobs",
    "bot",
    "built",
    "client_states",
    "control",
    "database",
    "delivery_failures",
    "delta",
    "encryption_certificates",
    "graph_session",
    "handler_for",
    "health",
    "heartbeat",
    "identity_waits",
    "identity_watch",
    "inbox",
    "intake",
    "key_ring",
    "mail",
    "missing_key_problems",
    "notification_processor",
    "overview",
    "partitions",
    "poison_sweep",
    "producer",
    "queues",
    "receiver",
    "reconciler",
    "relay",
    "report_timer",
    "reports",
    "rescue",
    "reseal",
    "scheduler",
    "schedules",
    "sealer",
    "service_account_tokens",
    "service_accounts",
    "sign_in",
    "statistics",
    "stop",
    "store",
    "subscription_records",
    "teams",
    "teams_as",
    "thresholds",
    "upkeep_timer",
    "watched_resources",
    "worker",
    "workflows",
]
