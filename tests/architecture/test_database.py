"""What the code may ask of the database: nothing that a transaction pooler loses, and no time but the database's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = sorted([*(ROOT / "shared/postgres").rglob("*.py"), *(ROOT / "shared/postgres").rglob("*.sql")])
ENGINE = sorted([*(ROOT / "shared/engine").rglob("*.py"), *(ROOT / "shared/postgres").rglob("*.py")])
#: Lost, or left to the next client, when the pooler gives the connection to somebody else.
OF_A_SESSION = re.compile(
    r"\blisten\s+\w|\bunlisten\b|\bpg_(try_)?advisory_lock\b|\bset\s+session\b|\bcreate\s+temp|^\s*\"?prepare\s"
    r"|\bset_config\([^)]*,\s*false\)"
    r"|(execute|executemany|SQL)\(\s*[rbfu]{0,2}(\"\"\"|\"|')\s*set\s(?!local\b)",
    re.IGNORECASE | re.MULTILINE,
)


@pytest.mark.parametrize("path", POSTGRES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_statement_leaves_anything_in_its_session(path: Path) -> None:
    found = OF_A_SESSION.search(path.read_text())
    assert found is None, found and found[0]


@pytest.mark.parametrize(
    "statement",
    [
        "LISTEN jobs",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_lock(1)",
        "set session statement_timeout = 1",
        "create temporary table x ()",
        "select set_config('lock_timeout', '1s', false)",
        'conn.execute("set timezone = utc")',
        'conn.execute(b"set timezone = utc")',
        'conn.execute(rb"SET timezone = utc")',
        "conn.execute('set timezone = utc')",
        'conn.execute(\n    """\n    set timezone = utc""")',
        'conn.execute(sql.SQL("SET {} = utc").format(name))',
    ],
)
def test_the_check_finds_statements_of_a_session(statement: str) -> None:
    assert OF_A_SESSION.search(statement)


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_leases_and_due_times_are_never_compared_with_a_workers_clock(path: Path) -> None:
    """A worker's wall clock may be minutes off; a monotonic one only measures how long something took."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            clock = (node.value.id, node.attr)
            assert clock not in {("datetime", "now"), ("date", "today"), ("time", "time")}, f"line {node.lineno}"


def test_every_time_column_has_a_time_zone() -> None:
    for path in POSTGRES:
        if path.suffix == ".sql":
            assert not re.search(r"\btimestamp\b(?!tz)(?! with time zone)", path.read_text(), re.IGNORECASE), path.name


def test_no_index_is_built_where_a_crash_would_leave_half_of_it() -> None:
    """Only CONCURRENTLY leaves invalid indexes behind; what is made in a migration's transaction comes whole or not."""
    for path in POSTGRES:
        assert not re.search(r"\b(concurrently|reindex)\b", path.read_text(), re.IGNORECASE), path.name
