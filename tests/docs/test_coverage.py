"""The page on coverage names tests that exist, and says so where there is none."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs" / "reference" / "coverage.md"
ROWS = [
    row
    for heading in ("PostgreSQL queues", "Timers and schedules", "Complaints about other queues")
    for row in table(PAGE, heading)
]


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_there_is_something_to_check() -> None:
    assert len(ROWS) >= 70


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[-3] if len(row) > 2 else row[0])
def test_the_tests_of_a_row_exist(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
    assert bool(named) != row[-1].startswith("not covered: ")
    for file, function in named:
        assert function in functions(file), f"{file} has no {function}"
