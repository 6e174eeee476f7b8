"""Who judges alerts or makes the report is killed at every step: one alert, one report, one message of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psycopg
import pytest

from local.process import wait_until
from tests.crash.monitor_process import POINTS, run

LETTERS = """
insert into queue.dead_letter_queue (source, queue, error_class, error_message)
select gen_random_uuid()::text, 'teams-outbound', 'validation', 'why' from generate_series(1, 51);
insert into queue.timer_turn (timer, last_started_at, last_finished_at)
select t, now(), now() from unnest(array['relay', 'rescue', 'schedules', 'subscriptions', 'statistics', 'partitions']) t
"""
FIGURES = """
select queue.keep_bucket(b, false) from generate_series(
    date_trunc('day', now(), 'UTC') - interval '1 hour', date_trunc('day', now(), 'UTC'), '5 minutes') b;
select queue.keep_hour(date_trunc('day', now(), 'UTC') - interval '1 hour')
"""
WORKS = {
    "alerts": (LETTERS, "select count(*) from queue.queue_alerts where alert_key = 'dead-letters:teams-outbound'"),
    "report": (FIGURES, "select count(*) from queue.daily_report"),
}
MESSAGES = "select count(*) from queue.jobs where queue = 'outlook-outbound'"
LOCKS = "select count(*) from pg_locks where locktype = 'advisory'"


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("work", WORKS)
def test_an_alert_and_a_report_come_once_though_their_maker_is_killed(
    work: str, point: str, database_url: str, sql: psycopg.Connection
) -> None:
    given, made = WORKS[work]

    def count(query: str) -> int:
        row = sql.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    sql.execute(given.encode())
    command = [sys.executable, "-m", "tests.crash.monitor_process", work, point]
    died = subprocess.run(command, env=os.environ | {"DATABASE_URL": database_url}, timeout=60)
    assert died.returncode == -signal.SIGKILL
    left = 1 if point == "after-commit" else 0
    assert wait_until(lambda: count(LOCKS) == 0, 30), "the server notices that its client is gone"
    assert (count(made), count(MESSAGES)) == (left, left)
    for _ in range(2):
        run(work, database_url)
    assert (count(made), count(MESSAGES)) == (1, 1)
