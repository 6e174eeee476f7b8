"""A pytest plugin for the suite of an earlier release: its databases get the schema of this one.

It is loaded where `shared` is the earlier release's, so it imports nothing of this one; it runs `./dev migrate` of the
project that it lies in, as a deployment does while the earlier release still runs. Then it takes away the limits that
this release declares, which tests from before do not expect. SPOIL_SCHEMA: SQL to run last.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg

import shared.postgres.migrate as earlier

ROOT = Path(__file__).resolve().parents[3]
WITHOUT_LIMITS = (
    "update queue.queue_settings set rate_limit = null, rate_seconds = null, concurrency = null, job_cost = 1,"
    " key_rate_limit = null, key_rate_seconds = null, key_concurrency = null"
)


def migrate(dsn: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-m", "local", "migrate"], cwd=ROOT, env=environment | {"DATABASE_URL": dsn}, check=True
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in (WITHOUT_LIMITS, os.environ.get("SPOIL_SCHEMA", "select")):
            conn.execute(statement.encode())
    return []


earlier.migrate = migrate
