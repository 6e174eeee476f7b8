"""Alerts in PostgreSQL: one for a queue and an error class, counted once for each dead letter."""

from __future__ import annotations

import threading
from uuid import UUID, uuid4

import psycopg
import pytest

from shared.handlers.services import DeadLetter
from shared.postgres.alerts import PostgresAlerts
from shared.postgres.pool import Database


@pytest.fixture
def alerts(database: Database) -> PostgresAlerts:
    return PostgresAlerts(database)


def letter(sql: psycopg.Connection, error_class: str = "validation", queue: str = "teams-outbound") -> UUID:
    row = sql.execute(
        "insert into queue.dead_letter_queue (source, queue, error_class, error_message) values (%s, %s, %s, 'why')"
        " returning id",
        (str(uuid4()), queue, error_class),
    ).fetchone()
    assert row is not None
    found: UUID = row[0]
    return found


def raise_alert(alerts: PostgresAlerts, dead_letter_id: UUID) -> bool:
    found = alerts.dead_letter(dead_letter_id)
    assert isinstance(found, DeadLetter)
    return alerts.raise_alert(found)


def occurrences(sql: psycopg.Connection) -> list[int]:
    return [row[0] for row in sql.execute("select occurrences from queue.queue_alerts order by opened_at")]


def test_the_first_dead_letter_opens_the_alert_and_the_next_ones_count(
    alerts: PostgresAlerts, sql: psycopg.Connection
) -> None:
    assert [raise_alert(alerts, letter(sql)) for _ in range(3)] == [True, False, False]
    assert occurrences(sql) == [3]


def test_running_again_counts_nothing_and_gives_the_same_answer(
    alerts: PostgresAlerts, sql: psycopg.Connection
) -> None:
    first, second = letter(sql), letter(sql)
    for _ in range(3):
        assert raise_alert(alerts, first) is True
        assert raise_alert(alerts, second) is False
    assert occurrences(sql) == [2]


def test_another_queue_or_class_has_an_alert_of_its_own(alerts: PostgresAlerts, sql: psycopg.Connection) -> None:
    letters = [letter(sql), letter(sql, "network"), letter(sql, queue="outlook-outbound")]
    assert [raise_alert(alerts, one) for one in letters] == [True, True, True]
    assert occurrences(sql) == [1, 1, 1]


def test_after_it_is_resolved_the_next_dead_letter_opens_a_new_one(
    alerts: PostgresAlerts, sql: psycopg.Connection
) -> None:
    first = letter(sql)
    raise_alert(alerts, first)
    sql.execute("update queue.queue_alerts set resolved_at = clock_timestamp()")
    assert raise_alert(alerts, first) is False, "it was counted before"
    assert raise_alert(alerts, letter(sql)) is True
    assert occurrences(sql) == [1, 1]


def test_many_at_the_same_moment_open_one_alert(alerts: PostgresAlerts, sql: psycopg.Connection) -> None:
    letters = [letter(sql) for _ in range(8)]
    opened: list[bool] = []
    threads = [threading.Thread(target=lambda one=one: opened.append(raise_alert(alerts, one))) for one in letters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(opened) == [False] * 7 + [True]
    assert occurrences(sql) == [8]


def test_a_dead_letter_that_is_not_kept_is_none(alerts: PostgresAlerts) -> None:
    assert alerts.dead_letter(uuid4()) is None
