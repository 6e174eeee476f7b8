"""What the documentation says is so: links, tables, commands, and code that at least compiles or runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from local.cli import HELP
from shared.engine.backoff import RETRY_POLICIES
from shared.engine.job import TRANSITIONS
from tests.docs import queue_rows
from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks, links, name, table

ARCHITECTURE = ROOT / "docs" / "explanation" / "architecture.md"
QUEUES_PAGE = ROOT / "docs" / "reference" / "queues.md"
COMMANDS = set(re.findall(r"^  \./dev ([\w-]+)", HELP, re.MULTILINE))


def test_there_is_something_to_check() -> None:
    assert len(PAGES) >= 15
    assert len(blocks("sh")) >= 12 and len(blocks("sql")) >= 3 and len(blocks("python")) >= 4
    assert {"demo", "test", "up", "psql"} <= COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https"
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not parts.fragment or parts.fragment in anchors(target), f"{link} names no heading"


def test_the_state_table_is_the_engines() -> None:
    documented = {
        re.findall(r"`(\w+)`", state)[0]: set(re.findall(r"`(\w+)`", to))
        for state, _, to in table(ARCHITECTURE, "States")
    }
    assert documented == {state.value: {to.value for to in leaves} for state, leaves in TRANSITIONS.items()}


def test_the_retry_table_is_the_engines() -> None:
    documented = {
        kind: ((0.0,) if "at once" in delays else tuple(map(float, re.findall(r"\d+", delays))), int(retries))
        for kind, _, delays, retries in table(ARCHITECTURE, "Retries")
    }
    in_code = {kind.value: (policy.delays, policy.retries) for kind, policy in RETRY_POLICIES.items()}
    assert documented == in_code


def test_the_list_of_queues_is_the_registrys() -> None:
    documented, declared = table(QUEUES_PAGE, "The queues"), queue_rows.rows()
    missing = "\n".join(queue_rows.line(row) for row in declared if row not in documented)
    assert not missing, f"docs/reference/queues.md needs:\n{missing}"
    assert documented == declared, "docs/reference/queues.md has a row too many, or another order than the registry"


def test_the_list_of_tables_is_the_schemas(sql: psycopg.Connection) -> None:
    documented = [one for cells in table(ARCHITECTURE, "Tables") for one in re.findall(r"`(\w+)`", cells[0])]
    rows = sql.execute(
        "select relname from pg_class where relnamespace = 'queue'::regnamespace and relkind in ('r', 'p')"
        " and not relispartition"
    )
    assert sorted(documented) == sorted(row[0] for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    named = set(re.findall(r"\./dev ([a-z][\w-]*)", text))
    # In prose, as "`./dev` runs …", the next word is none.
    in_code = {word for span in re.findall(r"`([^`]+)`", text) for word in re.findall(r"\./dev ([a-z][\w-]*)", span)}
    in_code |= {word for one in blocks("sh", page) for word in re.findall(r"\./dev ([a-z][\w-]*)", one.text)}
    assert in_code <= COMMANDS | {"help"}, in_code - COMMANDS
    assert in_code <= named


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    text = block.text.rstrip().rstrip(",")  # one shows an entry of a list
    assert ast.parse(text).body


@pytest.mark.parametrize("block", blocks("sql"), ids=str)
def test_sql_runs(block: Block, database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        for role in set(re.findall(r"alter role (\w+)", block.text)):
            conn.execute(f"create role {role}".encode())
        conn.execute(block.text.encode())
        conn.rollback()
