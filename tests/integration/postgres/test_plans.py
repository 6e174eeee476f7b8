"""No hot statement reads a table whole or sorts a backlog, beside a million ended jobs and 100,000 in every other state
(auto_explain)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from local.postgres import PostgresServer

QUEUE = "teams-outbound"
#: More rows than any of these statements may read for one job, and far fewer than any backlog here.
HANDFUL = 2_000
#: More rows than any of these statements may sort.
SORTED = 100
TABLES = ("job", "later", "waiting", "job_tracking", "idempotency", "dead_letter_queue", "rate_limit_tracking")
BIG = (*TABLES, "dependency", "batch", "uniqueness")

PARTITIONS = (
    "select relname from pg_inherits join pg_class on oid = inhrelid where inhparent = 'queue.job_tracking'::regclass"
)
#: A limit key with 50,000 waiting jobs.
DEEP = "chat:blocked"
LANES = {"order": "teams-inbound", "fair": "outlook-inbound", "concurrency": "outlook-outbound"}

FILL = """
insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, finished_at, attempt, payload)
select queue.new_id(), 'teams-outbound', 'completed', 5, now(), now(), now() + (n % 4) * interval '1 day', 1, '{}'
  from generate_series(1, 1000000) n;
insert into queue.job (id, queue, priority, run_at, enqueued_at, payload)
select queue.new_id(), 'teams-outbound', 3 + n % 8, now(), now(), '{}' from generate_series(1, 100000) n;
insert into queue.later (id, queue, priority, run_at, enqueued_at, payload)
select queue.new_id(), 'teams-outbound', 5, now() + interval '1 day', now(), '{}' from generate_series(1, 100000);
insert into queue.waiting (id, queue, priority, run_at, enqueued_at, payload, limit_key, key, rank)
select queue.new_id(), 'teams-outbound', 5, now(), now(), '{}', k, k, 5
  from generate_series(1, 100000) n,
       lateral (select case when n % 2 = 0 then 'chat:blocked' else 'chat:' || n % 5000 end as k) keys;
insert into queue.waiting (id, queue, priority, run_at, enqueued_at, payload, lane, lane_rule, lane_limit, key, rank)
select queue.new_id(), q, 5, now(), now(), '{}', k, r, case r when 'concurrency' then 1 end, k,
       case r when 'order' then 0 else 5 end
  from (values ('order', 'teams-inbound', 'teams-inbound:order:deep'),
               ('fair', 'outlook-inbound', 'outlook-inbound:fair:deep'),
               ('concurrency', 'outlook-outbound', 'outlook-outbound:concurrency:deep')) v(r, q, k),
       generate_series(1, 20000);
insert into queue.job (id, queue, priority, run_at, enqueued_at, payload, lane, lane_rule, lane_limit)
select distinct on (lane) queue.new_id(), queue, priority, run_at - interval '1 minute', enqueued_at, payload, lane,
       lane_rule, lane_limit
  from queue.waiting where lane is not null;
