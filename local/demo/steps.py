"""The steps of the demo that are about messages. Each acts, waits for the thing itself, and compares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from local.demo import samples
from local.demo.report import Report
from local.demo.world import World
from shared import bootstrap
from shared.engine.job import NewJob

INBOX = f"/users/{samples.DISPATCH}/mailFolders('inbox')/messages"
CHAT_MESSAGES = f"/chats/{samples.CHAT}/messages"
#: So that the demo need not wait for the 45 s of every day.
LEASE_SECONDS = 5


def sign_in(world: World, report: Report, step: int = 0) -> None:
    """What a person does once: type the code of `./dev sign-in` into a browser. Here the fake Graph is told."""

    report.heading(step, "Once: somebody signs the Teams service account in")

    def type_the_code(text: str) -> None:
        code = re.search(r"code ([\w-]+)", text)
        if code is None:
            raise RuntimeError(f"there is no code in: {text}")
        world.graph.control("POST", "device-code/approve", {"user_code": code[1], "user": "queue@fleet.example"})

    bootstrap.sign_in(type_the_code)
    report.expect(
        step,
        "accounts signed in, their tokens encrypted",
        1,
        world.count("select count(*) from queue.token_cache where position('refresh'::bytea in ciphertext) = 0"),
    )


def subscriptions(world: World, report: Report) -> None:
    report.heading(1, "The app declares to watch a mailbox and a chat")
    watch()
    report.wait(
        1,
        "subscriptions that Graph has, after its handshake with our webhook",
        2,
        lambda: len(world.graph.subscriptions()),
    )
    live = {one["id"] for one in world.graph.subscriptions()}
    kept = "select id from queue.subscriptions where removed_at is null"
    report.wait(1, "of these kept in `subscriptions`", 2, lambda: len(live & {row[0] for row in world.sql(kept)}))


def watch() -> None:
    """Declare the dispatcher's inbox and chat, as the fleet application does."""
    watched = bootstrap.watched_resources()
    watched.watch(INBOX)
    watched.watch(CHAT_MESSAGES, sync_user=samples.DISPATCH)


def arrivals(world: World, report: Report) -> None:
    report.heading(2, "Mails and chat messages arrive; Graph posts notifications in one batch")
    world.graph.control("POST", "auto-deliver", {"on": False})
    for mime in (samples.mail_with_picture_and_report(), samples.plain_mail(7), samples.mail_of_only_a_picture()):
        world.graph.arrive_mail(samples.DISPATCH, mime)
    for message in (samples.chat_message_with_mention(), samples.chat_message("Gate 7, thanks 👍")):
        world.graph.control("POST", "chat-messages", {"chat": samples.CHAT, "from": samples.DRIVER_ID, **message})
    demand = {"mode": "now", "batch": True, "duplicates": 2, "shuffle": True, "forge": 1}
    statuses = sorted({answer["status"] for answer in world.graph.control("POST", "deliver", demand)})
    report.expect(
        2, "the webhook's answer to the batch, with duplicates and a forged item in it", "202", words(statuses)
    )
    stored = "select count(*) from queue.communication_logs where direction = 'in' and channel = %s"
    report.wait(2, "mails stored", 3, lambda: world.count(stored, "outlook"))
    report.wait(2, "chat messages stored", 2, lambda: world.count(stored, "teams"))
    texts = "\n".join(row[0] for row in world.sql("select text from queue.communication_logs where direction = 'in'"))
    wanted = ("A8 ist gesperrt", "18:30", "☕", "Nürnberg 🛞", "👍")
    found = [part for part in (*wanted, "<", "&nbsp;") if part in texts]
    report.expect(2, "in their plain texts, and no markup", words(wanted), words(found))
    attachments = "select count(*) from queue.attachments"
    report.expect(2, "attachments recorded: two pictures inside, one PDF", 3, world.count(attachments))
    events = "select count(*) from queue.webhook_events"
    report.wait(2, "notifications recorded: five, each once, the forged one nowhere", 5, lambda: world.count(events))
    world.graph.control("POST", "auto-deliver", {"on": True})


