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
from shared.bootstrap.graph import application, application_client, graph_session, mail, sign_in, subscriptions, teams
from shared.bootstrap.once import built, stop
from shared.bootstrap.ways_in import (
    admin_access,
    client_states,
    health,
    inbox,
    intake,
    missing_key_problems,
    notification_processor,
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
    "relay",
    "rescue",
    "reseal",
    "scheduler",
    "schedules",
    "sealer",
    "sign_in",
    "stop",
    "store",
    "subscriptions",
    "teams",
    "worker",
]