insert into queue.rate_limit_tracking (key, wake_at)
select 'mailbox:' || n, now() + interval '1 hour' from generate_series(1, 10000) n;
insert into queue.rate_limit_tracking (key, blocked_until, wake_at)
select distinct key, now() + interval '1 hour', now() + interval '1 hour' from queue.waiting where lane is null;
insert into queue.idempotency (queue, key, job_id)
select 'teams-outbound', 'old-' || n, queue.new_id() from generate_series(1, 20000) n;
insert into queue.uniqueness (queue, kind, key, job_id, first_at)
select 'teams-outbound', 'singleton', 'old-' || n, queue.new_id(), now() from generate_series(1, 20000) n;
insert into queue.batch (id, total) select queue.new_id(), 5 from generate_series(1, 20000);
insert into queue.dependency (job_id, depends_on, rule, checked)
select queue.new_id(), queue.new_id(), 'die', true from generate_series(1, 20000);
"""


@pytest.fixture(scope="module")
def unanalysed(postgres: PostgresServer) -> Iterator[str]:
    """A filled database of which the planner knows nothing."""
    with psycopg.connect(postgres.dsn, autocommit=True) as server:
        server.execute("create database plans template template_fleet")
        with psycopg.connect(postgres.url("plans"), autocommit=True) as conn:
            for table in (*BIG, *(name for (name,) in conn.execute(PARTITIONS))):
                if table != "job_tracking":
                    conn.execute(f"alter table queue.{table} set (autovacuum_enabled = off)".encode())
            conn.execute(FILL)
        yield "plans"
        server.execute("drop database plans with (force)")


@pytest.fixture(scope="module", params=["without statistics", "with statistics"])
def filled(postgres: PostgresServer, unanalysed: str, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """A copy for each, as their tests come in any order."""
    name = f"plans_{request.param.replace(' ', '_')}"
    with psycopg.connect(postgres.dsn, autocommit=True) as server:
        server.execute(f"create database {name} template {unanalysed}".encode())
        with psycopg.connect(postgres.url(name), autocommit=True) as conn:
            if request.param == "with statistics":
                conn.execute("analyze")
            yield conn
        server.execute(f"drop database {name} with (force)".encode())


@contextmanager
def watched_plans(conn: psycopg.Connection) -> Iterator[list[dict[str, Any]]]:
    """The plan of every statement since the list was emptied, those inside functions too."""
    found: list[dict[str, Any]] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            found.append(json.loads(text.partition("plan:")[2]))

    for setting in ("log_nested_statements = on", "log_min_duration = 0", "log_analyze = on", "log_format = json"):
        conn.execute("load 'auto_explain'")
        conn.execute(f"set auto_explain.{setting}".encode())
    conn.execute("set client_min_messages = log")
    conn.add_notice_handler(keep)
    yield found
    conn.remove_notice_handler(keep)


@pytest.fixture(scope="module")
def plans(filled: psycopg.Connection) -> Iterator[list[dict[str, Any]]]:
    with watched_plans(filled) as found:
        yield found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def problems(plans: list[dict[str, Any]]) -> list[str]:
    found = []
    for one in plans:
        for node in nodes(one["Plan"]):
            table = str(node.get("Relation Name", ""))
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            whole = node["Node Type"] == "Seq Scan" and (table in BIG or table.startswith("job_tracking"))
            sorts = "Sort" in node["Node Type"] and rows > SORTED
            if (whole and rows) or rows > HANDFUL or sorts:  # an empty partition may be read whole
                found.append(f"{node['Node Type']} {table}: {rows:.0f} rows in: {one['Query Text'].strip()[:300]}")
    return found


def job(**given: Any) -> Jsonb:
    return Jsonb([{"queue": QUEUE, "payload": {"chatId": "19:a", "content": "x"}} | given])


ADDED = {
    "plain": job(),
    "idempotent": job(idempotency_key="a"),
    "ordering": job(lane={"rule": "order", "key": "trip"}),
    "limit key": job(limit_key="chat:new"),
    "singleton": job(unique={"kind": "singleton", "key": "a", "policy": "return_existing"}),
}
VERBS: dict[str, tuple[str, tuple[Any, ...]]] = {
    **{f"add {name}": ("select * from queue.add_jobs(%s)", (given,)) for name, given in ADDED.items()},
    "take one": ("select * from queue.take(%s, 1, 'w', interval '1 minute')", (QUEUE,)),
    "take a hundred": ("select * from queue.take(%s, 100, 'w', interval '1 minute')", (QUEUE,)),
    "promote": ("select queue.promote_due(%s, 100)", (QUEUE,)),
    "expire": ("select queue.expire_due(null, 100)", ()),
    "open": ("select queue.open_due(100)", ()),
    "runnable": ("select * from queue.runnable(100)", ()),
    "permits": ("select queue.take_permits(%s, 1)", (QUEUE,)),
}


TAKE = b"select id, lease_token from queue.take(%s, 1, 'w', interval '1 minute') where id is not null"


def take_one(conn: psycopg.Connection, queue: str) -> tuple[UUID, UUID]:
    taken = conn.execute(TAKE, (queue,)).fetchone()
    assert taken is not None
    return taken[0], taken[1]


def done(job_id: UUID, token: UUID) -> Jsonb:
    return Jsonb([{"id": str(job_id), "token": str(token), "outcome": "completed"}])


def settle_and_take(conn: psycopg.Connection, job_id: UUID, token: UUID) -> None:
    """The worker's hot path; what it takes is given back as never started."""
    statement = (
        b"select id, lease_token from queue.end_and_take(%s, %s, 1, 'w', interval '1 minute') where id is not null"
    )
    taken = conn.execute(statement, (done(job_id, token), QUEUE)).fetchone()
    assert taken is not None
    released = Jsonb([{"id": str(taken[0]), "token": str(taken[1]), "outcome": "released"}])
    conn.execute("select queue.end_attempts(%s)", (released,))


