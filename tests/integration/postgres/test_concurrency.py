"""Many callers at once on a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared.engine.job import Completed, ConcurrencyKey, JobState, NewJob, OrderingKey, Settlement
from shared.engine.json_text import to_json
from shared.engine.ports import Limits, Rate
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore
from tests.threads import at_once

QUEUE = "teams-outbound"
LEASE = timedelta(seconds=45)


def test_I2_twenty_workers_take_every_job_once_and_never_more_than_asked(
    database: Database, sql: psycopg.Connection
) -> None:
    store = PostgresStore(database)
    store.enqueue([NewJob(QUEUE, {"n": n}) for n in range(1000)])
    claimed: Counter[object] = Counter()
    lock = threading.Lock()

    def work(index: int) -> None:
        while jobs := store.claim(QUEUE, 7, f"w-{index}", LEASE).jobs:
            assert len(jobs) <= 7
            with lock:
                claimed.update(job.id for job in jobs)
            settlements = [Settlement(job.id, job.lease_token, Completed()) for job in jobs]
            assert store.settle(settlements[::-1]).lost == ()

    at_once(20, work)
    assert len(claimed) == 1000 and set(claimed.values()) == {1}
    assert sql.execute("select state, count(*) from queue.jobs group by 1").fetchall() == [("completed", 1000)]


def test_the_same_idempotency_key_at_the_same_moment_is_one_job(
    postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    keys = ["a", "b", "c", "d"]

    def enqueue(index: int) -> list[tuple[object, bool]]:
        mine = keys if index % 2 else keys[::-1]
        jobs = [NewJob(QUEUE, {"by": index}, idempotency_key=key) for key in mine]
        made = postgres_store.enqueue(jobs)
        return [(one.id, one.created) for one in (made if index % 2 else made[::-1])]

    answers = at_once(8, enqueue)
    assert len({tuple(x[0] for x in answer) for answer in answers}) == 1
    assert sum(created for answer in answers for _, created in answer) == 4
    assert sql.execute("select count(*) from queue.job").fetchone() == (4,)


def test_an_enqueue_whose_key_is_being_committed_by_another_returns_that_job(
    postgres_store: PostgresStore, database_url: str
) -> None:
    with psycopg.connect(database_url) as other:
        [first] = postgres_store.enqueue([NewJob(QUEUE, {}, idempotency_key="k")], conn=other)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(postgres_store.enqueue, [NewJob(QUEUE, {}, idempotency_key="k")])
            until_somebody_waits(other)
            other.commit()
            [again] = second.result(10)
    assert (again.id, again.created) == (first.id, False)


def test_an_enqueue_whose_key_is_rolled_back_by_another_makes_the_job(
    postgres_store: PostgresStore, database_url: str
) -> None:
    with psycopg.connect(database_url) as other:
        [first] = postgres_store.enqueue([NewJob(QUEUE, {}, idempotency_key="k")], conn=other)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(postgres_store.enqueue, [NewJob(QUEUE, {}, idempotency_key="k")])
            until_somebody_waits(other)
            other.rollback()
            [made] = second.result(10)
    assert made.created and made.id != first.id


@pytest.mark.parametrize("where", ["later", "waiting", "job"])
def test_a_job_that_comes_to_depend_on_one_that_is_just_ending_hears_of_it(
    postgres_store: PostgresStore, database_url: str, sql: psycopg.Connection, where: str
) -> None:
    """Neither sees the other: the job is committed while the end of the other is under way, and looked at before that
    is committed."""
    [first] = postgres_store.enqueue([NewJob(QUEUE, {}, delay=timedelta(hours=1) if where == "later" else None)])
    other = first
    if where == "waiting":
        [other] = postgres_store.enqueue([NewJob(QUEUE, {}, depends_on=(first.id,))])
        postgres_store.open_due(10)
    with psycopg.connect(database_url) as ending, psycopg.connect(database_url) as caller:
        [dependent] = postgres_store.enqueue([NewJob(QUEUE, {}, depends_on=(other.id,))], conn=caller)
        assert ending.execute("select queue.cancel_job(%s)", (other.id,)).fetchone() == ("cancelled",)
        caller.commit()
        with ThreadPoolExecutor(1) as pool:
            looked = pool.submit(postgres_store.open_due, 10)
            until_somebody_waits(ending)
            ending.commit()
            looked.result(10)
    found = postgres_store.get(dependent.id)
    assert found is not None and found.state is JobState.DEAD
    assert sql.execute("select count(*) from queue.dependency where job_id = %s", (dependent.id,)).fetchone() == (0,)


@pytest.mark.parametrize(
    "keys", [{"limit_key": "chat:1"}, {"lane": ConcurrencyKey("customer", 9)}], ids=["limit", "lane"]
)
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
def test_a_claim_waits_for_no_key_that_another_transaction_has(
    postgres_store: PostgresStore, database_url: str, keys: dict[str, Any], is_new: bool
) -> None:
    """Else a claim, which has its queue, waits for a settlement, which has the key and waits for the queue."""
    postgres_store.set_limits(QUEUE, Limits(key_concurrency=9))
    [first, second] = postgres_store.enqueue([NewJob(QUEUE, {}, **keys) for _ in range(2)])
    [other] = postgres_store.enqueue([NewJob(QUEUE, {}, limit_key="chat:2", lane=ConcurrencyKey("other", 9))])
    with psycopg.connect(database_url) as busy:
        if is_new:
            taken = busy.execute("select id from queue.take(%s, 1, 'w', '45 s') where id is not null", (QUEUE,))
            assert taken.fetchall() == [(first.id,)]
        else:
            [job] = postgres_store.claim(QUEUE, 1, "w", LEASE).jobs
            text = to_json([{"id": str(job.id), "token": str(job.lease_token), "outcome": "completed"}])
            assert busy.execute("select lost from queue.end_attempts(%s)", (text,)).fetchone() == ([],)
        claimed = postgres_store.claim(QUEUE, 2, "w", LEASE)
        assert [job.id for job in claimed.jobs] == [other.id]
        busy.commit()
    assert [job.id for job in postgres_store.claim(QUEUE, 2, "w", LEASE).jobs] == [second.id]


def test_workers_that_share_keys_of_a_limited_queue_do_not_get_in_each_other_s_way(
    postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    plenty = Rate(100_000, timedelta(seconds=1))
    postgres_store.set_limits(QUEUE, Limits(rate=plenty, concurrency=50, key_rate=plenty))
    random = Random(1)
    postgres_store.enqueue([NewJob(QUEUE, {}, limit_key=f"chat:{random.randint(1, 8)}") for _ in range(200)])

    def work(index: int) -> int:
        claimed, ran, looks = postgres_store.claim(QUEUE, 1, f"w-{index}", LEASE), 0, 0
        while claimed.jobs or (looks := looks + 1) < 20:
            ran += len(claimed.jobs)
            settlements = [Settlement(job.id, job.lease_token, Completed()) for job in claimed.jobs]
            _, claimed = postgres_store.settle_and_claim(settlements, QUEUE, 1, f"w-{index}", LEASE)
        return ran

    assert sum(at_once(4, work)) == 200
    found = sql.execute("select deadlocks from pg_stat_database where datname = current_database()").fetchone()
    assert found == (0,)


def test_waiting_jobs_are_moved_beside_claims_settlements_and_the_relay(
    postgres_store: PostgresStore, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ordering keys whose jobs wait for limit keys, too. Every other job of a key is put off now and then; those that
    only change priority run in their order."""
    monkeypatch.setattr("shared.postgres.store.CONFLICT_TRIES", 1)  # a deadlock is an error here
    postgres_store.set_limits(QUEUE, Limits(key_concurrency=1))
    random, trips = Random(4), 5
    new = [
        NewJob(QUEUE, {}, lane=OrderingKey(f"trip-{n % trips}"), limit_key=f"chat:{random.randint(1, 4)}")
        for n in range(150)
    ]
    made = [one.id for one in postgres_store.enqueue(new)]
    steady = {job_id: n % trips for n, job_id in enumerate(made) if n // trips % 2}
    moved: Counter[JobState] = Counter()
    ran: list[UUID] = []
    done, until = threading.Event(), time.monotonic() + 60

    def work(index: int) -> None:
        jobs = postgres_store.claim(QUEUE, 2, f"w-{index}", LEASE).jobs
        ran.extend(job.id for job in jobs)  # before the end, so that none of its key comes before it
        assert postgres_store.settle([Settlement(job.id, job.lease_token, Completed()) for job in jobs]).lost == ()

    def move(_: int) -> None:
        for (job_id,) in sql.execute("select id from queue.waiting order by random() limit 3").fetchall():
            run_at = datetime.now(UTC) + timedelta(milliseconds=random.choice((-50, 20, 200)))
            placed = postgres_store.reschedule(job_id, random.randint(1, 10), None if job_id in steady else run_at)
            if placed is not None:
                moved[placed.state] += 1

    def relay(_: int) -> None:
        sql.execute(
            "update queue.rate_limit_tracking set wake_at = clock_timestamp() where key = any(array("
            " select key from queue.rate_limit_tracking where wake_at is not null for update skip locked))"
        )
        postgres_store.open_due(100)
        postgres_store.promote_due(100)
        left = sql.execute("select 1 from queue.jobs where state <> 'completed' limit 1").fetchone()
        if left is None:
            done.set()

    def go_on(index: int) -> None:
        try:
            while not done.is_set():
                assert time.monotonic() < until, "some never ran"
                (work, work, move, relay)[index](index)
        finally:
            done.set()

    at_once(4, go_on)
    assert sorted(ran) == sorted(made) and postgres_store.repair() == 0
    assert {JobState.WAITING, JobState.SCHEDULED} <= moved.keys(), "nothing of what was to be tried happened"
    for trip in range(trips):
        in_order = [job_id for job_id in made if steady.get(job_id) == trip]
        assert [job_id for job_id in ran if steady.get(job_id) == trip] == in_order
    overlaps = sql.execute(
        "select count(*) from queue.job_tracking a join queue.job_tracking b on b.lane = a.lane and b.id <> a.id"
        " where b.started_at > a.started_at and b.started_at < a.finished_at"
    ).fetchone()
    assert overlaps == (0,)


def test_I3_in_a_queue_that_ages_a_claim_looks_past_all_that_others_have_locked(
    postgres_store: PostgresStore, database_url: str
) -> None:
    postgres_store.set_ageing(QUEUE, timedelta(hours=1))
    better = postgres_store.enqueue([NewJob(QUEUE, {}, priority=4) for _ in range(60)])
    postgres_store.enqueue([NewJob(QUEUE, {}, priority=5)])
    with psycopg.connect(database_url) as busy:
        busy.execute("select count(*) from queue.take(%s, 50, 'w', '45 s')", (QUEUE,))
        claimed = [postgres_store.claim(QUEUE, 2, "w", LEASE).jobs for _ in range(2)]
    assert [job.id for jobs in claimed for job in jobs] == [made.id for made in better[50:54]]


def test_a_callback_whose_queue_was_closed_since_is_a_dead_letter_and_the_last_job_ends(
    postgres_store: PostgresStore, sql: psycopg.Connection
) -> None:
    batch_id, _ = postgres_store.create_batch([NewJob(QUEUE, {})], NewJob("sync", {"n": 1}))
    sql.execute("update queue.queue_settings set closed = 'it is gone' where queue = 'sync'")
    [job] = postgres_store.claim(QUEUE, 1, "w", LEASE).jobs
    assert postgres_store.settle([Settlement(job.id, job.lease_token, Completed())]).lost == ()
    batch = postgres_store.batch(batch_id)
    assert batch is not None and batch.finished_at is not None and batch.callback_id is None
    [(queue, source, reason)] = sql.execute(
        "select queue, source, error_message from queue.dead_letter_queue"
    ).fetchall()
    assert (queue, source) == ("sync", f"batch/{batch_id}") and "it is gone" in reason
    assert len(postgres_store.claim("dead-letter", 1, "w", LEASE).jobs) == 1


def until_somebody_waits(conn: psycopg.Connection) -> None:
    until = time.monotonic() + 10
    while conn.execute("select 1 from pg_locks where not granted").fetchone() is None:
        assert time.monotonic() < until


def test_opposite_lock_orders_cost_no_settlement(postgres_store: PostgresStore) -> None:
    postgres_store.enqueue([NewJob(QUEUE, {}) for _ in range(50)])
    jobs = postgres_store.claim(QUEUE, 50, "w", LEASE).jobs
    settlements = [Settlement(job.id, job.lease_token, Completed()) for job in jobs]
    lost = at_once(4, lambda index: postgres_store.settle(settlements if index % 2 else settlements[::-1]).lost)
    assert sorted(len(x) for x in lost) == [0, 50, 50, 50]


def test_I3_a_locked_better_job_is_passed_over_and_not_waited_for(
    postgres_store: PostgresStore, database_url: str
) -> None:
    [better] = postgres_store.enqueue([NewJob(QUEUE, {}, priority=1)])
    [worse] = postgres_store.enqueue([NewJob(QUEUE, {}, priority=9)])
    with psycopg.connect(database_url) as other:
        other.execute("select from queue.job where id = %s for update", (better.id,))
        assert [job.id for job in postgres_store.claim(QUEUE, 2, "w", LEASE).jobs] == [worse.id]
    assert [job.id for job in postgres_store.claim(QUEUE, 2, "w", LEASE).jobs] == [better.id]


def test_two_hosts_timers_have_one_turn(postgres_store: PostgresStore) -> None:
    turns = at_once(8, lambda _: postgres_store.take_turn("relay", timedelta(minutes=1)))
    assert sum(turn is not None for turn in turns) == 1


def test_workers_of_other_time_zones_agree(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("select queue.enqueue(%s, '{}', delay => '1 hour')", (QUEUE,))
        conn.execute("select queue.enqueue(%s, '{}')", (QUEUE,))
        for zone in ("Asia/Kolkata", "America/New_York"):
            conn.execute("select set_config('timezone', %s, false)", (zone,))
            row = conn.execute("select count(*) from queue.later where run_at <= clock_timestamp()").fetchone()
            assert row == (0,)
        rows = conn.execute("select id from queue.claim(%s, 5, 'w', '1 minute')", (QUEUE,)).fetchall()
    assert len(rows) == 1


@pytest.mark.parametrize("when", ["infinity", "-infinity"])
@pytest.mark.parametrize("option", ["run_at", "expires_at"])
def test_a_time_that_is_none_is_refused(sql: psycopg.Connection, option: str, when: str) -> None:
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.InvalidParameterValue)):
        sql.execute(f"select queue.enqueue(%s, '{{}}', {option} => %s)".encode(), (QUEUE, when))
    assert sql.execute("select count(*) from queue.jobs").fetchone() == (0,)
