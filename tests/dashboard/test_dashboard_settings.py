"""What an Admin sets in the dashboard: thresholds, limits, schedules; what is wrong is said at its field."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.dashboard.axe import serious
from tests.dashboard.conftest import Tab, shoot
from tests.dashboard.seed import CHAT, SYNC
from tests.dashboard.test_dashboard_actions import tab_to
from tests.dashboard.test_dashboard_views import DARK, LIGHT


def problem_of(field: Locator) -> str:
    """What a screen reader is told of the field beside its name."""
    text: str = field.evaluate(
        "field => (field.getAttribute('aria-describedby') ?? '').split(' ')"
        ".map(id => document.getElementById(id)?.innerText ?? '').join(' ')"
    )
    return text


def said(page: Page, text: str) -> None:
    expect(page.get_by_role("status").filter(has_text=text)).to_be_visible()


def test_a_threshold_is_changed_set_for_one_queue_and_reset(tab: Tab) -> None:
    page = tab.open("thresholds")
    row = page.get_by_role("row", name="oldest-ready all others")
    expect(row).to_contain_text("5 min")
    tab_to(page, "Change oldest-ready")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Change oldest-ready?")
    expect(dialog).to_contain_text("built in are 5 min and 30 min")
    expect(dialog.get_by_label("Warning above")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("4000")
    page.keyboard.press("Enter")
    critical = dialog.get_by_label("Critical above")
    expect(critical).to_have_attribute("aria-invalid", "true")
    expect(critical).to_be_focused()
    assert "it must not be below the warning" in problem_of(critical)
    assert serious(page) == []
    shoot(page, "threshold-wrong")
    critical.fill("")
    dialog.get_by_role("button", name="Change").click()
    said(page, "oldest-ready is changed.")
    expect(page.get_by_role("button", name="Change oldest-ready", exact=True)).to_be_focused()
    expect(row).to_contain_text("1 h 6 min")
    expect(row).to_contain_text("never")
    expect(row).to_contain_text("by key 1")
    page.get_by_role("button", name="Set for one queue or timer").click()
    dialog = page.get_by_role("dialog", name="Set a threshold")
    dialog.get_by_label("Rule").select_option("backlog")
    scope = dialog.get_by_label("Of")
    scope.fill("no-such-queue")
    dialog.get_by_label("Warning above").fill("5")
    dialog.get_by_role("button", name="Set").click()
    expect(scope).to_have_attribute("aria-invalid", "true")
    assert "it must be one of attachments" in problem_of(scope) and CHAT in problem_of(scope)
    scope.fill(CHAT)
    dialog.get_by_role("button", name="Set").click()
    expect(page.get_by_role("row", name=f"backlog {CHAT}")).to_contain_text("1,000 / 10,000")
    for name in ("oldest-ready", f"backlog of {CHAT}"):
        page.get_by_role("button", name=f"Reset {name}", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Reset").click()
        said(page, f"{name} is reset.")
    expect(page.get_by_role("row", name=f"backlog {CHAT}")).to_have_count(0)
    expect(row).to_contain_text("30 min")


def test_limits_are_changed_with_what_is_wrong_at_its_field_and_reset(tab: Tab) -> None:
    page = tab.open("limits")
    row = page.get_by_role("row", name=SYNC).first
    before = row.inner_text()
    page.get_by_role("button", name=f"Change the limits of {SYNC}").click()
    dialog = page.get_by_role("dialog", name=f"Change the limits of {SYNC}?")
    requests = dialog.get_by_label("Requests", exact=True)
    assert "built in: 600 in 1 min" in problem_of(requests)
    requests.fill("7")
    dialog.get_by_label("in so many seconds", exact=True).fill("")
    dialog.get_by_label("Requests that a job takes").fill("0")
    dialog.get_by_role("button", name="Change").click()
    for label, text in (("in so many seconds", "Field required"), ("Requests that a job takes", "greater than")):
        field = dialog.get_by_label(label, exact=True)
        expect(field).to_have_attribute("aria-invalid", "true")
        assert text in problem_of(field)
    expect(dialog.get_by_label("in so many seconds", exact=True)).to_be_focused()
    shoot(page, "limits-wrong")
    dialog.get_by_label("in so many seconds", exact=True).fill("10")
    expect(dialog.locator("[aria-invalid=true]")).to_have_count(1)
    dialog.get_by_label("Requests that a job takes").fill("1")
    dialog.get_by_label("Jobs of each key at once").fill("")
    dialog.get_by_role("button", name="Change").click()
    said(page, f"{SYNC} has other limits.")
    expect(row).to_contain_text("of 7 requests in 10 s")
    page.get_by_role("button", name=f"Reset the limits of {SYNC}").click()
    page.get_by_role("dialog").get_by_role("button", name="Reset").click()
    said(page, "has its built-in limits")
    expect(row).to_contain_text("of 600 requests in 1 min")
    assert "built in" in row.inner_text() and before


def test_a_schedule_is_made_and_changed_with_its_next_times_shown(tab: Tab) -> None:
    page = tab.open("schedules")
    page.get_by_role("button", name="New schedule").click()
    dialog = page.get_by_role("dialog", name="New schedule")
    dialog.get_by_label("Name").fill("from-the-page")
    dialog.get_by_label("Queue").select_option(CHAT)
    dialog.get_by_label("When (cron)").fill("61 * * * *")
    expect(dialog.get_by_label("Time zone")).to_have_value("Europe/Berlin")
    expect(dialog.locator(".next .problem")).to_be_visible()
    dialog.get_by_label("Payload (JSON)").fill('{"chatId": 5')
    dialog.get_by_role("button", name="Create").click()
    payload = dialog.get_by_label("Payload (JSON)")
    expect(payload).to_be_focused()
    assert "it is no JSON" in problem_of(payload)
    payload.fill('{"chatId": "19:dispatch@thread.v2"}')
    dialog.get_by_role("button", name="Create").click()
    cron = dialog.get_by_label("When (cron)")
    expect(cron).to_have_attribute("aria-invalid", "true")
    expect(payload).to_have_attribute("aria-invalid", "true")
    assert "content" in problem_of(payload)
    assert serious(page) == []
    shoot(page, "schedule-wrong")
    cron.fill("30 6 * * mon-fri")
    expect(dialog.locator(".next time")).to_have_count(5)
    expect(dialog.locator(".next time").first).to_contain_text("06:30:00")
    payload.fill('{"chatId": "19:dispatch@thread.v2", "content": "The plan"}')
    shoot(page, "schedule-right")
    dialog.get_by_role("button", name="Create").click()
    said(page, "from-the-page is there.")
    expect(page.get_by_role("row", name="from-the-page")).to_contain_text("30 6 * * mon-fri")
    page.get_by_role("button", name="Change from-the-page").click()
    dialog = page.get_by_role("dialog", name="Change from-the-page")
    expect(dialog.get_by_label("Payload (JSON)")).to_have_value(re.compile("The plan"))
    dialog.get_by_role("button", name="Change").click()
    expect(dialog.get_by_role("alert")).to_have_text("Nothing is changed.")
    dialog.get_by_label("After an outage").select_option("all")
    with page.expect_request(lambda asked: asked.method == "PATCH") as changed:
        dialog.get_by_role("button", name="Change").click()
    assert changed.value.post_data_json == {"catchUp": "all"}
    said(page, "from-the-page is changed.")
    tab.show("schedules?name=from-the-page")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("button", name="Delete from-the-page").click()
    page.get_by_label("Type").fill("from-the-page")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    said(page, "from-the-page is deleted.")


@pytest.mark.parametrize("looks", [LIGHT, DARK], ids=["wide-light", "phone-dark"])
def test_forms_fit_the_window_and_axe_finds_nothing_serious(tab: Tab, looks: dict[str, Any]) -> None:
    page = tab.open("limits")
    for place, button in (
        ("limits", f"Change the limits of {CHAT}"),
        ("thresholds", "Set for one queue or timer"),
        ("schedules", "New schedule"),
    ):
        tab.show(place)
        page.get_by_role("button", name=button).click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        shoot(page, f"form-{place}-{looks['color_scheme']}")
        assert dialog.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") <= 0, place
        assert serious(page) == [], place
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)


def test_an_operator_may_make_schedules_and_change_neither_thresholds_nor_limits(tab: Tab) -> None:
    operator = {"name": "ann@fleet.example", "kind": "key", "role": "Operator"}
    tab.page.route("**/queue/me", lambda route: answer(route, operator))
    page = tab.open("thresholds")
    expect(page.get_by_role("button", name="Change backlog", exact=True)).to_be_disabled()
    tab.show("limits")
    expect(page.get_by_role("button", name=f"Change the limits of {SYNC}")).to_be_disabled()
    tab.show("schedules")
    expect(page.get_by_role("button", name="New schedule")).to_be_enabled()


def test_a_schedule_whose_payload_is_hidden_keeps_it_when_it_is_changed(tab: Tab) -> None:
    given: dict[str, Any] = {
        "name": "hidden", "queue": SYNC, "cron": "0 6 * * *", "timeZone": "UTC", "priority": 3, "catchUp": "once",
        "paused": False, "nextRunAt": None, "lastRunAt": None, "lastJobId": None, "problem": None, "payload": None,
    }  # fmt: skip
    tab.page.route("**/queue/schedules", lambda route: answer(route, {"items": [given]}))
    tab.page.route("**/queue/schedules/hidden", lambda route: answer(route, given))
    page = tab.open("schedules")
    page.get_by_role("button", name="Change hidden").click()
    dialog = page.get_by_role("dialog", name="Change hidden")
    assert "it stays as it is" in problem_of(dialog.get_by_label("Payload (JSON)"))
    dialog.get_by_label("When (cron)").fill("0 7 * * *")
    with page.expect_request(lambda asked: asked.method == "PATCH") as changed:
        dialog.get_by_role("button", name="Change").click()
    assert changed.value.post_data_json == {"cron": "0 7 * * *"}
    said(page, "hidden is changed.")


def answer(route: Route, document: dict[str, Any]) -> None:
    route.fulfill(json=document)