@pytest.mark.parametrize("verb", VERBS)
def test_reads_no_more_than_it_needs(verb: str, filled: psycopg.Connection, plans: list[dict[str, Any]]) -> None:
    statement, arguments = VERBS[verb]
    plans.clear()
    filled.execute(statement.encode(), arguments)
    assert plans and not problems(plans), "\n".join(problems(plans))


@pytest.mark.parametrize("table", ["job", "later", "waiting"])
def test_cancels_and_finds_one_job(table: str, filled: psycopg.Connection, plans: list[dict[str, Any]]) -> None:
    one = filled.execute(f"select id from queue.{table} limit 1".encode()).fetchone()
    plans.clear()
    filled.execute("select * from queue.jobs where id = %s", one)
    filled.execute("select queue.cancel_job(%s)", one)
    assert plans and not problems(plans), "\n".join(problems(plans))


def test_renews_and_settles_and_takes_the_next(filled: psycopg.Connection, plans: list[dict[str, Any]]) -> None:
    job_id, token = take_one(filled, QUEUE)
    plans.clear()
    filled.execute("select * from queue.renew_leases(%s, %s, interval '1 minute')", ([job_id], [token]))
    settle_and_take(filled, job_id, token)
    assert plans and not problems(plans), "\n".join(problems(plans))


def test_ageing_merges_the_priorities_and_sorts_no_backlog(
    filled: psycopg.Connection, plans: list[dict[str, Any]]
) -> None:
    """Where a queue ages, the claim and what a key hands out next look at the first of each priority."""
    due = "update queue.rate_limit_tracking set blocked_until = null, wake_at = now() where key = %s"
    filled.execute("select queue.set_ageing(%s, '1 hour')", (QUEUE,))
    try:
        plans.clear()
        for _ in range(3):
            settle_and_take(filled, *take_one(filled, QUEUE))
        filled.execute(due, (DEEP,))
        row = filled.execute("select queue.open_due(1)").fetchone()
        assert row is not None and row[0] > 0, "jobs of the key came forward"
        found = problems(plans)
    finally:
        filled.execute("select queue.set_ageing(%s, null)", (QUEUE,))
    assert any(node["Node Type"] == "Sort" for one in plans for node in nodes(one["Plan"])), "it is merged by a sort"
    assert not found, "\n".join(found)


def test_a_limit_key_with_50_000_behind_it_hands_out_its_next_job(
    filled: psycopg.Connection, plans: list[dict[str, Any]]
) -> None:
    free = "update queue.rate_limit_tracking set blocked_until = null, wake_at = null where key = %s"
    filled.execute("select queue.set_limits(%s, %s)", (QUEUE, Jsonb({"key_concurrency": 1})))
    try:
        filled.execute(free, (DEEP,))
        filled.execute("select queue.add_jobs(%s)", (job(priority=1, limit_key=DEEP),))
        plans.clear()
        for _ in range(3):
            job_id, token = take_one(filled, QUEUE)
            freed = filled.execute("select freed from queue.end_attempts(%s)", (done(job_id, token),)).fetchone()
            assert freed == ([QUEUE],), "its end let the next one of the key come forward"
            filled.execute("update queue.job set priority = 1 where limit_key = %s", (DEEP,))
        found = problems(plans)
    finally:
        filled.execute("update queue.job set priority = 9 where limit_key = %s", (DEEP,))  # behind what other tests add
        filled.execute("select queue.set_limits(%s, '{}')", (QUEUE,))
    assert not found, "\n".join(found)


