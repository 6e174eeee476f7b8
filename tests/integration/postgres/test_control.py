"""Control and deadlines on a real PostgreSQL: in batches, beside running work, and with the indexes they need."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from shared.engine.control import CLEARED_AT_ONCE, Control
from shared.engine.enqueue import Producer
from shared.engine.job import (
    Cancellation,
    Completed,
    Dead,
    ErrorClass,
    Failure,
    JobState,
    NewJob,
    Outcome,
    Retry,
    Settlement,
)
from shared.engine.memory import MemoryTransport
from shared.engine.relay import Relay
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.postgres.store import PostgresStore
from tests.integration.postgres.test_concurrency import until_somebody_waits
from tests.pooler import open_database
from tests.threads import at_once

QUEUE = "teams-outbound"
LEASE = timedelta(seconds=45)
LOST = Failure(ErrorClass.NETWORK, "reset")


@pytest.fixture
def control(postgres_store: PostgresStore) -> Control:
    return Control(postgres_store, Producer(postgres_store, MemoryTransport(), QUEUES, parse_payload))


def counts(sql: psycopg.Connection) -> dict[str, int]:
    return dict(sql.execute("select state, count(*) from queue.jobs where queue = %s group by 1", (QUEUE,)).fetchall())


def add(sql: psycopg.Connection, n: int, table: str = "job", expires_in: str | None = None, priority: int = 5) -> None:
    sql.execute(
        f"insert into queue.{table} (id, queue, priority, run_at, enqueued_at, payload, expires_at)"
        " select queue.new_id(), %s, %s, clock_timestamp() + (%s = 'later')::int * interval '1 day',"
        " clock_timestamp(), '{}', clock_timestamp() + %s::interval from generate_series(1, %s)".encode(),
        (QUEUE, priority, table, expires_in, n),
    )


# ------------------------------------------------------------------ pause, resume, clear


def test_a_pause_outlives_the_process_and_the_next_migration(database_url: str, control: Control) -> None:
    from shared.postgres.migrate import migrate

    control.pause(QUEUE)
    migrate(database_url)
    again = open_database(database_url)
    store = PostgresStore(again)
    store.enqueue([NewJob(QUEUE, {})])
    assert store.settings(QUEUE).paused and store.claim(QUEUE, 1, "w", LEASE).jobs == ()
    assert store.resume(QUEUE) and len(store.claim(QUEUE, 1, "w", LEASE).jobs) == 1
    again.close()


def test_clear_works_in_transactions_of_a_thousand_and_leaves_running_jobs(
    control: Control, postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    add(sql, 2500)
    add(sql, 1200, "later")
    running = postgres_store.claim(QUEUE, 5, "w", LEASE).jobs
    assert control.clear(QUEUE, QUEUE) == 2495 + 1200
    assert counts(sql) == {"active": 5, "cancelled": 3695}
    sizes = sql.execute(
        "select count(*) from queue.job_tracking where state = 'cancelled' group by xmin::text order by 1 desc"
    ).fetchall()
    assert [size for (size,) in sizes] == [CLEARED_AT_ONCE] * 3 + [695]
    assert postgres_store.settle([Settlement(job.id, job.lease_token, Completed()) for job in running]).lost == ()


def test_clear_beside_workers_loses_no_job_and_stops_none(
    control: Control, postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    add(sql, 3000)

    def work(index: int) -> int:
        if index == 0:
            return -control.clear(QUEUE, QUEUE)
        done = 0
        while jobs := postgres_store.claim(QUEUE, 20, f"w-{index}", LEASE).jobs:
            assert postgres_store.settle([Settlement(j.id, j.lease_token, Completed()) for j in jobs]).lost == ()
            done += len(jobs)
        return done

    cleared, *done = at_once(4, work)
    found = counts(sql)
    assert isinstance(cleared, int) and found.get("cancelled", 0) == -cleared
    assert found.get("completed", 0) == sum(done) and sum(found.values()) == 3000


def test_sql_has_the_same_verbs(sql: psycopg.Connection, postgres_store: PostgresStore) -> None:
    def one(statement: str, *arguments: object) -> object:
        row = sql.execute(statement.encode(), arguments).fetchone()
        return row[0] if row else None

    job_id = one("select queue.enqueue(%s, '{}', delay => '1 day', expires_in => '2 days')", QUEUE)
    assert one("select expires_at - enqueued_at = interval '2 days' from queue.jobs where id = %s", job_id) is True
    assert one("select state from queue.reschedule(%s, p_priority => 1)", job_id) == "scheduled"
    assert one("select queue.retry_now(%s)", job_id) == QUEUE
    assert one("select queue.pause(%s)", QUEUE) is True and one("select queue.resume(%s)", QUEUE) is True
    assert one("select queue.cancel_job(%s)", job_id) == "cancelled"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="repeat the name"):
        one("select queue.clear(%s, 'yes')", QUEUE)
    add(sql, 3)
    assert one("select queue.clear(%s, %s)", QUEUE, QUEUE) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("expires_at => now(), expires_in => '1 s'", "give one of the two"),
        ("expires_in => '0 s'", "expires_at: it must be later"),
        ("delay => '2 s', expires_in => '1 s'", "expires_at: it must be later"),
        ("run_at => '2030-01-01', expires_at => '2029-12-31'", "expires_at: it must be later"),
    ],
)
def test_sql_refuses_a_deadline_that_makes_no_sense(sql: psycopg.Connection, call: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        sql.execute(f"select queue.enqueue('{QUEUE}', '{{}}', {call})".encode())
    assert counts(sql) == {}


# ------------------------------------------------------------------ exactly one wins


@pytest.mark.parametrize(
    "outcome",
    [Completed(), Dead(LOST), Retry(LOST, timedelta()), Retry(LOST, timedelta(days=1))],
    ids=["completed", "dead", "retry at once", "retry later"],
)
def test_cancel_against_settle_has_one_winner(postgres_store: PostgresStore, outcome: Outcome) -> None:
    postgres_store.enqueue([NewJob(QUEUE, {}) for _ in range(40)])
    for job in postgres_store.claim(QUEUE, 40, "w", LEASE).jobs:
        settlement = Settlement(job.id, job.lease_token, outcome)

        def race(index: int, settlement: Settlement = settlement) -> object:
            store = postgres_store
            return store.settle([settlement]).lost if index else store.cancel(settlement.job_id)

        answer, lost = at_once(2, race)
        record = postgres_store.get(job.id)
        assert record is not None and lost == (), "the lease was held, so its holder settled"
        if isinstance(outcome, Retry):
            # Before the settlement a request, after it a waiting job: either way it does not run again.
            assert answer in (Cancellation.REQUESTED, Cancellation.CANCELLED)
            assert record.state is JobState.CANCELLED
        else:
            assert answer in (Cancellation.REQUESTED, None)
            assert record.state is (JobState.COMPLETED if isinstance(outcome, Completed) else JobState.DEAD)


def test_a_request_to_stop_that_is_committed_while_a_settlement_waits_decides_it(
    postgres_store: PostgresStore, database_url: str
) -> None:
    [made] = postgres_store.enqueue([NewJob(QUEUE, {})])
    [job] = postgres_store.claim(QUEUE, 1, "w", LEASE).jobs
    settlement = Settlement(job.id, job.lease_token, Retry(LOST, timedelta()))
    with psycopg.connect(database_url) as operator:
        operator.execute("select queue.cancel_job(%s)", (made.id,))
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(postgres_store.settle, [settlement])
            until_somebody_waits(operator)
            operator.commit()
            assert lost.result(10).lost == ()
    record = postgres_store.get(made.id)
    assert record is not None and (record.state, len(record.attempts)) == (JobState.CANCELLED, 1)


def test_cancel_against_claim_has_one_winner(postgres_store: PostgresStore) -> None:
    for _ in range(40):
        [made] = postgres_store.enqueue([NewJob(QUEUE, {})])

        def race(index: int, job_id: object = made.id) -> object:
            if index:
                return postgres_store.claim(QUEUE, 1, "w", LEASE).jobs
            return postgres_store.cancel(job_id)  # type: ignore[arg-type]

        answer, jobs = at_once(2, race)
        if answer is Cancellation.CANCELLED:
            assert jobs == ()
        else:
            assert answer is Cancellation.REQUESTED
            assert isinstance(jobs, tuple) and [job.id for job in jobs] == [made.id]
            assert postgres_store.settle([Settlement(job.id, job.lease_token, Completed()) for job in jobs]).lost == ()


def test_a_cancel_that_waits_for_a_claim_to_commit_asks_the_new_holder_to_stop(
    postgres_store: PostgresStore, database_url: str
) -> None:
    [made] = postgres_store.enqueue([NewJob(QUEUE, {})])
    with psycopg.connect(database_url) as claimer:
        claimer.execute("select from queue.claim(%s, 1, 'w', '45 s')", (QUEUE,))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(postgres_store.cancel, made.id)
            until_somebody_waits(claimer)
            claimer.commit()
            assert answer.result(10) is Cancellation.REQUESTED


# ------------------------------------------------------------------ deadlines


def test_a_paused_queues_jobs_expire_by_the_relay_in_batches(
    control: Control, postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    add(sql, 1500, expires_in="-1 second")
    add(sql, 1100, "later", expires_in="-1 second")
    add(sql, 10, expires_in="1 hour")
    add(sql, 10)
    control.pause(QUEUE)
    transport = MemoryTransport()
    Relay(postgres_store, transport).run()
    assert counts(sql) == {"dead": 2600, "ready": 20}
    assert {name for name, _, _ in transport.sent} == {"dead-letter"}
    row = sql.execute(
        "select count(*), min(error_class), count(distinct job_id) from queue.dead_letter_queue"
        " where error_message like 'it had not started by its deadline, 20%Z'"
    ).fetchone()
    assert row == (2600, "expired", 2600)
    held = sql.execute("select result #>> '{heldBack,by}', count(*) from queue.job_tracking group by 1").fetchall()
    assert held == [("pause", 2600)]


def test_claims_get_past_any_number_of_expired_jobs(postgres_store: PostgresStore, sql: psycopg.Connection) -> None:
    add(sql, 350, priority=1, expires_in="-1 second")
    add(sql, 4, priority=9)
    for _ in range(4):
        assert len(postgres_store.claim(QUEUE, 1, "w", LEASE).jobs) == 1
    assert counts(sql) == {"dead": 350, "active": 4}


def test_a_claim_that_ends_jobs_makes_a_missing_partition(
    postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    add(sql, 1, expires_in="-1 second")
    today = "to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD')"
    row = sql.execute(f"select {today}".encode()).fetchone()
    assert row is not None
    sql.execute(f"drop table queue.job_tracking_{row[0]}".encode())
    assert postgres_store.claim(QUEUE, 1, "w", LEASE).jobs == () and counts(sql) == {"dead": 1}


def test_eight_claims_at_once_end_an_expired_job_once(postgres_store: PostgresStore, sql: psycopg.Connection) -> None:
    add(sql, 300, expires_in="-1 second")
    add(sql, 80)
    taken = at_once(8, lambda index: len(postgres_store.claim(QUEUE, 10, f"w-{index}", LEASE).jobs))
    postgres_store.expire_due(1000)
    assert taken == [10] * 8 and counts(sql) == {"dead": 300, "active": 80}
    row = sql.execute("select count(*), count(distinct job_id) from queue.dead_letter_queue").fetchone()
    assert row == (300, 300)


def test_future_jobs_and_deadlines_cost_a_claim_nothing(postgres_store: PostgresStore, sql: psycopg.Connection) -> None:
    add(sql, 50_000, "later", expires_in="9 days")
    add(sql, 20_000, expires_in="9 days")
    sql.execute("analyze queue.later, queue.job")
    postgres_store.claim(QUEUE, 1, "w", LEASE)
    probes = {
        "later_due": "select from queue.later l where l.queue = $1 and l.run_at <= $2 limit 1",
        "job_expiry": "select from queue.job c where c.expires_at <= $2 and c.queue = $1 and c.lease_token is null"
        " order by c.expires_at limit 1",
        "later_expiry": "select from queue.later c where c.expires_at <= $2 and ($1 is null or c.queue = $1)"
        " order by c.expires_at limit 9",
    }
    for index, probe in probes.items():
        with sql.transaction():
            sql.execute("set local plan_cache_mode = force_generic_plan")
            sql.execute("set local enable_seqscan = off")
            sql.execute("set local enable_bitmapscan = off")
            sql.execute(f"prepare {index}(text, timestamptz) as {probe}".encode())
            plan = "\n".join(
                row[0] for row in sql.execute(f"explain (costs off) execute {index}('{QUEUE}', now())".encode())
            )
            sql.execute(f"deallocate {index}".encode())
        assert f"using {index}" in plan and "Sort" not in plan, plan
        assert "expires_at <= $2" in plan or "run_at <= $2" in plan, plan


def test_no_index_names_what_a_claim_or_a_request_to_stop_changes(sql: psycopg.Connection) -> None:
    rows = sql.execute("select indexdef from pg_indexes where schemaname = 'queue' and tablename = 'job'").fetchall()
    changed = ("lease_token", "lease_until", "leased_by", "started_at", "attempt", "stop_requested_at", "progress")
    assert len(rows) == 8 and not [column for column in changed for (index,) in rows if column in index]
