"""From Graph's delivery to the stored message and its event: rich and basic, wrong ones, and deaths on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, Literal

import psycopg
import pytest

from local.certificate import self_signed
from local.fake_graph.process import FakeGraph
from local.fake_graph.rich import KEYS_PATH, encrypt
from local.fake_graph.state import CLIENT, TENANT
from shared.engine.context import Context
from shared.engine.enqueue import Producer
from shared.engine.errors import MessageHeldError
from shared.engine.job import Completed, Job
from shared.engine.memory import MemoryTransport
from shared.graph.client import IMMUTABLE_IDS
from shared.graph.notifications import ClientStates
from shared.graph.rich import EncryptionCertificates, read_certificate
from shared.graph.validation_tokens import SigningKeys, ValidationTokens
from shared.handlers.intake import Intake
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.handlers.rich_contents import RichContents
from shared.handlers.webhooks import NotificationProcessor
from shared.postgres.alerts import PostgresAlerts
from shared.postgres.communications import PostgresCommunications
from shared.postgres.pool import Database
from shared.postgres.sealer import Sealer
from shared.postgres.store import PostgresStore
from shared.postgres.webhook_events import PostgresWebhookEvents
from shared.sealing import KeyRing
from tests.fake_graph.conftest import Webhook
from tests.fake_graph.conftest import webhook as webhook
from tests.integration.graph.conftest import CHANNEL, CHAT, DISPATCH, DRIVER_ID, KEY, TEAM, Killed, Wired

STATES = ClientStates(bytes(range(40)))
CURRENT, PREVIOUS = read_certificate(self_signed("current")), read_certificate(self_signed("previous"))


class KillableDatabase(Database):
    """Dies before or after the n-th commit (or statement outside of a transaction); the first is number 1."""

    number = 0
    kill_at: tuple[int, Literal["before", "after"]] | None = None

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        self.number += 1
        here = self.kill_at[1] if self.kill_at and self.kill_at[0] == self.number else None
        if here is None:
            with super().connection() as conn:
                yield conn
            return
        with super().connection() as conn, conn.transaction():
            yield conn
            if here == "before":
                raise Killed
        raise Killed


@dataclass
class Way:
    """All that a delivery passes through, on a real database, with the queue in memory."""

    wired: Wired
    sql: psycopg.Connection
    database: KillableDatabase
    webhook: Webhook
    certificates: EncryptionCertificates
    transport: MemoryTransport = field(default_factory=MemoryTransport)

    def __post_init__(self) -> None:
        self.intake = Intake(self.transport, STATES)
        self.sealer = Sealer([name for name, spec in QUEUES.items() if spec.sealed], lambda: KeyRing(KEY))
        self.keys = SigningKeys(self.wired.session, self.wired.graph.authority)
        self.tokens = ValidationTokens(
            self.keys, tenant_id=TENANT, client_id=CLIENT, authority=self.wired.graph.authority
        )

    @property
    def graph(self) -> FakeGraph:
        return self.wired.graph

    def processor(self) -> NotificationProcessor:
        """That of a fresh process."""
        store = PostgresStore(self.database, self.sealer)
        producer = Producer(store, MemoryTransport(), QUEUES, parse_payload)
        rich = RichContents(lambda: self.tokens, self.certificates)
        events = PostgresWebhookEvents(self.database, self.sealer)
        return NotificationProcessor(events, store.bury, producer, rich, PostgresAlerts(self.database))

    def subscribe(self, resource: str, *, rich: bool = True, change_type: str = "created,updated,deleted") -> None:
        expiry = (datetime.now(UTC) + timedelta(minutes=50)).isoformat().replace("+00:00", "Z")
        body: dict[str, Any] = {
            "changeType": change_type,
            "notificationUrl": self.webhook.url,
            "resource": resource,
            "expirationDateTime": expiry,
            "clientState": STATES.new(),
        }
        if rich:
            public = self.certificates.current()
            assert public is not None
            body |= {
                "includeResourceData": True,
                "encryptionCertificate": public.base64,
                "encryptionCertificateId": public.id,
            }
        self.wired.subscriptions._graph.call("POST", "/subscriptions", body=body, expect=201, prefer=(IMMUTABLE_IDS,))
        self.graph.set_automatic_delivery(False)

    def take_in(self) -> list[dict[str, Any]]:
        """Graph delivers what is pending; the messages of the `webhooks` queue that came of it."""
        self.webhook.posts.clear()
        self.graph.deliver()
        self.transport.sent.clear()
        for post in self.webhook.posts:
            self.intake.take(json.dumps(post).encode(), time.monotonic() + 5)
        return [json.loads(body) for _, body, _ in self.transport.sent]

    def process(self) -> None:
        for number, message in enumerate(self.take_in()):
            self.processor().process(message, f"m{number}")

    def jobs(self) -> list[Job]:
        rows = self.sql.execute("select queue, id from queue.job order by id").fetchall()
        store = PostgresStore(self.database, self.sealer)
        found = [(queue, store.claim(queue, 100, "w", timedelta(seconds=45))) for queue in {row[0] for row in rows}]
        return [job for _, claimed in found for job in claimed.jobs]

    def handle(self, job: Job) -> str:
        """Run a job as often as it takes; what became of the message."""
        run = self.wired.run(job.queue, parse_payload(job.queue, job.payload))
        assert run.result is not None, run
        return str(run.result["outcome"])

    def receive(self) -> list[str]:
        """All the way."""
        self.process()
        return [self.handle(job) for job in self.jobs()]

    def stored(self, columns: str = "text") -> list[Any]:
        rows = self.sql.execute(
            f"select {columns} from queue.communication_logs where direction = 'in' order by recorded_at".encode()
        ).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def events(self) -> list[str]:
        rows = self.sql.execute("select kind from queue.outgoing_events order by position").fetchall()
        return [row[0].removeprefix("message.") for row in rows]

    def alerts(self) -> list[tuple[Any, ...]]:
        return self.sql.execute("select alert_key, occurrences from queue.queue_alerts order by alert_key").fetchall()

    def reads(self) -> int:
        return len([r for r in self.graph.requests() if r["method"] == "GET" and "/messages/" in r["path"]])

    def write(self, text: str, **place: Any) -> str:
        return self.graph.arrive_chat_message(DRIVER_ID, text, **(place or {"chat": CHAT}))


@pytest.fixture
def way(wired: Wired, emptied: psycopg.Connection, module_url: str, webhook: Webhook) -> Iterator[Way]:
    database = KillableDatabase(module_url, max_size=4)
    way = Way(wired, emptied, database, webhook, EncryptionCertificates(CURRENT, PREVIOUS))
    wired.log = PostgresCommunications(database)  # type: ignore[assignment]
    yield way
    way.intake.close()
    database.close()


def test_a_message_that_its_notification_brings_is_stored_without_asking_graph(way: Way) -> None:
    way.subscribe(f"/chats/{CHAT}/messages")
    way.write("Tür 7 🚚")
    assert way.receive() == ["stored"]
    assert (way.stored(), way.events(), way.reads()) == (["Tür 7 🚚"], ["received"], 0)
    assert way.alerts() == []


def test_its_text_stands_nowhere_in_plain_but_in_the_log(way: Way) -> None:
    way.subscribe(f"/chats/{CHAT}/messages")
    way.write("only for the log")
    messages = way.take_in()
    assert "only for the log" not in json.dumps(messages)
    way.processor().process(messages[0], "m")
    for table in ("job", "webhook_events", "queue_alerts", "dead_letter_queue", "idempotency"):
        rows = way.sql.execute(f"select row_to_json(t)::text from queue.{table} t".encode()).fetchall()
        assert not any("only for the log" in row[0] for row in rows)
    assert [way.handle(job) for job in way.jobs()] == ["stored"]


def test_edits_deletions_and_replies_follow_with_and_without_resource_data(way: Way) -> None:
    way.subscribe(f"/chats/{CHAT}/messages", rich=True)
    way.subscribe(f"/teams/{TEAM}/channels/{CHANNEL}/messages", rich=False)
    chat = way.write("one")
    root = way.write("root", team=TEAM, channel=CHANNEL)
    reply = way.write("reply", team=TEAM, channel=CHANNEL, replyTo=root)
    assert way.receive() == ["stored"] * 3
    places = ({"chat": CHAT, "message": chat}, {"team": TEAM, "channel": CHANNEL, "message": reply})
    for place in places:
        way.graph.control("POST", "chat-messages/edit", place | {"content": "two"})
    way.sql.execute("delete from queue.job")
    assert way.receive() == ["edited"] * 2
    for place in places:
        way.graph.control("POST", "chat-messages/delete", place)
    way.sql.execute("delete from queue.job")
    assert way.receive() == ["deleted"] * 2
    assert sorted(way.stored("text, deleted_at is not null, thread_id")) == sorted(
        [("two", True, CHAT), ("root", False, f"{CHANNEL}/{root}"), ("two", True, f"{CHANNEL}/{root}")]
    )
    assert sorted(way.events()) == sorted(["received"] * 3 + ["edited"] * 2 + ["deleted"] * 2)


def test_the_old_certificate_opens_what_graph_still_sends_under_it(way: Way) -> None:
    way.certificates = EncryptionCertificates(PREVIOUS)
    way.subscribe(f"/chats/{CHAT}/messages")
    way.write("old")
    way.certificates = EncryptionCertificates(CURRENT, PREVIOUS)
    assert way.receive() == ["stored"]
    assert (way.reads(), way.alerts()) == (0, [])


@pytest.mark.parametrize(
    ("content", "alert"),
    [("certificate", "certificate"), ("signature", "signature"), ("data", "signature"), ("key", "unreadable")],
)
def test_a_content_that_cannot_be_used_is_fetched_and_told(way: Way, content: str, alert: str) -> None:
    way.subscribe(f"/chats/{CHAT}/messages")
    way.graph.control("POST", "rich", {"content": content})
    way.write("all the same")
    assert way.receive() == ["stored"]
    assert (way.stored(), way.reads()) == (["all the same"], 1)
    assert way.alerts() == [(f"resource-data:{alert}", 1)]


@pytest.mark.parametrize("token", ["expired", "audience", "issuer", "publisher", "key", "algorithm", "missing"])
def test_a_batch_with_a_wrong_token_is_dropped_and_the_genuine_one_after_it_is_taken(way: Way, token: str) -> None:
    way.subscribe(f"/chats/{CHAT}/messages")
    way.graph.control("POST", "rich", {"token": token})
    way.write("wrongly vouched for")
    messages = way.take_in()
    way.processor().process(messages[0], "m")
    way.processor().process(messages[0], "again")
    assert way.jobs() == []
    assert way.alerts() == [("resource-data:suspicious", 2)]
    for table in ("webhook_events", "dead_letter_queue", "communication_logs"):
        assert way.sql.execute(f"select count(*) from queue.{table}".encode()).fetchone() == (0,)
    way.graph.control("POST", "rich", {"token": "none", "version": "2.0"})
    way.write("rightly")
    assert way.receive() == ["stored"]


def test_while_the_keys_are_away_the_message_is_held_and_then_taken(way: Way) -> None:
    way.subscribe(f"/chats/{CHAT}/messages")
    way.write("patience")
    messages = way.take_in()
    way.graph.add_fault("status", path=KEYS_PATH, status=503)
    with pytest.raises(MessageHeldError):
        way.processor().process(messages[0], "m")
    assert way.jobs() == []
    way.tokens = ValidationTokens(
        SigningKeys(way.wired.session, way.graph.authority),
        tenant_id=TENANT, client_id=CLIENT, authority=way.graph.authority,
    )  # fmt: skip
    way.processor().process(messages[0], "m")
    assert [way.handle(job) for job in way.jobs()] == ["stored"]


def test_a_rotated_key_of_the_publisher_is_fetched(way: Way) -> None:
    way.subscribe(f"/chats/{CHAT}/messages")
    way.graph.control("POST", "rich", {"rotate": True})
    way.write("new key")
    assert way.receive() == ["stored"]


def test_an_item_too_large_for_a_queue_message_travels_without_its_content_and_is_fetched(way: Way) -> None:
    way.subscribe(f"/chats/{CHAT}/messages")
    way.graph.control("POST", "chat-messages", {"chat": CHAT, "from": DRIVER_ID, "body": {"content": "x" * 60_000}})
    messages = way.take_in()
    assert "encryptedContent" not in messages[0]["notifications"][0]
    way.processor().process(messages[0], "m")
    assert [way.handle(job) for job in way.jobs()] == ["stored"]
    assert way.reads() == 1


def test_a_content_of_another_message_is_not_believed(way: Way) -> None:
    way.subscribe(f"/chats/{CHAT}/messages")
    message = way.write("the real one")
    (delivered,) = way.take_in()
    public = CURRENT.public
    other = {"id": "1", "etag": "9", "body": {"content": "of another place", "contentType": "text"}}
    delivered["notifications"][0]["encryptedContent"] = encrypt(public.base64, public.id, other)
    way.processor().process(delivered, "m")
    assert [way.handle(job) for job in way.jobs()] == ["stored"]
    assert way.stored("external_id, text") == [(f"{CHAT}/{message}", "the real one")]


def test_a_rich_mail_is_fetched_all_the_same(way: Way) -> None:
    way.subscribe(f"/users/{DISPATCH}/messages?$select=subject,body")
    way.graph.arrive_mail(DISPATCH, forwarded())
    assert way.receive() == ["stored"]
    details = way.sql.execute("select name, kind, details from queue.attachments order by kind, name").fetchall()
    assert details[1][:2] == ("Inner subject", "item")
    assert details[1][2] == {
        "itemType": "message",
        "subject": "Inner subject",
        "sender": "inner@elsewhere.example",
        "sentAt": details[1][2]["sentAt"],
        "internetMessageId": details[1][2]["internetMessageId"],
    }
    assert details[0] == ("map.png", "file", {"contentId": "map"})
    assert way.stored("automatic") == [True]


def forwarded() -> bytes:
    """A mail of an answering machine with an inline picture and another mail attached."""
    inner = EmailMessage()
    inner["From"], inner["To"], inner["Subject"] = "inner@elsewhere.example", DISPATCH, "Inner subject"
    inner.set_content("inside")
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@elsewhere.example", DISPATCH, "Outer"
    mail["Auto-Submitted"] = "auto-replied"
    mail.set_content("text")
    mail.add_alternative('<p>outside <img src="cid:map"></p>', subtype="html")
    html = mail.get_payload()[1]  # type: ignore[index]
    html.add_related(b"\x89PNG", "image", "png", cid="<map>", filename="map.png", disposition="inline")  # type: ignore[union-attr]
    mail.add_attachment(inner)
    return mail.as_bytes()


def test_an_attached_item_that_graph_does_not_show_is_recorded_by_its_name(way: Way) -> None:
    way.subscribe(f"/users/{DISPATCH}/messages", rich=False)
    way.graph.arrive_mail(DISPATCH, forwarded())
    way.graph.add_fault("status", method="GET", path=r"/attachments/.+", status=404)
    assert way.receive() == ["stored"]
    rows = way.sql.execute("select name, details from queue.attachments where kind = 'item'").fetchall()
    assert rows == [("Inner subject", {})]


def test_a_mail_that_moves_is_one_message_and_one_that_goes_is_marked(way: Way) -> None:
    way.subscribe(f"/users/{DISPATCH}/messages", rich=False)
    mail = way.graph.arrive_mail(DISPATCH, forwarded())
    assert way.receive() == ["stored"]
    graph = way.wired.mail._graph
    graph.call(
        "POST", "/users/{u}/messages/{m}/move", u=DISPATCH, m=mail, body={"destinationId": "deleteditems"}, expect=201
    )
    way.sql.execute("delete from queue.job")
    assert set(way.receive()) <= {"updated", "unchanged"}
    assert way.events() == ["received"]
    (moved,) = way.graph.mailbox(DISPATCH, "deleteditems")
    graph.call("DELETE", "/users/{u}/messages/{m}", u=DISPATCH, m=moved["id"], expect=204)
    way.sql.execute("delete from queue.job")
    assert way.receive() == ["deleted"]
    assert way.events() == ["received", "deleted"]
    assert way.stored("deleted_at is not null, text") == [(True, "outside")]


# Deaths on the way


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [1, 2])
def test_I9_a_processor_that_dies_at_a_commit_makes_one_job_of_each_change(
    way: Way, step: int, when: Literal["before", "after"]
) -> None:
    """Step 1 records and enqueues, step 2 tells the alert of the content that did not open."""
    way.subscribe(f"/chats/{CHAT}/messages")
    way.write("good")
    messages = way.take_in()
    way.graph.control("POST", "rich", {"content": "signature"})
    way.write("touched")
    messages += way.take_in()
    both = messages[0] | {"notifications": [item for each in messages for item in each["notifications"]]}
    way.database.number, way.database.kill_at = 0, (step, when)
    with pytest.raises(Killed):
        way.processor().process(both, "m")
    way.database.kill_at = None
    way.processor().process(both, "m")
    assert sorted(way.handle(job) for job in way.jobs()) == ["stored", "stored"]
    assert sorted(way.stored()) == ["good", "touched"]
    assert way.events() == ["received", "received"]
    assert [key for key, _ in way.alerts()] == ["resource-data:signature"]


def test_where_an_endpoint_is_set_each_event_becomes_a_job_that_tells_it(way: Way) -> None:
    way.wired.events_endpoint = "fleet"
    way.subscribe(f"/chats/{CHAT}/messages")
    way.write("one")
    way.process()
    (job,) = way.jobs()
    runs = [_run(way, job) for _ in range(2)]
    (event_id, message_id) = way.sql.execute("select id, communication_id from queue.outgoing_events").fetchone() or ()
    for run in runs:
        (told,) = run.follow_ups
        assert (told.queue, told.idempotency_key) == ("notifications", f"outgoing-event:{event_id}")
        payload = parse_payload("notifications", json.dumps(told.payload))
        assert (payload.channel, payload.endpoint, payload.type) == ("webhook", "fleet", "message.received")  # type: ignore[attr-defined]
        assert payload.data == {"eventId": str(event_id), "messageId": str(message_id), "channel": "teams"}  # type: ignore[attr-defined]
    way.wired.events_endpoint = None
    assert _run(way, job).follow_ups == ()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", ["created", "edited", "deleted"])
@pytest.mark.parametrize("rich", [True, False])
def test_a_handler_that_dies_at_its_commit_makes_one_row_and_one_event(
    way: Way, rich: bool, change: str, when: Literal["before", "after"]
) -> None:
    way.subscribe(f"/chats/{CHAT}/messages", rich=rich)
    message = way.write("one")
    if change != "created":
        assert way.receive() == ["stored"]
        way.sql.execute("delete from queue.job")
        action, more = ("edit", {"content": "two"}) if change == "edited" else ("delete", {})
        way.graph.control("POST", f"chat-messages/{action}", {"chat": CHAT, "message": message, **more})
    way.process()
    (job,) = way.jobs()
    way.database.number, way.database.kill_at = 0, (1, when)
    with pytest.raises(Killed):
        _run(way, job)
    way.database.kill_at = None
    done = _run(way, job)
    last = {"created": "received"}.get(change, change)
    assert way.events() == ["received", last][-2 if change != "created" else -1 :]
    assert len(way.stored()) == 1
    event = way.sql.execute("select id from queue.outgoing_events order by position desc limit 1").fetchone()
    assert event is not None
    assert done.result is not None
    assert done.result["event_id"] == str(event[0]), "the second try knows the event of the first"


def _run(way: Way, job: Job) -> Completed:
    done = way.wired.handler(job.queue)(job, parse_payload(job.queue, job.payload), Context())
    assert isinstance(done, Completed)
    return done


def test_a_hundred_items_with_resource_data_take_a_fraction_of_a_messages_time(way: Way) -> None:
    """A message of the queue may take 30 s; a hundred small items are what it holds at most."""
    way.subscribe(f"/chats/{CHAT}/messages")
    for number in range(100):
        way.write(f"number {number}")
    messages = way.take_in()
    items = [item for message in messages for item in message["notifications"]]
    whole = messages[0] | {"notifications": items}
    assert sum("encryptedContent" in item for item in items) == 100
    started = time.monotonic()
    way.processor().process(whole, "m")
    assert time.monotonic() - started < 5
    assert way.sql.execute("select count(*) from queue.job").fetchone() == (100,)
