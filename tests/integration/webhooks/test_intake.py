"""From Graph's POST to jobs, on real servers: durable before 202, once after it, also over an outage."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import azure.functions as func
import psycopg
import pytest
from azure.functions.queue import QueueMessage

import functions.queues
from functions.webhooks import take_notifications
from local.postgres import FAST, PostgresServer, free_port
from shared import bootstrap
from shared.handlers.registry import QUEUES
from shared.postgres.migrate import migrate
from shared.storage.queues import StorageQueues


def item(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "subscriptionId": "s1",
        "clientState": bootstrap.client_states().new(),
        "changeType": "created",
        "resource": f"users/u1/messages/m{number}",
        "resourceData": {"@odata.etag": f'W/"{number}"'},
    } | more


def post(*items: Any) -> int:
    body = json.dumps({"value": items}).encode()
    request = func.HttpRequest("POST", "https://app/api/webhooks/graph", body=body)
    status: int = asyncio.run(take_notifications(request)).status_code
    return status


def triggers(blueprint: func.Blueprint) -> dict[str, Callable[[func.QueueMessage], None]]:
    app = func.FunctionApp()
    app.register_functions(blueprint)
    return {json.loads(f.get_raw_bindings()[0])["queueName"]: f.get_user_function() for f in app.get_functions()}


RUN = triggers(functions.queues.bp)


def drain(queues: StorageQueues, most: int = 1000) -> int:
    """Do what the host does with the messages that are there now; returns how many there were."""
    handled = 0
    for message in queues.receive("webhooks", most, timedelta(seconds=60)):
        RUN["webhooks"](QueueMessage(id=message.id, body=message.body, dequeue_count=1))  # type: ignore[no-untyped-call]
        message.delete()
        handled += 1
    return handled


def jobs(sql: psycopg.Connection, queue: str = "outlook-inbound") -> int:
    row = sql.execute("select count(*) from queue.job where queue = %s", (queue,)).fetchone()
    assert row is not None
    return int(row[0])


def test_I9_a_delivery_answered_202_is_durable_and_a_repeated_one_makes_no_second_job(
    product: StorageQueues, sql: psycopg.Connection
) -> None:
    items = [item(number) for number in range(100)]
    forged = item(100, clientState="forged")
    assert [post(*items, forged), post(*items)] == [202, 202]
    assert product.count("webhooks") == 2
    drain(product)
    assert jobs(sql) == 100
    assert product.count("webhooks") == 0


def test_I9_the_same_item_posted_at_the_same_moment_makes_one_job(
    product: StorageQueues, sql: psycopg.Connection
) -> None:
    same, statuses = item(1), list[int]()
    threads = [threading.Thread(target=lambda: statuses.append(post(same))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses == [202] * 8
    workers = [threading.Thread(target=drain, args=(product,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert jobs(sql) == 1


def test_text_that_xml_cannot_carry_arrives_unchanged(product: StorageQueues) -> None:
    evil = "\x00\x01\x0b\ufffe\ud83d<&>\u2028"
    assert post(item(1, note=evil)) == 202
    (message,) = product.receive("webhooks", 1, timedelta(seconds=1))
    assert json.loads(message.body)["notifications"][0]["note"] == evil
    assert b"clientState" not in message.body


def test_without_storage_the_answer_is_503_within_graphs_patience(
    product: StorageQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = (
        f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;QueueEndpoint=http://127.0.0.1:{free_port()}/a;"
    )
    monkeypatch.setenv("QueueStorage", address)
    bootstrap.stop()
    started = time.monotonic()
    assert post(item(1)) == 503
    assert time.monotonic() - started < 3


def test_I8_with_the_database_away_deliveries_are_taken_and_become_jobs_when_it_is_back(
    product: StorageQueues, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = PostgresServer(tmp_path_factory.mktemp("pg") / "data", settings=FAST, port=free_port())
    server.start()
    try:
        migrate(server.url("postgres"))
        monkeypatch.setenv("DATABASE_URL", server.url("postgres"))
        bootstrap.stop()
        monkeypatch.setattr("shared.engine.receive.PUT_BACK_SECONDS", (0.0, 0.0))
        server.stop()
        assert post(*(item(number) for number in range(3))) == 202
        assert drain(product, 1) == 1
        assert product.count("webhooks") == 1, "put back as a new message, and the old one ended"
        server.start()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and product.count("webhooks"):
            drain(product, 1)
        with psycopg.connect(server.url("postgres"), autocommit=True) as sql:
            assert jobs(sql) == 3
    finally:
        bootstrap.stop()
        server.stop("immediate")


def test_the_poison_sweep_handles_what_the_host_has_given_up(product: StorageQueues, sql: psycopg.Connection) -> None:
    batch = {"notifications": [{k: v for k, v in item(1).items() if k != "clientState"}]}
    product.send("webhooks-poison", json.dumps(batch))
    product.send("sync-poison", "not json")
    assert bootstrap.poison_sweep().run() == 2
    assert jobs(sql) == 1
    assert all(product.count(spec.poison) == 0 for spec in QUEUES.values())


def test_health_is_good_when_both_servers_answer(product: StorageQueues) -> None:
    assert bootstrap.health().report().checks == {"database": "ok", "storage": "ok"}
