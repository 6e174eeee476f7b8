"""Messages that came in, as PostgreSQL keeps them: a row each, an event for each change, and words that find them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shared.handlers.inbound import MOST_AUTOMATIC
from shared.handlers.services import AttachmentRecord, Communication
from shared.postgres.communications import PostgresCommunications
from shared.postgres.partitions import Partitions
from shared.postgres.pool import Database
from tests.integration.graph.test_adapters import MESSAGE as MAIL

AT = datetime(2026, 3, 1, 10, tzinfo=UTC)
CHAT = "19:dispatch@thread.v2"


def message(version: int = 1, **more: Any) -> Communication:
    """A chat message in the state that it had at the version's second."""
    made = Communication(
        direction="in", channel="teams", external_id=f"{CHAT}/17", thread_id=CHAT, sender="driver",
        recipients=[CHAT], subject=None, body=f"text {version}", body_type="text", text=f"text {version}",
        occurred_at=AT, job_id=uuid4(), raw={"modifiedAt": f"2026-03-01T10:00:{version:02}.000000+00:00"},
    )  # fmt: skip
    return replace(made, **more)


def deleted(version: int, **more: Any) -> Communication:
    return message(version, body="", text="", deleted_at=AT + timedelta(seconds=version), **more)


@pytest.fixture
def sql(emptied: psycopg.Connection) -> psycopg.Connection:
    return emptied


@pytest.fixture
def database(module_url: str, emptied: psycopg.Connection) -> Iterator[Database]:
    database = Database(module_url, max_size=12)
    yield database
    database.close()


@pytest.fixture
def log(database: Database) -> PostgresCommunications:
    return PostgresCommunications(database)


def events(sql: psycopg.Connection) -> list[str]:
    rows = sql.execute("select kind from queue.outgoing_events order by position").fetchall()
    return [row[0].removeprefix("message.") for row in rows]


def row(sql: psycopg.Connection, columns: str) -> tuple[Any, ...]:
    found = sql.execute(f"select {columns} from queue.communication_logs".encode()).fetchall()
    assert len(found) == 1
    return tuple(found[0])


def test_an_edit_a_deletion_and_its_undoing_are_one_row_and_an_event_each(
    log: PostgresCommunications, sql: psycopg.Connection
) -> None:
    looks = [message(1), message(2, edited_at=AT), deleted(3), message(4)]
    assert [log.record(look).outcome for look in looks] == ["stored", "edited", "deleted", "restored"]
    assert events(sql) == ["received", "edited", "deleted", "restored"]
    assert row(sql, "body, edited_at, deleted_at") == ("text 4", AT, None)


