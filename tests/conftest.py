"""Fixtures that start real servers, one of each for a test process, and give every test a database of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local.azurite import Azurite
from local.postgres import FAST, PostgresServer
from local.stack import SCHEMAS, Stack
from shared.handlers.registry import QUEUES
from shared.postgres.migrate import migrate
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore
from shared.storage.queues import StorageQueues

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server that forgets on a crash (fast); crash tests start their own."""
    server = PostgresServer(tmp_path_factory.mktemp("pg") / "data", settings=FAST | {"max_connections": "200"})
    server.start()
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("create database template_fleet")
    migrate(server.url("template_fleet"))
    yield server
    server.stop("immediate")


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty, migrated database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(f"create database {name} template template_fleet")
        yield postgres.url(name)
        conn.execute(f"drop database {name} with (force)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, max_size=12)
    yield database
    database.close()


@pytest.fixture
def postgres_store(database: Database) -> PostgresStore:
    return PostgresStore(database)


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection for looking and meddling."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    server = Azurite(Path(tmp_path_factory.mktemp("azurite")))
    server.start()
    storage = StorageQueues(server.connection_string)
    for spec in QUEUES.values():
        storage.create(spec.name)
        storage.create(spec.poison)
    yield server
    server.stop()


@pytest.fixture
def storage(azurite: Azurite) -> StorageQueues:
    """All queues of the registry, empty."""
    storage = StorageQueues(azurite.connection_string)
    for spec in QUEUES.values():
        storage.clear(spec.name)
        storage.clear(spec.poison)
    return storage


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system on real servers, signed in and subscribed; durable, so that tests may crash PostgreSQL."""
    from local.fake_graph import schemas
    from tests.acceptance.system import System

    schemas.make(SCHEMAS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEV_HOST", "stand-in")
        stack = Stack(tmp_path_factory.mktemp("stack"))
    with stack:
        system = System(stack)
        system.prepare()
        yield stack
    assert system.secrets_in_logs() == []
