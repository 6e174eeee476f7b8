"""The engine and what it runs on."""

from __future__ import annotations

import base64
import logging
import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, cast

from shared.bootstrap.once import built, load_settings, lock, once
from shared.bootstrap.telemetry import telemetry
from shared.engine.errors import ParkedError, StoreUnavailableError
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from shared.engine.context import Context, Handler
    from shared.engine.control import Control
    from shared.engine.enqueue import Producer
    from shared.engine.heartbeat import Heartbeat
    from shared.engine.job import Deferred, Job
    from shared.engine.ports import Store, Transport
    from shared.engine.receive import Receiver
    from shared.engine.relay import Relay
    from shared.engine.rescue import Rescue
    from shared.engine.schedules import Scheduler, Schedules
    from shared.engine.worker import Worker
    from shared.handlers.teams_routes import Routes
    from shared.postgres.missing_keys import MissingKeys
    from shared.postgres.partitions import Partitions
    from shared.postgres.pool import Database
    from shared.postgres.reseal import Reseal
    from shared.postgres.sealer import Sealer
    from shared.postgres.store import PostgresStore
    from shared.sealing import KeyRing
    from shared.storage.blobs import StorageBlobs
    from shared.storage.queues import StorageQueues

log = logging.getLogger(__name__)

#: A job whose handler cannot be built for want of settings waits; it must not die of that.
SETTINGS_PAUSE = timedelta(minutes=1)


@once
def database() -> Database:
    from shared.postgres.pool import Database
    from shared.settings import DatabaseSettings

    settings = load_settings(DatabaseSettings)
    password = None if settings.identity is None else _database_tokens(settings.identity)
    return Database(settings.url.get_secret_value(), pooler=settings.pooler, password=password)


@once
def key_ring() -> KeyRing:
    """What seals payloads and the service account's sign-in."""
    from shared.sealing import KeyRing
    from shared.settings import EncryptionSettings

    return KeyRing(*map(base64.b64decode, load_settings(EncryptionSettings).keys))


@once
def sealer() -> Sealer:
    from shared.handlers.registry import QUEUES
    from shared.postgres.sealer import Sealer

    return Sealer([spec.name for spec in QUEUES.values() if spec.sealed], key_ring_or_reason)


@once
def store() -> PostgresStore:
    from shared.postgres.store import PostgresStore

    return PostgresStore(database(), sealer())


@once
def queues() -> StorageQueues:
    from shared.settings import StorageSettings
    from shared.storage.queues import StorageQueues

    settings = load_settings(StorageSettings)
    if settings.connection_string is not None:
        return StorageQueues(settings.connection_string.get_secret_value())
    from shared.storage.identity import ManagedIdentity

    return StorageQueues(settings.service_uri or "", ManagedIdentity(settings.client_id))


@once
def blobs() -> StorageBlobs:
    """Where attachments are read from. Raises RejectedError when no blob storage is set."""
    from shared.engine.errors import RejectedError
    from shared.settings import BlobSettings
    from shared.storage.blobs import StorageBlobs

    settings = load_settings(BlobSettings)
    if settings.connection_string is not None:
        return StorageBlobs(settings.connection_string.get_secret_value(), settings.containers)
    if settings.service_uri is None:
        raise RejectedError(
            "no blob storage is set: set BlobStorage or BlobStorage__blobServiceUri, then redrive the job"
        )
    from shared.storage.identity import ManagedIdentity

    return StorageBlobs(settings.service_uri, settings.containers, ManagedIdentity(settings.client_id))


@once
def producer() -> Producer:
    """What the fleet application in Python enqueues with."""
    telemetry()
    return producer_on(store(), queues())


def producer_on(jobs: Store, transport: Transport) -> Producer:
    """A producer that stores and wakes elsewhere: inside a transaction, after a commit."""
    from shared.engine.enqueue import Producer
    from shared.handlers.registry import QUEUES

    return Producer(jobs, transport, QUEUES, _parse)


@once
def control() -> Control:
    """What an operator orders with."""
    from shared.engine.control import Control

    return Control(store(), producer())


@once
def heartbeat() -> Heartbeat:
    from shared.engine.heartbeat import Heartbeat

    return Heartbeat(store())