def enqueueing(world: World, report: Report) -> None:
    report.heading(3, "The fleet application enqueues, five ways")
    producer = bootstrap.producer()
    producer.enqueue("teams-outbound", chat("From Python: truck 12 is late"))
    producer.enqueue("outlook-outbound", mail("From Python: papers for trip 7", attachment=b"%PDF-1.4 trip 7\n"))
    body = {"payload": chat("Over HTTP: gate 3 is blocked"), "correlationId": "trip-7"}
    report.expect(3, "HTTP without a key", 401, world.post_job("teams-outbound", body, None).status_code)
    answer = world.post_job("teams-outbound", body, world.stack.environment["ADMIN_KEY"])
    report.expect(3, "HTTP with the key in x-admin-key", 202, answer.status_code)
    with psycopg.connect(world.stack.database_url) as conn:
        conn.execute("create table if not exists trips (id int primary key)")
        conn.execute("insert into trips values (7)")
        conn.execute("select queue.enqueue('teams-outbound', %s)", (Jsonb(chat("From SQL: trip 7 has started")),))
    with psycopg.connect(world.stack.database_url) as conn:
        conn.execute("insert into trips values (8)")
        conn.execute("select queue.enqueue('teams-outbound', %s)", (Jsonb(chat("Rolled back: never to be seen")),))
        conn.rollback()
    starts = ("From Python", "Over HTTP", "From SQL", "Rolled back")
    report.wait(
        3,
        "Teams messages sent",
        "From Python 1, Over HTTP 1, From SQL 1, Rolled back 0",
        lambda: words(f"{start} {world.chat_count(f'{start}: ')}" for start in starts),
    )
    report.wait(
        3, "mails sent, and what is attached", "1, trip 7.pdf", lambda: world.sent("From Python: papers for trip 7")
    )
    unfinished = "select count(*) from queue.jobs where finished_at is null and queue like '%-outbound'"
    report.wait(3, "jobs of this step that have not ended", 0, lambda: world.count(unfinished))


def priorities(world: World, report: Report) -> None:
    report.heading(4, "50 alerts of low priority for 50 drivers, then a critical one")
    world.fault(50, body="low alert", kind="delay", seconds=0.3)
    producer = bootstrap.producer()
    drivers = world.make_chats(50)
    producer.enqueue_many(
        [NewJob("teams-outbound", chat(f"low alert {n}", to), priority=8) for n, to in enumerate(drivers)]
    )
    alert = r"low alert \d+|critical: brakes"
    report.wait(4, "workers are at it: five low ones or more are sent", True, lambda: len(world.posted(alert)) >= 5)
    producer.enqueue("teams-outbound", chat("critical: brakes"), priority=1)
    report.wait(4, "alerts sent", 51, lambda: len(world.posted(alert)))
    texts = world.posted(alert)
    before = next(index for index, text in enumerate(texts) if "critical: brakes" in text)
    report.judge(4, "low ones sent before the critical one", "5 to 25 of 50", str(before), ok=5 <= before <= 25)
    report.expect(4, "alerts sent twice", 0, len(texts) - len(set(texts)))
    world.graph.control("DELETE", "faults")


def refusals(world: World, report: Report) -> None:
    report.heading(5, "Graph says wait, says no, and says nothing")
    producer = bootstrap.producer()

    world.fault(1, body="wait for it", kind="status", status=429, headers={"Retry-After": "2"})
    producer.enqueue("teams-outbound", chat("wait for it"))
    report.wait(5, "after 429 with Retry-After 2: sent", 1, lambda: world.chat_count("wait for it"))
    tries = [one for one in world.requests("POST", "/chats/") if "wait for it" in shown_body(one)]
    waited = tries[-1]["at"] - tries[0]["at"]
    report.judge(
        5, "tries, and the time between them", "2, at least 2 s", f"{len(tries)}, {waited:.1f} s",
        ok=len(tries) == 2 and waited >= 2,
    )  # fmt: skip

    world.fault(1, body="refuse this", kind="status", status=400)
    refused = producer.enqueue("teams-outbound", chat("refuse this")).id
    names = ("state", "attempt", "error_class")
    report.wait(
        5,
        "after 400: state, attempts, class",
        "dead, 1, validation",
        lambda: words(world.job(refused)[n] for n in names),
    )
    [(reason,)] = world.sql("select error_message from queue.dead_letter_queue where job_id = %s", refused)
    report.judge(5, "its reason", "what Graph answered", reason, ok="400" in reason)
    alerts = "select count(*) from queue.queue_alerts where resolved_at is null"
    report.wait(5, "alerts for the operator", 1, lambda: world.count(alerts))

    world.fault(1, path="/send$", kind="lose-answer")
    lost = producer.enqueue("outlook-outbound", mail("Answer lost on the way"))
    report.wait(
        5, "Graph took a mail and its answer was lost: the job", "completed", lambda: world.job(lost.id)["state"]
    )
    report.expect(5, "mails sent", "1", world.sent("Answer lost on the way"))


