"""Calendars, contacts and files: after each round the tables show what Graph has."""

from __future__ import annotations

from uuid import uuid4

import pytest

from shared.engine.context import Context
from shared.engine.job import Job
from shared.handlers.outlook_inbound import MailReference, OutlookInbound
from tests.integration.graph.conftest import DISPATCH, DRIVER, DRIVER_ID, TEAM
from tests.integration.sync.conftest import Bench, mime


def at(day: int, hour: int = 8) -> dict[str, str]:
    return {"dateTime": f"2026-12-{day:02d}T{hour:02d}:00:00.0000000", "timeZone": "UTC"}


def test_an_event_becomes_a_row_with_typed_columns(bench: Bench) -> None:
    event = bench.graph.put_event(
        DISPATCH,
        subject="Tour 7",
        start=at(1),
        end=at(1, 9),
        originalStartTimeZone="W. Europe Standard Time",
        location={"displayName": "Gate 3"},
        attendees=[{"emailAddress": {"name": "Alex", "address": "alex.driver@fleet.example"}, "type": "required"}],
    )
    run = bench.sync("calendar")
    assert run.result == {"created": 1, "updated": 0, "deleted": 0, "pages": 1}
    [row] = bench.rows("select * from queue.calendar_events")
    assert (row["external_id"], row["subject"], row["location"], row["account"]) == (
        event,
        "Tour 7",
        "Gate 3",
        DISPATCH,
    )
    assert row["start_at"].isoformat() == "2026-12-01T08:00:00+00:00"
    assert row["start_time_zone"] == "W. Europe Standard Time"
    assert row["attendees"][0]["emailAddress"]["name"] == "Alex"
    assert row["is_cancelled"] is False and row["organizer_address"] == DISPATCH
    [round_] = bench.history()
    assert (round_["kind"], round_["outcome"], round_["created_count"], round_["pages"]) == ("full", "completed", 1, 1)


def test_the_next_round_brings_what_changed_and_marks_what_is_gone(bench: Bench) -> None:
    ids = [bench.graph.put_event(DISPATCH, subject=f"e{n}", start=at(n + 1), end=at(n + 1, 9)) for n in range(3)]
    bench.sync("calendar")
    bench.graph.put_event(DISPATCH, id=ids[0], subject="moved", isCancelled=True)
    bench.graph.control("POST", "events/delete", {"user": DISPATCH, "id": ids[1]})
    run = bench.sync("calendar")
    assert run.result == {"created": 0, "updated": 1, "deleted": 1, "pages": 1}
    rows = {row["external_id"]: row for row in bench.rows("select * from queue.calendar_events")}
    assert (rows[ids[0]]["subject"], rows[ids[0]]["is_cancelled"]) == ("moved", True)
    assert rows[ids[1]]["deleted_at"] is not None and rows[ids[2]]["deleted_at"] is None
    assert [round_["kind"] for round_ in bench.history()] == ["full", "delta"]
    assert bench.sync("calendar").result == {"created": 0, "updated": 0, "deleted": 0, "pages": 1}


def test_an_occurrence_shows_its_series_subject(bench: Bench) -> None:
    master = bench.graph.put_event(
        DISPATCH, subject="Daily", type="seriesMaster", start=at(1), end=at(1, 9),
        recurrence={"pattern": {"type": "daily", "interval": 1}, "range": {"type": "noEnd", "startDate": "2026-12-01"}},
    )  # fmt: skip
    bench.graph.put_event(DISPATCH, type="occurrence", seriesMasterId=master, start=at(2), end=at(2, 9))
    bench.sync("calendar")
    [shown] = bench.rows("select * from queue.calendar where account = %s", DISPATCH)
    assert (shown["subject"], shown["type"], shown["start_at"].day) == ("Daily", "occurrence", 2)


def test_contacts_of_all_folders_and_one_that_moves(bench: Bench) -> None:
    folder = bench.graph.control("POST", "contact-folders", {"user": DISPATCH, "name": "Drivers"})["id"]
    first = bench.graph.put_contact(
        DISPATCH, displayName="Zoë", emailAddresses=[{"address": "zoe@customer.example", "name": "Z"}],
        businessPhones=["+49 1"], mobilePhone="+49 2",
    )  # fmt: skip
    second = bench.graph.put_contact(DISPATCH, displayName="Alex", parentFolderId=folder)
    assert bench.sync("contacts").result == {"created": 2, "updated": 0, "deleted": 0, "pages": 3}
    rows = {row["external_id"]: row for row in bench.rows("select * from queue.contacts")}
    assert (rows[first]["email_addresses"], rows[first]["business_phones"]) == (["zoe@customer.example"], ["+49 1"])
    assert rows[second]["folder_id"] == folder
    bench.graph.put_contact(DISPATCH, id=first, parentFolderId=folder)
    bench.graph.put_contact(DISPATCH, id=second, parentFolderId="default")
    assert bench.sync("contacts").result == {"created": 0, "updated": 2, "deleted": 0, "pages": 3}
    assert bench.alive("contacts") == {first, second}


