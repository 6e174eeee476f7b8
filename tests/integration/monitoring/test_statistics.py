"""Kept figures: each bucket once, by index, whatever dies in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from shared.engine.job import NewJob
from shared.postgres.pool import Database
from shared.postgres.statistics import PostgresStatistics
from shared.postgres.store import PostgresStore
from tests.integration.monitoring.conftest import QUEUE, History

CLOCK = "test_clock.now()"
MINUTE = timedelta(minutes=1)
Clock = Callable[[datetime], None]


@pytest.fixture
def noon() -> datetime:
    """Of today, so that the day's partition is there."""
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


@pytest.fixture
def statistics(database: Database, set_clock: Clock) -> PostgresStatistics:
    return PostgresStatistics(database, CLOCK)


def bucket(sql: psycopg.Connection, at: datetime, queue: str = QUEUE, table: str = "queue_statistics") -> Any:
    with sql.cursor(row_factory=psycopg.rows.namedtuple_row) as cursor:
        return cursor.execute(
            f"select * from queue.{table} where queue = %s and bucket_at = %s", (queue, at)
        ).fetchone()


def kept(sql: psycopg.Connection) -> Mapping[datetime, int]:
    rows = sql.execute(
        "select bucket_at, completed from queue.queue_statistics where queue = %s order by 1", (QUEUE,)
    ).fetchall()
    return dict(rows)


def test_a_bucket_counts_what_happened_in_it(
    statistics: PostgresStatistics, set_clock: Clock, history: History, sql: psycopg.Connection, noon: datetime
) -> None:
    history.end(noon - MINUTE)
    for n in range(1, 11):
        history.end(noon + n * MINUTE / 4, took=n, waited=n, made_at=noon - MINUTE if n == 1 else None)
    history.end(noon + MINUTE, errors=("network", "rate-limit"), took=1, waited=100)
    slow = history.end(noon + MINUTE, state="dead", errors=("validation",), took=60)
    history.end(noon + MINUTE, state="cancelled", queue="outlook-outbound")
    history.end(noon + 5 * MINUTE)
    set_clock(noon + 5 * MINUTE + timedelta(seconds=20))
    statistics.keep()
    row = bucket(sql, noon)
    assert (row.enqueued, row.completed, row.failed, row.dead, row.cancelled, row.processed) == (11, 11, 3, 1, 0, 12)
    assert row.failures == {"network": 1, "rate-limit": 1, "validation": 1}
    assert row.processing_seconds == pytest.approx(55 + 1 + 60)
    assert row.slowest[0] == {"id": str(slow), "seconds": 60.0} and len(row.slowest) == 3
    assert sum(row.latency) == 12
    assert bucket(sql, noon, "outlook-outbound").cancelled == 1
    series = [one for one in statistics.series("1h", QUEUE) if one.at == noon]
    p50, p99 = series[0].latency_at(0.5), series[0].latency_at(0.99)
    assert p50 is not None and p99 is not None
    assert 9 < p50 < 17 and 90 < p99 < 130, "due to ended: 2, 4 … 20 s, one of 60 s and one of 101 s"


def test_gauges_are_those_of_the_buckets_end(
    statistics: PostgresStatistics,
    set_clock: Clock,
    postgres_store: PostgresStore,
    sql: psycopg.Connection,
    noon: datetime,
) -> None:
    postgres_store.enqueue([NewJob(QUEUE, {}) for _ in range(3)] + [NewJob(QUEUE, {}, delay=timedelta(hours=1))])
    postgres_store.claim(QUEUE, 1, "w", timedelta(minutes=1))
    set_clock(noon + 10 * MINUTE)
    statistics.keep()
    row = bucket(sql, noon + 5 * MINUTE)
    assert (row.ready, row.active, row.scheduled, row.waiting, row.dead_letters) == (2, 1, 1, 0, 0)
    assert row.oldest_ready_seconds >= 0
    assert bucket(sql, noon).ready is None, "nobody measured it then"
    set_clock(noon + 15 * MINUTE)
    statistics.keep()
    assert bucket(sql, noon + 5 * MINUTE).ready == 2, "written again, it keeps what it had"


def test_what_was_committed_late_is_counted_by_the_next_run(
    statistics: PostgresStatistics, set_clock: Clock, history: History, sql: psycopg.Connection, noon: datetime
) -> None:
    set_clock(noon + 5 * MINUTE)
    statistics.keep()
    assert kept(sql)[noon] == 0
    history.end(noon + MINUTE)
    set_clock(noon + 10 * MINUTE)
    statistics.keep()
    assert kept(sql)[noon] == 1
    assert bucket(sql, noon, table="queue_statistics_hour").completed == 1


