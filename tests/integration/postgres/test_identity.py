"""A token that ends as the password of the database: on a server that checks it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local.postgres import FAST, PostgresServer
from shared.engine.errors import StoreUnavailableError
from shared.postgres import pool
from shared.postgres.pool import Database

ROLE = "fleet_app"


class Tokens:
    """Gives the token of the moment; `current` is the one that the server takes."""

    def __init__(self, server: PostgresServer) -> None:
        self.asked = 0
        self.fails = False
        self._server = server
        self.renew("token-0")

    def renew(self, token: str) -> None:
        self.current = token
        with psycopg.connect(self._server.dsn, autocommit=True) as conn:
            conn.execute(f"alter role {ROLE} password '{token}'".encode())

    def __call__(self) -> str:
        self.asked += 1
        if self.fails:
            raise RuntimeError("the identity gives no token")
        return self.current


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("signs-in") / "data", settings=FAST)
    server.start()
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(f"create role {ROLE} login".encode())
        row = conn.execute("select current_setting('hba_file')").fetchone()
        assert row is not None
        rules = Path(row[0])
        rules.write_text(f"host all {ROLE} all scram-sha-256\n{rules.read_text()}")
        conn.execute("select pg_reload_conf()")
        yield server
    server.stop("immediate")


@pytest.fixture
def tokens(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    monkeypatch.setattr(pool, "CHECKOUT_SECONDS", 1.0)
    return Tokens(server)


@pytest.fixture
def database(server: PostgresServer, tokens: Tokens) -> Iterator[Database]:
    address = server.url("postgres").partition("@")[2]
    database = Database(f"postgresql://{ROLE}@{address}", password=tokens, max_size=1)
    yield database
    database.close()


def backend(database: Database) -> int:
    with database.connection() as conn:
        row = conn.execute("select pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def test_every_new_connection_signs_in_with_the_token_of_its_time(
    server: PostgresServer, database: Database, tokens: Tokens
) -> None:
    first = backend(database)
    assert backend(database) == first and tokens.asked == 1, "one token for one connection"
    tokens.renew("token-1")
    assert backend(database) == first, "who is in stays in"
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("select pg_terminate_backend(%s, 5000)", (first,))
    with contextlib.suppress(StoreUnavailableError):
        backend(database)  # finds out that its connection is gone
    assert backend(database) != first and tokens.asked == 2
    assert pool.MAX_LIFETIME_SECONDS < 3600, "an Entra token lives for an hour at least"


def test_without_a_token_the_database_is_away_and_comes_back_with_one(database: Database, tokens: Tokens) -> None:
    tokens.fails = True
    with pytest.raises(StoreUnavailableError):
        backend(database)
    tokens.fails = False
    database.close()
    assert backend(database)