def kill_a_worker(world: World, report: Report) -> Callable[[], None]:
    """Kills a host in the middle of a job; returns what to look at when the lease has ended."""
    report.heading(6, f"A worker is killed with SIGKILL in the middle of a job (lease {LEASE_SECONDS} s)")
    world.sql("update queue.queue_settings set lease_seconds = %s", LEASE_SECONDS)
    world.fault(1, body="survivor", kind="delay", seconds=30)
    job_id = bootstrap.producer().enqueue("teams-outbound", chat("survivor")).id
    report.wait(6, "the job is", "active", lambda: world.job(job_id)["state"])
    victim = world.job(job_id)["leased_by"]
    world.stack.kill_host()
    world.graph.control("DELETE", "faults")
    world.stack.start_host()

    def afterwards() -> None:
        report.wait(6, "after the lease the job is", "completed", lambda: world.job(job_id)["state"])
        job = world.job(job_id)
        workers = [attempt["worker"] for attempt in job["attempts"]]
        report.judge(
            6, "attempts: the killed worker's, and another's", "worker-lost, completed",
            words(attempt.get("error_class") or attempt["outcome"] for attempt in job["attempts"]),
            ok=job["attempts"][0].get("error_class") == "worker-lost" and workers[0] == victim != workers[-1],
        )  # fmt: skip
        report.expect(6, "messages sent", 1, world.chat_count("survivor"))

    return afterwards


def stop_the_database(world: World, report: Report) -> None:
    report.heading(7, "PostgreSQL is stopped; notifications keep coming")
    stored = "select count(*) from queue.communication_logs where subject like 'Gate 1__ is free'"
    world.graph.control("POST", "auto-deliver", {"on": False})
    world.stack.stop_postgres("immediate")
    statuses: set[int] = set()
    for number in range(101, 104):
        world.graph.arrive_mail(samples.DISPATCH, samples.plain_mail(number))
        statuses |= {one["status"] for one in world.graph.control("POST", "deliver", {"mode": "now"})}
    report.expect(7, "the webhook's answers meanwhile", "202", words(statuses))
    report.wait(7, "notifications put back by workers that found no database", True, world.has_put_back)
    world.stack.start_postgres()
    report.wait(7, "PostgreSQL is back: mails stored", 3, lambda: world.count(stored))
    world.graph.control("POST", "auto-deliver", {"on": True})


def nothing_left(world: World, report: Report) -> None:
    report.heading(13, "At the end")
    unfinished = "select count(*) from queue.jobs where finished_at is null"
    report.wait(13, "jobs that have not ended", 0, lambda: world.count(unfinished))
    letters = "select count(*) from queue.dead_letter_queue"
    report.expect(13, "dead letters: the one refused in step 5", 1, world.count(letters))
    violations = world.graph.control("GET", "violations")
    report.expect(13, "requests of ours that Graph's own types and rules forbid", [], violations)


def chat(text: str, to: str = samples.CHAT) -> dict[str, Any]:
    return {"chatId": to, "content": text}


def mail(subject: str, attachment: bytes | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "from": samples.DISPATCH,
        "to": ["kunde@customer.example"],
        "subject": subject,
        "body": "<p>See below. <b>Viele Grüße</b></p>",
        "bodyType": "html",
    }
    if attachment is not None:
        body["attachments"] = [
            {
                "name": "trip 7.pdf",
                "contentType": "application/pdf",
                "contentBytes": samples.as_base64(attachment),
            }
        ]
    return body


def words(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def shown_body(request: dict[str, Any]) -> str:
    return str(request.get("body"))
