"""Brings a database to the newest layout: numbered SQL files, forward only, each in a transaction of its own.

Safe to run from two places at once (a transaction's advisory lock) and beside a running system (short lock and
statement timeouts inside each migration). Then writes what the registry declares into `queue_settings`, leaving
alone what an operator may have changed there. Why not a package: docs/decisions/0003-own-migration-runner.md.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from shared.engine.errors import NotMigratedError
from shared.engine.json_text import to_json
from shared.engine.ports import Limits
from shared.handlers.registry import QUEUES, QueueSpec
from shared.postgres import history_indexes
from shared.postgres.job_rows import limits_json, retries_json
from shared.postgres.pool import Database

LOCK_KEY = 0x466C6565745175  # any number, the same for every runner
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"
LOCK_TRIES = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class MigrationError(Exception):
    """The database and the migrations do not fit together; nothing was changed by the failing one."""


def migrations() -> list[Migration]:
    """All migrations, in order. Raises MigrationError when numbers are missing or doubled."""
    files = (f for f in (resources.files("shared.postgres") / "migrations").iterdir() if f.name.endswith(".sql"))
    found = sorted(
        (Migration(int(f.name[:4]), f.name[5:-4], f.read_text("utf-8")) for f in files),
        key=lambda m: m.version,
    )
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"migrations are not numbered 1 to {len(found)}: {[m.version for m in found]}")
    return found


def migrate(dsn: str) -> list[str]:
    """Apply what is missing; returns the names of what was applied. Raises MigrationError."""
    applied: list[str] = []
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as conn:
        with conn.transaction():
            _lock(conn)
            conn.execute("create schema if not exists queue")
            conn.execute(
                "create table if not exists queue.schema_version (version integer primary key, name text not null,"
                " checksum text not null, applied_at timestamptz not null default clock_timestamp())"
            )
        for migration in migrations():
            if _apply(conn, migration):
                applied.append(f"{migration.version:04} {migration.name}")
        with conn.transaction():
            _lock(conn)
            _declare_queues(conn)
    return applied


def check(database: Database) -> None:
    """That the database is there and is not older than this release. Raises StoreUnavailableError, NotMigratedError."""
    with database.connection() as conn:
        row: Any = conn.execute(
            "select (select coalesce(max(version), 0) from queue.schema_version),"
            " exists (select from queue.queue_settings)"
        ).fetchone()
    version, has_queues = row
    if version < _newest() or not has_queues:
        raise NotMigratedError(f"the database is at migration {version}, this release needs {_newest()}")


@cache
def _newest() -> int:
    return migrations()[-1].version


def _apply(conn: psycopg.Connection, migration: Migration) -> bool:
    """One migration, after what it needs of the history's indexes; whether it was missing."""
    if _is_applied(conn, migration):
        return False
    for statement in history_indexes.missing(conn, migration.sql):
        _run(conn, partial(_build, conn, migration, statement))
    return _run(conn, partial(_apply_now, conn, migration))


def _build(conn: psycopg.Connection, migration: Migration, statement: sql.Composed) -> None:
    if not _is_applied(conn, migration):  # by another runner, meanwhile
        conn.execute(statement)


def _apply_now(conn: psycopg.Connection, migration: Migration) -> bool:
    if _is_applied(conn, migration):
        return False
    conn.execute(migration.sql.encode())
    conn.execute(
        "insert into queue.schema_version (version, name, checksum) values (%s, %s, %s)",
        (migration.version, migration.name, migration.checksum),
    )
    return True


def _is_applied(conn: psycopg.Connection, migration: Migration) -> bool:
    row = conn.execute("select checksum from queue.schema_version where version = %s", (migration.version,)).fetchone()
    if row is not None and row[0] != migration.checksum:
        raise MigrationError(
            f"migration {migration.version:04} {migration.name} was applied with another text; "
            "add a new migration in place of changing an old one"
        )
    return row is not None


def _run(conn: psycopg.Connection, step: Callable[[], T]) -> T:
    """In a transaction; again when a lock was not to be had in time, so that it never queues up others behind it."""
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            with conn.transaction():
                _lock(conn)
                return step()
        except psycopg.errors.LockNotAvailable:
            if tries_left == 0:
                raise
            time.sleep(0.5)  # a pause between tries, so that the holder of the lock gets on
    raise AssertionError("unreachable")


def _lock(conn: psycopg.Connection) -> None:
    conn.execute("select pg_advisory_xact_lock(%s)", (LOCK_KEY,))
    conn.execute(
        "select set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
        (LOCK_TIMEOUT, STATEMENT_TIMEOUT),
    )


def _declare_queues(conn: psycopg.Connection) -> None:
    """What an operator has set (limits, ageing, retries) stays; the rest follows the registry."""
    with conn.cursor() as cursor:
        cursor.executemany(_DECLARE, [_declaration(spec) for spec in QUEUES.values()])


def _declaration(spec: QueueSpec) -> dict[str, object]:
    key = spec.limit_key
    return limits_json(spec.limits) | {
        "queue": spec.name,
        "class": spec.klass,
        "carries": spec.carries,
        "priority": spec.priority,
        "closed": spec.closed,
        "key_scope": key.scope if key else None,
        "key_fields": to_json(key.fields) if key else None,
        "ageing_seconds": spec.ageing.total_seconds() if spec.ageing else None,
        "retry_delays": to_json(retries_json(spec.retries)) if spec.retries else None,
    }


_DECLARED = (
    "class",
    "carries",
    "priority",
    "closed",
    "key_scope",
    "key_fields",
)
#: What an operator may set, by the column that says when that was.
_SET = {
    "limits_changed_at": tuple(limits_json(Limits())),
    "ageing_changed_at": ("ageing_seconds",),
    "retry_delays_changed_at": ("retry_delays",),
}
_ALL = _DECLARED + tuple(name for names in _SET.values() for name in names)
_DECLARE = (
    f"insert into queue.queue_settings as s (queue, {', '.join(_ALL)})"  # noqa: S608 - constant names
    f" values (%(queue)s, {', '.join(f'%({name})s' for name in _ALL)})"
    f" on conflict (queue) do update set {', '.join(f'{name} = excluded.{name}' for name in _DECLARED)}, "
    + ", ".join(
        f"{name} = case when s.{changed_at} is null then excluded.{name} else s.{name} end"
        for changed_at, names in _SET.items()
        for name in names
    )
).encode()
