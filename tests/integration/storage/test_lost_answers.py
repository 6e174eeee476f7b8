"""A put whose answer is lost is made again by the client library: two messages, and still one effect."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from random import Random

import psycopg
import pytest

from local.azurite import Azurite
from shared import bootstrap
from shared.engine.enqueue import Producer
from shared.engine.receive import Receiver
from shared.engine.worker import Worker
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.postgres.store import PostgresStore
from shared.storage.queues import StorageQueues
from tests.integration.storage.lossy import lossy

QUEUE = "teams-outbound"
CHAT = {"chatId": "19:dispatch@thread.v2", "content": "on my way"}
MINUTE = timedelta(minutes=1)
SECRET = "webhook-secret-of-the-tests-0123456789"


def test_a_wake_up_that_was_put_twice_runs_its_job_once(
    azurite: Azurite, storage: StorageQueues, postgres_store: PostgresStore
) -> None:
    ran: list[object] = []
    with lossy(azurite) as server:
        producer = Producer(postgres_store, StorageQueues(server.connection_string(azurite)), QUEUES, parse_payload)
        server.to_lose = 1
        job = producer.enqueue(QUEUE, CHAT)
        assert server.lost == 1
    worker = Worker(
        postgres_store, producer, lambda _: lambda job, *_: ran.append(job.id), parse_payload, Random(1), "w"
    )
    receiver = Receiver(postgres_store, storage, producer, worker, Random(1))
    messages = list(storage.receive(QUEUE, 32, MINUTE))
    assert len(messages) == 2
    for message in messages:
        receiver.receive(QUEUE, message.body, message.id)
    assert ran == [job.id]


def test_notifications_that_were_put_twice_make_one_job(
    azurite: Azurite,
    storage: StorageQueues,
    database_url: str,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with lossy(azurite) as server:
        monkeypatch.setenv("DATABASE_URL", database_url)
        monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
        monkeypatch.setenv("ENCRYPTION_KEY", base64.b64encode(bytes(32)).decode())
        monkeypatch.setenv("QueueStorage", server.connection_string(azurite))
        bootstrap.stop()
        try:
            item = {
                "subscriptionId": "s1",
                "clientState": bootstrap.client_states().new(),
                "changeType": "created",
                "resource": "users/u1/messages/m1",
            }
            server.to_lose = 1
            bootstrap.intake().take(json.dumps({"value": [item]}).encode(), time.monotonic() + 20)
            assert server.lost == 1
            messages = list(storage.receive("webhooks", 32, MINUTE))
            assert len(messages) == 2
            for message in messages:
                bootstrap.inbox().receive(QUEUES["webhooks"], message.body, message.id)
        finally:
            bootstrap.stop()
    assert sql.execute("select queue, count(*) from queue.job group by 1").fetchall() == [("outlook-inbound", 1)]
