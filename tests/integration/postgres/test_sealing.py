"""Sealed payloads through the whole life of a job on a real PostgreSQL."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from shared.engine.enqueue import Producer
from shared.engine.errors import EnqueueError, PayloadError, StoreUnavailableError
from shared.engine.job import (
    Completed,
    Dead,
    Debounce,
    Deferred,
    ErrorClass,
    Failure,
    JobState,
    NewJob,
    OrderingKey,
    Retry,
    Singleton,
    SingletonPolicy,
)
from shared.engine.memory import MemoryTransport
from shared.engine.rescue import Rescue
from shared.engine.schedules import CatchUp, Scheduler, Schedules
from shared.handlers.registry import QUEUES
from shared.handlers.webhooks import Event
from shared.postgres.pool import Database
from shared.postgres.schedules import PostgresSchedules
from shared.postgres.sealer import Sealer
from shared.postgres.store import PostgresStore
from shared.postgres.webhook_events import PostgresWebhookEvents
from shared.sealing import UnknownKeyError, key_id
from tests.integration.postgres.sealed import (
    NEW,
    OLD,
    OPEN_QUEUE,
    PAYLOAD,
    QUEUE,
    SECRET,
    Host,
    everything,
    keys,
    sealer,
)

REFUSED = Failure(ErrorClass.VALIDATION, "refused")
MINUTE = timedelta(minutes=1)


@pytest.fixture
def host(database: Database) -> Host:
    return Host(database, NEW)


def state(host: Host, job_id: UUID) -> JobState:
    record = host.store.get(job_id)
    assert record is not None
    return record.state


def test_no_table_holds_the_text_of_a_sealed_payload_at_any_time(host: Host, sql: psycopg.Connection) -> None:
    host.enqueue()
    host.enqueue(delay=MINUTE)
    host.enqueue(idempotency_key="k")
    parent = host.enqueue()
    host.producer.enqueue_many(
        [NewJob(QUEUE, PAYLOAD, depends_on=(parent,)), NewJob(QUEUE, PAYLOAD, lane=OrderingKey("a"))]
    )
    host.store.create_batch([NewJob(QUEUE, PAYLOAD)], NewJob(QUEUE, PAYLOAD))
    host.store.bury_job(NewJob(QUEUE, PAYLOAD), "given up", "m-1")
    assert SECRET not in everything(sql) and keys(sql) == {key_id(NEW)}
    first, second, third, fourth, fifth = host.claim()
    host.settle(first, Completed(follow_ups=(NewJob(QUEUE, PAYLOAD), NewJob(QUEUE, PAYLOAD, delay=MINUTE))))
    host.settle(second, Retry(REFUSED, MINUTE))
    host.settle(third, Dead(REFUSED))
    host.settle(fourth, Deferred(MINUTE))
    host.settle(fifth, Completed())
    host.store.redrive(third.id, "me")
    assert SECRET not in everything(sql) and keys(sql) == {key_id(NEW)}
    jobs = [row[0] for row in sql.execute("select id from queue.jobs where queue = %s", (QUEUE,)).fetchall()]
    assert len(jobs) >= 12
    for job_id in jobs:
        record = host.store.get(job_id)
        assert record is not None and record.payload == PAYLOAD


def test_every_job_opens_where_it_is_claimed(host: Host) -> None:
    host.enqueue()
    host.enqueue(idempotency_key="k")
    host.store.create_batch([NewJob(QUEUE, PAYLOAD)], NewJob(QUEUE, PAYLOAD | {"n": "callback"}))
    claimed = host.claim()
    assert [json.loads(job.payload) for job in claimed] == [PAYLOAD] * 3
    host.settle(claimed[0], Completed(follow_ups=(NewJob(QUEUE, PAYLOAD | {"n": "follow-up"}),)))
    host.settle(claimed[1], Completed())
    host.settle(claimed[2], Completed())
    assert [json.loads(job.payload)["n"] for job in host.claim()] == ["follow-up", "callback"]


def test_a_bulk_keeps_its_order(host: Host) -> None:
    host.producer.enqueue_many([NewJob(QUEUE, {"n": n}) for n in range(2000)])
    ran = [json.loads(job.payload)["n"] for _ in range(20) for job in host.claim(limit=100)]
    assert ran == list(range(2000))


def test_a_redrive_in_sql_opens_also_the_second_time(host: Host, sql: psycopg.Connection) -> None:
    dead = host.enqueue()
    for _ in range(3):
        [job] = host.claim()
        assert json.loads(job.payload) == PAYLOAD
        host.settle(job, Dead(REFUSED))
        dead = sql.execute("select queue.redrive(%s, 'me')", (job.id,)).fetchone()[0]  # type: ignore[index]
    assert state(host, dead) is JobState.READY


def test_keys_that_answer_with_another_job_keep_that_one_and_its_payload(host: Host) -> None:
    made = host.producer.enqueue_many([NewJob(QUEUE, PAYLOAD | {"n": n}, idempotency_key="same") for n in range(3)])
    assert [one.created for one in made] == [True, False, False] and len({one.id for one in made}) == 1
    assert host.enqueue(PAYLOAD | {"n": 9}, idempotency_key="same") == made[0].id
    [job] = host.claim()
    assert json.loads(job.payload)["n"] == 0
    singleton = Singleton("k", SingletonPolicy.REPLACE_SCHEDULED)
    host.store.enqueue([NewJob(QUEUE, {"n": 10}, unique=singleton, delay=MINUTE)])
    [replaced] = host.store.enqueue([NewJob(QUEUE, {"n": 11}, unique=singleton)])
    host.store.enqueue([NewJob(QUEUE, {"n": 20}, unique=Debounce("d", MINUTE))])
    [debounced] = host.store.enqueue([NewJob(QUEUE, {"n": 21}, unique=Debounce("d", MINUTE))])
    assert host.store.retry_now(debounced.id) is not None
    assert {job.id: json.loads(job.payload)["n"] for job in host.claim()} == {replaced.id: 11, debounced.id: 21}


def test_a_payload_in_another_jobs_row_is_dead_and_costs_only_that_job(host: Host, sql: psycopg.Connection) -> None:
    mine, other = host.enqueue(), host.enqueue(PAYLOAD | {"n": 2})
    sql.execute(
        "update queue.job set payload = (select payload from queue.job where id = %s) where id = %s", (mine, other)
    )
    host.worker.run(QUEUE, 5)
    assert host.ran == [PAYLOAD] and state(host, mine) is JobState.COMPLETED
    record = host.store.get(other)
    assert record is not None and record.state is JobState.DEAD and record.error_class is ErrorClass.VALIDATION
    assert record.error_message is not None and "something else" in record.error_message
    assert "problem" in record.payload and SECRET not in str(record)


@pytest.mark.parametrize(
    "change",
    [
        """jsonb_set(payload, '{$sealed}', '"AAAA"')""",
        """payload - 'key'""",
        """payload || '{"more": 1}'""",
        """'{"$zip": "AAAA"}'""",
    ],
)
def test_a_changed_payload_is_dead_with_a_reason(host: Host, sql: psycopg.Connection, change: str) -> None:
    job_id = host.enqueue()
    sql.execute(f"update queue.job set payload = {change}".encode())
    host.worker.run(QUEUE, 5)
    record = host.store.get(job_id)
    assert record is not None and record.state is JobState.DEAD and record.error_class is ErrorClass.VALIDATION
    assert host.ran == [] and record.error_message


def test_a_job_waits_for_its_key_uncounted_and_runs_when_it_has_come(
    host: Host, database: Database, sql: psycopg.Connection
) -> None:
    late = Host(database, OLD)
    job_id, plain = host.enqueue(), late.enqueue({"deadLetterId": str(uuid4())}, OPEN_QUEUE)
    late.worker.run(QUEUE, 5)
    late.worker.run(OPEN_QUEUE, 5)
    assert late.missed == [key_id(NEW)] and len(late.ran) == 1 and state(host, plain) is JobState.COMPLETED
    record = late.store.get(job_id)
    assert record is not None and (record.state, record.attempt) == (JobState.SCHEDULED, 0)
    assert key_id(NEW) in record.payload["problem"]
    assert late.store.retry_now(job_id) is not None
    prepared = Host(database, OLD, NEW)
    prepared.worker.run(QUEUE, 5)
    assert prepared.ran == [PAYLOAD] and state(host, job_id) is JobState.COMPLETED


def test_a_host_without_any_key_stores_no_secret_and_kills_no_job(
    host: Host, database: Database, sql: psycopg.Connection
) -> None:
    def none() -> None:
        raise UnknownKeyError("ENCRYPTION_KEY: it is not set")

    without = Host(database, NEW)
    without.sealer._ring = none  # type: ignore[assignment]
    with pytest.raises(StoreUnavailableError, match="ENCRYPTION_KEY"):
        without.enqueue()
    job_id = host.enqueue()
    without.worker.run(QUEUE, 5)
    assert state(host, job_id) is JobState.SCHEDULED and SECRET not in everything(sql)


def test_a_rescued_job_opens_for_the_next_worker(host: Host, sql: psycopg.Connection) -> None:
    job_id = host.enqueue()
    host.claim()
    sql.execute("update queue.job set lease_until = clock_timestamp() - interval '1 second'")
    assert Rescue(host.store, host.producer, host.worker._random).run() == 1
    host.store.retry_now(job_id)
    host.worker.run(QUEUE, 5)
    assert host.ran == [PAYLOAD]


def test_jobs_of_sql_stay_plain_and_run(host: Host, sql: psycopg.Connection) -> None:
    sql.execute("select queue.enqueue(%s, %s)", (QUEUE, json.dumps(PAYLOAD)))
    assert keys(sql) == {None}
    host.worker.run(QUEUE, 5)
    assert host.ran == [PAYLOAD]


def test_large_payloads_of_open_queues_are_compressed_in_the_row(host: Host, sql: psycopg.Connection) -> None:
    payload = {"deadLetterId": str(uuid4()), "note": "tyres and gates " * 40_000}
    job_id = host.enqueue(payload, OPEN_QUEUE)
    row = sql.execute("select payload ? '$zip', length(payload::text) from queue.job").fetchone()
    assert row is not None and row[0] and row[1] < 30_000
    record = host.store.get(job_id)
    assert record is not None and record.payload == payload
    host.worker.run(OPEN_QUEUE, 5)
    assert host.ran == [payload]


@pytest.mark.parametrize("name", ["$sealed", "$zip"])
def test_a_payload_that_looks_sealed_is_refused(host: Host, name: str) -> None:
    with pytest.raises(PayloadError, match="this name is taken") as raised:
        host.enqueue({name: "x"})
    assert [problem.field for problem in raised.value.problems] == [f"payload.{name}"]


def test_notifications_make_sealed_jobs(host: Host, database: Database, sql: psycopg.Connection) -> None:
    job = NewJob("teams-inbound", {"chatId": "19:secret@thread.v2", "messageId": "1"}, idempotency_key="n-1")
    event = Event("d-1", "s", "change", "created", None, None, None, "enqueued", {}, job)
    [recorded] = PostgresWebhookEvents(database, host.sealer).record([event])
    assert "19:secret" not in everything(sql)
    [claimed] = host.claim("teams-inbound")
    assert claimed.id == recorded.job_id and json.loads(claimed.payload) == job.payload


# Schedules


class Plan:
    """Schedules of a host, and their clock."""

    def __init__(self, host: Host, database: Database, sql: psycopg.Connection) -> None:
        self.store = PostgresSchedules(database, host.sealer)
        producer = Producer(host.store, MemoryTransport(), QUEUES, lambda queue, text: json.loads(text))
        self.schedules = Schedules(self.store, producer)
        self.scheduler = Scheduler(self.store, producer)
        self._sql = sql

    def make_due(self) -> None:
        self._sql.execute("update queue.scheduled_jobs set next_run_at = date_trunc('minute', clock_timestamp())")


def test_a_schedule_is_sealed_and_fires(host: Host, database: Database, sql: psycopg.Connection) -> None:
    plan = Plan(host, database, sql)
    plan.schedules.put("report", QUEUE, PAYLOAD, "0 6 * * *")
    assert plan.schedules.list()[0].payload == PAYLOAD and SECRET not in everything(sql)
    plan.make_due()
    assert plan.scheduler.run() == 1
    made = plan.schedules.run_now("report")
    assert made is not None and SECRET not in everything(sql)
    assert [json.loads(job.payload) for job in host.claim()] == [PAYLOAD] * 2
    plan.schedules.put("report", QUEUE, PAYLOAD | {"content": "another"}, "0 6 * * *")
    assert plan.schedules.list()[0].payload["content"] == "another"
    plan.schedules.put("report", OPEN_QUEUE, {"deadLetterId": "x"}, "0 6 * * *")
    assert sql.execute("select payload from queue.scheduled_jobs").fetchone() == ({"deadLetterId": "x"},)


def test_a_sealed_schedule_is_run_now_from_sql(host: Host, database: Database, sql: psycopg.Connection) -> None:
    plan = Plan(host, database, sql)
    plan.schedules.put("report", QUEUE, PAYLOAD, "0 6 * * *")
    following = plan.schedules.list()[0].next_run_at
    sql.execute("update queue.scheduled_jobs set next_run_at = clock_timestamp() where name = 'report'")
    assert plan.scheduler.run() == 1 and plan.schedules.list()[0].next_run_at == following
    assert [json.loads(job.payload) for job in host.claim()] == [PAYLOAD]


def test_a_schedule_waits_for_its_key_and_makes_up_for_its_slot(
    host: Host, database: Database, sql: psycopg.Connection
) -> None:
    Plan(host, database, sql).schedules.put("report", QUEUE, PAYLOAD, "0 6 * * *", catch_up=CatchUp.ONCE)
    late = Plan(Host(database, OLD), database, sql)
    late.make_due()
    assert (late.scheduler.run(), late.scheduler.run()) == (0, 0)
    [waiting] = late.schedules.list()
    assert waiting.problem is not None and key_id(NEW) in waiting.problem
    with pytest.raises(EnqueueError, match=key_id(NEW)):
        late.schedules.run_now("report")
    paused = late.schedules.pause("report")
    assert paused is not None and paused.paused
    sql.execute("update queue.scheduled_jobs set paused = false")
    late.make_due()
    both = Host(database, OLD, NEW)
    prepared = Plan(both, database, sql)
    assert prepared.scheduler.run() == 1 and prepared.schedules.list()[0].problem is None
    assert [json.loads(job.payload) for job in both.claim()] == [PAYLOAD]
    assert sql.execute("select count(*) from queue.queue_alerts where resolved_at is null").fetchone() == (0,)


def test_a_schedules_payload_opens_in_no_other_schedule_and_in_no_job(
    host: Host, database: Database, sql: psycopg.Connection
) -> None:
    plan = Plan(host, database, sql)
    plan.schedules.put("report", QUEUE, PAYLOAD, "0 6 * * *")
    plan.schedules.put("other", QUEUE, PAYLOAD, "0 6 * * *")
    sql.execute(
        "update queue.scheduled_jobs set payload = (select payload from queue.scheduled_jobs where name = 'report')"
    )
    plan.make_due()
    assert plan.scheduler.run() == 1
    other, report = plan.schedules.list()
    assert other.problem is not None and "something else" in other.problem and other.next_run_at is not None
    assert report.problem is None
    sql.execute("select queue.enqueue(queue, payload) from queue.scheduled_jobs where name = 'report'")
    assert [job.unreadable is None for job in host.claim()] == [True, False]


def test_the_default_store_reads_plain_rows(database: Database) -> None:
    store = PostgresStore(database)
    [made] = store.enqueue([NewJob(QUEUE, PAYLOAD)])
    record = PostgresStore(database, sealer(NEW)).get(made.id)
    assert record is not None and record.payload == PAYLOAD
    assert Sealer().queues == frozenset()
