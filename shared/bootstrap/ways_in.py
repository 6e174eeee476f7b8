"""What triggers hand their messages and requests to, and who may come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.bootstrap.engine import database, key_ring, missing_keys, queues, receiver
from shared.bootstrap.once import load_settings, once
from shared.bootstrap.telemetry import telemetry
from shared.engine.errors import Problem, StoreUnavailableError
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from shared.graph.notifications import ClientStates
    from shared.handlers.inbox import Inbox, PoisonSweep
    from shared.handlers.intake import Intake
    from shared.monitoring.health import Health


@once
def client_states() -> ClientStates:
    from shared.graph.notifications import ClientStates
    from shared.settings import WebhookSettings

    settings = load_settings(WebhookSettings)
    given = (settings.secret, settings.previous_secret)
    return ClientStates(*(secret.get_secret_value().encode() for secret in given if secret is not None))


@once
def intake() -> Intake:
    from shared.handlers.intake import Intake

    telemetry()
    states = client_states()
    return Intake(queues(), states)


@once
def inbox() -> Inbox:
    """What the queue triggers hand their messages to."""
    from shared.bootstrap.receiving import notification_processor
    from shared.handlers.inbox import Inbox

    return Inbox(receiver(), notification_processor().process)


@once
def poison_sweep() -> PoisonSweep:
    from shared.handlers.inbox import PoisonSweep
    from shared.handlers.registry import QUEUES

    return PoisonSweep(queues(), inbox(), QUEUES.values())


@once
def health() -> Health:
    from shared.monitoring.health import Health

    return Health(
        {"database": _reach_database, "storage": lambda: queues().reach("webhooks")},
        _settings_problems,
        waiting=missing_key_problems,
    )


def _settings_problems() -> Sequence[Problem]:
    from shared.settings import problems

    return problems()


def missing_key_problems() -> Sequence[Problem]:
    """Of keys that the settings lack: each is named by the settings' own check, or here by jobs that wait for it."""
    try:
        ring, missed = key_ring(), missing_keys().missed()
        if here := [key_id for key_id in missed if key_id in ring]:
            missing_keys().found(here)
    except (SettingsError, StoreUnavailableError):
        return ()
    return [
        Problem("ENCRYPTION_KEYS_PREVIOUS", f"jobs wait for the key {key_id}, which is not among the keys; add it")
        for key_id in missed
        if key_id not in here
    ]


def _reach_database() -> None:
    from shared.postgres.migrate import check

    check(database())
