"""No list reads a table whole beside a long history, and each answers in a fraction of a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from local.postgres import PostgresServer
from shared.admin.cursor import Place
from shared.admin.job_filter import JobFilter
from shared.engine.job import JobRecord, JobState
from shared.monitoring.statistics import RANGES
from shared.postgres import admin_graph, admin_jobs, admin_letters, admin_lists, job_labels
from shared.postgres.circumstances import circumstances
from shared.postgres.job_rows import RECORD
from shared.postgres.statistics import activities
from tests.integration.postgres.test_plans import nodes, watched_plans

QUEUE = "teams-outbound"
CHAT = "19:chat-7@thread.v2"
HOUR = datetime.now(UTC) - timedelta(hours=3)
MOST_SECONDS = 0.3
#: Rows that a page of fifty may look at, in all tables and partitions together.
HANDFUL = 3000
BIG = (
    "communication_logs",
    "job",
    "later",
    "waiting",
    "job_tracking",
    "dead_letter_queue",
    "audit_log",
    "queue_alerts",
    "sync_history",
)

FILL = """
insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, started_at, finished_at, attempt,
                                payload, error_class, error_message, correlation_id, limit_key, attempts)
select queue.new_id(), case when n % 10 = 0 then 'sync' else 'teams-outbound' end, s, 5, t, t, t, t, 1, '{}',
       case s when 'dead' then 'network' end, case s when 'dead' then 'chat ' || n || ' is gone' end,
       case when n % 5 = 0 then 'trip-' || n / 50 end, 'chat:19:chat-' || n % 100 || '@thread.v2',
       case s when 'dead' then jsonb_build_array(jsonb_build_object('details', jsonb_build_object('failed_call',
           jsonb_build_object('request_id', '6c0a3b4e-8a31-4d7b-9a52-' || lpad(n::text, 12, '0'))))) end
  from generate_series(1, 200000) n,
       lateral (select case when n % 1000 = 0 then 'dead' when n % 1000 = 1 then 'cancelled' else 'completed' end as s,
                       now() - (n % 2) * interval '20 hours' + n * interval '1 millisecond' as t) v;
insert into queue.job (id, queue, priority, run_at, enqueued_at, payload)
select queue.new_id(), 'teams-outbound', 5, now(), now() + n * interval '1 ms', '{}' from generate_series(1, 20000) n;
insert into queue.later (id, queue, priority, run_at, enqueued_at, payload)
select queue.new_id(), 'teams-outbound', 5, now() + interval '1 day', now(), '{}' from generate_series(1, 20000);
insert into queue.waiting (id, queue, priority, run_at, enqueued_at, payload, key, rank)
select queue.new_id(), 'teams-outbound', 5, now(), now(), '{}', 'k', 5 from generate_series(1, 20000);
insert into queue.dead_letter_queue (job_id, queue, error_class, error_message, died_at, redriven_at, redriven_by)
select queue.new_id(), 'teams-outbound', 'network', 'chat ' || n || ' is gone', now() - n * interval '1 second',
       case when n % 2 = 0 then now() end, case when n % 2 = 0 then 'ada' end
  from generate_series(1, 20000) n;
insert into queue.communication_logs (direction, channel, external_id, account, thread_id, sender, recipients, body,
                                      body_type, text, internet_message_id, occurred_at, recorded_at, job_id)
select 'out', v.c, case c when 'teams' then v.chat || '/1700000' || lpad(n::text, 6, '0') else 'AAMk' || n end,
       'dispatch@fleet.example', case c when 'teams' then v.chat else 'c' || n end, 'dispatch@fleet.example',
       array[case c when 'teams' then v.chat else 'driver-' || n % 100 || '@fleet.example' end], 'b', 'text', 't',
       case c when 'outlook' then '<m' || n || '@fleet.example>' end, v.at, v.at, queue.new_id()
  from generate_series(1, 40000) n,
       lateral (select case when n % 2 = 0 then 'teams' else 'outlook' end as c,
                       '19:chat-' || n % 100 || '@thread.v2' as chat, now() - n * interval '10 seconds' as at) v;
