"""Declared resources and what Graph has are brought together, whatever gets lost or dies on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from shared.postgres.pool import Database
from tests.integration.graph.conftest import DISPATCH, Wired
from tests.integration.graph.watching import (
    CHATS,
    MAIL,
    Clock,
    Host,
    Webhook,
    live_ids,
    reasons,
    rows,
    shaking,
)

Start = Callable[..., Host]


@pytest.fixture(scope="module")
def hook() -> Iterator[Webhook]:
    with shaking() as webhook:
        yield webhook


@pytest.fixture
def webhook(hook: Webhook) -> Webhook:
    hook.refuses = False
    hook.shaken.clear()
    return hook


@pytest.fixture
def clock(wired: Wired) -> Clock:
    return Clock(wired)


@pytest.fixture
def start(wired: Wired, database: Database, webhook: Webhook, clock: Clock) -> Iterator[Start]:
    hosts: list[Host] = []

    def begin(**settings: Any) -> Host:
        hosts.append(Host(wired, database, webhook, clock, **settings))
        return hosts[-1]

    yield begin
    for host in hosts:
        host.close()


@pytest.fixture
def host(start: Start) -> Host:
    """Watches a mailbox and a chat; nothing is subscribed to yet."""
    host = start()
    host.watched.watch(MAIL)
    host.watched.watch(CHATS, "created", sync_user=DISPATCH)
    return host


def is_settled(host: Host, wired: Wired, sql: psycopg.Connection) -> bool:
    """Exactly one live subscription of each declared resource, at Graph and here, and the same ones."""
    at_graph = {one["id"]: one["resource"] for one in wired.graph.subscriptions()}
    declared = sorted(
        row[0] for row in rows(sql, "select resource from queue.watched_resources where ended_at is null")
    )
    return sorted(at_graph.values()) == declared and sorted(at_graph) == live_ids(sql)


def test_what_is_declared_is_subscribed_to_once_and_told_to_sync(
    host: Host, wired: Wired, sql: psycopg.Connection, webhook: Webhook
) -> None:
    host.run()
    assert is_settled(host, wired, sql)
    mail, chat = sorted(wired.graph.subscriptions(), key=lambda one: one["resource"], reverse=True)
    assert (mail["changeType"], chat["changeType"]) == ("created,deleted,updated", "created")
    assert sorted(webhook.shaken) == ["/api/webhooks/graph"] * 2 + ["/api/webhooks/graph/lifecycle"] * 2
    assert mail["clientState"] != chat["clientState"]
    assert reasons(sql) == ["new", "new"]
    payloads = rows(sql, "select payload from queue.job where queue = 'sync' order by payload ->> 'resourceType'")
    assert [(one[0]["resourceType"], one[0]["userId"]) for one in payloads] == [
        ("emails", DISPATCH),
        ("messages", DISPATCH),
    ]
    host.run()
    assert len(wired.sent("POST", "/subscriptions")) == 2
