"""Declaring what to watch: what is taken, in which spelling, and what is refused with which remedy."""

from __future__ import annotations

import json

import psycopg
import pytest

from shared.engine.enqueue import Producer
from shared.engine.errors import PayloadError
from shared.engine.memory import MemoryTransport
from shared.graph.subscriptions import LIFETIMES
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.handlers.watching import sync_request
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore
from shared.postgres.watched_resources import WatchedResources
from tests.integration.graph.watching import rows


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
def watched(database: Database, transport: MemoryTransport) -> WatchedResources:
    return WatchedResources(database, Producer(PostgresStore(database), transport, QUEUES, parse_payload))


ACCEPTED = [
    ("/users/Ann@Fleet.Example/messages", None, "users/ann@fleet.example/messages", "mail", "emails"),
    ("users/u1/mailFolders/AAmk=/messages", None, "users/u1/mailFolders('AAmk=')/messages", "mail", "emails"),
    ("users/u1/mailFolders('inbox')/messages", None, "users/u1/mailFolders('inbox')/messages", "mail", "emails"),
    ("users/u1/events", None, "users/u1/events", "event", "calendar"),
    (" users/u1/contacts ", None, "users/u1/contacts", "contact", "contacts"),
    ("users/u1/chats/getAllMessages", None, "users/u1/chats/getAllMessages", "chat", "messages"),
    ("users/u1/drive/root", None, "users/u1/drive/root", "drive", "files"),
    ("chats/19:Ab@thread.v2/messages", "u1", "chats/19:Ab@thread.v2/messages", "chat", "messages"),
    ("drives/b!x/root", "u1", "drives/b!x/root", "drive", "files"),
    ("teams/t1/channels/19:c@x/messages", None, "teams/t1/channels/19:c@x/messages", "channel", "messages"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "user", "kept", "kind", "synced"), ACCEPTED, ids=[case[2] for case in ACCEPTED])
def test_a_resource_is_kept_in_one_spelling_with_all_changes_and_a_sync_that_is_taken(
    watched: WatchedResources, sql: psycopg.Connection, given: str, user: str | None, kept: str, kind: str, synced: str
) -> None:
    watch_id = watched.watch(given, sync_user=user)
    assert watched.watch(kept, sync_user=user) == watch_id
    changes = "updated" if kind == "drive" else "created,deleted,updated"
    found = rows(sql, "select resource, kind, change_types, include_resource_data from queue.watched_resources")
    assert found == [(kept, kind, changes, False)]
    assert kind in LIFETIMES
    payload = sync_request(kept, user)
    assert payload is not None and payload["resourceType"] == synced
    parse_payload("sync", json.dumps(payload))


def test_every_kind_of_the_database_has_a_lifetime(sql: psycopg.Connection) -> None:
    [(check,)] = rows(
        sql, "select pg_get_constraintdef(oid) from pg_constraint where conname = 'watched_resources_kind'"
    )
    assert all(f"'{kind}'" in check for kind in LIFETIMES)
    assert check.count("::text") - check.count("::text[]") == len(LIFETIMES)


@pytest.mark.parametrize(
    ("resource", "options", "field", "remedy"),
    [
        ("", {}, "resource", "users/{id}/messages"),
        ("users/u1/message", {}, "resource", "users/{id}/messages"),
        ("users//messages", {}, "resource", "users/{id}/messages"),
        ("users/u1/messages/m1", {}, "resource", "users/{id}/messages"),
        ("users/u 1/messages", {}, "resource", "users/{id}/messages"),
        ("https://graph.microsoft.com/v1.0/users/u1/messages", {}, "resource", "users/{id}/messages"),
        ("chats/getAllMessages", {}, "resource", "users/{id}/messages"),
        ("users/u1/messages", {"change_types": "created,moved"}, "change_types", "created, updated and deleted"),
        ("users/u1/messages", {"change_types": ""}, "change_types", "created, updated and deleted"),
        ("users/u1/drive/root", {"change_types": "created"}, "change_types", "Give updated"),
        ("users/u1/drive/root", {"include_resource_data": True}, "include_resource_data", "Give false"),
        ("users/u1/messages", {"include_resource_data": True}, "resource", "?$select="),
        ("users/u1/messages?$select=subject", {}, "resource", "include_resource_data"),
        ("chats/c1/messages?$select=body", {"sync_user": "u1", "include_resource_data": True}, "resource", "chats"),
        ("chats/c1/messages", {}, "sync_user", "member of the chat"),
        ("drives/d1/root", {"sync_user": "a/b"}, "sync_user", "owner of the drive"),
        ("users/u1/messages", {"sync_user": "u1"}, "sync_user", "Leave it out"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_watched_is_refused_by_field_and_remedy(
    watched: WatchedResources,
    sql: psycopg.Connection,
    resource: str,
    options: dict[str, object],
    field: str,
    remedy: str,
) -> None:
    with pytest.raises(PayloadError) as refused:
        watched.watch(resource, **options)  # type: ignore[arg-type]
    [problem] = refused.value.problems
    assert problem.field == field
    assert remedy in problem.message
    assert rows(sql, "select count(*) from queue.watched_resources") == [(0,)]


def test_resource_data_of_mails_names_its_properties(watched: WatchedResources, sql: psycopg.Connection) -> None:
    watched.watch("users/u1/messages?$select=subject,from", include_resource_data=True)
    [(resource, has_data)] = rows(sql, "select resource, include_resource_data from queue.watched_resources")
    assert (resource, has_data) == ("users/u1/messages?$select=subject,from", True)
    assert sync_request(resource, None) == {"resourceType": "emails", "userId": "u1", "fullSync": False}


def test_a_declaration_is_part_of_the_callers_transaction_and_makes_one_pass(
    watched: WatchedResources, sql: psycopg.Connection, direct_url: str, transport: MemoryTransport
) -> None:
    with psycopg.connect(direct_url) as conn:
        for number in range(50):
            watched.watch(f"users/u{number}/messages", conn=conn)
        assert rows(sql, "select count(*) from queue.watched_resources") == [(0,)]
    assert rows(sql, "select count(*) from queue.watched_resources") == [(50,)]
    assert rows(sql, "select count(*) from queue.job where queue = 'subscriptions'") == [(1,)]
    assert list(transport.sent) == []
    watched.watch("users/other/messages")
    assert [queue for queue, _, _ in transport.sent] == ["subscriptions"]
    jobs = rows(sql, "select count(*), count(distinct id) from queue.job where queue = 'subscriptions'")
    assert jobs == [(2, 2)], "a pass that began before it is not enough"


def test_a_declaration_that_changes_nothing_makes_nothing_due(
    watched: WatchedResources, sql: psycopg.Connection
) -> None:
    watched.watch("users/u1/messages")
    sql.execute("update queue.watched_resources set due_at = clock_timestamp() + interval '1 day'")
    watched.watch("users/u1/messages")
    assert rows(sql, "select due_at > clock_timestamp() from queue.watched_resources") == [(True,)]
    watched.watch("users/u1/messages", "created")
    assert rows(sql, "select due_at > clock_timestamp() from queue.watched_resources") == [(False,)]


def test_unwatch_takes_any_spelling_and_says_whether_it_was_watched(watched: WatchedResources) -> None:
    watched.watch("users/u1/messages")
    assert watched.unwatch("/users/U1/messages")
    assert not watched.unwatch("users/u1/messages")
    assert not watched.unwatch("nonsense")