def test_a_deleted_message_keeps_its_text_and_says_when(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    log.record(message(1))
    log.record(deleted(3))
    assert row(sql, "body, text, deleted_at") == ("text 1", "text 1", AT + timedelta(seconds=3))
    assert log.record(deleted(3)).outcome == "unchanged"
    assert events(sql) == ["received", "deleted"]


def test_looks_in_any_order_end_in_the_newest_state(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    for look in (deleted(3), message(1, fetched=False), message(2, fetched=False)):
        log.record(look)
    assert row(sql, "body, deleted_at is null") == ("", False)
    assert events(sql) == [], "nobody heard of it, so nobody has to forget it"


def test_what_a_notification_brought_late_revives_nothing(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    log.record(message(1))
    assert log.mark_deleted("teams", f"{CHAT}/17").outcome == "deleted"
    assert log.record(message(1, fetched=False)).outcome == "unchanged"
    assert log.record(message(1, fetched=True)).outcome == "restored"
    assert events(sql) == ["received", "deleted", "restored"]


def test_a_reaction_is_kept_and_is_no_edit(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    log.record(message(1))
    liked = {"modifiedAt": "2026-03-01T10:00:02.000000+00:00", "reactions": [{"reactionType": "like"}]}
    assert log.record(message(1, raw=liked)).outcome == "updated"
    assert log.record(message(1, raw=liked)).outcome == "unchanged"
    unliked = {"modifiedAt": "2026-03-01T10:00:03.000000+00:00", "reactions": []}
    assert log.record(message(1, raw=unliked)).outcome == "updated"
    assert row(sql, "raw -> 'reactions'") == ([],)
    assert events(sql) == ["received"]


def test_a_message_that_is_gone_is_marked_once(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    assert log.mark_deleted("outlook", "AAkA1").outcome == "unknown"
    log.record(MAIL)
    job = uuid4()
    first = log.mark_deleted("outlook", "AAkA1", job)
    again = log.mark_deleted("outlook", "AAkA1", job)
    assert (first.outcome, again.outcome) == ("deleted", "unchanged")
    assert first.event == again.event is not None
    assert log.mark_deleted("outlook", "AAkA1", uuid4()).event is None
    assert events(sql) == ["received", "deleted"]
    assert row(sql, "text, deleted_at is null") == ("x", False)


def test_a_sent_message_that_is_gone_is_marked_too_and_the_application_is_not_told(
    log: PostgresCommunications, sql: psycopg.Connection
) -> None:
    log.record(replace(MAIL, direction="out"))
    assert [log.mark_deleted("outlook", "AAkA1", uuid4()).outcome for _ in range(2)] == ["deleted", "unchanged"]
    assert row(sql, "text, direction, deleted_at is null") == ("x", "out", False)
    assert events(sql) == []
    log.record(replace(MAIL, internet_message_id="<other@fleet.example>"))
    assert log.mark_deleted("outlook", "AAkA1").outcome == "unchanged", "what the queue has sent does not come in"


def test_a_job_that_runs_again_hears_of_the_event_that_it_made(log: PostgresCommunications) -> None:
    look = message(1)
    first, again, other = log.record(look), log.record(look), log.record(replace(look, job_id=uuid4()))
    assert first.event == again.event is not None
    assert (again.outcome, other.outcome, other.event) == ("unchanged", "unchanged", None)


def test_twenty_workers_with_one_change_make_one_event(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    for look in (message(1), message(2), deleted(3)):
        with ThreadPoolExecutor(10) as pool:
            made = list(pool.map(lambda _, look=look: log.record(replace(look, job_id=uuid4())), range(20)))
        assert sum(one.event is not None for one in made) == 1
    assert events(sql) == ["received", "edited", "deleted"]


def test_a_message_that_we_sent_is_not_taken_in_whoever_it_says_it_is_from(
    log: PostgresCommunications, sql: psycopg.Connection
) -> None:
    log.record(message(1, direction="out"))
    assert log.record(message(1)).outcome == "own"
    assert row(sql, "direction") == ("out",)
    assert events(sql) == []


def test_what_we_send_makes_no_event(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    log.record(message(1, direction="out"))
    log.record(message(2, direction="out"))
    assert events(sql) == []


def test_the_breaker_keeps_a_flood_of_automatic_messages_from_the_application_and_tells_once(
    log: PostgresCommunications, sql: psycopg.Connection
) -> None:
    def flood(thread: str, n: int, **more: Any) -> list[str]:
        return [log.record(message(1, external_id=f"{thread}/{n}", thread_id=thread, **more)).outcome for n in range(n)]

    looped = flood("loop", MOST_AUTOMATIC + 5, automatic=True)
    assert looped == ["stored"] * MOST_AUTOMATIC + ["held"] * 5
    assert set(flood("people", MOST_AUTOMATIC + 5)) == {"stored"}
    assert set(flood("other", 3, automatic=True)) == {"stored"}
    assert sql.execute("select count(*) from queue.communication_logs").fetchone() == (2 * MOST_AUTOMATIC + 13,)
    alerts = sql.execute("select alert_key, occurrences, level from queue.queue_alerts").fetchall()
    assert alerts == [("automatic:teams:loop", 5, "warning")]
    sql.execute("update queue.communication_logs set recorded_at = recorded_at - interval '11 minutes'")
    late = message(1, external_id="loop/late", thread_id="loop", automatic=True)
    assert log.record(late).outcome == "stored", "the window moves on"


def test_details_of_an_attachment_are_kept(log: PostgresCommunications, sql: psycopg.Connection) -> None:
    record = AttachmentRecord("i1", "Fwd", None, 5, False, "item", {"subject": "Tür\x00", "sender": "a@b.example"})
    log.record(replace(MAIL, attachments=[record]))
    assert sql.execute("select kind, details from queue.attachments").fetchall() == [
        ("item", {"subject": "Tür\ufffd", "sender": "a@b.example"})
    ]


# Search


def search(sql: psycopg.Connection, words: str) -> list[str]:
    rows = sql.execute("select external_id from queue.search_messages(%s)", (words,)).fetchall()
    return [found[0] for found in rows]


def test_messages_are_found_by_words_phrases_and_subject_newest_first(
    log: PostgresCommunications, sql: psycopg.Connection
) -> None:
    for number, (subject, text) in enumerate(
        [("Lieferung verspätet", "Tor 7, um 8 Uhr"), (None, "Gate 7 is free 🚚"), ("Tour", "nothing of it")]
    ):
        when = AT + timedelta(minutes=number)
        log.record(message(1, external_id=f"{number}", subject=subject, text=text, occurred_at=when))
    assert search(sql, "verspätet") == ["0"]
    assert search(sql, "7") == ["1", "0"]
    assert search(sql, "gate 7") == ["1"]
    assert search(sql, '"7 is"') == ["1"]
    assert search(sql, "7 -gate") == ["0"]
    assert search(sql, "tour or gate") == ["2", "1"]
    assert search(sql, "'); drop table queue.job; --") == []


def test_the_search_goes_through_its_index(sql: psycopg.Connection) -> None:
    sql.execute("set enable_seqscan = off")
    for query in (
        "select id from queue.communication_logs"
        " where queue.searchable(subject, text) @@ websearch_to_tsquery('simple', 'gate')",
        "select id from queue.search_messages('gate')",
    ):
        plan = "\n".join(found[0] for found in sql.execute(f"explain {query}".encode()).fetchall())
        assert "communication_logs_search" in plan, plan


@pytest.mark.parametrize(
    "text",
    ["x" * 1_000_000, " ".join(f"wort{n}" for n in range(200_000)), "🚚 " * 500_000, "\ufffd" * 100_000, ""],
    ids=["one word", "many words", "emoji", "replaced", "none"],
)
def test_a_text_of_any_size_and_kind_is_stored_and_indexed(
    log: PostgresCommunications, sql: psycopg.Connection, text: str
) -> None:
    assert log.record(message(1, text=f"anfang {text}")).outcome == "stored"
    assert search(sql, "anfang") == [f"{CHAT}/17"]


# Events in the order in which they become visible


@contextmanager
def open_transaction(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url) as conn:
        yield conn


def test_who_reads_on_from_the_last_position_misses_no_event(
    log: PostgresCommunications, sql: psycopg.Connection, module_url: str
) -> None:
    """Without the lock, an event could commit below a position that was read already."""
    log.record(message(1))
    (message_id,) = row(sql, "id")
    add = "select queue.add_outgoing_event('message.edited', %s, null)"
    committed: list[str] = []
    with open_transaction(module_url) as slow:
        slow.execute(add, (message_id,))

        def fast() -> None:
            with open_transaction(module_url) as conn:
                conn.execute(add, (message_id,))
            committed.append("fast")

        thread = threading.Thread(target=fast)
        thread.start()
        _wait_until(lambda: _waits_for_the_lock(sql))
        seen = sql.execute("select max(position) from queue.outgoing_events").fetchone()
        assert (seen, committed) == ((1,), [])
    thread.join(10)
    positions = [found[0] for found in sql.execute("select position from queue.outgoing_events order by 1").fetchall()]
    assert (positions, committed) == ([1, 2, 3], ["fast"])


def _waits_for_the_lock(sql: psycopg.Connection) -> bool:
    found = sql.execute("select count(*) from pg_locks where locktype = 'advisory' and not granted").fetchone()
    return found == (1,)


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while not is_so():
        assert datetime.now(UTC) < deadline
        threading.Event().wait(0.01)


def test_a_reader_beside_many_writers_sees_every_event_once(
    log: PostgresCommunications, sql: psycopg.Connection, module_url: str
) -> None:
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        with psycopg.connect(module_url, autocommit=True) as conn:
            while True:
                last = done.is_set()
                page = conn.execute(
                    "select position from queue.outgoing_events where position > %s order by position limit 7",
                    (seen[-1] if seen else 0,),
                ).fetchall()
                seen.extend(found[0] for found in page)
                if last and not page:
                    return

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: log.record(message(1, external_id=str(n))), range(150)))
    done.set()
    reader.join(20)
    assert len(seen) == len(set(seen)) == 150


def test_old_events_are_forgotten_and_their_messages_stay(
    log: PostgresCommunications, sql: psycopg.Connection, database: Database
) -> None:
    for number in range(3):
        log.record(message(1, external_id=str(number)))
    sql.execute("update queue.outgoing_events set recorded_at = recorded_at - interval '31 days' where position <= 2")
    Partitions(database).maintain()
    assert sql.execute("select position from queue.outgoing_events").fetchall() == [(3,)]
    assert sql.execute("select count(*) from queue.communication_logs").fetchone() == (3,)
