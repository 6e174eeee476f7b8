"""queue.enqueue for other languages."""

from __future__ import annotations

import psycopg
import pytest

from shared.engine.job import MAY_HAVE_TAKEN_EFFECT
from shared.postgres.store import PostgresStore

QUEUE = "teams-outbound"


def count(sql: psycopg.Connection) -> int:
    row = sql.execute("select count(*) from queue.jobs").fetchone()
    assert row is not None
    return int(row[0])


def test_enqueue_is_part_of_the_callers_transaction(database_url: str, sql: psycopg.Connection) -> None:
    sql.execute("create table trips (id int)")
    with psycopg.connect(database_url) as conn:
        conn.execute("insert into trips values (1)")
        conn.execute("select queue.enqueue(%s, %s)", (QUEUE, '{"a": 1}'))
        assert count(sql) == 0
        conn.commit()
        conn.execute("select queue.enqueue(%s, %s)", (QUEUE, '{"a": 2}'))
        conn.execute("insert into trips values (2)")
        conn.rollback()
    assert count(sql) == 1 and sql.execute("select id from trips").fetchall() == [(1,)]


def test_enqueue_takes_every_option(sql: psycopg.Connection, postgres_store: PostgresStore) -> None:
    row = sql.execute(
        "select queue.enqueue('outlook-outbound', '{\"to\": []}', priority => 2, delay => '90 seconds',"
        " idempotency_key => 'k', correlation_id => 'trip-7')"
    ).fetchone()
    assert row is not None
    record = postgres_store.get(row[0])
    assert record is not None
    assert (record.queue, record.priority, record.idempotency_key, record.correlation_id, record.state) == (
        "outlook-outbound",
        2,
        "k",
        "trip-7",
        "scheduled",
    )
    assert (record.run_at - record.enqueued_at).total_seconds() == pytest.approx(90)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("queue.enqueue('nope', '{}')", 'queue "nope" does not exist'),
        ("queue.enqueue('attachments', '{}')", 'queue "attachments" takes no jobs: it has no worker yet'),
        ("queue.enqueue('teams-outbound', '[]')", "payload: it must be a JSON object"),
        ("queue.enqueue('teams-outbound', null)", "payload: it must be a JSON object"),
        ("queue.enqueue('teams-outbound', '{}', priority => 11)", "priority: it must be 1"),
        ("queue.enqueue('teams-outbound', '{}', priority => 0)", "priority: it must be 1"),
        ("queue.enqueue('teams-outbound', '{}', run_at => now(), delay => '1 s')", "give one of the two"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong_and_stores_nothing(
    sql: psycopg.Connection, call: str, message: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        sql.execute(f"select {call}".encode())
    assert count(sql) == 0


def test_redrive_in_sql_knows_the_same_uncertain_classes(sql: psycopg.Connection) -> None:
    row = sql.execute("select pg_get_function_arguments('queue.redrive'::regproc)").fetchone()
    assert row is not None
    named = row[0].split("'{")[1].split("}'")[0].split(",")
    assert set(named) == {error_class.value for error_class in MAY_HAVE_TAKEN_EFFECT}


def test_ids_sort_as_they_were_made(sql: psycopg.Connection) -> None:
    rows = sql.execute("select queue.new_id() from generate_series(1, 5000)").fetchall()
    ids = [row[0] for row in rows]
    assert ids == sorted(ids) and len(set(ids)) == 5000
    assert {(x.version, x.variant) for x in ids} == {(7, "specified in RFC 4122")}
