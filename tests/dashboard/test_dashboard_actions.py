"""What an operator does in the dashboard: sign in, walk by keyboard, redrive, review, pause; and who may."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import Page, Route, expect

from tests.dashboard.axe import serious
from tests.dashboard.conftest import Tab, shoot
from tests.dashboard.seed import ATTEMPTS, CHAT, DEAD_CHATS, FULL_MAILBOXES, MAIL, NO_CHAT, REQUEST_ID, SYNC


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("Admin key").fill(key)
    page.keyboard.press("Enter")


def tab_to(page: Page, name: str, most: int = 80) -> None:
    """Press Tab until the element with this accessible name has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText ?? '').trim()"
        )
        if focused.startswith(name):
            return
    pytest.fail(f"{most} presses of Tab do not reach {name!r}")


def test_the_key_is_asked_for_kept_in_the_tab_only_and_never_in_an_address(tab: Tab) -> None:
    addresses: list[str] = []
    tab.page.on("request", lambda asked: addresses.append(asked.url))
    page = tab.open("audit", signed_in=False)
    expect(page.get_by_label("Admin key")).to_be_focused()
    sign_in(page, "wrong" * 8)
    expect(page.get_by_role("alert")).to_have_text("This key is not valid.")
    sign_in(page, tab.site.key)
    expect(page.get_by_role("heading", name="Audit")).to_be_visible()
    assert page.evaluate("Object.keys(sessionStorage)") == ["fleet-queue-key"]
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
    page.reload()
    expect(page.get_by_role("heading", name="Audit")).to_be_visible()
    assert not [url for url in addresses if tab.site.key in url]
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Admin key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_is_refused_later_brings_the_form_back(tab: Tab) -> None:
    page = tab.open()
    page.route("**/stats", lambda route: route.fulfill(status=401, json={"detail": "no"}))
    expect(page.get_by_label("Admin key")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_text("Your key is not valid any more.")


def test_who_is_signed_in_by_app_service_needs_no_key_and_a_reader_changes_nothing(tab: Tab) -> None:
    reader = {"name": "ann@fleet.example", "kind": "app-service", "role": "Reader"}

    def as_platform(route: Route) -> None:
        """The platform lets the request pass for the one who is signed in: here with the key."""
        route.continue_(headers=route.request.headers | {"x-admin-key": tab.site.key})

    tab.page.route(re.compile("/api/queue/(?!dashboard|me$)"), as_platform)
    tab.page.route("**/queue/me", lambda route: route.fulfill(json=reader))
    page = tab.open("schedules", signed_in=False)
    expect(page.get_by_text("ann@fleet.example · Reader")).to_be_visible()
    expect(page.get_by_role("button", name="Run morning-plan now")).to_be_disabled()
    expect(page.get_by_role("button", name="Sign out")).to_have_count(0)


def test_keyboard_alone_goes_to_every_view_and_the_focus_follows(tab: Tab) -> None:
    page = tab.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    for key, title in {"j": "Jobs", "d": "Dead letters", "s": "Schedules", "l": "Limits", "u": "Subscriptions",
                       "y": "Syncs", "a": "Alerts", "h": "Thresholds", "r": "Reports", "t": "Audit",
                       "o": "Overview"}.items():  # fmt: skip
        page.keyboard.press("g")
        page.keyboard.press(key)
        expect(page.get_by_role("heading", name=title, level=1)).to_be_focused()
        expect(page).to_have_title(f"{title} · Fleet Queue")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys and words")).to_be_visible()
    shoot(page, "keys")
    page.get_by_label("These keys work").uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_dead_letters_are_redriven_together_by_keyboard_after_their_number_is_typed(tab: Tab) -> None:
    page = tab.open("dead-letters")
    name = f"Redrive all of {MAIL}: The mailbox of driver #"
    expect(page.get_by_role("button", name=name)).to_be_visible()
    tab_to(page, name)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=f"Redrive {FULL_MAILBOXES} dead letters?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Enter")
    confirm = dialog.get_by_role("button", name="Redrive")
    expect(confirm).to_be_disabled()
    dialog.get_by_label("Type").focus()
    page.keyboard.type(str(FULL_MAILBOXES))
    expect(confirm).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text=f"{FULL_MAILBOXES} redriven.")).to_be_visible()
    expect(page.get_by_role("button", name=name)).to_have_count(0)
    tab.show("audit?action=dead_letter.redrive")
    expect(page.locator("main tbody").get_by_role("row")).to_have_count(FULL_MAILBOXES)
    assert serious(page) == []


