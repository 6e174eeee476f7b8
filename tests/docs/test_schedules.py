"""The page on schedules says what the code does where clocks change."""

from __future__ import annotations

import pytest

from tests.docs.pages import ROOT, table
from tests.unit.engine.test_cron import CHANGES, cron, shown

PAGE = ROOT / "docs" / "how-to" / "schedule-jobs.md"
ROWS = table(PAGE, "When clocks change")


def test_every_zone_of_the_tests_with_a_rule_of_its_own_is_shown() -> None:
    assert {zone for _, zone, _, _ in ROWS} == set(CHANGES) - {"Africa/Cairo"}


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_a_row_of_the_table_is_so(row: list[str]) -> None:
    expression, zone, *documented = row
    plan = cron(expression.strip("`"), zone)
    assert documented == [" ".join(one for one in shown(plan, day).split() if one < "05:00") for day in CHANGES[zone]]
