"""PgBouncer between what is tested and PostgreSQL, where a run asks for it: `--through pgbouncer`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from local.pgbouncer import PgBouncer
from local.postgres import PostgresServer
from local.process import free_port
from local.stack import DATABASE, Stack
from shared.postgres.pool import Database
from tests.docs.pages import ROOT, blocks

ROLE = "behind_pooler"


def open_database(url: str, max_size: int = 4) -> Database:
    """A pool on the address of a test, which leads to the pooler where DATABASE_POOLER says so."""
    return Database(url, pooler=os.environ.get("DATABASE_POOLER") == "true", max_size=max_size)


@contextmanager
def pooler_before(server: PostgresServer, folder: Path) -> Iterator[PgBouncer]:
    """PgBouncer before a running server."""
    make_role(server)
    pooler = PgBouncer(folder, server.port or 0, ROLE)
    pooler.start()
    try:
        yield pooler
    finally:
        pooler.stop()


def make_role(server: PostgresServer) -> None:
    """Whom PgBouncer signs in; with the timeouts that docs/reference/settings.md asks for behind a pooler."""
    (timeouts,) = blocks("sql", ROOT / "docs" / "reference" / "settings.md")
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(f"create role {ROLE} login superuser".encode())
        conn.execute(timeouts.text.replace("fleet_queue", ROLE).encode())


@contextmanager
def running_stack(folder: Path, *, through_pooler: bool, **options: Any) -> Iterator[Stack]:
    """A whole system, started; with a pooler, its hosts know no other way to the database."""
    if not through_pooler:
        with Stack(folder, **options) as stack:
            yield stack
        return
    port = free_port()
    pooler = PgBouncer(folder / "pgbouncer", port, ROLE)
    settings = {"DATABASE_URL": pooler.url(DATABASE), "DATABASE_POOLER": "true"}
    stack = Stack(folder, ports={"postgres": port}, settings=settings, **options)
    with ExitStack() as steps:
        stack.postgres.start()
        steps.callback(stack.postgres.stop)
        make_role(stack.postgres)
        pooler.start()
        steps.callback(pooler.stop)
        yield steps.enter_context(stack)
