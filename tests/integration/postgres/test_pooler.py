"""What `--through pgbouncer` and `--postgres` promise is so; otherwise those runs would prove nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg
import pytest

from local.pgbouncer import PgBouncer, find_program
from local.postgres import PostgresServer, binaries
from local.process import ProcessError
from shared.postgres.pool import Database


def test_each_transaction_gets_another_connection_of_the_pooler(database: Database, pooler: PgBouncer | None) -> None:
    if pooler is None:
        pytest.skip("this run has no pooler; --through pgbouncer puts one in")
    with database.transaction() as first, database.transaction() as second:
        for conn in (first, second):
            conn.execute("select")
    with database.connection() as conn:
        conn.execute("select set_config('fleet.left_behind', 'yes', false)")
        found = {conn.execute("select pg_backend_pid()").fetchone() for _ in range(4)}
    assert len(found) == 2


def test_the_server_is_of_the_version_that_was_asked_for(sql: psycopg.Connection, pytestconfig: pytest.Config) -> None:
    told = subprocess.run(
        [str(binaries() / "postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert sql.info.parameter_status("server_version") == told.removeprefix("postgres (PostgreSQL) ").strip()
    if pytestconfig.option.postgres:
        assert str(binaries()) == pytestconfig.option.postgres


def test_a_folder_without_postgres_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEV_POSTGRES", str(tmp_path))
    with pytest.raises(ProcessError, match=r"no program `postgres`.*apt-get install"):
        PostgresServer(tmp_path / "data").start()


def test_a_machine_without_pgbouncer_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(ProcessError, match="apt-get install pgbouncer"):
        find_program()