def test_settles_a_member_of_a_batch_on_which_others_depend(
    filled: psycopg.Connection, plans: list[dict[str, Any]]
) -> None:
    callback = Jsonb({"queue": "dead-letter", "payload": {}})
    row = filled.execute(
        "select id from queue.create_batch(%s, %s) where id is not null", (job(priority=1), callback)
    ).fetchone()
    assert row is not None
    for rule in ("run", "die"):
        waits = job(depends_on=[str(row[0])], if_dependency_fails=rule)
        filled.execute("select queue.add_jobs(%s)", (waits,))
    job_id, token = take_one(filled, QUEUE)
    assert job_id == row[0]
    plans.clear()
    freed = filled.execute("select freed from queue.end_attempts(%s)", (done(job_id, token),)).fetchone()
    assert freed is not None and sorted(freed[0]) == ["dead-letter", QUEUE, QUEUE]
    assert not problems(plans), "\n".join(problems(plans))


def test_settles_a_death_that_kills_others_and_tells_the_operator(
    filled: psycopg.Connection, plans: list[dict[str, Any]]
) -> None:
    [first] = filled.execute("select id from queue.add_jobs(%s)", (job(priority=1),))
    [second] = filled.execute("select id from queue.add_jobs(%s)", (job(depends_on=[str(first[0])]),))
    job_id, token = take_one(filled, QUEUE)
    assert job_id == first[0]
    dead = {"id": str(job_id), "token": str(token), "outcome": "dead", "error_class": "validation", "message": "x"}
    plans.clear()
    filled.execute("select queue.end_attempts(%s)", (Jsonb([dead]),))
    assert not problems(plans), "\n".join(problems(plans))
    letters = filled.execute(
        "select error_class from queue.dead_letter_queue where job_id in (%s, %s) order by 1", (first[0], second[0])
    )
    assert letters.fetchall() == [("dependency",), ("validation",)]


def test_the_relay_opens_a_key_and_frees_dependents(filled: psycopg.Connection, plans: list[dict[str, Any]]) -> None:
    filled.execute("update queue.rate_limit_tracking set wake_at = null")  # what other tests have left
    filled.execute("update queue.rate_limit_tracking set blocked_until = null, wake_at = now() where key = %s", (DEEP,))
    [first] = filled.execute("select id from queue.add_jobs(%s)", (job(priority=1),))
    filled.execute("select queue.add_jobs(%s)", (job(depends_on=[str(first[0])]),))
    plans.clear()
    row = filled.execute("select queue.open_due(100)").fetchone()
    assert row is not None and row[0] == 16
    filled.execute("select * from queue.runnable(1024)")
    filled.execute("select sum(queue.promote_due(s.queue, 1000)) from queue.queue_settings s")
    assert plans and not problems(plans), "\n".join(problems(plans))
    filled.execute("select queue.cancel(%s)", (first[0],))


@pytest.mark.parametrize("rule", LANES)
def test_a_key_with_many_behind_it_hands_out_its_next_job(
    rule: str, filled: psycopg.Connection, plans: list[dict[str, Any]]
) -> None:
    plans.clear()
    for _ in range(3):
        job_id, token = take_one(filled, LANES[rule])
        assert filled.execute(TAKE, (LANES[rule],)).fetchone() is None or rule == "fair"
        filled.execute("select * from queue.end_attempts(%s)", (done(job_id, token),))
    assert not problems(plans), "\n".join(problems(plans))


def test_limits_are_changed_beside_every_backlog_at_once(filled: psycopg.Connection) -> None:
    """It looks at every key, so its plan may read them all, but never each key against each job."""
    filled.execute("set statement_timeout = '3s'")
    limits = {"rate_limit": 50, "rate_seconds": 1, "key_rate_limit": 1, "key_rate_seconds": 1}
    try:
        filled.execute("select queue.set_limits(%s, %s)", ("outlook-outbound", Jsonb(limits)))
        filled.execute("select queue.set_limits(%s, '{}')", ("outlook-outbound",))
    finally:
        filled.execute("reset statement_timeout")


def test_functions_that_forbid_sequential_scans_compile_no_plans(sql: psycopg.Connection) -> None:
    """Before PostgreSQL 18 a scan that is forbidden, and that nothing can do without, makes a plan dear: it is compiled
    (JIT) at every call, for tens of milliseconds. Who creates such a function anew says `set jit = off`, too."""
    found = sql.execute(
        "select proname from pg_proc where pronamespace = 'queue'::regnamespace"
        " and 'enable_seqscan=off' = any(proconfig) and 'jit=off' <> all(proconfig)"
    ).fetchall()
    assert found == []
