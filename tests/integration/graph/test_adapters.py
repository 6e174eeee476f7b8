"""The PostgreSQL side of the handlers' and Graph's ports."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shared.graph.token_cache import CacheCipher
from shared.handlers.services import AttachmentRecord, Communication
from shared.postgres.communications import PostgresCommunications
from shared.postgres.pool import Database
from shared.postgres.token_cache import PostgresTokenCache
from shared.sealing import KeyRing, Sealed
from tests.integration.graph.conftest import KEY

MESSAGE = Communication(
    direction="in",
    channel="outlook",
    external_id="AAkA1",
    thread_id="c1",
    sender="a@example.com",
    recipients=["b@example.com"],
    subject="Tour",
    body="<p>x</p>",
    body_type="html",
    text="x",
    occurred_at=datetime(2026, 3, 1, tzinfo=UTC),
    internet_message_id="<1@example.com>",
    account="dispatch@fleet.example",
    attachments=[AttachmentRecord("f1", "../../etc/x", None, None, is_inline=False, kind="file")],
    job_id=uuid4(),
    correlation_id="n:1",
    raw={"modifiedAt": "2026-03-01T00:00:00.000000+00:00", "headers": [{"name": "x", "value": "y"}]},
)


@pytest.fixture
def log(database: Database) -> PostgresCommunications:
    return PostgresCommunications(database)


def rows(sql: psycopg.Connection, columns: str = "external_id") -> list[Any]:
    return sql.execute(f"select {columns} from queue.communication_logs order by recorded_at").fetchall()


def test_a_message_is_one_row_with_its_attachments(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    assert log.record(MESSAGE).outcome == "stored"
    assert log.record(MESSAGE).outcome == "unchanged"
    assert rows(sql, "direction, account, subject, recipients, raw ->> 'modifiedAt'") == [
        ("in", "dispatch@fleet.example", "Tour", ["b@example.com"], "2026-03-01T00:00:00.000000+00:00")
    ]
    assert sql.execute("select name, kind, state from queue.attachments").fetchall() == [
        ("../../etc/x", "file", "recorded")
    ]


def test_twenty_workers_with_one_message_make_one_row(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    with ThreadPoolExecutor(10) as pool:
        made = [made.outcome for made in pool.map(lambda _: log.record(MESSAGE), range(20))]
    assert sorted(made) == ["stored", *["unchanged"] * 19]
    assert len(rows(sql)) == 1


def test_a_moved_mail_with_a_new_id_is_the_same_message(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    log.record(MESSAGE)
    assert log.record(replace(MESSAGE, external_id="AAkA2")).outcome == "updated"
    assert rows(sql) == [("AAkA2",)]


def test_a_mail_to_oneself_is_one_out_and_one_in(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    assert log.record(MESSAGE).outcome == "stored"
    assert log.record(replace(MESSAGE, external_id="AAkA2", direction="out")).outcome == "stored"
    assert len(rows(sql)) == 2


def test_one_mail_in_two_mailboxes_is_two_messages(log: PostgresCommunications) -> None:
    assert log.record(MESSAGE).outcome == "stored"
    assert log.record(replace(MESSAGE, external_id="AAkB1", account="other@fleet.example")).outcome == "stored"


def test_an_older_look_does_not_undo_a_newer_one(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    log.record(replace(MESSAGE, text="new", raw={"modifiedAt": "2026-03-02T00:00:00.000000+00:00"}))
    log.record(replace(MESSAGE, text="old"))
    assert rows(sql, "text") == [("new",)]
    log.record(replace(MESSAGE, text="newest", raw={"modifiedAt": "2026-03-03T00:00:00.000000+00:00"}))
    assert rows(sql, "text") == [("newest",)]


def test_nul_and_lone_surrogates_are_stored_with_a_replacement(
    log: PostgresCommunications, sql: psycopg.Connection
) -> None:
    log.record(replace(MESSAGE, subject="a\x00b", text="\ud83d", body="\x00", raw={"k\x00": "\ud83d\x00"}))
    assert rows(sql, "subject, text, body, raw") == [("a\ufffdb", "\ufffd", "\ufffd", {"k\ufffd": "\ufffd\ufffd"})]


def test_a_token_cache_is_replaced_only_by_who_knows_its_version(database: Database) -> None:
    store = PostgresTokenCache(database)
    cipher = CacheCipher(KeyRing(KEY))
    first, second = cipher.seal("Queue@fleet.example", b"1"), cipher.seal("queue@fleet.example", b"2")
    assert store.load("queue@fleet.example") is None
    assert store.save("Queue@fleet.example", first, None)
    assert not store.save("queue@fleet.example", second, None)
    stored = store.load("QUEUE@fleet.example")
    assert stored is not None and stored.version == 1
    assert store.save("queue@fleet.example", second, 1)
    assert not store.save("queue@fleet.example", first, 1)
    stored = store.load("queue@fleet.example")
    assert stored is not None
    assert (cipher.open("queue@fleet.example", stored.sealed), stored.version) == (b"2", 2)


def test_ten_workers_saving_at_once_leave_one_winner(database: Database) -> None:
    store = PostgresTokenCache(database)
    store.save("a", Sealed("k", b"0"), None)
    with ThreadPoolExecutor(10) as pool:
        won = list(pool.map(lambda n: store.save("a", Sealed("k", bytes([n])), 1), range(10)))
    assert won.count(True) == 1
