"""Builds everything, on first use and once in a process. The only package that knows all parts.

Settings are read here, group by group: what needs a group that is not there raises SettingsError, and the rest
works. Nothing is imported before it is needed, so that a cold start pays for what it uses.
"""

from shared.bootstrap.engine import (
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
from shared.bootstrap.graph import (
    application,
    application_client,
    graph_session,
    mail,
    service_account_tokens,
    sign_in,
    teams,
    teams_as,
)
from shared.bootstrap.once import built, stop
from shared.bootstrap.receiving import encryption_certificates, notification_processor
from shared.bootstrap.watching import reconciler, subscription_records, upkeep_timer, watched_resources
from shared.bootstrap.ways_in import (
    admin_access,
    client_states,
    health,
    inbox,
    intake,
    missing_key_problems,
    poison_sweep,
)

__all__ = [
    "admin_access",
    "application",
    "application_client",
    "built",
    "client_states",
    "control",
    "database",
    "encryption_certificates",
    "graph_session",
    "handler_for",
    "health",
    "heartbeat",
    "inbox",
    "intake",
    "key_ring",
    "mail",
    "missing_key_problems",
    "notification_processor",
    "partitions",
    "poison_sweep",
    "producer",
    "queues",
    "receiver",
    "reconciler",
    "relay",
    "rescue",
    "reseal",
    "scheduler",
    "schedules",
    "sealer",
    "service_account_tokens",
    "sign_in",
    "stop",
    "store",
    "subscription_records",
    "teams",
    "teams_as",
    "upkeep_timer",
    "watched_resources",
    "worker",
]
