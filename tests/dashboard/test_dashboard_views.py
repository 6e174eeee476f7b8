"""Every view of the dashboard in a real browser, on a system with data."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Route, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.dashboard.axe import serious
from tests.dashboard.conftest import WIDE, Tab, shoot
from tests.dashboard.seed import CHAT, DEAD_CHATS, HOSTILE, MAIL, NO_CHAT, REQUEST_ID

PHONE = {"width": 360, "height": 740}
#: Where each view is, and what it then shows.
VIEWS = {
    "overview": ("?range=24h", "Jobs a minute"),
    "jobs": (f"jobs?queue={CHAT}", "call-1"),
    "job": ("jobs/{dead_mail}", "request id"),
    "dead-letters": ("dead-letters", NO_CHAT),
    "letter": ("dead-letters/{dead_chat}", "What was asked is wrong"),
    "schedules": ("schedules", "morning-plan"),
    "limits": ("limits", "of 50 requests in 1 s"),
    "subscriptions": ("subscriptions", "users/dispatch@fleet.example/messages"),
    "syncs": ("syncs", "calendar (delta)"),
    "alerts": ("alerts", f"Backlog of {CHAT}"),
    "alert": ("alerts/{alert}", "What was asked is wrong"),
    "thresholds": ("thresholds", "failure-rate"),
    "reports": ("reports", "1,180 completed"),
    "report": ("reports/2026-03-01", "against the same day a week before"),
    "audit": ("audit", "Of"),
    "nowhere": ("no-such-view", "There is no such view"),
}
LIGHT = {"viewport": WIDE, "color_scheme": "light"}
DARK = {"viewport": PHONE, "color_scheme": "dark", "reduced_motion": "reduce", "has_touch": True}


@pytest.mark.parametrize("looks", [LIGHT, DARK], ids=["wide-light", "phone-dark"])
def test_each_view_loads_and_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    tab: Tab, looks: dict[str, Any]
) -> None:
    page = tab.open()
    alert = alert_of(tab, f"dead-letter:{CHAT}:validation")
    for name, (place, text) in VIEWS.items():
        seeded = tab.site.seeded
        tab.show(place.format(dead_mail=seeded.dead_mail, dead_chat=seeded.dead_chat, alert=alert))
        expect(page.locator("main"), name).to_contain_text(text)
        expect(page.locator("main .loading"), name).to_have_count(0)
        shoot(page, f"{name}-{looks['color_scheme']}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        assert serious(page) == [], name


def alert_of(tab: Tab, key: str) -> str:
    """The id of the alert with this key, once its handler has raised it."""
    until = time.monotonic() + 15
    while time.monotonic() < until:
        answer = tab.page.request.get(
            f"{tab.site.stack.host_url}/queue/alerts", headers={"x-admin-key": tab.site.key}, params={"limit": "200"}
        )
        found = [one["id"] for one in answer.json()["items"] if one["key"] == key]
        if found:
            return str(found[0])
        tab.page.wait_for_timeout(100)
    pytest.fail(f"there is no alert {key}")


def test_an_alert_says_what_it_means_and_leads_to_what_it_is_about(tab: Tab) -> None:
    """The address is that of the messages."""
    page = tab.open(f"alerts/{alert_of(tab, f'dead-letter:{CHAT}:validation')}")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Dead letters in {CHAT} (validation)")
    box = page.get_by_role("region", name="What it means and what to do")
    expect(box).to_contain_text("Jobs of this queue died of this class of error")
    expect(box).to_contain_text("Now: Read the last one's error")
    page.get_by_role("link", name=f"Dead letters of {CHAT}").click()
    expect(page).to_have_url(re.compile(rf"#/dead-letters\?queue={CHAT}&errorClass=validation$"))
    expect(page.get_by_role("link", name="Alerts")).to_be_visible()
    tab.show("alerts?status=open")
    page.get_by_role("link", name=f"Dead letters in {CHAT} (validation)").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Dead letters in {CHAT} (validation)")


def test_a_report_is_found_from_the_list_and_leads_on(tab: Tab) -> None:
    page = tab.open("reports")
    page.get_by_role("link", name="2026-03-01").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Report of 2026-03-01 (UTC)")
    expect(page.get_by_role("row", name="failed attempts").first).to_contain_text("96")
    assert page.locator("main img, main script").count() == 0
    page.get_by_role("row", name="validation 12").get_by_role("link").click()
    expect(page).to_have_url(re.compile(rf"#/dead-letters\?queue={CHAT}&errorClass=validation$"))


@pytest.mark.parametrize("looks", [LIGHT, LIGHT | {"color_scheme": "dark"}], ids=["light", "dark"])
def test_the_form_and_a_question_are_as_usable_as_the_views(tab: Tab, looks: dict[str, Any]) -> None:
    page = tab.open(signed_in=False)
    shoot(page, f"form-{looks['color_scheme']}")
    assert serious(page) == []
    tab.open("dead-letters")
    page.get_by_role("button", name=f"Redrive all of {CHAT}: {NO_CHAT}").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    shoot(page, f"question-{looks['color_scheme']}")
    assert serious(page) == []


def test_figures_and_a_chart_are_told_to_a_screen_reader_and_numbers_stand_right(tab: Tab) -> None:
    page = tab.open("?range=24h")
    chart = page.get_by_role("img", name=re.compile("Jobs a minute.*enqueued: now [0-9.]+, at most"))
    expect(chart.locator("canvas")).to_be_visible()
    row = page.get_by_role("row", name=CHAT)
    assert row.get_by_role("cell").nth(1).evaluate("cell => getComputedStyle(cell).textAlign") == "right"
    for landmark in ("banner", "navigation", "main", "search"):
        assert page.get_by_role(landmark).count() == 1, landmark
    table = page.get_by_role("table").first
    expect(table.get_by_role("columnheader").first).to_have_text("Queue")


def test_what_changes_is_shown_within_moments_and_a_hidden_tab_does_not_ask(tab: Tab) -> None:
    page = tab.open()
    cell = page.get_by_role("row", name=MAIL).get_by_role("cell").nth(1)
    expect(cell).to_have_text(re.compile("^[0-9]+$"))
    before = int(cell.inner_text())
    answer = page.request.post(
        f"{tab.site.stack.host_url}/queue/{MAIL}/jobs",
        headers={"x-admin-key": tab.site.key},
        data={"payload": {"from": "a@fleet.example", "to": ["b@fleet.example"], "subject": "s", "body": "b"}},
    )
    assert answer.status == 202
    expect(cell).to_have_text(str(before + 1), timeout=4000)
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    with pytest.raises(PlaywrightTimeout):
        with page.expect_request("**/stats", timeout=2500):
            pass
    page.evaluate("delete document.hidden")
    with page.expect_request("**/stats"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_filters_live_in_the_address_and_survive_a_reload_and_lists_go_on(tab: Tab) -> None:
    page = tab.open("jobs")
    page.get_by_label("Queue").select_option(CHAT)
    page.get_by_label("State", exact=True).select_option("dead")
    expect(page).to_have_url(re.compile(rf"#/jobs\?queue={CHAT}&status=dead$"))
    expect(page.get_by_role("row")).to_have_count(DEAD_CHATS + 2)
    page.reload()
    expect(page.get_by_label("State", exact=True)).to_have_value("dead")
    expect(page.get_by_role("row")).to_have_count(DEAD_CHATS + 2)
    page.go_back()
    expect(page.get_by_label("State", exact=True)).to_have_value("")
    page.route(f"**/{CHAT}/jobs*", lambda route: route.continue_(url=_with_limit(route.request.url, 5)))
    page.reload()
    expect(page.get_by_role("row")).to_have_count(1 + 5)
    page.get_by_role("button", name="Show more").click()
    expect(page.get_by_role("row")).to_have_count(1 + 10)


def test_the_only_hit_of_a_search_opens_at_once_and_back_leads_to_where_it_was(tab: Tab) -> None:
    page = tab.open()
    page.get_by_role("searchbox").first.fill(" INVOICE-2024-17 ")
    page.keyboard.press("Enter")
    main = page.locator("main")
    expect(page).to_have_url(re.compile(f"#/jobs/{tab.site.seeded.dead_mail}$"))
    page.go_back()
    expect(page.locator("h1")).to_have_text("Overview")
    page.go_forward()
    expect(main).to_contain_text(REQUEST_ID)
    expect(main).to_contain_text("When it is back, redrive")
    expect(main).not_to_contain_text("ann@fleet.example")
    page.get_by_role("button", name="Reveal the payload").click()
    expect(page.get_by_label("Payload", exact=True)).to_contain_text("ann@fleet.example")


def test_the_only_hit_by_a_recipient_is_listed_since_newer_messages_may_be_under_way(tab: Tab) -> None:
    page = tab.open()
    page.route("**/api/queue/jobs?*", _one_hit)
    page.get_by_role("searchbox").first.fill("ann@fleet.example")
    page.keyboard.press("Enter")
    main = page.locator("main")
    expect(main).to_contain_text("Messages to ann@fleet.example that have not ended are not found")
    expect(page.get_by_role("row")).to_have_count(1 + 1)
    expect(page.locator("h1")).to_have_text("Jobs")
    page.unroute("**/api/queue/jobs?*")
    page.get_by_role("searchbox").first.fill(REQUEST_ID)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"#/jobs/{tab.site.seeded.dead_mail}$"))


def _one_hit(route: Route) -> None:
    route.continue_(url=re.sub("search=[^&]+", "search=invoice-2024-17", route.request.url))


def test_jobs_of_all_queues_are_found_by_chat_error_and_time(tab: Tab) -> None:
    page = tab.open("jobs?search=19:dispatch@thread.v2")
    expect(page.get_by_role("row").nth(21)).to_be_visible()  # and more where a schedule was run meanwhile
    page.get_by_label("Died of").select_option("validation")
    expect(page.get_by_role("row")).to_have_count(1 + DEAD_CHATS)
    expect(page).to_have_url(re.compile("status=dead"))
    page.get_by_label("From", exact=True).fill("2030-01-01T10:00")
    expect(page.locator("main")).to_contain_text("No job fits.")
    expect(page).to_have_url(re.compile("from=2030-01-01T09%3A00"))
    expect(page.locator("main")).to_contain_text("kept for 30 days")
    tab.show("jobs?errorClass=network&status=dead")
    expect(page.get_by_role("link", name=f"Job {tab.site.seeded.dead_mail}")).to_be_visible()
    shoot(page, "jobs-everywhere")


def test_an_internal_job_says_so_and_leads_to_the_message(tab: Tab) -> None:
    page = tab.open("jobs?queue=dead-letter&search=invoice-2024-17")
    page.get_by_role("row").nth(1).get_by_role("link").first.click()
    expect(page.locator("main")).to_contain_text("An internal job")
    page.get_by_role("link", name="this one").click()
    expect(page.locator("h1")).to_contain_text(str(tab.site.seeded.dead_mail))


def test_times_are_local_or_utc_and_tell_the_other_one(tab: Tab) -> None:
    page = tab.open(f"jobs/{tab.site.seeded.ready}")
    shown = page.locator("main time").first
    instant = datetime.fromisoformat(str(shown.get_attribute("datetime")))
    local = instant.astimezone(ZoneInfo("Europe/Berlin"))
    expect(shown).to_contain_text(f"{local:%Y-%m-%d %H:%M:%S}")
    expect(shown).to_have_attribute("title", f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    page.get_by_role("button", name="Europe/Berlin").click()
    expect(shown).to_contain_text(f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}")
    expect(shown).to_have_attribute("title", f"{local:%Y-%m-%d %H:%M:%S} Europe/Berlin")


def test_what_the_server_says_of_a_job_has_the_zone_of_the_page(tab: Tab) -> None:
    def at_a_known_time(route: Route) -> None:
        answer = route.fetch()
        shown = answer.json()
        shown["diagnosis"]["headline"] = "Runs at 2026-07-01 22:12:56 UTC"
        route.fulfill(response=answer, json=shown)

    job = tab.site.seeded.ready
    tab.page.route(f"**/queue/jobs/{job}", at_a_known_time)
    page = tab.open(f"jobs/{job}")
    headline = page.get_by_label("State and what to do").locator(".headline")
    expect(headline).to_contain_text("Runs at 2026-07-02 00:12:56 Europe/Berlin")
    page.get_by_role("button", name="Europe/Berlin").click()
    expect(headline).to_contain_text("Runs at 2026-07-01 22:12:56 UTC")


def test_what_a_hostile_sender_wrote_is_text_everywhere(tab: Tab) -> None:
    page = tab.open(f"jobs/{tab.site.seeded.hostile}")
    page.get_by_role("button", name="Reveal the payload").click()
    for place in (
        None,
        f"jobs?queue={CHAT}",
        "dead-letters",
        f"dead-letters/{tab.site.seeded.foreign}",
        "alerts",
        f"jobs?search={quote(HOSTILE[:100])}",
    ):
        if place is not None:
            tab.show(place)
        expect(page.locator("main")).to_contain_text("<img src=x onerror=")
        assert page.locator("main img, main script").count() == 0


def test_open_alerts_come_first_and_their_facts_are_words(tab: Tab) -> None:
    page = tab.open("alerts")
    expect(page.get_by_role("row", name=f"Backlog of {CHAT}")).to_be_visible()
    expect(page.get_by_role("row", name="Dead letters of sync")).to_have_count(0)
    page.get_by_label("State").select_option("all")
    expect(page.get_by_role("row", name="Dead letters of sync")).to_be_visible()
    tab.show(f"alerts/{alert_of(tab, f'dead-letter:{CHAT}:validation')}")
    for name in ("Newest error", "Newest job", "First dead letter", "Class of errors"):
        expect(page.get_by_role("term").filter(has_text=name)).to_be_visible()
    expect(page.locator("main .facts")).not_to_contain_text(re.compile("lastJobId|openedBy|Unit"))


@pytest.mark.parametrize("looks", [DARK], ids=["phone-dark"])
def test_a_phone_shows_queues_in_use_first_and_what_needs_somebody_on_the_menu(tab: Tab) -> None:
    page = tab.open()
    expect(page.get_by_role("row", name=CHAT)).to_be_visible()
    expect(page.get_by_role("row", name="outlook-inbound")).not_to_be_visible()
    page.get_by_text(re.compile("^[0-9]+ quiet queue")).click()
    expect(page.get_by_role("row", name="outlook-inbound")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Overview.*[0-9]+ alerts.*[0-9]+ dead"))).to_be_visible()


def _with_limit(url: str, limit: int) -> str:
    return f"{url}{'&' if '?' in url else '?'}limit={limit}"
