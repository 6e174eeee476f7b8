"""The fake Graph's deltas: pages, tokens, tombstones, and what each refuses."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CHAT, TEAM
from tests.fake_graph.conftest import DISPATCH, DRIVER, Client, error_code

VIEW = f"/users/{DISPATCH}/calendarView/delta"
WINDOW = {"startDateTime": "2026-12-01T00:00:00Z", "endDateTime": "2027-01-01T00:00:00Z"}
CONTACTS = f"/users/{DISPATCH}/contacts/delta"
INBOX = f"/users/{DISPATCH}/mailFolders/inbox/messages/delta"


def drive_delta(app: Client) -> str:
    return f"/drives/{app.get(f'/users/{DISPATCH}/drive').json()['id']}/root/delta"


def follow(app: Client, link: str) -> dict[str, Any]:
    response = app.call("GET", link.removeprefix(app.graph.graph_url))
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def whole_round(app: Client, first: requests.Response) -> tuple[list[dict[str, Any]], str]:
    page = first.json()
    items = list(page["value"])
    while "@odata.nextLink" in page:
        page = follow(app, page["@odata.nextLink"])
        items += page["value"]
    return items, page["@odata.deltaLink"]


@pytest.mark.usefixtures("no_violations")
def test_a_round_shows_all_and_the_next_what_has_changed(graph: FakeGraph, app: Client) -> None:
    ids = [graph.put_contact(DISPATCH, displayName=f"c{n}") for n in range(25)]
    items, link = whole_round(app, app.get(CONTACTS))
    assert [item["id"] for item in items] == ids
    graph.put_contact(DISPATCH, id=ids[3], displayName="new")
    graph.control("POST", "contacts/delete", {"user": DISPATCH, "id": ids[4]})
    page = follow(app, link)
    assert page["value"][0] == {"id": ids[4], "@removed": {"reason": "deleted"}}
    assert [item["displayName"] for item in page["value"][1:]] == ["new"]
    assert follow(app, page["@odata.deltaLink"])["value"] == []
    assert len(follow(app, link)["value"]) == 2, "a token may be used again"


@pytest.mark.usefixtures("no_violations")
def test_what_changes_during_a_round_comes_in_the_next(graph: FakeGraph, app: Client) -> None:
    ids = [graph.put_contact(DISPATCH, displayName=f"c{n}") for n in range(15)]
    page = app.get(CONTACTS).json()
    graph.put_contact(DISPATCH, id=ids[0], displayName="new")
    graph.control("POST", "contacts/delete", {"user": DISPATCH, "id": ids[14]})
    page = follow(app, page["@odata.nextLink"])
    assert page["value"][-1] == {"id": ids[14], "@removed": {"reason": "deleted"}}
    assert [item["id"] for item in follow(app, page["@odata.deltaLink"])["value"]] == [ids[14], ids[0]]


@pytest.mark.usefixtures("no_violations")
def test_the_page_size_is_what_the_header_or_top_asks_for(graph: FakeGraph, app: Client) -> None:
    for n in range(5):
        graph.put_contact(DISPATCH, displayName=f"c{n}")
        graph.put_drive_item(DISPATCH, name=f"f{n}")
    app.prefer = "odata.maxpagesize=2"
    assert len(app.get(CONTACTS).json()["value"]) == 2
    assert len(app.get(drive_delta(app), top="3").json()["value"]) == 2
    app.prefer = 'IdType="ImmutableId"'
    assert len(app.get(drive_delta(app), top="3").json()["value"]) == 3


@pytest.mark.usefixtures("no_violations")
def test_a_drives_tombstone_is_a_facet_and_latest_skips_what_is_there(graph: FakeGraph, app: Client) -> None:
    file = graph.put_drive_item(DISPATCH, name="a")
    path = drive_delta(app)
    latest = app.call("GET", f"{path}?token=latest").json()
    assert latest["value"] == []
    items, _ = whole_round(app, app.get(path))
    assert next(item for item in items if item["id"] == file)["@microsoft.graph.downloadUrl"]
    graph.control("POST", "drive-items/delete", {"owner": DISPATCH, "id": file})
    [tombstone] = follow(app, latest["@odata.deltaLink"])["value"]
    assert tombstone["id"] == file and tombstone["deleted"] == {"state": "deleted"} and "@removed" not in tombstone


@pytest.mark.usefixtures("no_violations")
def test_an_event_outside_the_window_is_not_in_it_and_one_that_leaves_it_is_removed(
    graph: FakeGraph, app: Client
) -> None:
    inside, outside = (
        graph.put_event(
            DISPATCH, start={"dateTime": f"2026-{month}-05T08:00:00", "timeZone": "UTC"},
            end={"dateTime": f"2026-{month}-05T09:00:00", "timeZone": "UTC"},
        ) for month in ("12", "06")
    )  # fmt: skip
    items, link = whole_round(app, app.call("GET", VIEW, params=WINDOW))
    assert [item["id"] for item in items] == [inside]
    times = {
        name: {"dateTime": f"2026-07-05T0{hour}:00:00", "timeZone": "UTC"} for name, hour in (("start", 8), ("end", 9))
    }
    graph.put_event(DISPATCH, id=inside, **times)
    assert outside and [item.get("@removed") for item in follow(app, link)["value"]] == [{"reason": "deleted"}]


@pytest.mark.parametrize(("status", "code"), [(410, "SyncStateNotFound"), (400, "syncStateNotFound")])
def test_a_token_that_was_forgotten(graph: FakeGraph, app: Client, status: int, code: str) -> None:
    _, link = whole_round(app, app.get(CONTACTS))
    assert graph.expire_deltas(status=status, code=code) == 1
    response = app.call("GET", link.removeprefix(app.graph.graph_url))
    assert (response.status_code, error_code(response)) == (status, code)
    assert ("Location" in response.headers) == (status == 410)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (VIEW, {}),
        (VIEW, {"startDateTime": WINDOW["startDateTime"]}),
        (VIEW, WINDOW | {"$select": "subject"}),
        (VIEW, WINDOW | {"$filter": "isCancelled eq false"}),
        (VIEW, WINDOW | {"startDateTime": "tomorrow"}),
        (CONTACTS, {"$filter": "displayName eq 'a'"}),
        (CONTACTS, {"$orderby": "displayName"}),
        (INBOX, {"$search": "x"}),
        (INBOX, {"$orderby": "subject"}),
        (f"/users/{DISPATCH}/mailFolders/delta", {"$top": "5"}),
        (f"/users/{DISPATCH}/chats/getAllMessages", {"$filter": "createdDateTime gt 2026-01-01T00:00:00Z"}),
        (f"/users/{DISPATCH}/chats/getAllMessages", {"$top": "51"}),
        (CONTACTS, {"$deltatoken": "x", "$select": "id"}),
    ],
)
def test_what_a_delta_does_not_take(graph: FakeGraph, app: Client, path: str, query: dict[str, str]) -> None:
    assert app.call("GET", path, params=query).status_code == 400
    assert len(graph.violations()) == 1


@pytest.mark.usefixtures("no_violations")
def test_mail_by_folder_with_either_kind_of_id(graph: FakeGraph, app: Client) -> None:
    graph.control("POST", "mail-folders", {"user": DISPATCH, "key": "tours", "name": "Tours"})
    folders, _ = whole_round(app, app.get(f"/users/{DISPATCH}/mailFolders/delta"))
    assert "Tours" in {folder["displayName"] for folder in folders}
    message = graph.arrive_mail(DISPATCH, b"From: a@b.example\r\nTo: dispatch@fleet.example\r\nSubject: s\r\n\r\nx")
    items, link = whole_round(app, app.get(INBOX, select="subject"))
    [shown] = items
    assert set(shown) <= {"id", "subject", "@odata.etag"} and shown["id"] != message
    graph.control("POST", "mails/change", {"user": DISPATCH, "id": message, "folder": "tours"})
    assert [item["@removed"] for item in follow(app, link)["value"]] == [{"reason": "deleted"}]


def test_all_messages_need_an_application(graph: FakeGraph, app: Client, user: Client) -> None:
    graph.arrive_chat_message(DRIVER, "x", chat=CHAT)
    path = f"/users/{DISPATCH}/chats/getAllMessages"
    assert len(app.get(path).json()["value"]) == 1
    assert user.get(path).status_code == 401
    assert app.get(f"/teams/{TEAM}/channels/getAllMessages").json()["value"] == []


def test_behaviour_that_clients_must_bear(graph: FakeGraph, app: Client) -> None:
    for n in range(25):
        graph.put_contact(DISPATCH, displayName=f"c{n}")
    graph.behave(empty_pages=1, repeats=True, unknown_tombstones=1)
    items, _ = whole_round(app, app.get(CONTACTS))
    assert len({item["id"] for item in items}) == 26 and len(items) == 28
    graph.behave(loop="link")
    second = app.get(CONTACTS).json()["@odata.nextLink"]
    assert follow(app, second)["@odata.nextLink"] == second
    graph.behave(host="https://attacker.example")
    assert app.get(CONTACTS).json()["@odata.nextLink"].startswith("https://attacker.example/v1.0/")