@once
def worker() -> Worker:
    from shared.engine.worker import Worker

    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return Worker(
        store(),
        producer(),
        handler_for,
        _parse_stored,
        _random(),
        worker_id,
        heartbeat(),
        on_missing_key=_miss_key,
        on_parked=_park,
        now=lambda: datetime.now(UTC),
    )


def _parse(queue: str, text: str) -> BaseModel:
    """A payload, checked with what the settings say of its target."""
    from shared.bootstrap.graph import teams_routes
    from shared.handlers.loading import parse_payload

    return parse_payload(queue, text, {"teams_routes": teams_routes})


def _parse_stored(queue: str, text: str) -> BaseModel:
    """As `_parse`; where settings are missing, what they decide is left to the handler, which waits for them."""
    from shared.bootstrap.graph import teams_routes
    from shared.handlers.loading import parse_payload

    def routes() -> Routes | None:
        try:
            return teams_routes()
        except SettingsError:
            return None

    return parse_payload(queue, text, {"teams_routes": routes})


@once
def receiver() -> Receiver:
    from shared.engine.receive import Receiver

    return Receiver(store(), queues(), producer(), worker(), _random())


@once
def relay() -> Relay:
    from shared.engine.relay import Relay

    return Relay(store(), queues())


@once
def rescue() -> Rescue:
    from shared.engine.rescue import Rescue

    return Rescue(store(), producer(), _random())


@once
def schedules() -> Schedules:
    """What the fleet application in Python keeps its recurring schedules with."""
    from shared.engine.schedules import Schedules
    from shared.postgres.schedules import PostgresSchedules

    return Schedules(PostgresSchedules(database(), sealer()), producer())


@once
def scheduler() -> Scheduler:
    from shared.engine.schedules import Scheduler
    from shared.postgres.schedules import PostgresSchedules

    return Scheduler(PostgresSchedules(database(), sealer()), producer())


@once
def partitions() -> Partitions:
    from shared.postgres.partitions import Partitions

    return Partitions(database())


def reseal(say: Callable[[str], None]) -> Reseal:
    """A run of the re-encrypt command."""
    from shared.bootstrap.identity import cache_cipher
    from shared.postgres.reseal import Reseal

    key_ring()  # without a key it says so here
    return Reseal(database(), sealer(), cache_cipher(), say)


def handler_for(queue: str) -> Handler:
    from shared.bootstrap.services import HandlerServices
    from shared.handlers.loading import build_handler

    name = f"handler:{queue}"
    if name not in built:
        with lock:
            if name not in built:
                try:
                    built[name] = build_handler(queue, HandlerServices())
                except SettingsError as error:
                    log.error("handler.not_configured", extra={"queue": queue, "error": str(error)})
                    return cast("Handler", _wait_for_settings)
    return cast("Handler", built[name])


def _wait_for_settings(_job: Job, _payload: Any, _context: Context) -> Deferred:
    from shared.engine.job import Deferred

    return Deferred(SETTINGS_PAUSE, "settings are missing; the health address names them")


def key_ring_or_reason() -> KeyRing:
    """Raises UnknownKeyError when the settings hold no key."""
    from shared.sealing import UnknownKeyError

    try:
        return key_ring()
    except SettingsError as error:
        raise UnknownKeyError(str(error)) from error


def missing_keys() -> MissingKeys:
    from shared.postgres.missing_keys import MissingKeys

    return MissingKeys(database())


def _miss_key(key_id: str) -> None:
    try:
        missing_keys().miss(key_id)
    except StoreUnavailableError as error:
        log.warning("missing_key.not_told", extra={"key_id": key_id, "error": str(error)})


def _database_tokens(identity: str) -> Callable[[], str]:
    from shared.storage.identity import DATABASE_RESOURCE, ManagedIdentity

    credential = ManagedIdentity(None if identity == "system" else identity, DATABASE_RESOURCE)
    return lambda: credential.get_token().token


def _park(job: Job, error: ParkedError) -> timedelta:
    from shared.bootstrap.identity import identity_waits

    try:
        pause, _ = identity_waits().wait(job.id, error)
    except StoreUnavailableError as away:
        log.warning("parked_job.not_noted", extra={"job_id": str(job.id), "error": str(away)})
        return SETTINGS_PAUSE
    return pause


def _random() -> Random:
    return Random()  # noqa: S311 - spreads retries, guards nothing
