"""Builds everything, on first use and once in a process. The only module that knows all parts.

Settings are read here, group by group: what needs a group that is not there raises SettingsError, and the rest
works. Nothing is imported before it is needed, so that a cold start pays for what it uses.
"""

from __future__ import annotations

import base64
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import wraps
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

from shared.engine.errors import Problem, StoreUnavailableError
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from shared.access import AdminAccess
    from shared.engine.context import Context, Handler
    from shared.engine.control import Control
    from shared.engine.enqueue import Producer
    from shared.engine.heartbeat import Heartbeat
    from shared.engine.job import Deferred, Job
    from shared.engine.receive import Receiver
    from shared.engine.relay import Relay
    from shared.engine.rescue import Rescue
    from shared.engine.schedules import Scheduler, Schedules
    from shared.engine.worker import Worker
    from shared.graph.auth import Application, DelegatedTokens
    from shared.graph.client import GraphClient
    from shared.graph.mail import MailClient
    from shared.graph.notifications import ClientStates
    from shared.graph.session import GraphSession
    from shared.graph.subscriptions import Subscriptions
    from shared.graph.teams import TeamsClient
    from shared.graph.token_cache import CacheCipher
    from shared.handlers.inbox import Inbox, PoisonSweep
    from shared.handlers.intake import Intake
    from shared.handlers.services import Alerts, CommunicationLog, Operator
    from shared.handlers.webhooks import NotificationProcessor
    from shared.monitoring.health import Health
    from shared.postgres.missing_keys import MissingKeys
    from shared.postgres.partitions import Partitions
    from shared.postgres.pool import Database
    from shared.postgres.reseal import Reseal
    from shared.postgres.sealer import Sealer
    from shared.postgres.store import PostgresStore
    from shared.postgres.token_cache import PostgresTokenCache
    from shared.sealing import KeyRing
    from shared.settings import Group
    from shared.storage.queues import StorageQueues

log = logging.getLogger(__name__)

T = TypeVar("T")
G = TypeVar("G", bound="Group")

#: A job whose handler cannot be built for want of settings waits; it must not die of that.
SETTINGS_PAUSE = timedelta(minutes=1)

_lock = threading.RLock()
_built: dict[str, Any] = {}


def _once(build: Callable[[], T]) -> Callable[[], T]:
    """Build on the first call and keep it until stop(); a build that fails is tried again at the next call."""

    @wraps(build)
    def get() -> T:
        name = build.__name__
        if name not in _built:
            with _lock:
                if name not in _built:
                    _built[name] = build()
        return cast(T, _built[name])

    return get


# The engine


@_once
def database() -> Database:
    from shared.postgres.pool import Database
    from shared.settings import DatabaseSettings

    settings = _load(DatabaseSettings)
    return Database(settings.url.get_secret_value(), pooler=settings.pooler)


@_once
def key_ring() -> KeyRing:
    """What seals payloads and the service account's sign-in."""
    from shared.sealing import KeyRing
    from shared.settings import EncryptionSettings

    return KeyRing(*map(base64.b64decode, _load(EncryptionSettings).keys))


@_once
def sealer() -> Sealer:
    from shared.handlers.registry import QUEUES
    from shared.postgres.sealer import Sealer

    return Sealer([spec.name for spec in QUEUES.values() if spec.sealed], _key_ring_or_reason)


@_once
def store() -> PostgresStore:
    from shared.postgres.store import PostgresStore

    return PostgresStore(database(), sealer())


@_once
def queues() -> StorageQueues:
    from shared.settings import StorageSettings
    from shared.storage.queues import StorageQueues

    settings = _load(StorageSettings)
    if settings.connection_string is not None:
        return StorageQueues(settings.connection_string.get_secret_value())
    from shared.storage.identity import ManagedIdentity

    return StorageQueues(settings.service_uri or "", ManagedIdentity(settings.client_id))


@_once
def producer() -> Producer:
    """What the fleet application in Python enqueues with."""
    from shared.engine.enqueue import Producer
    from shared.handlers.loading import parse_payload
    from shared.handlers.registry import QUEUES

    return Producer(store(), queues(), QUEUES, parse_payload)


@_once
def control() -> Control:
    """What an operator orders with."""
    from shared.engine.control import Control

    return Control(store(), producer())


@_once
def heartbeat() -> Heartbeat:
    from shared.engine.heartbeat import Heartbeat

    return Heartbeat(store())


@_once
def worker() -> Worker:
    from shared.engine.worker import Worker
    from shared.handlers.loading import parse_payload

    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return Worker(
        store(), producer(), _handler_for, parse_payload, _random(), worker_id, heartbeat(), on_missing_key=_miss_key
    )


@_once
def receiver() -> Receiver:
    from shared.engine.receive import Receiver

    return Receiver(store(), queues(), producer(), worker(), _random())


@_once
def relay() -> Relay:
    from shared.engine.relay import Relay

    return Relay(store(), queues())