def test_a_contact_folder_goes_with_what_is_in_it(bench: Bench) -> None:
    folder = bench.graph.control("POST", "contact-folders", {"user": DISPATCH, "name": "Drivers"})["id"]
    kept = bench.graph.put_contact(DISPATCH, displayName="Zoë")
    bench.graph.put_contact(DISPATCH, displayName="Alex", parentFolderId=folder)
    bench.sync("contacts")
    bench.graph.control("POST", "contact-folders/delete", {"user": DISPATCH, "id": folder})
    assert bench.sync("contacts").result == {"created": 0, "updated": 0, "deleted": 1, "pages": 2}
    assert bench.alive("contacts") == {kept}
    assert [
        row["resource"] for row in bench.rows("select resource from queue.delta_links where parent is not null")
    ] == []


def test_a_contact_folder_that_is_not_there_yet_is_left_to_the_next_round(bench: Bench) -> None:
    folder = bench.graph.control("POST", "contact-folders", {"user": DISPATCH, "name": "Drivers"})["id"]
    contact = bench.graph.put_contact(DISPATCH, displayName="Alex", parentFolderId=folder)
    bench.graph.add_fault("status", path="contactFolders/[^/]+/contacts/delta", status=404)
    assert bench.sync("contacts").result is not None
    assert bench.alive("contacts") == set()
    bench.sync("contacts")
    assert bench.alive("contacts") == {contact}


@pytest.mark.parametrize("owner", [DISPATCH, TEAM])
def test_files_with_paths_hashes_and_without_the_links_that_let_anybody_in(bench: Bench, owner: str) -> None:
    folder = bench.graph.put_drive_item(owner, name="Tours", folder={"childCount": 1})
    file = bench.graph.put_drive_item(owner, name="t7.pdf", parent=folder, size=7)
    run = bench.sync("files", owner) if owner == DISPATCH else bench.sync("files", team=owner)
    assert run.result is not None and run.result["created"] == 3
    [row] = bench.rows(
        "select *, queue.file_path(account, external_id) as path from queue.files where external_id = %s", file
    )
    assert (row["path"], row["size_bytes"], row["quick_xor_hash"], row["is_folder"]) == (
        "/Tours/t7.pdf",
        7,
        "AAAA",
        False,
    )
    assert "tempauth" not in str(bench.rows("select * from queue.files"))
    bench.graph.put_drive_item(owner, id=folder, name="Trips")
    bench.sync("files", owner) if owner == DISPATCH else bench.sync("files", team=owner)
    [row] = bench.rows(
        "select queue.file_path(account, external_id) as path from queue.files where external_id = %s", file
    )
    assert row["path"] == "/Trips/t7.pdf"


def test_a_deleted_folder_of_which_graph_tells_alone_takes_its_files_and_leaves_what_was_moved_out(
    bench: Bench,
) -> None:
    folder = bench.graph.put_drive_item(DISPATCH, name="Tours", folder={})
    inside = bench.graph.put_drive_item(DISPATCH, name="a", parent=folder)
    moved = bench.graph.put_drive_item(DISPATCH, name="b", parent=folder)
    bench.sync("files")
    root = bench.rows("select parent_id from queue.files where external_id = %s", folder)[0]["parent_id"]
    bench.graph.put_drive_item(DISPATCH, id=moved, parent=root)
    bench.graph.control("POST", "drive-items/delete", {"owner": DISPATCH, "id": folder})
    run = bench.sync("files")
    assert run.result is not None and run.result["deleted"] == 2
    assert inside not in bench.alive("files") and moved in bench.alive("files")


def test_a_notification_names_the_user_by_id_and_the_rows_stay_those_of_the_declaration(bench: Bench) -> None:
    """Graph's notifications name a mailbox by its user's id, whatever the subscription says."""
    bench.graph.put_contact(DRIVER, displayName="Zoë")
    bench.sync("contacts", DRIVER)
    watch(bench, f"users/{DRIVER}/contacts", "s1")
    bench.graph.put_contact(DRIVER, displayName="Noë")
    run = bench.sync("contacts", DRIVER_ID, subscription="s1")
    assert run.result is not None and run.result["created"] == 1
    assert [row["account"] for row in bench.rows("select account from queue.contacts")] == [DRIVER] * 2
    bench.sync("contacts", DRIVER_ID, subscription="nobody's")
    assert {row["account"] for row in bench.rows("select account from queue.contacts")} == {DRIVER, DRIVER_ID}


def test_a_mail_that_a_notification_brings_is_kept_under_the_declarations_name_too(bench: Bench) -> None:
    watch(bench, f"users/{DRIVER}/messages", "s1")
    bench.graph.arrive_mail(DRIVER, mime("one", to=DRIVER))
    [mail] = bench.graph.mailbox(DRIVER, "inbox")
    path = f"Users/{DRIVER_ID}/Messages/{mail['immutableId']}"
    reference = MailReference.model_validate({"resource": path, "subscriptionId": "s1"})
    handler = OutlookInbound(bench.mail, bench.log, bench.non_delivery, declared_user=bench.store.declared_user)
    handler(Job(uuid4(), "outlook-inbound", "", 1, 5, uuid4()), reference, Context())
    assert [row["account"] for row in bench.rows("select account from queue.communication_logs")] == [DRIVER]


def watch(bench: Bench, resource: str, subscription: str) -> None:
    """Declare a resource, and have a subscription to it."""
    bench.sql.execute(
        "insert into queue.subscriptions (id, watch_id, resource, change_type, notification_url, expires_at,"
        " include_resource_data, created_at)"
        " select %s, queue.watch(%s), %s, 'created', 'https://a', now(), false, now()",
        (subscription, resource, resource),
    )