def test_after_an_outage_it_goes_on_where_it_was_and_counts_each_bucket_once(
    statistics: PostgresStatistics, set_clock: Clock, history: History, sql: psycopg.Connection, noon: datetime
) -> None:
    set_clock(noon)
    statistics.keep()
    for n in range(60):
        history.end(noon + n * MINUTE)
    set_clock(noon + 60 * MINUTE)
    for _ in range(3):
        statistics.keep()
    mine = {at: jobs for at, jobs in kept(sql).items() if at >= noon}
    assert list(mine.values()) == [5] * 12
    assert bucket(sql, noon, table="queue_statistics_hour").completed == 60


def test_a_timer_that_dies_between_two_buckets_loses_nothing(
    statistics: PostgresStatistics, set_clock: Clock, history: History, sql: psycopg.Connection, noon: datetime
) -> None:
    set_clock(noon)
    statistics.keep()
    for n in range(60):
        history.end(noon + n * MINUTE)
    sql.execute(
        "create function test_clock.die() returns trigger language plpgsql as"
        " $$ begin raise 'killed' using errcode = 'admin_shutdown'; end $$"
    )
    sql.execute(
        "create trigger die before insert on queue.queue_statistics for each row"
        f" when (new.bucket_at = '{(noon + 25 * MINUTE).isoformat()}') execute function test_clock.die()"
    )
    set_clock(noon + 60 * MINUTE)
    with pytest.raises(Exception, match="killed"):
        statistics.keep()
    assert max(kept(sql)) == noon + 20 * MINUTE
    sql.execute("drop trigger die on queue.queue_statistics")
    statistics.keep()
    assert [jobs for at, jobs in kept(sql).items() if at >= noon] == [5] * 12
    assert bucket(sql, noon, table="queue_statistics_hour").completed == 60