@_once
def rescue() -> Rescue:
    from shared.engine.rescue import Rescue

    return Rescue(store(), producer(), _random())


@_once
def schedules() -> Schedules:
    """What the fleet application in Python keeps its recurring schedules with."""
    from shared.engine.schedules import Schedules
    from shared.postgres.schedules import PostgresSchedules

    return Schedules(PostgresSchedules(database(), sealer()), producer())


@_once
def scheduler() -> Scheduler:
    from shared.engine.schedules import Scheduler
    from shared.postgres.schedules import PostgresSchedules

    return Scheduler(PostgresSchedules(database(), sealer()), producer())


@_once
def partitions() -> Partitions:
    from shared.postgres.partitions import Partitions

    return Partitions(database())


def reseal(say: Callable[[str], None]) -> Reseal:
    """A run of the re-encrypt command."""
    from shared.postgres.reseal import Reseal

    key_ring()  # without a key it says so here
    return Reseal(database(), sealer(), _cache_cipher(), say)


# Ways in


@_once
def client_states() -> ClientStates:
    from shared.graph.notifications import ClientStates
    from shared.settings import WebhookSettings

    settings = _load(WebhookSettings)
    given = (settings.secret, settings.previous_secret)
    return ClientStates(*(secret.get_secret_value().encode() for secret in given if secret is not None))


@_once
def intake() -> Intake:
    from shared.handlers.intake import Intake

    states = client_states()
    return Intake(queues(), states)


@_once
def notification_processor() -> NotificationProcessor:
    from shared.handlers.webhooks import NotificationProcessor
    from shared.postgres.webhook_events import PostgresWebhookEvents

    return NotificationProcessor(PostgresWebhookEvents(database(), sealer()), store().bury, producer())


@_once
def inbox() -> Inbox:
    """What the queue triggers hand their messages to."""
    from shared.handlers.inbox import Inbox

    return Inbox(receiver(), notification_processor().process)


@_once
def poison_sweep() -> PoisonSweep:
    from shared.handlers.inbox import PoisonSweep
    from shared.handlers.registry import QUEUES

    return PoisonSweep(queues(), inbox(), QUEUES.values())


@_once
def admin_access() -> AdminAccess:
    from shared.access import AdminAccess
    from shared.settings import AdminSettings

    settings = _load(AdminSettings)
    given = (settings.key, settings.previous_key)
    return AdminAccess(*(key.get_secret_value() for key in given if key is not None))


@_once
def health() -> Health:
    from shared.monitoring.health import Health

    return Health(
        {"database": _reach_database, "storage": lambda: queues().reach("webhooks")},
        _settings_problems,
        waiting=_missing_key_problems,
    )


# Graph


@_once
def graph_session() -> GraphSession:
    from shared.graph.session import GraphSession
    from shared.settings import GraphSettings

    return GraphSession(ca_file=_load(GraphSettings).ca_file)


@_once
def application() -> Application:
    from shared.graph.auth import Application
    from shared.settings import GraphSettings

    settings = _load(GraphSettings)
    secret = settings.client_secret.get_secret_value()
    return Application(settings.tenant_id, settings.client_id, secret, settings.authority)


@_once
def application_client() -> GraphClient:
    """Graph as the application: mail, and all reading."""
    from shared.graph.auth import AppTokens
    from shared.graph.client import GraphClient
    from shared.settings import GraphSettings

    tokens = AppTokens(application(), graph_session())
    return GraphClient(graph_session(), tokens, _load(GraphSettings).base_url)


@_once
def mail() -> MailClient:
    from shared.graph.mail import MailClient

    return MailClient(application_client())


@_once
def teams() -> TeamsClient:
    """Reads as the application and posts as the service account; without one it can read."""
    from shared.graph.client import GraphClient
    from shared.graph.teams import TeamsClient
    from shared.settings import GraphSettings

    settings = _load(GraphSettings)
    if settings.service_account is None:
        poster = GraphClient(graph_session(), _NoAccount(), settings.base_url)
        return TeamsClient(application_client(), poster, lambda: None)
    tokens = _service_account_tokens(settings.service_account)
    poster = GraphClient(graph_session(), tokens, settings.base_url)
    return TeamsClient(application_client(), poster, tokens.user_id)


@_once
def subscriptions() -> Subscriptions:
    from shared.graph.subscriptions import SubscriptionClient, Subscriptions
    from shared.postgres.subscriptions import PostgresSubscriptions
    from shared.settings import SubscriptionSettings

    base_url = _load(SubscriptionSettings).base_url
    return Subscriptions(
        SubscriptionClient(application_client()),
        PostgresSubscriptions(database()),
        notification_url=f"{base_url}/webhooks/graph",
        lifecycle_url=f"{base_url}/webhooks/graph/lifecycle",
        client_state=client_states().new,
    )


