"""The connection pool, and what a failing database means to the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from shared.engine.errors import NoRightsError, NotMigratedError, StoreUnavailableError

#: How long a caller waits for a connection before the database counts as away.
CHECKOUT_SECONDS = 3.0
#: A connection that rested longer than this is tried before use: a firewall may have dropped it.
TRUSTED_IDLE_SECONDS = 10.0
#: Below the hour that an Entra token lives, so that no connection outlives its password.
MAX_LIFETIME_SECONDS = 30 * 60.0
#: What a statement meets in a database that ./dev migrate has not brought to this release.
_NOT_MIGRATED = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)
_TIMEOUTS = "-c statement_timeout=15000 -c idle_in_transaction_session_timeout=30000 -c lock_timeout=10000"


class Database:
    """A lazily opened pool of autocommit connections.

    Size it so that hosts × max_size stays below the server's max_connections. `pooler`: the address is a
    transaction pooler, which takes no start-up options; then set the timeouts on the role (docs/reference/settings.md).
    `password` is asked for one at each new connection, where it is a token that ends; the address then has none.
    """

    def __init__(
        self,
        url: str,
        *,
        pooler: bool = False,
        password: Callable[[], str] | None = None,
        min_size: int = 0,
        max_size: int = 4,
    ) -> None:
        self._url = url
        self._pooler = pooler
        self._password = password
        self._sizes = (min_size, max_size)
        self._pool: ConnectionPool[psycopg.Connection] | None = None
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """An autocommit connection: one statement, one transaction. Raises StoreUnavailableError."""
        try:
            with self._opened().connection() as conn:
                try:
                    yield conn
                except psycopg.errors.ReadOnlySqlTransaction:
                    conn.close()  # a demoted server after a failover: the next connection finds the new one
                    raise
        except (PoolTimeout, PoolClosed, psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StoreUnavailableError(f"the database is away: {type(error).__name__}: {error}") from error
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise StoreUnavailableError("the database is read-only: a failover is under way") from error
        except _NOT_MIGRATED as error:
            raise NotMigratedError(f"the database is not migrated: {error.diag.message_primary}") from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise NoRightsError(f"the database refuses the app's role: {error.diag.message_primary}") from error

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """A connection with a transaction around the block. Raises StoreUnavailableError."""
        with self.connection() as conn, conn.transaction():
            yield conn

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None

    def _opened(self) -> ConnectionPool[psycopg.Connection]:
        with self._lock:
            if self._pool is None:
                self._pool = self._open()
            return self._pool

    def _open(self) -> ConnectionPool[psycopg.Connection]:
        options: dict[str, Any] = {
            "autocommit": True,
            "prepare_threshold": None,
            "connect_timeout": 5,
            "keepalives_idle": 30,
            "tcp_user_timeout": 20_000,
            "application_name": "fleet-queue",
        }
        if not self._pooler:
            options["options"] = _TIMEOUTS
        password = self._password
        last_used: dict[int, float] = {}

        def remember(conn: psycopg.Connection) -> None:
            last_used[id(conn)] = time.monotonic()

        def check_if_rested(conn: psycopg.Connection) -> None:
            if time.monotonic() - last_used.get(id(conn), 0.0) > TRUSTED_IDLE_SECONDS:
                ConnectionPool.check_connection(conn)

        min_size, max_size = self._sizes
        return ConnectionPool(
            self._url,
            kwargs=options if password is None else lambda: options | {"password": password()},
            min_size=min_size,
            max_size=max_size,
            timeout=CHECKOUT_SECONDS,
            reconnect_timeout=5.0,
            max_lifetime=MAX_LIFETIME_SECONDS,
            max_idle=120.0,
            configure=remember,
            reset=remember,
            check=check_if_rested,
            open=True,
            name="fleet-queue",
        )
