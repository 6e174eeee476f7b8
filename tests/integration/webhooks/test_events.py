"""Recording notifications in PostgreSQL: once, whole or not at all, also when two hosts do it at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shared.engine.enqueue import Producer
from shared.engine.errors import StoreUnavailableError
from shared.engine.job import NewJob
from shared.engine.memory import MemoryTransport
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.handlers.webhooks import Event, EventRefusedError, NotificationProcessor
from shared.postgres.alerts import PostgresAlerts
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore
from shared.postgres.webhook_events import PostgresWebhookEvents
from tests.pooler import open_database
from tests.unit.webhooks.vouching import no_rich

AT = "2026-11-25T08:00:00+00:00"


def mail(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "subscriptionId": "s1",
        "changeType": "created",
        "resource": f"users/u1/messages/m{number}",
        "resourceData": {"@odata.etag": f'W/"{number}"'},
    } | more


def host(url: str) -> tuple[NotificationProcessor, MemoryTransport, Database]:
    """A host of its own: its own pool, its own processor."""
    database, transport = open_database(url, max_size=2), MemoryTransport()
    store = PostgresStore(database)
    producer = Producer(store, transport, QUEUES, parse_payload)
    processor = NotificationProcessor(
        PostgresWebhookEvents(database), store.bury, producer, no_rich(), PostgresAlerts(database)
    )
    return processor, transport, database


def count(sql: psycopg.Connection, query: str) -> int:
    row = sql.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_I9_the_same_batch_on_many_hosts_at_the_same_moment_makes_each_job_once(
    database_url: str, sql: psycopg.Connection
) -> None:
    hosts = [host(database_url) for _ in range(6)]
    start = threading.Barrier(len(hosts))
    errors: list[BaseException] = []

    def deliver(process: Callable[[dict[str, Any], str], None], turn: int) -> None:
        items = [mail(number) for number in range(40)]
        if turn % 2:
            items.reverse()
        start.wait(10)
        try:
            process({"notifications": items, "receivedAt": AT}, f"m{turn}")
        except BaseException as error:  # noqa: BLE001 - told to the test below
            errors.append(error)

    threads = [threading.Thread(target=deliver, args=(one[0].process, turn)) for turn, one in enumerate(hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for _, _, database in hosts:
        database.close()
    assert errors == []
    assert count(sql, "select count(*) from queue.job") == 40
    assert count(sql, "select count(*) from queue.webhook_events where outcome = 'enqueued'") == 40
    assert count(sql, "select count(*) from queue.webhook_events e join queue.job j on j.id = e.job_id") == 40


def test_I9_a_batch_that_overlaps_an_earlier_one_adds_only_what_is_new(
    database_url: str, sql: psycopg.Connection
) -> None:
    processor, transport, database = host(database_url)
    processor.process({"notifications": [mail(n) for n in range(10)], "receivedAt": AT}, "m1")
    transport.sent.clear()
    processor.process({"notifications": [mail(n, subscriptionId="s2") for n in range(5, 15)], "receivedAt": AT}, "m2")
    database.close()
    assert count(sql, "select count(*) from queue.job") == 15
    assert [queue for queue, _, _ in transport.sent] == ["outlook-inbound"]


def test_a_job_that_has_ended_and_left_the_hot_table_is_not_made_again(
    database_url: str, sql: psycopg.Connection
) -> None:
    processor, _, database = host(database_url)
    processor.process({"notifications": [mail(1)], "receivedAt": AT}, "m1")
    sql.execute("delete from queue.job")
    processor.process({"notifications": [mail(1)], "receivedAt": AT}, "m2")
    sql.execute("delete from queue.idempotency")
    processor.process({"notifications": [mail(1)], "receivedAt": AT}, "m3")
    database.close()
    assert count(sql, "select count(*) from queue.job") == 0


def test_all_kinds_of_items_are_recorded_with_what_became_of_them(database_url: str, sql: psycopg.Connection) -> None:
    processor, transport, database = host(database_url)
    items = [
        mail(1, tenantId="t1"),
        mail(2, resource="users/u1/events/7"),
        mail(4, resource="users/u1/photo"),
        {"subscriptionId": "s1", "lifecycleEvent": "missed"},
        mail(3, resource="chats('19:x@thread.v2')/messages('17')", note="a\x00b\ud83d"),
        {"subscriptionId": "s1"},
    ]
    processor.process({"notifications": items, "receivedAt": AT}, "m1")
    database.close()
    rows = sql.execute(
        "select kind, change_type, outcome, tenant_id, job_id is not null, received_at = %s from queue.webhook_events"
        " order by kind, outcome, tenant_id nulls first, resource",
        (AT,),
    ).fetchall()
    assert rows == [
        ("change", "created", "enqueued", None, True, True),
        ("change", "created", "enqueued", None, True, True),
        ("change", "created", "enqueued", "t1", True, True),
        ("change", "created", "ignored", None, False, True),
        ("lifecycle", "missed", "enqueued", None, True, True),
    ]
    assert count(sql, "select count(*) from queue.dead_letter_queue where queue = 'webhooks'") == 1
    assert {queue for queue, _, _ in transport.sent} == {
        "outlook-inbound",
        "teams-inbound",
        "sync",
        "subscriptions",
        "dead-letter",
    }
    assert count(sql, r"select count(*) from queue.webhook_events where raw ->> 'note' = U&'a\FFFDb\FFFD'") == 1


def test_an_item_that_the_database_refuses_is_buried_alone(database_url: str, sql: psycopg.Connection) -> None:
    sql.execute("alter table queue.webhook_events add constraint picky check (resource <> 'users/u1/messages/m2')")
    processor, _, database = host(database_url)
    processor.process({"notifications": [mail(n) for n in range(5)], "receivedAt": AT}, "m1")
    database.close()
    assert count(sql, "select count(*) from queue.job where queue = 'outlook-inbound'") == 4
    assert count(sql, "select count(*) from queue.dead_letter_queue where body like '%/m2%'") == 1


def test_event_and_job_come_into_being_together_or_not_at_all(database_url: str, sql: psycopg.Connection) -> None:
    database = open_database(database_url)
    job = NewJob("attachments", {}, idempotency_key="k")  # a closed queue: the enqueue fails
    event = Event("d1", "s1", "change", "created", "r", None, None, "enqueued", {}, job)
    with pytest.raises(EventRefusedError):
        PostgresWebhookEvents(database).record([event])
    database.close()
    assert count(sql, "select count(*) from queue.webhook_events") == 0


def test_with_the_database_away_recording_says_so() -> None:
    database = Database("postgresql://postgres@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailableError):
        PostgresWebhookEvents(database).record(
            [Event("d1", "s1", "lifecycle", "missed", None, None, None, "recorded", {})]
        )
    database.close()


def test_nothing_is_recorded_from_an_empty_batch(database_url: str) -> None:
    processor, transport, database = host(database_url)
    processor.process({"notifications": [], "receivedAt": AT}, "m1")
    database.close()
    assert list(transport.sent) == []
