"""A browser before a running system with data. Where no Chromium is, the tests say so and are skipped."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local import web_packages
from local.fake_graph import schemas
from local.stack import SCHEMAS, Stack
from tests.acceptance.system import in_process
from tests.dashboard.seed import Seeded, fill

CHROMIUM = os.environ.get("DEV_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 10_000
WIDE = {"width": 1360, "height": 900}


@dataclass
class Site:
    """The dashboard of a stack with data, and its key."""

    stack: Stack
    seeded: Seeded

    @property
    def url(self) -> str:
        return f"{self.stack.host_url}/queue/dashboard"

    @property
    def key(self) -> str:
        return self.stack.environment["ADMIN_KEY"]


@dataclass
class Tab:
    """A page in a context of its own, and everything that went wrong in it."""

    site: Site
    page: Page
    problems: list[str] = field(default_factory=list)

    def open(self, place: str = "", *, signed_in: bool = True) -> Page:
        """Show a place; signed in by the key in the tab's storage, as after the form."""
        if signed_in:
            key = f"sessionStorage.setItem('fleet-queue-key', '{self.site.key}')"
            self.page.add_init_script(f"if (location.protocol !== 'about:') {key}")
        self.page.goto("about:blank")  # another fragment alone loads nothing
        self.page.goto(f"{self.site.url}#/{place}")
        expect(self.page.locator("h1")).to_be_visible()
        return self.page

    def show(self, place: str) -> None:
        """Go to another place without loading the page again."""
        self.page.evaluate("place => { location.hash = place }", f"#/{place}")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in DEV_CHROMIUM")
    folder = tmp_path_factory.mktemp("dashboard")
    schemas.make(SCHEMAS)
    web_packages.install(folder / "npm.log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEV_HOST", "stand-in")
        stack = Stack(folder, fast=True, with_host=False)
        with stack:
            with in_process(stack.environment):
                seeded = fill(stack.database_url)
            stack.start_host()
            yield Site(stack, seeded)


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    """Of a module: while its driver runs, no other test of this process could run an event loop."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def looks() -> dict[str, Any]:
    """Options of the browser context; tests of a phone or the dark scheme have their own."""
    return {"viewport": WIDE}


@pytest.fixture
def tab(browser: Browser, site: Site, looks: dict[str, Any]) -> Iterator[Tab]:
    """Fails when the console has an error, a policy was violated, or a payload ran, whatever the test looks at."""
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Berlin", **looks)
    context.set_default_timeout(PATIENCE_MS)
    tab = Tab(site, context.new_page())
    tab.page.on("pageerror", lambda error: tab.problems.append(f"error: {error}"))
    tab.page.on("console", lambda told: _note(tab, told.type, told.text))
    tab.page.on("request", lambda asked: _note_origin(tab, asked.url))
    yield tab
    stolen = tab.page.evaluate("window.stolen")
    context.close()
    assert stolen is None, "a payload ran"
    assert tab.problems == []


def _note(tab: Tab, kind: str, text: str) -> None:
    """A refused request is in the console too; what the page makes of it, tests look at."""
    if kind == "error" and not re.search("status of (401|422)", text):
        tab.problems.append(text)


def _note_origin(tab: Tab, url: str) -> None:
    if not url.startswith(tab.site.stack.host_url):
        tab.problems.append(f"it asked for {url}")


SHOTS = os.environ.get("DASHBOARD_SHOTS")


def shoot(page: Page, name: str) -> None:
    """A picture for whoever wants to look (DASHBOARD_SHOTS names the folder)."""
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)
