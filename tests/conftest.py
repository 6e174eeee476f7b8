"""Fixtures that start real servers, one of each for a test process, and give every test a database of its own."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import psycopg
import psycopg_pool.base
import pytest
from hypothesis import HealthCheck, settings

from local.azurite import Azurite
from local.pgbouncer import PgBouncer, find_program
from local.postgres import FAST, PostgresServer, binaries
from local.process import ProcessError
from local.stack import SCHEMAS, Stack
from shared.handlers.registry import QUEUES
from shared.postgres.migrate import migrate
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore
from shared.storage.queues import StorageQueues
from tests.limits import LIFT
from tests.memory import in_memory
from tests.pooler import open_database, pooler_before, running_stack

# How long an example takes says more about the machine, which other tests keep busy, than about the code.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
# A pool's threads connect while hypothesis draws: a number that they took from the global generator then, for the age
# of their connection, would be told as a strategy that is not deterministic.
setattr(psycopg_pool.base, "random", Random().random)  # noqa: B010 - it is not exported

_numbers = itertools.count(1)
_OWN_FOLDER = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fleet-queue", "which PostgreSQL the tests work on (docs/reference/testing.md)")
    group.addoption("--through", choices=["pgbouncer"], help="a transaction pooler between the tests and PostgreSQL")
    group.addoption("--postgres", metavar="FOLDER", help="PostgreSQL's programs, e.g. /usr/lib/postgresql/15/bin")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    _choose_servers(config)
    _make_own_folder(config)


def _choose_servers(config: pytest.Config) -> None:
    """Told before anything runs, when what the options ask for is not there."""
    try:
        if config.option.postgres:
            os.environ["DEV_POSTGRES"] = config.option.postgres
            binaries()
        if config.option.through:
            find_program()
    except ProcessError as error:
        raise pytest.UsageError(str(error)) from error


def _make_own_folder(config: pytest.Config) -> None:
    """A folder of this run's own. The usual one is shared by all runs of a user, and each new run of root closes it
    to the account under which PostgreSQL works: a server of another run would lose its data folder."""
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.stash[_OWN_FOLDER] = folder = Path(tempfile.mkdtemp(prefix="fleet-queue-tests-"))
        config.option.basetemp = str(folder / "run")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    folder = session.config.stash.get(_OWN_FOLDER, None)
    if folder is not None and exitstatus != pytest.ExitCode.OK:
        del session.config.stash[_OWN_FOLDER]  # to look at what is in it


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_OWN_FOLDER, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server that forgets on a crash (fast); crash tests start their own."""
    own = tmp_path_factory.mktemp("pg")
    with in_memory(otherwise=own) as folder:
        server = PostgresServer(folder / "data", settings=FAST | {"max_connections": "200"}, log=own / "data.log")
        server.start()
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("create database template_fleet")
        migrate(server.url("template_fleet"))
        with psycopg.connect(server.url("template_fleet"), autocommit=True) as conn:
            conn.execute(LIFT)
        yield server
        server.stop("immediate")


@pytest.fixture(scope="session")
def pooler(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[PgBouncer | None]:
    """PgBouncer in transaction mode before `postgres`, in a run with `--through pgbouncer`."""
    if pytestconfig.option.through is None:
        yield None
        return
    with pooler_before(postgres, tmp_path_factory.mktemp("pgbouncer")) as pooler:
        yield pooler


@pytest.fixture
def address(
    postgres: PostgresServer, pooler: PgBouncer | None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """From the name of a database to the way that the product takes there."""
    if pooler is None:
        return postgres.url
    monkeypatch.setenv("DATABASE_POOLER", "true")
    return pooler.url


@pytest.fixture
def database_name(postgres: PostgresServer) -> Iterator[str]:
    """An empty, migrated database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(f"create database {name} template template_fleet")
        yield name
        conn.execute(f"drop database {name} with (force)")


@pytest.fixture
def database_url(database_name: str, address: Callable[[str], str]) -> str:
    """An empty, migrated database, by the way that the product takes there."""
    return address(database_name)


@pytest.fixture
def direct_url(database_name: str, postgres: PostgresServer) -> str:
    """The same database without a pooler, for tests about a connection of one's own."""
    return postgres.url(database_name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url, max_size=12)
    yield database
    database.close()


@pytest.fixture
def postgres_store(database: Database) -> PostgresStore:
    return PostgresStore(database)


@pytest.fixture
def sql(direct_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection for looking and meddling."""
    with psycopg.connect(direct_url, autocommit=True) as conn:
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
def stack(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Stack]:
    """The whole system on real servers, signed in and subscribed; durable, so that tests may crash PostgreSQL."""
    from local.fake_graph import schemas
    from tests.acceptance.system import System

    schemas.make(SCHEMAS)
    through_pooler = pytestconfig.option.through is not None
    with ExitStack() as steps:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DEV_HOST", "stand-in")
            folder = tmp_path_factory.mktemp("stack")
            stack = steps.enter_context(running_stack(folder, through_pooler=through_pooler))
        system = System(stack)
        system.prepare()
        yield stack
    assert system.secrets_in_logs() == []
