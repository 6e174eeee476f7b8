"""The reference names every setting, route and option, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from shared.admin.routes import ROUTES as PUBLISHED
from shared.engine.messages import _FIELDS
from shared.settings import GROUPS
from tests.architecture.test_function_app import DASHBOARD, ROUTES

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def first_cells(file: str) -> list[str]:
    rows = [line for line in (REFERENCE / file).read_text().splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_settings_reference_has_exactly_the_settings_that_are_read() -> None:
    assert set(first_cells("settings.md")) == {f.alias for group in GROUPS for f in group.model_fields.values()}


def test_the_http_reference_has_every_route_of_the_admin_api_with_its_role() -> None:
    rows = [line.split("|")[1:3] for line in (REFERENCE / "http.md").read_text().splitlines() if "/api/queue/" in line]
    told = {(cells[0].strip(" `"), cells[1].strip()) for cells in rows if len(cells) == 2 and cells[0].startswith(" `")}
    routes = {(f"{r.method} /api/queue/{r.path}", r.role.title if r.role else "anybody") for r in PUBLISHED}
    assert told == routes | {(f"GET /api/{route}", "anybody") for route in DASHBOARD}


def test_the_http_reference_has_exactly_the_routes_and_the_options_of_a_job() -> None:
    cells = first_cells("http.md")
    assert {cell.split("/api/")[1] for cell in cells if "/api/" in cell} == ROUTES
    assert {cell for cell in cells if "/" not in cell} == _FIELDS
