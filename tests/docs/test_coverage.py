"""The page on coverage names tests that exist, and says so where a figure or a reason stands for them."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs" / "reference" / "coverage.md"
ROWS = [
    row
    for heading in (
        "PostgreSQL queues",
        "Timers and schedules",
        "Sending to Teams",
        "Sending mail",
        "Subscriptions",
        "Receiving",
        "The admin API",
        "Complaints about other queues",
    )
    for row in table(PAGE, heading)
]


WITHOUT_A_TEST = ("measured: ", "not ours: ")
COMPLAINTS = 45


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_there_is_something_to_check() -> None:
    assert len(ROWS) >= 70
    numbers = [int(row[0]) for row in table(PAGE, "Complaints about other queues")]
    assert numbers == list(range(1, COMPLAINTS + 1))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[-3] if len(row) > 2 else row[0])
def test_the_tests_of_a_row_exist(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
    assert named or row[-1].startswith(WITHOUT_A_TEST)
    assert "in part" not in row[-1] and "not covered" not in row[-1]
    for file, function in named:
        assert function in functions(file), f"{file} has no {function}"
