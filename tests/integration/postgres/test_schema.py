"""The file to read is what all migrations together make."""

import difflib

import psycopg
import pytest

from local import schema


def test_schema_sql_is_what_the_migrations_make(sql: psycopg.Connection, direct_url: str) -> None:
    if sql.info.server_version // 10000 != 18:
        pytest.skip("the file is as PostgreSQL 18 prints a layout")
    kept, made = schema.FILE.read_text("utf-8"), schema.text(direct_url)
    changes = list(difflib.unified_diff(kept.splitlines(), made.splitlines(), "schema.sql", "migrations", lineterm=""))
    assert not changes, "run ./dev schema:\n" + "\n".join(changes[:60])