insert into queue.audit_log (at, who, kind, role, action, target, correlation_id)
select now() - n * interval '1 second', 'who-' || n % 7, 'key', 'Admin', 'job.cancel', 'job:' || n, 'c'
  from generate_series(1, 20000) n;
insert into queue.queue_alerts (alert_key, level, title, opened_at, resolved_at)
select 'k' || n, 'warning', 't', now() - n * interval '1 second', now() from generate_series(1, 20000) n;
insert into queue.sync_history (resource_type, account, kind, started_at, finished_at, outcome)
select 'emails', 'user-' || n % 1000, 'delta', now() - n * interval '1 second', now(), 'completed'
  from generate_series(1, 20000) n;
insert into queue.rate_limit_tracking (key, window_seconds, bucket, counts)
select 'chat:' || n, 1, 0, array_fill(1, array[21]) from generate_series(1, 20000) n;
update queue.queue_settings set key_scope = 'chat', key_rate_limit = 1, key_rate_seconds = 1
 where queue = 'teams-outbound';
insert into queue.queue_statistics_hour (queue, bucket_at, latency)
select s.queue, b, array_fill(1::bigint, array[56])
  from queue.queue_settings s, generate_series(now() - interval '40 days', now(), interval '1 hour') b;
insert into queue.queue_statistics (queue, bucket_at, latency)
select s.queue, b, array_fill(1::bigint, array[56])
  from queue.queue_settings s, generate_series(now() - interval '2 days', now(), interval '5 minutes') b;