def test_two_hosts_at_once_write_the_same(
    statistics: PostgresStatistics, set_clock: Clock, history: History, sql: psycopg.Connection, noon: datetime
) -> None:
    set_clock(noon)
    statistics.keep()
    for n in range(60):
        history.end(noon + n * MINUTE)
    set_clock(noon + 60 * MINUTE)
    threads = [threading.Thread(target=statistics.keep) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [jobs for at, jobs in kept(sql).items() if at >= noon] == [5] * 12


def test_the_history_is_read_by_index_for_a_bucket_only(
    history: History, sql: psycopg.Connection, noon: datetime
) -> None:
    sql.execute(
        "insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, started_at, finished_at,"
        " attempt, payload) select queue.new_id(), %(q)s, 'completed', 5, t, t, t, t, 1, '{}'"
        " from generate_series(%(noon)s - interval '10 hours', %(noon)s + interval '10 hours', interval '1 second') t",
        {"q": QUEUE, "noon": noon},
    )
    sql.execute("analyze queue.job_tracking")
    before = scanned(sql)
    sql.execute("select queue.keep_bucket(%s, true)", (noon,))
    after = scanned(sql)
    assert after - before < 2_000, "of 72,001 rows, 300 are in the bucket"
    row = bucket(sql, noon)
    assert row.completed == 300


def scanned(sql: psycopg.Connection) -> int:
    """Rows of the history that were read so far."""
    sql.execute("select pg_stat_force_next_flush()") if sql.info.server_version >= 150000 else None
    row = sql.execute(
        "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_all_tables"
        " where schemaname = 'queue' and relname like 'job_tracking_%'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_clock_that_was_ahead_keeps_nothing_from_being_counted(
    statistics: PostgresStatistics, set_clock: Clock, history: History, sql: psycopg.Connection, noon: datetime
) -> None:
    set_clock(noon)
    statistics.keep()
    set_clock(noon + timedelta(hours=5))
    assert statistics.keep() > 0
    statistics.measure()
    history.end(noon + MINUTE)
    set_clock(noon + 5 * MINUTE)
    statistics.measure()
    assert statistics.keep() > 0 and kept(sql)[noon] == 1
    shown = {queue.queue: queue for queue in statistics.overview()}[QUEUE]
    assert shown.recent is not None and shown.recent.completed == 1
    history.end(noon + timedelta(hours=4, minutes=51))
    set_clock(noon + timedelta(hours=4, minutes=55))
    statistics.keep()
    assert kept(sql)[noon + timedelta(hours=4, minutes=50)] == 1


def test_old_figures_are_forgotten(
    statistics: PostgresStatistics, set_clock: Clock, sql: psycopg.Connection, noon: datetime
) -> None:
    for days in (29, 31):
        at = noon - timedelta(days=days)
        sql.execute("select queue.keep_bucket(%s, false), queue.keep_hour(%s)", (at, at))
    set_clock(noon)
    statistics.forget()
    for table in ("queue_statistics", "queue_statistics_hour"):
        rows = sql.execute(f"select distinct bucket_at from queue.{table}").fetchall()
        assert rows == [(noon - timedelta(days=29),)]


def test_the_overview_shows_each_queue_as_it_is(
    database: Database, history: History, postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    statistics = PostgresStatistics(database)
    first = {queue.queue: queue for queue in statistics.overview()}[QUEUE]
    assert first.recent is None and first.oldest_ready_seconds is None
    postgres_store.enqueue([NewJob(QUEUE, {}) for _ in range(3)])
    postgres_store.pause(QUEUE)
    postgres_store.bury(QUEUE, "?", "why", "source")
    sql.execute("update queue.queue_statistics set ready = 0")
    now = datetime.now(UTC)
    for n in range(10):
        history.end(now - timedelta(seconds=n), took=2, errors=("network",) if n < 5 else ())
    statistics.measure()
    shown = {queue.queue: queue for queue in statistics.overview()}[QUEUE]
    assert (shown.paused, shown.ready, shown.active, shown.dead_letters) == (True, 3, 0, 1)
    assert shown.oldest_ready_seconds is not None and shown.recent is not None
    assert shown.recent.failure_rate == pytest.approx(5 / 15)
    assert shown.recent.average_processing_seconds == pytest.approx(2)
    assert shown.enqueued_per_minute == pytest.approx(13 / 5)
    assert shown.ended_per_minute == 2


@pytest.mark.parametrize(("time_range", "most"), [("1h", 12), ("6h", 72), ("24h", 96), ("7d", 168), ("30d", 120)])
def test_a_series_has_few_points_of_any_range(
    statistics: PostgresStatistics,
    set_clock: Clock,
    sql: psycopg.Connection,
    noon: datetime,
    time_range: str,
    most: int,
) -> None:
    sql.execute(
        "insert into queue.queue_statistics (queue, bucket_at, completed, latency)"
        " select %s, t, 1, array_fill(1, array[56]) from generate_series(%s - interval '30 days', %s, '5 minutes') t",
        (QUEUE, noon, noon),
    )
    sql.execute(
        "insert into queue.queue_statistics_hour (queue, bucket_at, completed, latency)"
        " select %s, t, 12, array_fill(12, array[56]) from generate_series(%s - interval '30 days', %s, '1 hour') t",
        (QUEUE, noon, noon),
    )
    set_clock(noon)
    points = statistics.series(time_range)
    assert len({point.at for point in points}) == most
    assert {point.completed for point in points[:-1]} == {points[0].step // timedelta(minutes=5)}
    assert [point.at for point in points] == sorted(point.at for point in points)


def test_a_series_of_thirty_days_answers_at_once(database: Database, sql: psycopg.Connection) -> None:
    sql.execute(
        "insert into queue.queue_statistics_hour (queue, bucket_at, completed, latency)"
        " select s.queue, t, 12, array_fill(12, array[56]) from queue.queue_settings s,"
        " generate_series(date_trunc('hour', now()) - interval '30 days', now(), '1 hour') t"
    )
    sql.execute("analyze queue.queue_statistics_hour")
    statistics = PostgresStatistics(database)
    statistics.series("30d")
    started = datetime.now(UTC)
    assert len(statistics.series("30d")) > 1000
    assert datetime.now(UTC) - started < timedelta(seconds=3), "about 0.2 s on an idle machine"


def totals(statistics: PostgresStatistics) -> tuple[int, ...]:
    """Completed, failed attempts, dead, cancelled of the queue."""
    [found] = [one for one in statistics.totals() if one.queue == QUEUE]
    return found.completed, found.failed, found.dead, found.cancelled


def test_totals_grow_by_each_bucket_once_and_by_what_comes_late_and_outlive_the_buckets(
    statistics: PostgresStatistics, set_clock: Clock, history: History, sql: psycopg.Connection, noon: datetime
) -> None:
    history.end(noon + MINUTE, errors=("network",))
    history.end(noon + MINUTE, state="dead", errors=("validation",))
    set_clock(noon + 5 * MINUTE + timedelta(seconds=20))
    statistics.keep()
    assert totals(statistics) == (1, 2, 1, 0)
    statistics.keep()
    assert totals(statistics) == (1, 2, 1, 0), "written again, nothing new"
    history.end(noon + 4 * MINUTE)
    history.end(noon + 6 * MINUTE, state="cancelled")
    set_clock(noon + 10 * MINUTE + timedelta(seconds=20))
    statistics.keep()
    assert totals(statistics) == (2, 2, 1, 1), "what was committed late counts, and the next bucket"
    sql.execute("delete from queue.job_tracking")
    statistics.keep()
    set_clock(noon + timedelta(days=40))
    statistics.forget()
    assert not kept(sql)
    assert totals(statistics) == (2, 2, 1, 1), "neither history nor statistics have to be there"


def test_two_hosts_that_keep_the_same_bucket_at_once_add_it_once(
    statistics: PostgresStatistics, database: Database, set_clock: Clock, history: History, noon: datetime
) -> None:
    for minute in range(1, 5):
        history.end(noon + minute * MINUTE)
    set_clock(noon + 5 * MINUTE + timedelta(seconds=20))
    hosts = [threading.Thread(target=PostgresStatistics(database, CLOCK).keep) for _ in range(4)]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join(60)
        assert not host.is_alive()
    assert totals(statistics) == (4, 0, 0, 0)
