"""The dashboard's page and files as the host gets them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import unquote

import azure.functions as func
import pytest

from functions.dashboard import show_dashboard, show_dashboard_file
from shared.web import files as web
from tests.unit.functions.requests import assert_problem, request

VERSION = web.files().version


def page(path: str = "/queue/dashboard") -> func.HttpResponse:
    response: func.HttpResponse = asyncio.run(show_dashboard(request("GET", path)))
    return response


def file(name: str, version: str = VERSION, headers: dict[str, str] | None = None) -> func.HttpResponse:
    asked = request("GET", "/queue/dashboard/x", headers=headers, route={"version": version, "file": name})
    response: func.HttpResponse = asyncio.run(show_dashboard_file(asked))
    return response


@pytest.mark.parametrize("response", [page(), file("app.js")], ids=["page", "file"])
def test_the_policy_of_the_dashboard_allows_nothing_but_its_own_origin(response: func.HttpResponse) -> None:
    rules = dict(rule.split(" ", 1) for rule in response.headers["Content-Security-Policy"].split("; "))
    own = ("script-src", "style-src", "img-src", "connect-src")
    assert {name for name in rules if rules[name] == "'self'"} == set(own)
    none = ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types")
    assert {name for name in rules if rules[name] == "'none'"} == set(none)
    assert rules["require-trusted-types-for"] == "'script'"
    assert set(rules) == {*own, *none, "require-trusted-types-for"}
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_of_the_dashboard_is_not_cached_and_its_links_lead_to_files_that_are_there() -> None:
    for path, prefix in (("/queue/dashboard", "dashboard/"), ("/queue/dashboard/", "")):
        response = page(path)
        assert (response.status_code, response.mimetype) == (200, "text/html")
        assert response.headers["Cache-Control"] == "no-store"
        text = response.get_body().decode()
        links = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert len(links) == 5
        known = set(web.files().files) | set(web.VENDOR)
        assert all(link.removeprefix(f"{prefix}{VERSION}/") in known for link in links), links
        assert "<script>" not in text and "style=" not in text and " on" not in re.sub(r">[^<]*<", "><", text)


def test_files_of_the_dashboard_are_cached_for_good_under_their_version_only() -> None:
    current, old = file("style.css"), file("style.css", "an-old-one")
    assert current.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert old.headers["Cache-Control"] == "no-cache"
    assert current.get_body() == old.get_body() and current.mimetype == "text/css"
    again = file("style.css", headers={"If-None-Match": current.headers["ETag"]})
    assert (again.status_code, again.get_body()) == (304, b"")
    assert file("style.css", headers={"If-None-Match": '"another"'}).status_code == 200


def test_every_import_of_the_dashboard_leads_to_a_file() -> None:
    folder = web.FOLDER
    for script in folder.rglob("*.js"):
        if script.parent.name == "vendor":
            continue
        for name in re.findall(r'(?:from|import\()\s*"(\.[^"]+)"', script.read_text("utf-8")):
            target = (script.parent / name).resolve().relative_to(folder).as_posix()
            assert target in web.files().files or target in web.VENDOR, f"{script.name} imports {name}"


def test_nothing_in_the_dashboard_makes_markup_of_text_or_asks_another_origin() -> None:
    ways = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://|\bstyle="
    )
    for path in web.FOLDER.rglob("*.js"):
        if path.parent.name != "vendor":
            assert not ways.search(path.read_text("utf-8")), path.name


@pytest.mark.parametrize(
    "name",
    ["../files.py", "files.py", "__init__.py", "../../settings.py", "/etc/passwd", "%2e%2e/files.py",
     "views/../files.py", "..\\files.py", "index.html", "", "vendor", "vendor/packages.txt", "app.js\x00.css",
     "APP.JS"],
)  # fmt: skip
def test_the_dashboard_serves_no_file_but_its_own(name: str) -> None:
    for spelled in (name, unquote(name)):
        assert_problem(file(spelled), 404)


def test_other_methods_than_get_are_refused_by_the_dashboard() -> None:
    assert_problem(asyncio.run(show_dashboard(request("POST", "/queue/dashboard"))), 405)
    asked = request("DELETE", "/queue/dashboard/x/app.js", route={"version": "x", "file": "app.js"})
    assert_problem(asyncio.run(show_dashboard_file(asked)), 405)


def test_a_dashboard_without_its_packages_says_which_files_lack(tmp_path: Path) -> None:
    for name in ("index.html", "start.js"):
        (tmp_path / name).write_bytes((web.FOLDER / name).read_bytes())
    found = web.read(tmp_path)
    assert found.missing == web.VENDOR
    assert 'data-missing="vendor/preact.js, vendor/uplot.js, vendor/uplot.css"' in found.page("").decode()
    assert found.version != VERSION
