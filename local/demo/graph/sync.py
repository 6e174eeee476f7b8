"""Part 7: mailboxes, chats, calendars, contacts and files are brought into step by delta queries."""

from __future__ import annotations

from local.demo import samples
from local.demo.report import Report
from local.demo.world import World
from shared import bootstrap
from shared.engine.job import NewJob

STEP = 7
KINDS = ("emails", "messages", "calendar", "contacts", "files")


def play(world: World, report: Report) -> None:
    report.heading(STEP, "Sync: what no notification told is found all the same, and once")
    graph = world.graph
    graph.set_automatic_delivery(False)
    for n in range(3):
        graph.arrive_mail(samples.DISPATCH, samples.plain_mail(770 + n))
        graph.arrive_chat_message(samples.DRIVER, f"sync {n}", chat=samples.CHAT)
    start, end = ({"dateTime": f"2027-01-04T0{hour}:00:00", "timeZone": "UTC"} for hour in (8, 9))
    tour = graph.put_event(samples.DISPATCH, subject="Tour 7", start=start, end=end)
    contact = graph.put_contact(samples.DISPATCH, displayName="Zoë")
    folder = graph.put_drive_item(samples.DISPATCH, name="Tours", folder={"childCount": 1})
    file = graph.put_drive_item(samples.DISPATCH, name="tour 7.pdf", parent=folder)
    sync()
    expected = "mails 3, chat messages 3, events 1, contacts 1, files 3"
    report.wait(STEP, "stored by one sync of each kind", expected, lambda: stored(world))
    report.expect(STEP, "where the file is", "/Tours/tour 7.pdf", path(world, file))
    graph.put_event(samples.DISPATCH, id=tour, subject="Tour 8")
    graph.control("POST", "contacts/delete", {"user": samples.DISPATCH, "id": contact})
    graph.expire_deltas(code="SyncStateNotFound")
    sync()
    report.wait(
        STEP,
        "after Graph has forgotten all links (410): the event's new subject, contacts left, resyncs",
        "Tour 8, 0, 5 or more",
        lambda: after(world),
    )
    report.wait(STEP, "and nothing twice", expected.replace("contacts 1", "contacts 0"), lambda: stored(world))
    graph.set_automatic_delivery(True)


def sync() -> None:
    producer = bootstrap.producer()
    producer.enqueue_many([NewJob("sync", {"resourceType": kind, "userId": samples.DISPATCH}) for kind in KINDS])


def stored(world: World) -> str:
    counts = {
        "mails": "select count(*) from queue.communication_logs where channel = 'outlook' and subject like 'Gate 77%'",
        "chat messages": "select count(*) from queue.communication_logs where channel = 'teams' and text like 'sync %'",
        "events": "select count(*) from queue.calendar where account = 'dispatch@fleet.example'",
        "contacts": "select count(*) from queue.contacts where deleted_at is null",
        "files": "select count(*) from queue.files where deleted_at is null",
    }
    return ", ".join(f"{name} {world.count(statement)}" for name, statement in counts.items())


def path(world: World, file: str) -> str:
    [(found,)] = world.sql("select queue.file_path(account, external_id) from queue.files where external_id = %s", file)
    return str(found)


def after(world: World) -> str:
    [(subject, contacts, resyncs)] = world.sql(
        "select (select subject from queue.calendar limit 1),"
        " (select count(*) from queue.contacts where deleted_at is null),"
        " (select sum(resyncs) from queue.sync_history where outcome = 'completed')"
    )
    return f"{subject}, {contacts}, {'5 or more' if resyncs and resyncs >= 5 else resyncs}"