def test_what_a_redrive_cannot_help_is_discarded_together_with_a_note(tab: Tab) -> None:
    page = tab.open(f"dead-letters?queue={SYNC}")
    name = f"{SYNC}: payload: it is missing"
    discard = page.get_by_role("button", name=f"Discard all of {name}")
    expect(discard).to_have_class(re.compile("primary"))
    expect(page.get_by_role("button", name=f"Redrive all of {name}")).to_have_count(0)
    chats = page.get_by_role("button", name=f"Redrive all of {CHAT}: {NO_CHAT}")
    page.get_by_label("Queue").select_option("")
    expect(chats).not_to_have_class(re.compile("primary"))
    page.get_by_role("button", name=f"Review all of {name}").click()
    page.get_by_label("What was found out").fill("the old gateway again")
    page.get_by_role("button", name="Save the note").click()
    expect(page.get_by_role("status").filter(has_text="1 reviewed.")).to_be_visible()
    discard.click()
    dialog = page.get_by_role("dialog", name="Discard 1 dead letter?")
    dialog.get_by_label("Type").fill("1")
    expect(dialog.get_by_role("button", name="Discard")).to_be_disabled()
    dialog.get_by_label("Why").fill("the gateway is told")
    shoot(page, "discard")
    dialog.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("status").filter(has_text="1 discarded.")).to_be_visible()
    expect(discard).to_have_count(0)
    expect(page.get_by_role("heading", name="By error")).to_be_focused()
    tab.show("audit?action=dead_letter.discard")
    expect(page.locator("main tbody").get_by_role("row")).to_contain_text("the old gateway again → the gateway is told")
    assert page.locator("main .scroll").evaluate("frame => frame.scrollWidth - frame.clientWidth") <= 0


def test_a_groups_letters_open_in_place_and_take_the_focus(tab: Tab) -> None:
    page = tab.open("dead-letters")
    show = page.get_by_role("button", name=f"Show the dead letters of {CHAT}: {NO_CHAT}")
    show.focus()
    page.keyboard.press("Enter")
    opened = page.get_by_role("region", name=f"Dead letters of {CHAT}: {NO_CHAT}")
    expect(opened.get_by_role("heading")).to_be_focused()
    expect(opened.get_by_role("heading")).to_be_in_viewport()
    expect(opened.get_by_role("row")).to_have_count(DEAD_CHATS + 1)
    assert serious(page) == []
    page.reload()
    expect(opened.get_by_role("row")).to_have_count(DEAD_CHATS + 1)
    page.get_by_role("button", name=f"Hide the dead letters of {CHAT}: {NO_CHAT}").click()
    expect(opened).to_have_count(0)


def test_a_request_id_is_copied_by_keyboard_and_that_is_said(tab: Tab) -> None:
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = tab.open(f"jobs/{tab.site.seeded.dead_mail}")
    attempts = page.locator(".attempts > li")
    expect(attempts).to_have_count(1)
    expect(attempts).to_contain_text(f"Attempt {ATTEMPTS}")
    expect(attempts.get_by_text("The same at attempts 1 to 3")).to_be_visible()
    expect(page.locator(".timeline")).to_contain_text(f"attempts 1 to {ATTEMPTS - 1} retry: network")
    attempts.get_by_role("button", name=f"Copy the request id {REQUEST_ID}").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="The request id is copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == REQUEST_ID


def test_a_review_note_is_written_and_stays(tab: Tab) -> None:
    page = tab.open(f"dead-letters/{tab.site.seeded.dead_chat}")
    page.get_by_role("button", name="Write a review note").click()
    page.get_by_label("Note").fill("The chat was <b>deleted</b> by mistake")
    page.get_by_role("button", name="Save the note").click()
    expect(page.get_by_role("status").filter(has_text="The note is saved.")).to_be_visible()
    expect(page.locator("main dl")).to_contain_text("The chat was <b>deleted</b> by mistake")


