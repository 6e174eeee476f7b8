"""The database's layout as all migrations together make it, as one file to read: `shared/postgres/schema.sql`."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import psycopg

from local.postgres import FAST, PostgresServer, binaries
from shared.postgres.migrate import migrate

FILE = Path(__file__).resolve().parent.parent / "shared" / "postgres" / "schema.sql"
HEAD = "-- All migrations together, to read: `./dev schema` writes this file, and nothing applies it.\n\n"
#: Those of single days come and go with the date.
DAYS = "queue.job_tracking_2*"
#: What pg_dump says of itself, of the session, and above each object.
NOISE = re.compile(r"^(--( .*)?|\\(un)?restrict .*|SET .*;|SELECT pg_catalog\.set_config.*;)\n", re.MULTILINE)


def write() -> Path:
    """Apply all migrations to a database of its own, and write what they make."""
    with tempfile.TemporaryDirectory(prefix="fleet-queue-schema-") as folder:
        server = PostgresServer(Path(folder) / "data", settings=FAST)
        server.start()
        try:
            with psycopg.connect(server.dsn, autocommit=True) as conn:
                conn.execute("create database migrated")
            migrate(server.url("migrated"))
            FILE.write_text(text(server.url("migrated")), "utf-8")
        finally:
            server.stop()
    return FILE


def text(url: str) -> str:
    """The layout of the schema `queue` there. Raises CalledProcessError, with pg_dump's reason in `stderr`."""
    command = [str(binaries() / "pg_dump"), "--schema-only", "--schema=queue", "--no-owner", f"--exclude-table={DAYS}"]
    dump = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    return HEAD + re.sub(r"\n{2,}", "\n\n", NOISE.sub("", dump)).strip() + "\n"
