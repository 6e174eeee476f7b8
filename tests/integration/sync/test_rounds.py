"""Rounds that are cut, refused, sent in circles or led astray: nothing lost, nothing twice, and an end to each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import pytest

from shared.engine.errors import RejectedError
from shared.engine.job import Job
from shared.graph import calendar, contacts
from shared.graph.errors import LinkRefused
from shared.handlers import sync as sync_module
from shared.handlers import sync_messages
from shared.handlers.sync import PagesGoRound
from shared.handlers.sync_store import Busy, Ended, NewSet, Round, RoundLost, Rows, Step
from tests.integration.graph.conftest import CHAT, DISPATCH, DRIVER
from tests.integration.sync.conftest import Bench, mime

EVIL = ("https://attacker.example", "http://graph.microsoft.com", "https://graph.microsoft.com@evil.example")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contacts, "_PREFER", (*contacts._PREFER[:1], "odata.maxpagesize=2"))
    monkeypatch.setattr(calendar, "PAGE", 2)
    monkeypatch.setattr(sync_messages, "MESSAGES_PAGE", 2)
    monkeypatch.setattr(sync_messages, "MAILS_PAGE", 2)


def fill(bench: Bench, count: int) -> set[str]:
    return {bench.graph.put_contact(DISPATCH, displayName=f"c{n}") for n in range(count)}


def round_of(bench: Bench) -> dict[str, Any]:
    [row] = bench.history()
    return row


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_at_any_request_loses_nothing_and_repeats_no_page(
    bench: Bench, when: Literal["before", "after"]
) -> None:
    ids = fill(bench, 5)
    for number in range(1, 5):  # the folders, then three pages
        bench.sql.execute("truncate queue.contacts, queue.delta_links, queue.sync_items, queue.sync_history")
        bench.graph.control("DELETE", "requests")
        bench.session.number = 0
        bench.session.kill_at = (number, when)
        run = bench.sync("contacts")
        assert (run.kills, run.result) == (1, {"created": 5, "updated": 0, "deleted": 0, "pages": 4})
        assert bench.alive("contacts") == ids
        assert len(bench.requests("/users/")) == 4 + (when == "after")
        assert round_of(bench)["outcome"] == "completed"


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_at_any_use_of_the_database_loses_nothing_and_counts_nothing_twice(
    bench: Bench, when: Literal["before", "after"]
) -> None:
    ids = fill(bench, 5)
    number = 0
    while True:
        number += 1
        bench.sql.execute("truncate queue.contacts, queue.delta_links, queue.sync_items, queue.sync_history")
        bench.database.number = 0
        bench.database.kill_at = (number, when)
        run = bench.sync("contacts")
        assert run.result == {"created": 5, "updated": 0, "deleted": 0, "pages": 4}, number
        assert bench.alive("contacts") == ids
        assert round_of(bench)["outcome"] == "completed"
        if run.kills == 0:
            break
    assert number > 10
    bench.database.kill_at = None


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("kind", ["emails", "messages"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_messages_are_stored_once_wherever_a_worker_is_killed(
    bench: Bench, kind: str, when: Literal["before", "after"]
) -> None:
    for n in range(3):
        bench.graph.arrive_mail(DISPATCH, mime(f"m{n}", attachment=n == 1))
        bench.graph.arrive_chat_message(DRIVER, f"m{n}", chat=CHAT)
    for number in range(1, 30):
        bench.sql.execute(
            "truncate queue.communication_logs, queue.attachments, queue.delta_links, queue.sync_items,"
            " queue.sync_history, queue.outgoing_events"
        )
        bench.database.number = 0
        bench.database.kill_at = (number, when)
        run = bench.sync(kind)
        bench.database.kill_at = None
        assert run.result is not None and run.result["created"] == 3
        assert len(bench.rows("select from queue.outgoing_events")) == 3
        assert len(bench.rows("select from queue.communication_logs")) == 3
        assert len(bench.rows("select from queue.attachments")) == (kind == "emails")
        if run.kills == 0:
            return
    raise AssertionError("a round has an end")


@pytest.mark.usefixtures("small_pages")
def test_a_turn_ends_when_its_time_is_used_up_and_the_next_goes_on(bench: Bench) -> None:
    ids = fill(bench, 5)
    ticks = iter(range(0, 100_000, 40))
    bench.clock = lambda: float(next(ticks))
    run = bench.sync("contacts")
    assert len(run.deferred) >= 3 and {one.delay for one in run.deferred} == {timedelta()}
    assert run.result == {"created": 5, "updated": 0, "deleted": 0, "pages": 4}
    assert bench.alive("contacts") == ids and len(bench.requests("/users/")) == 4


@pytest.mark.usefixtures("small_pages")
def test_without_a_permit_nothing_is_asked_and_the_round_goes_on_later(bench: Bench) -> None:
    ids = fill(bench, 5)
    asked: list[int] = []

    def permits(n: int) -> timedelta | None:
        asked.append(len(bench.requests("/users/")))
        return timedelta(seconds=7) if len(asked) <= 2 else None

    run = bench.sync("contacts", permits=permits)
    assert [one.delay for one in run.deferred] == [timedelta(seconds=7)] * 2
    assert asked == [1, 2, 3]  # the job's own request each time, and none beyond it
    assert run.result == {"created": 5, "updated": 0, "deleted": 0, "pages": 4}
    assert bench.alive("contacts") == ids


def test_one_job_at_a_time_has_a_round(bench: Bench) -> None:
    first, second = (Job(uuid4(), "sync", "", 1, 5, uuid4()) for _ in range(2))
    bench.sql.execute(
        "insert into queue.job (id, queue, priority, run_at, enqueued_at, payload, lease_token, lease_until,"
        " leased_by, attempt, started_at)"
        " values (%s, 'sync', 5, now(), now(), '{}', %s, now() + interval '1 minute', 'w', 1, now())",
        (first.id, first.lease_token),
    )
    round_ = bench.store.begin("contacts", DISPATCH, first, full=False)
    assert isinstance(round_, Round)
    assert bench.store.begin("contacts", DISPATCH, second, full=False) == Busy()
    assert isinstance(bench.store.begin("calendar", DISPATCH, second, full=False), Round)
    bench.sql.execute("update queue.job set lease_until = now() - interval '1 second'")
    taken = bench.store.begin("contacts", DISPATCH, second, full=False)
    assert isinstance(taken, Round) and taken.id == round_.id and taken.started_by == first.id
    with pytest.raises(RoundLost):
        bench.store.set_roots(round_, [NewSet("contacts/x")])
    with pytest.raises(RoundLost):
        bench.store.finish(round_)


def test_a_late_page_of_a_lost_worker_is_refused_whole(bench: Bench) -> None:
    job = Job(uuid4(), "sync", "", 1, 5, uuid4())
    round_ = bench.store.begin("contacts", DISPATCH, job, full=False)
    assert isinstance(round_, Round)
    bench.store.set_roots(round_, [NewSet("contacts/x")])
    known = bench.store.next_set(round_)
    assert known is not None
    step = Step("https://next", is_end=False, is_full=True, number=1, details={})
    page = Rows({"c1": {"raw": {"a": 1}, "display_name": "one"}})
    assert bench.store.store_page(round_, known, page, step).created == 1
    with pytest.raises(RoundLost):  # the same page again: the set has moved on
        bench.store.store_page(round_, known, Rows({"c2": {"raw": {}}}), step)
    assert bench.alive("contacts") == {"c1"}


def test_a_job_that_joins_anothers_round_makes_one_of_its_own_after_it(bench: Bench) -> None:
    fill(bench, 1)
    bench.graph.add_fault("status", path="contacts/delta", status=403)
    assert bench.sync("contacts").error is not None
    assert round_of(bench)["outcome"] is None and "403" in round_of(bench)["error_message"]
    bench.sync("contacts")
    assert [row["outcome"] for row in bench.history()] == ["completed", "completed"]


def test_a_job_lost_between_its_round_and_its_end_makes_no_second_one(bench: Bench) -> None:
    fill(bench, 2)
    job_id = uuid4()
    first = bench.sync("contacts", job_id=job_id)
    again = bench.sync("contacts", job_id=job_id)
    assert first.result == again.result and len(bench.history()) == 1
    job = Job(job_id, "sync", "", 1, 5, uuid4())
    assert isinstance(bench.store.begin("contacts", DISPATCH, job, full=True), Ended)


# ---------------------------------------------------------------- resync


@pytest.mark.parametrize(
    ("status", "code"),
    [(410, "SyncStateNotFound"), (410, "resyncRequired"), (400, "syncStateNotFound"), (404, "SyncStateInvalid")],
)
def test_a_forgotten_link_ends_in_a_full_sync_that_finds_what_vanished(bench: Bench, status: int, code: str) -> None:
    ids = sorted(fill(bench, 4))
    bench.sync("contacts")
    bench.graph.expire_deltas(status=status, code=code)
    bench.graph.control("POST", "contacts/delete", {"user": DISPATCH, "id": ids[0]})
    bench.graph.put_contact(DISPATCH, id=ids[1], displayName="other")
    run = bench.sync("contacts")
    assert run.result is not None and (run.result["created"], run.result["updated"], run.result["deleted"]) == (0, 1, 1)
    assert bench.alive("contacts") == set(ids[1:])
    assert bench.history()[-1]["resyncs"] == 2  # the folders' link and the contacts'


@pytest.mark.parametrize("kind", ["calendar", "emails", "contacts"])
def test_a_full_sync_that_graph_asks_for_has_the_options_of_the_first(bench: Bench, kind: str) -> None:
    bench.sync(kind)
    first = [one["query"] for one in bench.requests("/delta")]
    bench.graph.control("DELETE", "requests")
    bench.graph.expire_deltas()
    assert bench.sync(kind).result is not None
    anew = [one["query"] for one in bench.requests("/delta") if one["status"] == 200]
    assert sorted(map(str, anew)) == sorted(map(str, first))


@pytest.mark.usefixtures("small_pages")
def test_a_link_forgotten_in_the_middle_of_a_round_restarts_the_set(bench: Bench) -> None:
    ids = fill(bench, 7)
    looks = 0

    def expire() -> float:
        nonlocal looks
        looks += 1
        if looks == 5:  # once for the turn, for the folders, for each of two pages; before the third page
            bench.graph.expire_deltas(code="SyncStateNotFound")
        return 0.0

    bench.clock = expire
    run = bench.sync("contacts")
    assert run.result is not None and run.result["created"] == 7
    assert bench.alive("contacts") == ids and bench.history()[-1]["resyncs"] == 1


def test_a_stored_link_that_is_refused_without_a_reason_is_given_up_and_holds_no_round_for_ever(bench: Bench) -> None:
    """Lists that are no delta (chats) have links that run out too, and Graph says no more than 400."""
    for n in range(60):
        bench.graph.arrive_chat_message(DRIVER, f"m{n}", chat=CHAT)
    looks = 0

    def refuse() -> float:
        nonlocal looks
        looks += 1
        if looks == 3:  # once for the turn and for each page; before the second page
            bench.graph.add_fault("status", path="getAllMessages", status=400)
        return 0.0

    bench.clock = refuse
    run = bench.sync("messages")
    assert run.result is not None and run.result["created"] == 60
    assert bench.history()[-1]["resyncs"] == 1


def test_a_first_request_that_is_refused_fails_at_once(bench: Bench) -> None:
    bench.graph.add_fault("status", path="getAllMessages", status=400)
    assert isinstance(bench.sync("messages").error, RejectedError)


def test_graph_gets_one_full_sync_a_period_for_a_set(bench: Bench) -> None:
    fill(bench, 2)
    bench.sync("contacts")
    bench.graph.expire_deltas()
    assert bench.sync("contacts").result is not None
    bench.graph.expire_deltas()
    run = bench.sync("contacts")
    [deferred] = run.deferred
    assert run.result is None and timedelta(minutes=50) < deferred.delay <= timedelta(hours=1)
    bench.sql.execute("update queue.delta_links set resynced_at = resynced_at - interval '2 hours'")
    assert bench.sync("contacts").result is not None


def test_a_drive_is_read_anew_from_where_graph_says(bench: Bench) -> None:
    file = bench.graph.put_drive_item(DISPATCH, name="a")
    bench.sync("files")
    bench.graph.expire_deltas(status=410, code="resyncChangesApplyDifferences")
    bench.graph.control("POST", "drive-items/delete", {"owner": DISPATCH, "id": file})
    run = bench.sync("files")
    assert run.result is not None and run.result["deleted"] == 1
    assert file not in bench.alive("files")


def test_a_full_sync_begins_every_set_anew_and_finds_what_no_delta_told(bench: Bench) -> None:
    ids = sorted(fill(bench, 3))
    bench.sync("contacts")
    bench.sql.execute("update queue.contacts set display_name = 'wrong', raw = '{}'")
    bench.sql.execute(
        "insert into queue.sync_items (resource_type, account, external_id, resource, pass) values"
        " ('contacts', %s, 'ghost', %s, 1)", (DISPATCH, f"contacts/{DISPATCH}/default"),
    )  # fmt: skip
    bench.sql.execute("insert into queue.contacts (account, external_id) values (%s, 'ghost')", (DISPATCH,))
    run = bench.sync("contacts", full=True)
    assert run.result is not None and (run.result["updated"], run.result["deleted"]) == (3, 1)
    assert bench.alive("contacts") == set(ids)
    assert [
        row["display_name"] for row in bench.rows("select * from queue.contacts where external_id = any(%s)", ids)
    ] != []
    assert bench.history()[-1]["kind"] == "full"


def test_a_full_sync_takes_the_place_of_an_open_delta_round(bench: Bench) -> None:
    fill(bench, 1)
    bench.sync("contacts")
    bench.graph.add_fault("status", path="contacts/delta", status=403, times=2)
    bench.sync("contacts")
    bench.graph.clear_faults()
    assert bench.sync("contacts", full=True).result is not None
    assert [(row["kind"], row["outcome"]) for row in bench.history()] == [
        ("full", "completed"), ("delta", "replaced"), ("full", "completed"),
    ]  # fmt: skip


# ---------------------------------------------------------------- calendar windows


def test_a_window_that_has_to_move_is_read_anew_and_leaves_the_past_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def event(day: int) -> str:
        times = {
            name: {"dateTime": f"2026-11-{day:02d}T0{hour}:00:00", "timeZone": "UTC"}
            for name, hour in (("start", 8), ("end", 9))
        }
        return bench.graph.put_event(DISPATCH, subject=f"d{day}", **times)

    old, new = event(1), event(29)
    monkeypatch.setattr(calendar, "window", lambda now: ("2026-10-20T00:00:00Z", "2026-12-10T00:00:00Z"))
    monkeypatch.setattr(calendar, "is_over", lambda end, now: False)
    bench.sync("calendar")
    assert bench.alive("calendar_events") == {old, new}
    monkeypatch.setattr(calendar, "window", lambda now: ("2026-11-20T00:00:00Z", "2027-01-10T00:00:00Z"))
    monkeypatch.setattr(calendar, "is_over", lambda end, now: not end.startswith("2027"))
    later = bench.graph.put_event(
        DISPATCH, start={"dateTime": "2027-01-05T08:00:00", "timeZone": "UTC"},
        end={"dateTime": "2027-01-05T09:00:00", "timeZone": "UTC"},
    )  # fmt: skip
    run = bench.sync("calendar")
    assert run.result == {"created": 1, "updated": 0, "deleted": 0, "pages": 1}
    assert bench.alive("calendar_events") == {old, new, later}
    assert bench.history()[-1]["resyncs"] == 0
    starts = [one["query"].get("startDateTime") for one in bench.requests("calendarView/delta")]
    assert starts == ["2026-10-20T00:00:00Z", "2026-11-20T00:00:00Z"]


# ---------------------------------------------------------------- what Graph has been seen to do


@pytest.mark.usefixtures("small_pages")
def test_empty_pages_repeats_and_tombstones_of_unknown_ids_are_borne(bench: Bench) -> None:
    ids = fill(bench, 5)
    bench.graph.behave(empty_pages=2, repeats=True, unknown_tombstones=3)
    run = bench.sync("contacts")
    assert run.result is not None and (run.result["created"], run.result["deleted"]) == (5, 0)
    assert bench.alive("contacts") == ids
    assert run.result["pages"] > 10


@pytest.mark.usefixtures("small_pages")
def test_pages_that_go_round_are_stopped_and_the_set_is_read_anew_by_the_next_round(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(bench, 5)
    bench.sync("contacts")
    monkeypatch.setattr(sync_module, "MOST_STALE_PAGES", 10)
    bench.graph.put_contact(DISPATCH, id=sorted(ids)[0], displayName="x")
    bench.graph.behave(loop="pages")
    run = bench.sync("contacts")
    assert isinstance(run.error, PagesGoRound)
    [failed] = [row for row in bench.history() if row["outcome"] == "failed"]
    assert "nothing new" in failed["error_message"] and failed["pages"] < 15
    assert bench.rows("select state, link from queue.delta_links where resource like '%folders'") == [
        {"state": "new", "link": None}
    ]
    bench.graph.behave()
    bench.sql.execute("update queue.delta_links set resynced_at = null")
    assert bench.sync("contacts").result is not None
    assert bench.alive("contacts") == ids


@pytest.mark.usefixtures("small_pages")
def test_a_next_link_to_its_own_page_is_refused_and_the_set_is_read_anew_by_the_next_round(bench: Bench) -> None:
    """The link would lead there for ever."""
    ids = fill(bench, 9)
    bench.sync("contacts")
    for contact in ids:
        bench.graph.put_contact(DISPATCH, id=contact, displayName="changed")
    bench.graph.behave(loop="link")
    run = bench.sync("contacts")
    assert isinstance(run.error, PagesGoRound) and isinstance(run.error.__cause__, LinkRefused)
    last = bench.history()[-1]
    assert last["outcome"] == "failed" and "its own page" in last["error_message"]
    default = f"contacts/{DISPATCH}/default"
    sets = bench.rows("select resource, state, link from queue.delta_links where state = 'new'")
    assert sets == [{"resource": default, "state": "new", "link": None}]
    bench.graph.behave()
    assert bench.sync("contacts").result is not None
    assert bench.alive("contacts") == ids
    assert {row["display_name"] for row in bench.rows("select display_name from queue.contacts")} == {"changed"}


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("host", EVIL)
def test_a_link_off_graphs_host_is_neither_followed_nor_stored(bench: Bench, host: str) -> None:
    ids = fill(bench, 5)
    bench.sync("contacts")
    before = bench.rows("select resource, link from queue.delta_links order by 1")
    for contact in ids:
        bench.graph.put_contact(DISPATCH, id=contact, displayName="changed")
    bench.graph.behave(host=host)
    run = bench.sync("contacts")
    assert isinstance(run.error, Exception) and isinstance(run.error.__cause__, LinkRefused)
    after = bench.rows("select resource, link from queue.delta_links order by 1")
    assert {row["resource"]: row["link"] for row in after}[f"contacts/{DISPATCH}/default"] in {
        row["link"] for row in before
    }
    bench.graph.behave()
    assert bench.sync("contacts").result is not None
    assert {row["display_name"] for row in bench.rows("select display_name from queue.contacts")} == {"changed"}


@pytest.mark.usefixtures("small_pages")
def test_a_token_that_ends_on_the_way_costs_one_refresh_and_no_page(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(bench, 9)
    ask, pages = bench.session.request, 0

    def until_the_third_page(method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal pages
        pages += "contacts/delta" in str(url)
        if pages == 3:
            bench.graph.control("POST", "expire-tokens", {})
            pages += 1
        return ask(method, url, *args, **kwargs)

    monkeypatch.setattr(bench.session, "request", until_the_third_page)
    run = bench.sync("contacts")
    assert run.result is not None and run.result["created"] == 9 and bench.alive("contacts") == ids
    asked = [(one["path"], one["status"]) for one in bench.graph.requests()]
    assert [status for path, status in asked if path.endswith("/token")] == [200, 200]
    assert [status for _, status in asked].count(401) == 1


def test_names_hold_what_jsonb_cannot(bench: Bench) -> None:
    bench.graph.put_contact(DISPATCH, displayName="a\u0000b")
    assert bench.sync("contacts").result is not None
    assert [row["display_name"] for row in bench.rows("select display_name from queue.contacts")] == ["a\ufffdb"]