"""


@pytest.fixture(scope="module")
def filled(postgres: PostgresServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.dsn, autocommit=True) as server:
        server.execute("create database admin_plans template template_fleet")
        with psycopg.connect(postgres.url("admin_plans"), autocommit=True) as conn:
            conn.execute(FILL)
            conn.execute("analyze")
            yield conn
        server.execute("drop database admin_plans with (force)")


def jobs(*states: JobState, queue: str | None = QUEUE, **more: Any) -> Callable[..., Any]:
    jobs = JobFilter(queue=queue, states=states, hidden=("dead-letter",), **more)
    return lambda conn, after: admin_jobs.list_jobs(conn, jobs, after, 50)


def found(search: str, **more: Any) -> Callable[..., Any]:
    return jobs(*JobState, queue=None, search=search, **more)


#: It ended in the middle of the history; its queue has thousands that wait at its lane.
JOB = JobRecord(
    uuid4(), QUEUE, JobState.CANCELLED, 5, 1, {}, HOUR, HOUR, (), finished_at=HOUR, lane="k", limit_key="chat:77",
    redrive_of=uuid4(),
)  # fmt: skip


def letters(**filters: Any) -> Callable[..., Any]:
    return lambda conn, after: admin_letters.list_letters(conn, filters, after, 50)


LISTS: dict[str, Callable[[psycopg.Connection, Place | None], Any]] = {
    "all jobs": jobs(*JobState),
    **{f"jobs {state}": jobs(state) for state in JobState if state is not JobState.ACTIVE},
    "jobs by correlation id": jobs(*JobState, search="trip-77"),
    "jobs of any queue by correlation id": found("trip-77"),
    "jobs of all queues": jobs(*JobState, queue=None),
    "dead jobs of all queues": jobs(JobState.DEAD, queue=None),
    "dead jobs of all queues of a time": jobs(JobState.DEAD, queue=None, since=HOUR, until=HOUR + timedelta(hours=1)),
    "dead jobs of a rare class": jobs(*JobState, queue=None, error_class="auth"),
    "dead jobs of a rare class in a queue": jobs(*JobState, error_class="auth"),
    "jobs by the id of a mail": found("<m77@fleet.example>"),
    "jobs by the id of a Teams message": found("1700000000077"),
    "jobs by the id of a request": found("6c0a3b4e-8a31-4d7b-9a52-000000077000"),
    "jobs by the beginning of an id": found("01a2108a…e508"),
    "jobs by a digest": found("ann@fleet.example", digests=[b"7"]),
    "jobs by id": jobs(*JobState, search="01a2108a-1e28-7df7-80d2-6f458516e508"),
    "jobs of a queue without any": jobs(*JobState, queue="outlook-outbound"),
    "dead jobs of a queue without any": jobs(JobState.DEAD, queue="outlook-outbound"),
    "dead letters": letters(),
    "dead letters of a queue": letters(queue=QUEUE),
    "open dead letters": letters(status="open"),
    "open dead letters of an error": letters(
        status="open", queue=QUEUE, error_class="network", pattern="chat # is gone"
    ),
    "open messages that are no jobs": letters(status="open", foreign=True),
    "open dead letters that nobody has reviewed": letters(status="open", reviewed=False),
    "discarded dead letters": letters(status="discarded"),
    "reviewed dead letters": letters(reviewed=True),
    "dead letters of a rare class": letters(error_class="auth"),
    "dead letters of a rare class in a queue": letters(error_class="auth", queue=QUEUE),
    "dead letters of a rare error": letters(pattern="the peer has moved"),
    "redriven dead letters of a rare error": letters(pattern="the peer has moved", status="redriven"),
    "dead letters of a rare error in a queue": letters(
        pattern="the peer has moved", error_class="network", queue=QUEUE
    ),
    "a dead letter": lambda conn, _after: admin_letters.letter(conn, uuid4()),
    "a job": lambda conn, _after: conn.execute(f"{RECORD} where j.id = %s".encode(), (uuid4(),)).fetchall(),
    "audit": lambda conn, after: admin_lists.list_audit(conn, {}, after, 50),
    "audit of a target": lambda conn, after: admin_lists.list_audit(conn, {"target": "job:77"}, after, 50),
    "audit of a person": lambda conn, after: admin_lists.list_audit(conn, {"who": "who-3"}, after, 50),
    "audit of an action": lambda conn, after: admin_lists.list_audit(conn, {"action": "job.pause"}, after, 50),
    "audit of a person's action": lambda conn, after: admin_lists.list_audit(
        conn, {"who": "who-3", "action": "job.pause"}, after, 50
    ),
    "alerts": lambda conn, after: admin_lists.list_alerts(conn, {}, after, 50),
    "open alerts": lambda conn, after: admin_lists.list_alerts(conn, {"status": "open"}, after, 50),
    "syncs": lambda conn, after: admin_graph.list_syncs(conn, {}, after, 50),
    "syncs of an account": lambda conn, after: admin_graph.list_syncs(
        conn, {"account": "user-7", "resource_type": "emails"}, after, 50
    ),
    "syncs of an account, of all kinds": lambda conn, after: admin_graph.list_syncs(
        conn, {"account": "user-7"}, after, 50
    ),
    "syncs of a kind without any": lambda conn, after: admin_graph.list_syncs(
        conn, {"resource_type": "files"}, after, 50
    ),
    "what surrounds a job": lambda conn, _after: circumstances(conn, JOB, uuid4(), "ann@fleet.example"),
    "what became of the jobs of a page": lambda conn, _after: job_labels.facts(
        conn, [{"id": uuid4(), "queue": QUEUE} for _ in range(50)]
    ),
    "related jobs": lambda conn, _after: admin_jobs.related_jobs(conn, uuid4(), uuid4()),
}
PLACES = {"first page": None, "page in the middle": Place(datetime.now(UTC) - timedelta(hours=1), uuid4())}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LISTS)
def test_a_list_reads_by_index_what_its_page_shows(filled: psycopg.Connection, name: str, place: str) -> None:
    with watched_plans(filled) as plans:
        LISTS[name](filled, PLACES[place])
        assert is_quick(lambda: LISTS[name](filled, PLACES[place]))
    found = [node for plan in plans for node in nodes(plan["Plan"])]
    assert found
    for node in found:
        table = str(node.get("Relation Name", ""))
        rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        whole = node["Node Type"] == "Seq Scan" and (table in BIG or table.startswith("job_tracking"))
        assert not (whole and rows) and rows <= HANDFUL, f"{name}: {node['Node Type']} {table}: {rows} rows"


def is_quick(look: Callable[[], Any]) -> bool:
    """Whether one of five is, on a machine that other tests keep busy."""
    for _ in range(5):
        started = time.perf_counter()
        look()
        if time.perf_counter() - started < MOST_SECONDS:
            return True
    return False


def counted(plans: list[dict[str, Any]], kind: str) -> list[tuple[str, float]]:
    """What nodes of a kind give, all their loops together."""
    found = [node for plan in plans for node in nodes(plan["Plan"]) if kind in node["Node Type"]]
    return [(str(node.get("Relation Name", node.get("Function Name", ""))), _rows(node)) for node in found]


def _rows(node: dict[str, Any]) -> float:
    rows: float = node["Actual Rows"] * node["Actual Loops"]
    return rows


@pytest.mark.parametrize("time_range", RANGES)
def test_a_chart_reads_its_own_steps_and_neither_takes_cells_apart_nor_looks_at_slow_jobs(
    filled: psycopg.Connection, time_range: str
) -> None:
    span = RANGES[time_range]
    until = datetime.now(UTC)
    with watched_plans(filled) as plans:
        found = activities(filled, until - span.length, until, span.step, span.by_hour, None, slowest=False)
    assert found and found[0].latency is not None and len(found[0].latency) == 56
    kept = span.length / (timedelta(hours=1) if span.by_hour else timedelta(minutes=5))
    read = counted(plans, "Scan")
    assert not [name for name, _ in read if name == "unnest" or name == "jsonb_array_elements"], read
    queues = len({one.queue for one in found})
    assert sum(rows for name, rows in read if name.startswith("queue_statistics")) <= (kept + 1) * queues, read


def test_the_fill_of_limits_is_counted_for_keys_in_use_alone(filled: psycopg.Connection) -> None:
    """Each of the others would cost a call of a function: twenty thousand chats rest here."""
    with watched_plans(filled) as plans:
        admin_lists.show_limits(filled, QUEUE)
    found = [rows for _, rows in counted(plans, "Nested Loop")]
    assert found and max(found) <= 1, found


def test_an_example_of_each_group_is_read_by_its_id(filled: psycopg.Connection) -> None:
    with watched_plans(filled) as plans:
        admin_letters.groups(filled, QUEUE, None, 1000)
    whole = [name for name, _ in counted(plans, "Seq Scan") if name == "dead_letter_queue"]
    assert not whole


def test_what_looks_at_more_than_a_page_is_bounded_and_quick(filled: psycopg.Connection) -> None:
    """Groups look at the newest ten thousand; running jobs are found by their lease among those that are ready."""
    for look in (
        lambda: admin_letters.groups(filled, None, None, 10_000),
        lambda: admin_letters.groups(filled, QUEUE, False, 10_000),
        lambda: jobs(JobState.ACTIVE)(filled, None),
        lambda: found(CHAT)(filled, None),
        lambda: found("driver-7@fleet.example")(filled, None),
        lambda: admin_letters.open_letters(filled, {"queue": QUEUE, "pattern": "chat # is gone"}, 500),
        lambda: admin_lists.show_limits(filled, QUEUE),
        lambda: admin_lists.open_alerts(filled),
        lambda: admin_graph.list_subscriptions(filled, "failing", None, 50),
        lambda: admin_graph.subscription_counts(filled),
    ):
        assert is_quick(look), look