def test_pausing_asks_first_and_a_refusal_is_said(tab: Tab) -> None:
    page = tab.open()
    page.get_by_role("button", name=f"2 queues are paused: {MAIL}, {CHAT}").click()
    expect(page.get_by_role("button", name=f"Resume {MAIL}")).to_be_focused()
    page.get_by_role("button", name="Pause notifications").click()
    page.get_by_role("button", name="Go back").click()
    page.get_by_role("button", name="Pause notifications").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume notifications").click()
    expect(page.get_by_role("button", name="Pause notifications")).to_be_visible()
    tab.page.route("**/pause", lambda route: route.fulfill(status=409, json={"detail": "it is not the time"}))
    page.get_by_role("button", name="Pause notifications").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert").filter(has_text="it is not the time")).to_be_visible()
    tab.problems[:] = [one for one in tab.problems if "409" not in one]


def test_an_alert_is_acknowledged_and_a_schedule_paused_run_and_resumed(tab: Tab) -> None:
    page = tab.open("alerts?status=open")
    page.get_by_role("button", name=f"Acknowledge Backlog of {CHAT}").click()
    expect(page.get_by_role("row", name=f"Backlog of {CHAT}")).to_contain_text("looked after by key 1")
    tab.show("schedules")
    page.get_by_role("button", name="Pause morning-plan").click()
    page.get_by_role("button", name="Resume morning-plan").click()
    page.get_by_role("button", name="Run morning-plan now").click()
    page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    expect(page.get_by_role("status").filter(has_text="has made a job")).to_be_visible()


def test_a_scheduled_job_is_cancelled_after_a_question(tab: Tab) -> None:
    page = tab.open(f"jobs/{tab.site.seeded.scheduled}")
    expect(page.locator("main .headline")).to_contain_text("The queue teams-outbound is paused")
    expect(page.get_by_role("button", name="Resume the queue")).to_be_enabled()
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator("main .headline")).to_contain_text("Cancelled at")
    expect(page.locator("main .timeline")).to_contain_text("job.cancel")


def test_while_the_server_is_away_the_last_figures_stay_and_it_is_asked_less_often(tab: Tab) -> None:
    page = tab.open()
    row = page.get_by_role("row", name=CHAT)
    expect(row).to_be_visible()
    asked: list[float] = []

    def lose(route: Route) -> None:
        asked.append(time.monotonic())
        route.abort()

    page.route("**/stats", lose)
    expect(page.get_by_role("alert").filter(has_text="The server does not answer.")).to_be_visible()
    expect(row).to_be_visible()
    until = time.monotonic() + 15
    while len(asked) < 3 and time.monotonic() < until:
        page.wait_for_timeout(50)  # lets the browser's events in
    assert asked[2] - asked[0] > 1.5, "less often than each second"
    page.unroute("**/stats")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert").filter(has_text="The server does not answer.")).to_have_count(0)
    tab.problems[:] = [one for one in tab.problems if "ERR_FAILED" not in one]


def test_a_message_that_was_refused_is_corrected_and_enqueued_anew(tab: Tab) -> None:
    page = tab.open(f"jobs/{tab.site.seeded.dead_chat}")
    page.get_by_role("button", name="Enqueue anew").click()
    dialog = page.get_by_role("dialog", name=f"Enqueue it anew in {CHAT}?")
    payload = dialog.get_by_label("Payload (JSON)")
    was = json.loads(payload.input_value())
    for wrong, told in (("{", "it is no JSON"), (json.dumps(was | {"content": 7}), "content")):
        payload.fill(wrong)
        dialog.get_by_role("button", name="Enqueue").click()
        expect(payload).to_have_attribute("aria-invalid", "true")
        expect(dialog.locator(".problem")).to_contain_text(told)
    shoot(page, "enqueue-anew")
    assert serious(page) == []
    payload.fill(json.dumps(was | {"chatId": "19:right@thread.v2"}))
    with page.expect_request(lambda asked: asked.method == "POST") as sent:
        dialog.get_by_role("button", name="Enqueue").click()
    body = sent.value.post_data_json
    assert (
        body is not None
        and body["payload"]["chatId"] == "19:right@thread.v2"
        and body["idempotencyKey"].startswith("anew:")
    )
    expect(page.get_by_role("status").filter(has_text="enqueued as a new job")).to_be_visible()
    expect(page.locator("h1")).not_to_contain_text(str(tab.site.seeded.dead_chat))
    expect(page.get_by_label("State and what to do")).to_be_visible()
    tab.show(f"jobs/{tab.site.seeded.dead_chat}")
    expect(page.get_by_role("button", name="Enqueue anew")).to_be_visible()
