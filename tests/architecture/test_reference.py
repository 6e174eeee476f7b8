"""The reference names every setting, route and option, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from shared.engine.messages import _FIELDS
from shared.settings import GROUPS
from tests.architecture.test_function_app import ROUTES

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def first_cells(file: str) -> list[str]:
    rows = [line for line in (REFERENCE / file).read_text().splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_settings_reference_has_exactly_the_settings_that_are_read() -> None:
    assert set(first_cells("settings.md")) == {f.alias for group in GROUPS for f in group.model_fields.values()}


def test_the_http_reference_has_exactly_the_routes_and_the_options_of_a_job() -> None:
    cells = first_cells("http.md")
    assert {cell.split("/api/")[1] for cell in cells if "/api/" in cell} == ROUTES
    assert {cell for cell in cells if "/" not in cell} == _FIELDS
