"""The page on coverage has a row for every known fault, and names tests that exist or says what stands for one."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs" / "reference" / "coverage.md"
HEADINGS = re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
ROWS = [row for heading in HEADINGS for row in table(PAGE, heading)]
WITHOUT_A_TEST = ("measured: ", "not ours: ")
COMPLAINTS = 45
#: How many faults each part of the check-list has; a row names its own, in brackets: (A7).
CHECK_LIST = {"A": 23, "B": 14, "C": 20, "D": 20, "E": 30, "F": 9, "G": 16}


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def fault_of(row: list[str]) -> str:
    return row[1] if len(row) > 2 else row[0]


def test_every_fault_of_the_check_list_has_a_row() -> None:
    named = {number for row in ROWS for number in re.findall(r"\b[A-Z]\d+\b", fault_of(row).rpartition("(")[2])}
    assert named == {f"{part}{number}" for part, count in CHECK_LIST.items() for number in range(1, count + 1)}
    intro = PAGE.read_text("utf-8").partition("\n## ")[0]
    assert f"one of {sum(CHECK_LIST.values())} that" in intro
    assert dict(re.findall(r"\b([A-G]) [^,.]+ \((\d+)\)", intro)) == {part: str(n) for part, n in CHECK_LIST.items()}


def test_every_complaint_has_a_row() -> None:
    numbers = [int(row[0]) for row in table(PAGE, "Complaints about other queues")]
    assert numbers == list(range(1, COMPLAINTS + 1))


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_part_of_the_page_is_a_table_of_different_faults(heading: str) -> None:
    faults = [fault_of(row) for row in table(PAGE, heading)]
    assert faults and len(set(faults)) == len(faults)


@pytest.mark.parametrize("row", ROWS, ids=fault_of)
def test_the_tests_of_a_row_exist(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
    assert named or row[-1].startswith(WITHOUT_A_TEST)
    assert "in part" not in row[-1] and "not covered" not in row[-1]
    for file, function in named:
        assert function in functions(file), f"{file} has no {function}"