def sign_in(show: Callable[[str], None] = print) -> str:
    """Sign the service account in with a device code; returns the user name. `show` tells the person what to do."""
    from shared.graph.auth import sign_in as run
    from shared.settings import GraphSettings

    account = _load(GraphSettings).service_account
    if account is None:
        raise SettingsError(
            [Problem("GRAPH_SERVICE_ACCOUNT", "it is not set: the user name of the account to sign in")]
        )
    return run(
        application(),
        graph_session(),
        account=account,
        store=_token_cache(),
        cipher=_cache_cipher(),
        show=show,
    )


# What handlers get


class _Services:
    """See shared.handlers.services.Services."""

    @property
    def mail(self) -> MailClient:
        return mail()

    @property
    def teams(self) -> TeamsClient:
        return teams()

    @property
    def communications(self) -> CommunicationLog:
        from shared.postgres.communications import PostgresCommunications

        return PostgresCommunications(database())

    @property
    def alerts(self) -> Alerts:
        from shared.postgres.alerts import PostgresAlerts

        return PostgresAlerts(database())

    @property
    def operator(self) -> Operator:
        from shared.handlers.services import Operator
        from shared.settings import OperatorSettings

        settings = _load(OperatorSettings)
        return Operator(settings.chat_id, settings.mail_from, settings.mail_to)

    @property
    def service_account(self) -> str | None:
        from shared.settings import GraphSettings

        return _load(GraphSettings).service_account


def stop() -> None:
    """End what runs in the background and close what is open; running handlers end by themselves."""
    with _lock:
        built = dict(_built)
        _built.clear()
    for name, end in (("worker", "stop"), ("heartbeat", "stop"), ("intake", "close"), ("database", "close")):
        if name in built:
            getattr(built[name], end)()


# Inside


class _NoAccount:
    """The token source of an app without a service account."""

    def token(self, **_: Any) -> str:
        from shared.graph.errors import TokenRefused

        raise TokenRefused("No service account is set.", remedy="Set GRAPH_SERVICE_ACCOUNT, then sign it in.")


def _service_account_tokens(account: str) -> DelegatedTokens:
    from shared.graph.auth import DelegatedTokens

    return DelegatedTokens(
        application(), graph_session(), account=account, store=_token_cache(), cipher=_cache_cipher()
    )


def _key_ring_or_reason() -> KeyRing:
    from shared.sealing import UnknownKeyError

    try:
        return key_ring()
    except SettingsError as error:
        raise UnknownKeyError(str(error)) from error


def _token_cache() -> PostgresTokenCache:
    from shared.postgres.token_cache import PostgresTokenCache

    return PostgresTokenCache(database())


def _cache_cipher() -> CacheCipher:
    from shared.graph.token_cache import CacheCipher

    return CacheCipher(key_ring())


def _handler_for(queue: str) -> Handler:
    from shared.handlers.loading import build_handler

    name = f"handler:{queue}"
    if name not in _built:
        with _lock:
            if name not in _built:
                try:
                    _built[name] = build_handler(queue, _Services())
                except SettingsError as error:
                    log.error("handler.not_configured", extra={"queue": queue, "error": str(error)})
                    return cast("Handler", _wait_for_settings)
    return cast("Handler", _built[name])


def _wait_for_settings(_job: Job, _payload: Any, _context: Context) -> Deferred:
    from shared.engine.job import Deferred

    return Deferred(SETTINGS_PAUSE, "settings are missing; the health address names them")


def _load(group: type[G]) -> G:
    """Read a group of settings, and hide its secrets from the logs from now on."""
    from shared import logs
    from shared.settings import load

    logs.start()
    settings = load(group)
    logs.start(settings.secrets())
    return settings


def _settings_problems() -> Sequence[Problem]:
    from shared.settings import problems

    return problems()


def _missing_keys() -> MissingKeys:
    from shared.postgres.missing_keys import MissingKeys

    return MissingKeys(database())


def _miss_key(key_id: str) -> None:
    try:
        _missing_keys().miss(key_id)
    except StoreUnavailableError as error:
        log.warning("missing_key.not_told", extra={"key_id": key_id, "error": str(error)})


def _missing_key_problems() -> Sequence[Problem]:
    """Of keys that the settings lack: each is named by the settings' own check, or here by jobs that wait for it."""
    try:
        ring, missed = key_ring(), _missing_keys().missed()
        if here := [key_id for key_id in missed if key_id in ring]:
            _missing_keys().found(here)
    except (SettingsError, StoreUnavailableError):
        return ()
    return [
        Problem("ENCRYPTION_KEYS_PREVIOUS", f"jobs wait for the key {key_id}, which is not among the keys; add it")
        for key_id in missed
        if key_id not in here
    ]


def _reach_database() -> None:
    with database().connection() as conn:
        conn.execute("select 1 from queue.queue_settings limit 1")


def _random() -> Random:
    return Random()  # noqa: S311 - spreads retries, guards nothing
