"""Mails and chat messages: the same single row, whoever finds them first."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from shared.engine.context import Context
from shared.engine.job import Job
from shared.handlers.outlook_inbound import MailReference, OutlookInbound
from shared.handlers.services import Communication
from shared.handlers.teams_inbound import ChatMessageReference, TeamsInbound
from tests.integration.graph.conftest import CHANNEL, CHAT, DISPATCH, DRIVER, DRIVER_ID, TEAM
from tests.integration.sync.conftest import Bench, mime

LOG = "select * from queue.communication_logs order by recorded_at"


def notified_mail(bench: Bench, message_id: str, change: str = "created") -> dict[str, Any] | None:
    """What a notification of this mail does."""
    told = {"resource": f"Users/{DISPATCH}/Messages/{message_id}", "changeType": change}
    reference = MailReference.model_validate(told)
    done = OutlookInbound(bench.mail, bench.log, bench.non_delivery)(job("outlook-inbound"), reference, Context())
    return done.result and {"outcome": done.result["outcome"]}


def notified_chat(bench: Bench, message_id: str) -> dict[str, Any] | None:
    reference = ChatMessageReference.model_validate({"resource": f"chats('{CHAT}')/messages('{message_id}')"})
    handler = TeamsInbound(bench.teams, bench.log, lambda: {bench.teams.own_account_id() or ""})
    done = handler(job("teams-inbound"), reference, Context())
    return done.result and {"outcome": done.result["outcome"]}


def job(queue: str) -> Job:
    return Job(uuid4(), queue, "", 1, 5, uuid4())


def send(bench: Bench, subject: str, to: str = DRIVER) -> str:
    """As the outbound handler does: marked, sent, and recorded with its job."""
    sender = job("outlook-outbound")
    body = {"contentType": "text", "content": "b"}
    recipients = [{"emailAddress": {"address": to}}]
    draft = bench.mail.create_draft(
        DISPATCH, {"subject": subject, "body": body, "toRecipients": recipients}, str(sender.id)
    )
    bench.mail.send_draft(DISPATCH, draft.id)
    bench.log.record(
        Communication(
            direction="out", channel="outlook", external_id=draft.id, thread_id=None, sender=DISPATCH, recipients=[to],
            subject=subject, body="b", body_type="text", text="b", occurred_at=None, account=DISPATCH,
            job_id=sender.id, internet_message_id=draft.internet_message_id,
        )
    )  # fmt: skip
    return draft.id


def test_mails_of_all_folders_are_stored_as_received_ones_are(bench: Bench) -> None:
    bench.graph.control("POST", "mail-folders", {"user": DISPATCH, "key": "tours", "name": "Tours"})
    first = bench.graph.arrive_mail(DISPATCH, mime("one", attachment=True))
    second = bench.graph.arrive_mail(DISPATCH, mime("two"))
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": second, "folder": "tours"})
    run = bench.sync("emails")
    assert run.result is not None and run.result["created"] == 2
    found = {row["subject"]: row for row in bench.rows(LOG)}
    assert {row["direction"] for row in found.values()} == {"in"}
    names = bench.rows("select name from queue.attachments where communication_id = %s", found["one"]["id"])
    assert [row["name"] for row in names] == ["a.pdf"]
    assert notified_mail(bench, found["one"]["external_id"]) == {"outcome": "unchanged"}
    assert first and len(bench.rows(LOG)) == 2
    [after] = [row for row in bench.rows(LOG) if row["subject"] == "one"]
    same = ("sender", "recipients", "body", "text", "internet_message_id", "thread_id", "account")
    assert {name: after[name] for name in same} == {name: found["one"][name] for name in same}


def test_a_mail_that_a_notification_brought_stays_one_row_and_is_not_fetched_again(bench: Bench) -> None:
    message_id = bench.graph.arrive_mail(DISPATCH, mime("one", attachment=True))
    [known] = bench.graph.mailbox(DISPATCH, "inbox")
    assert notified_mail(bench, known["immutableId"]) == {"outcome": "stored"}
    bench.graph.control("DELETE", "requests")
    run = bench.sync("emails")
    assert message_id and run.result is not None and (run.result["created"], run.result["updated"]) == (0, 0)
    assert len(bench.rows(LOG)) == 1 and bench.requests("/attachments") == []


def test_every_request_to_a_mailbox_asks_for_immutable_ids(bench: Bench) -> None:
    for n in range(60):
        bench.graph.arrive_mail(DISPATCH, mime(f"{n}", attachment=n == 0))
    bench.sync("emails")
    requests = bench.requests("/messages")
    assert any("$skiptoken" in one["query"] for one in requests)
    assert all('IdType="ImmutableId"' in one["headers"]["prefer"] for one in requests)
    assert len(bench.rows(LOG)) == 60


def test_a_mail_that_moves_is_no_deletion_whichever_folder_comes_first(bench: Bench) -> None:
    for key in ("aaa", "zzz"):
        bench.graph.control("POST", "mail-folders", {"user": DISPATCH, "key": key, "name": key})
    ids = []
    for folder in ("aaa", "zzz"):
        message = bench.graph.arrive_mail(DISPATCH, mime(folder))
        ids.append(message)
        bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": message, "folder": folder})
    bench.sync("emails")
    mails = {mail["subject"]: mail["immutableId"] for mail in bench.graph.mailbox(DISPATCH)}
    for subject, folder in (("aaa", "zzz"), ("zzz", "aaa")):
        bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": mails[subject], "folder": folder})
    run = bench.sync("emails")
    assert run.result is not None and (run.result["created"], run.result["deleted"]) == (0, 0)
    rows = bench.rows(LOG)
    assert len(rows) == 2 and not any(row["deleted_at"] for row in rows)
    folders = {mail["subject"]: mail["parentFolderId"] for mail in bench.graph.mailbox(DISPATCH)}
    assert {row["subject"]: row["raw"]["parentFolderId"] for row in rows} == folders


def test_a_mail_that_comes_back_under_another_id_is_one_row(bench: Bench) -> None:
    message = bench.graph.arrive_mail(DISPATCH, mime("one", "<same@customer.example>"))
    bench.sync("emails")
    [mail] = bench.graph.mailbox(DISPATCH, "inbox")
    bench.graph.control(
        "POST",
        "mails/change",
        {"user": DISPATCH, "id": mail["immutableId"], "newId": "AAkALgnew", "folder": "deleteditems"},
    )
    run = bench.sync("emails")
    assert message and run.result is not None and (run.result["created"], run.result["deleted"]) == (0, 0)
    [row] = bench.rows(LOG)
    assert row["external_id"] == "AAkALgnew" and row["deleted_at"] is None


def test_a_deleted_mail_is_marked_and_its_text_stays_and_a_restored_one_loses_the_mark(bench: Bench) -> None:
    bench.graph.arrive_mail(DISPATCH, mime("one"))
    bench.sync("emails")
    [mail] = bench.graph.mailbox(DISPATCH, "inbox")
    bench.graph.control("POST", "mail-folders", {"user": DISPATCH, "key": "tours", "name": "Tours"})
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": mail["immutableId"], "folder": "tours"})
    bench.sync("emails")
    bench.graph.control("POST", "mail-folders/delete", {"user": DISPATCH, "key": "tours"})
    assert bench.sync("emails").result == {"created": 0, "updated": 0, "deleted": 1, "pages": 6}
    [row] = bench.rows(LOG)
    assert row["deleted_at"] and "Hello" in row["text"]


def test_what_the_queue_sent_is_one_row_and_what_the_user_sent_goes_out_too(bench: Bench) -> None:
    ours = send(bench, "ours")
    [row] = bench.rows(LOG)
    assert (row["direction"], row["external_id"]) == ("out", ours)
    theirs = bench.graph.arrive_mail(DISPATCH, mime("theirs"))
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": theirs, "folder": "sentitems"})
    bench.sync("emails")
    found = {row["subject"]: (row["direction"], row["job_id"]) for row in bench.rows(LOG)}
    assert found["ours"] == ("out", row["job_id"]) and found["theirs"][0] == "out"
    bench.sync("emails", DRIVER)
    assert [row["direction"] for row in bench.rows(LOG) if row["account"] == DRIVER] == ["in"]


def test_a_sent_mail_that_is_deleted_is_marked_by_its_notification(bench: Bench) -> None:
    ours = send(bench, "ours")
    theirs = bench.graph.arrive_mail(DISPATCH, mime("theirs"))
    bench.graph.control("POST", "mail-folders", {"user": DISPATCH, "key": "old", "name": "Old"})
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": theirs, "folder": "sentitems"})
    ids = [mail["immutableId"] for mail in bench.graph.mailbox(DISPATCH, "sentitems")]
    bench.sync("emails")
    assert [notified_mail(bench, one, "deleted") for one in ids if one != ours] == [{"outcome": "unchanged"}], (
        "it moved"
    )
    for one in ids:
        bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": one, "folder": "old"})
    bench.graph.control("POST", "mail-folders/delete", {"user": DISPATCH, "key": "old"})
    assert len(ids) == 2 and ours in ids
    assert [notified_mail(bench, one, "deleted") for one in ids] == [{"outcome": "deleted"}] * 2
    assert [(row["direction"], row["deleted_at"] is None) for row in bench.rows(LOG)] == [("out", False)] * 2
    assert told(bench) == []


def test_what_the_log_has_as_sent_did_not_come_in_wherever_it_lies_now(bench: Bench) -> None:
    ours = send(bench, "ours")
    bench.mail.move(DISPATCH, ours, "deleteditems")
    theirs = bench.graph.arrive_mail(DISPATCH, mime("theirs"))
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": theirs, "folder": "sentitems"})
    bench.sync("emails")
    sent = {mail["subject"]: mail["immutableId"] for mail in bench.graph.mailbox(DISPATCH)}
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": sent["theirs"], "folder": "inbox"})
    posted = bench.graph.arrive_chat_message(DRIVER, "posted", chat=CHAT)
    bench.log.record(
        Communication(
            direction="out", channel="teams", external_id=f"{CHAT}/{posted}", thread_id=CHAT, sender="bot",
            recipients=[CHAT], subject=None, body="posted", body_type="text", text="posted", occurred_at=None,
        )
    )  # fmt: skip
    bench.sync("emails")
    bench.sync("messages")
    assert [row["direction"] for row in bench.rows(LOG)] == ["out"] * 3
    assert told(bench) == []


def test_what_the_user_sent_is_one_row_whether_a_notification_or_a_sync_finds_it_first(bench: Bench) -> None:
    for subject in ("first", "second"):
        mail = bench.graph.arrive_mail(DISPATCH, mime(subject))
        bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": mail, "folder": "sentitems"})
        ids = {mail["subject"]: mail["immutableId"] for mail in bench.graph.mailbox(DISPATCH, "sentitems")}
        if subject == "first":
            assert notified_mail(bench, ids[subject]) == {"outcome": "stored"}
            bench.sync("emails")
        else:
            bench.sync("emails")
            assert notified_mail(bench, ids[subject]) == {"outcome": "unchanged"}
    assert [(row["subject"], row["direction"]) for row in bench.rows(LOG)] == [("first", "out"), ("second", "out")]
    assert told(bench) == []


def test_no_service_accounts_posts_come_in(bench: Bench) -> None:
    """Before the handler has recorded it, the account is what tells that a post is ours: any of several."""
    bench.own_accounts = {"of another account", DRIVER_ID}
    bench.graph.arrive_chat_message(DRIVER, "ours", chat=CHAT)
    bench.sync("messages")
    assert bench.rows(LOG) == []


def test_drafts_are_left_out(bench: Bench) -> None:
    bench.mail.create_draft(DISPATCH, {"subject": "draft"}, "job-1")
    bench.sync("emails")
    assert bench.rows(LOG) == []


def test_a_change_that_comes_in_part_costs_a_read_where_it_matters_and_never_a_value(bench: Bench) -> None:
    bench.graph.arrive_mail(DISPATCH, mime("one"))
    bench.sync("emails")
    [mail] = bench.graph.mailbox(DISPATCH, "inbox")
    bench.graph.behave(part=["isRead"])
    bench.graph.control("DELETE", "requests")
    change = {"user": DISPATCH, "id": mail["immutableId"], "value": {"isRead": True, "@odata.etag": "W/2"}}
    bench.graph.control("POST", "mails/change", change)
    bench.sync("emails")
    assert [row["subject"] for row in bench.rows(LOG)] == ["one"]
    assert [one for one in bench.requests("/messages/") if "/delta" not in one["path"]] == []
    bench.graph.behave(part=["subject"])
    value = {"subject": "two", "@odata.etag": "W/3", "lastModifiedDateTime": "2036-01-01T00:00:00Z"}
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": mail["immutableId"], "value": value})
    bench.sync("emails")
    [row] = bench.rows(LOG)
    assert (row["subject"], row["sender"]) == ("two", "zoe@customer.example") and "Hello" in row["body"]


def test_an_older_state_changes_nothing(bench: Bench) -> None:
    bench.graph.arrive_mail(DISPATCH, mime("new"))
    bench.sync("emails")
    [mail] = bench.graph.mailbox(DISPATCH, "inbox")
    value = {"subject": "old", "@odata.etag": "W/2", "lastModifiedDateTime": "2020-01-01T00:00:00Z"}
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": mail["immutableId"], "value": value})
    assert bench.sync("emails").result == {"created": 0, "updated": 0, "deleted": 0, "pages": 6}
    assert [row["subject"] for row in bench.rows(LOG)] == ["new"]


def test_chat_messages_are_one_row_with_those_that_are_received(bench: Bench) -> None:
    first = bench.graph.arrive_chat_message(DRIVER, "one", chat=CHAT)
    assert notified_chat(bench, first) == {"outcome": "stored"}
    for n in range(55):
        bench.graph.arrive_chat_message(DRIVER, f"m{n}", chat=CHAT)
    run = bench.sync("messages")
    assert run.result is not None and (run.result["created"], run.result["updated"]) == (55, 0)
    rows = bench.rows(LOG)
    assert len(rows) == 56 and {row["sender"] for row in rows} == {DRIVER_ID}
    assert bench.sync("messages").result == {"created": 0, "updated": 0, "deleted": 0, "pages": 2}
    assert notified_chat(bench, first) == {"outcome": "unchanged"} and len(bench.rows(LOG)) == 56


def test_a_teams_channels_come_with_replies_and_threads(bench: Bench) -> None:
    root = bench.graph.arrive_chat_message(DRIVER, "root", team=TEAM, channel=CHANNEL)
    reply = bench.graph.arrive_chat_message(DRIVER, "reply", team=TEAM, channel=CHANNEL, replyTo=root)
    assert bench.sync("messages", team=TEAM).result == {"created": 2, "updated": 0, "deleted": 0, "pages": 1}
    found = {row["external_id"]: row["thread_id"] for row in bench.rows(LOG)}
    thread = f"{CHANNEL}/{root}"
    assert found == {f"{CHANNEL}/{root}": thread, f"{CHANNEL}/{reply}": thread}


def test_the_next_window_begins_before_the_last_one_ended(bench: Bench) -> None:
    bench.sync("messages")
    bench.sync("messages")
    windows = [one["query"]["$filter"] for one in bench.requests("getAllMessages")]
    first, second = windows
    assert first.startswith("lastModifiedDateTime gt 2015-01-01")
    assert second.split(" gt ")[1].split(" and ")[0] < first.split(" lt ")[1]


def told(bench: Bench) -> list[str]:
    return [row["kind"] for row in bench.rows("select kind from queue.outgoing_events order by position")]


def test_what_a_sync_finds_of_the_last_days_is_told_to_the_application_once(bench: Bench) -> None:
    bench.graph.arrive_mail(DISPATCH, mime("one"))
    bench.sync("emails")
    bench.sync("emails", full=True)
    assert told(bench) == ["message.received"]
    [mail] = bench.graph.mailbox(DISPATCH, "inbox")
    notified_mail(bench, mail["immutableId"])
    assert told(bench) == ["message.received"], "a notification that comes late is no second one"
    bench.graph.control("POST", "mail-folders", {"user": DISPATCH, "key": "tours", "name": "Tours"})
    bench.graph.control("POST", "mails/change", {"user": DISPATCH, "id": mail["immutableId"], "folder": "tours"})
    bench.sync("emails")
    bench.graph.control("POST", "mail-folders/delete", {"user": DISPATCH, "key": "tours"})
    bench.sync("emails")
    assert told(bench) == ["message.received", "message.deleted"]
