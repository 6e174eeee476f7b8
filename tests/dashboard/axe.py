"""What axe finds in a page: run under the page's own strict policy."""

from __future__ import annotations

from importlib.resources import files

from playwright.sync_api import Page

SOURCE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


def serious(page: Page) -> list[str]:
    """Violations that are serious or critical, each with the first element that has it."""
    page.evaluate(SOURCE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations)")
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}: {one['nodes'][0].get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
