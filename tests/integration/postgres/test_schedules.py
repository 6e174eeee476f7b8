"""Recurring schedules on a real PostgreSQL, with a clock that the test moves."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest

from shared import bootstrap
from shared.engine.cron import parse_cron, parse_zone
from shared.engine.enqueue import Producer
from shared.engine.errors import PayloadError, StoreUnavailableError
from shared.engine.json_text import to_json
from shared.engine.memory import MemoryTransport
from shared.engine.relay import Relay
from shared.engine.schedules import CatchUp, Schedule, Scheduler, Schedules, slot_key
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.postgres import schedules as adapter
from shared.postgres.pool import Database
from shared.postgres.schedules import PostgresSchedules
from shared.postgres.store import PostgresStore
from tests.threads import at_once

QUEUE = "teams-outbound"
PAYLOAD = {"chatId": "19:dispatch@thread.v2", "content": "Check the tyres."}
MAIL = {"from": "dispatch@fleet.example", "to": ["alex@fleet.example"], "subject": "Tyres", "body": "Check them."}
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Bench:
    """Schedules and their scheduler at a time that the test sets; `wake_ups` are the queues woken."""

    def __init__(self, database: Database, sql: psycopg.Connection) -> None:
        self.sql = sql
        self.transport = MemoryTransport()
        self.job_store = PostgresStore(database)
        self.producer = Producer(self.job_store, self.transport, QUEUES, parse_payload)
        self.store = PostgresSchedules(database, clock="(select at from test_clock)")
        self.schedules = Schedules(self.store, self.producer)
        sql.execute("create table test_clock (at timestamptz not null)")
        sql.execute("insert into test_clock values (%s)", (NOON,))

    def run(self) -> int:
        """A pass of a scheduler of its own, as another host would have it."""
        return Scheduler(self.store, self.producer).run()

    def set(self, now: datetime) -> None:
        self.sql.execute("update test_clock set at = %s", (now,))

    def put(self, name: str = "tyres", cron: str = "*/5 * * * *", **options: Any) -> Schedule:
        return self.schedules.put(name, QUEUE, PAYLOAD, cron, **options)

    def get(self, name: str = "tyres") -> Schedule:
        return next(schedule for schedule in self.schedules.list() if schedule.name == name)

    def slots(self, name: str = "tyres") -> list[datetime]:
        """The slots that have a job, in the order in which the jobs were made."""
        rows = self.sql.execute(
            "select run_at, idempotency_key from queue.jobs where idempotency_key like %s order by id",
            (f"schedule:{name}:%",),
        ).fetchall()
        assert all(key == slot_key(name, run_at) for run_at, key in rows)
        return [run_at for run_at, _ in rows]

    def alerts(self) -> list[tuple[Any, ...]]:
        return self.sql.execute(
            "select alert_key, level, occurrences, resolved_at is null from queue.queue_alerts order by 1"
        ).fetchall()


@pytest.fixture
def bench(database: Database, sql: psycopg.Connection) -> Bench:
    return Bench(database, sql)


def at(clock: str) -> datetime:
    return datetime.combine(NOON.date(), datetime.strptime(clock, "%H:%M").time(), UTC)


# ------------------------------------------------------------------ the verbs


def test_a_new_schedule_waits_for_its_first_slot_after_now(bench: Bench) -> None:
    made = bench.put("Daily report", "30  6 * * mon-fri", time_zone="Europe/Berlin", priority=3, catch_up="all")
    assert made == bench.get("Daily report")
    assert made.next_run_at == datetime(2026, 3, 3, 5, 30, tzinfo=UTC) and made.planned_from == NOON
    assert (made.queue, made.payload, made.cron, made.time_zone) == (
        QUEUE,
        PAYLOAD,
        "30 6 * * mon-fri",
        "Europe/Berlin",
    )
    assert (made.priority, made.catch_up, made.paused, made.problem) == (3, CatchUp.ALL, False, None)


@pytest.mark.parametrize(
    ("wrong", "field", "remedy"),
    [
        ({"name": ""}, "name", "1 to 100 printable"),
        ({"name": "x" * 101}, "name", "1 to 100 printable"),
        ({"name": "a\nb"}, "name", "1 to 100 printable"),
        ({"name": None}, "name", "1 to 100 printable"),
        ({"queue": "nowhere"}, "queue", "the queues are: "),
        ({"queue": "attachments"}, "queue", "takes no jobs: "),
        ({"queue": 5}, "queue", "the name of a queue"),
        ({"payload": {"content": "x"}}, "payload", "chatId"),
        ({"payload": {**PAYLOAD, "surprise": 1}}, "payload.surprise", "this field is not known"),
        ({"payload": []}, "payload", "object"),
        ({"payload": {"x": float("nan")}}, "payload", "it is not JSON"),
        ({"cron": "* * * *"}, "cron", "must have five"),
        ({"cron": "0 0 6 * * *"}, "cron", "must have five"),
        ({"cron": "0 25 * * *"}, "cron", "bad hour: write minute, hour"),
        ({"cron": "0 0 30 2 *"}, "cron", "bad day-of-month, or none that the months given have"),
        ({"cron": "0 0 */31 * 6#5"}, "cron", "no date matches"),
        ({"cron": None}, "cron", "it must be a text"),
        ({"time_zone": "Europe/Berln"}, "timeZone", "similar: Europe/Berlin"),
        ({"time_zone": None}, "timeZone", "give an IANA name"),
        ({"priority": 0}, "priority", "from 1 \\(first\\) to 10"),
        ({"priority": 2.5}, "priority", "from 1 \\(first\\) to 10"),
        ({"priority": "high"}, "priority", "from 1 \\(first\\) to 10"),
        ({"catch_up": "twice"}, "catchUp", '"skip", "once" or "all"'),
        ({"paused": "no"}, "paused", "true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_and_the_remedy(
    bench: Bench, wrong: dict[str, Any], field: str, remedy: str
) -> None:
    right: dict[str, Any] = {"name": "tyres", "queue": QUEUE, "payload": PAYLOAD, "cron": "0 6 * * *"}
    with pytest.raises(PayloadError, match=remedy) as raised:
        bench.schedules.put(**(right | wrong))
    assert {problem.field for problem in raised.value.problems} >= {field} or field == "payload"
    assert all(problem.field.startswith(field.split(".")[0]) for problem in raised.value.problems)
    assert bench.schedules.list() == []


def test_all_wrong_values_are_named_at_once(bench: Bench) -> None:
    with pytest.raises(PayloadError) as raised:
        bench.schedules.put("", "nowhere", {}, "x", time_zone="y", priority=99, catch_up="z", paused=1)  # type: ignore[arg-type]
    fields = [problem.field for problem in raised.value.problems]
    assert fields == ["name", "catchUp", "paused", "priority", "queue", "timeZone", "cron"]


def test_a_queue_that_the_database_was_not_told_of_is_refused(bench: Bench) -> None:
    bench.sql.execute("delete from queue.queue_settings where queue = %s", (QUEUE,))
    with pytest.raises(PayloadError, match="queue: the database does not know it"):
        bench.put()


def test_putting_the_same_schedule_again_does_not_lose_what_is_overdue(bench: Bench) -> None:
    bench.put()
    bench.set(at("12:06"))
    again = bench.schedules.put("tyres", QUEUE, {**PAYLOAD, "content": "New text."}, "*/5 * * * *", priority=2)
    assert again == bench.get() and again.next_run_at == at("12:05") and again.priority == 2
    assert bench.run() == 1 and bench.slots() == [at("12:05")]


def test_other_times_are_planned_from_now_on(bench: Bench) -> None:
    bench.put()
    bench.set(at("12:06"))
    changed = bench.put(cron="*/10 * * * *")
    assert changed == bench.get() and changed.next_run_at == at("12:10")
    moved = bench.put(cron="0 */12 * * *", time_zone="Asia/Kolkata")
    assert moved == bench.get() and moved.next_run_at == at("18:30")


def test_a_pause_makes_no_jobs_and_a_resumed_schedule_goes_on_in_the_future(bench: Bench) -> None:
    bench.put(catch_up="all")
    paused = bench.schedules.pause("tyres")
    assert paused == bench.get() and paused.paused
    bench.set(at("12:31"))
    assert bench.run() == 0
    bench.put(catch_up="all")
    assert bench.get().paused, "an app that puts its schedules at a start overrules no operator"
    resumed = bench.schedules.resume("tyres")
    assert resumed == bench.get() and not resumed.paused and resumed.next_run_at == at("12:35")
    assert bench.schedules.resume("tyres") == resumed, "resuming what is not paused changes nothing"
    assert bench.run() == 0
    bench.set(at("12:35"))
    assert bench.run() == 1 and bench.slots() == [at("12:35")]


def test_a_schedule_may_start_paused_and_be_resumed_by_a_put(bench: Bench) -> None:
    assert bench.put(paused=True).paused
    bench.set(at("12:31"))
    assert bench.run() == 0
    assert bench.put(paused=False).next_run_at == at("12:35")


def test_run_now_makes_a_job_besides_the_slots_also_while_paused(bench: Bench) -> None:
    bench.put(paused=True, priority=2)
    bench.set(at("12:01"))
    made = bench.schedules.run_now("tyres")
    assert made is not None and made.created
    record = bench.job_store.get(made.id)
    assert record is not None and (record.payload, record.priority) == (PAYLOAD, 2)
    assert record.correlation_id == "schedule:tyres:now"
    assert [queue for queue, _, _ in bench.transport.sent] == [QUEUE]
    now = bench.get()
    assert (now.last_job_id, now.last_run_at, now.next_run_at) == (made.id, at("12:01"), at("12:05"))
    second = bench.schedules.run_now("tyres")
    assert second is not None and second.created and second.id != made.id


def test_a_deleted_schedule_leaves_its_jobs(bench: Bench) -> None:
    bench.put()
    bench.set(at("12:05"))
    bench.run()
    assert bench.schedules.delete("tyres") and not bench.schedules.delete("tyres")
    bench.set(at("12:10"))
    assert bench.run() == 0 and bench.slots() == [at("12:05")]


def test_what_does_not_exist_is_answered_so(bench: Bench) -> None:
    schedules = bench.schedules
    assert (schedules.pause("x"), schedules.resume("x"), schedules.run_now("x")) == (None, None, None)
    assert not schedules.delete("x") and schedules.list() == []


def test_many_puts_of_one_name_at_once_are_one_schedule(bench: Bench) -> None:
    at_once(8, lambda n: bench.put(priority=n + 1))
    assert [schedule.name for schedule in bench.schedules.list()] == ["tyres"]


# ------------------------------------------------------------------ running


def test_a_slot_makes_one_job_and_wakes_a_worker_after_the_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    send = bench.transport.send

    def look_then_send(*arguments: Any) -> None:
        seen.append(len(bench.slots()))
        send(*arguments)

    monkeypatch.setattr(bench.transport, "send", look_then_send)
    bench.put(priority=4)
    assert bench.run() == 0
    bench.set(at("12:05"))
    assert bench.run() == 1 and bench.run() == 0
    assert seen == [1], "another connection sees the job when the wake-up goes out"
    now = bench.get()
    assert now.last_job_id is not None and (now.last_run_at, now.next_run_at) == (at("12:05"), at("12:10"))
    record = bench.job_store.get(now.last_job_id)
    assert record is not None and (record.payload, record.priority, record.run_at) == (PAYLOAD, 4, at("12:05"))
    assert record.idempotency_key == record.correlation_id == "schedule:tyres:2026-03-02T12:05:00Z"


def test_a_slot_that_has_its_job_gets_no_second_one(bench: Bench) -> None:
    bench.put()
    bench.set(at("12:05"))
    bench.run()
    bench.sql.execute("update queue.scheduled_jobs set next_run_at = %s", (at("12:05"),))
    assert bench.run() == 0 and bench.slots() == [at("12:05")]
    assert bench.get().next_run_at == at("12:10")


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("skip", []),
        ("once", ["14:40"]),
        ("all", ["12:20", "12:40", "13:00", "13:20", "13:40", "14:00", "14:20", "14:40"]),
    ],
)
def test_after_an_outage_the_policy_decides_and_the_next_slot_lies_ahead(
    bench: Bench, catch_up: str, expected: list[str]
) -> None:
    bench.put(cron="*/20 * * * *", catch_up=catch_up)
    bench.set(at("14:50"))
    assert bench.run() == len(expected)
    assert bench.slots() == [at(slot) for slot in expected]
    assert bench.get().next_run_at == at("15:00")
    assert bench.run() == 0


def test_all_goes_on_in_the_next_pass_and_lets_other_schedules_run_between(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.engine.schedules.SLOTS_A_PASS", 10)
    bench.put("a-backlog", "* * * * *", catch_up="all")
    bench.put("b-other", "0 * * * *")
    bench.set(at("13:00"))
    assert bench.run() == 11 and len(bench.slots("a-backlog")) == 10 and len(bench.slots("b-other")) == 1
    assert [bench.run() for _ in range(6)] == [10, 10, 10, 10, 10, 0]
    assert bench.slots("a-backlog") == [NOON + n * MINUTE for n in range(1, 61)]


def test_a_schedule_that_somebody_holds_is_left_for_the_next_pass(bench: Bench, database_url: str) -> None:
    bench.put("a")
    bench.put("b")
    bench.set(at("12:05"))
    with psycopg.connect(database_url) as other:
        other.execute("select from queue.scheduled_jobs where name = 'a' for update")
        assert bench.run() == 1
    assert bench.run() == 1 and bench.slots("a") == bench.slots("b") == [at("12:05")]


# ------------------------------------------------------------------ exactly once


PLANS = {"a": "* * * * *", "b": "*/7 * * * *", "c": "0,10,11 * * * *"}


def expected_slots(cron: str, until: datetime) -> list[datetime]:
    plan, slots = parse_cron(cron, parse_zone("UTC")), []
    slot = plan.next_after(NOON)
    while slot <= until:
        slots.append(slot)
        slot = plan.next_after(slot)
    return slots


def test_three_schedulers_at_once_make_one_job_of_each_slot_over_200_ticks(bench: Bench) -> None:
    for name, cron in PLANS.items():
        bench.put(name, cron, catch_up="all")
    random, now, made = Random(5), NOON, 0
    for _ in range(200):
        now += random.choice([0, 30, 60, 60, 90, 400]) * timedelta(seconds=1)
        bench.set(now)
        made += sum(at_once(3, lambda _: bench.run()))
    bench.run()
    for name, cron in PLANS.items():
        assert bench.slots(name) == expected_slots(cron, now)
    assert made == sum(len(bench.slots(name)) for name in PLANS)


@contextmanager
def dying(bench: Bench, point: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scheduler's connection is cut by the server at one point of the next pass; the scheduler sees its end."""
    held = adapter._Held

    def cut(conn: psycopg.Connection) -> None:
        # Asked of the server: conn.info has the pid of a pooler's making where there is one.
        bench.sql.execute("select pg_terminate_backend(%s, 5000)", conn.execute("select pg_backend_pid()").fetchone())

    def enqueue(self: Any, jobs: Any, conn: Any = None) -> Any:
        if point == "before the jobs":
            cut(conn)
        return enqueue_many(self, jobs, conn)

    def saved(self: Any, schedule: Schedule) -> None:
        if point == "between the two":
            cut(self.conn)
        save(self, schedule)
        if point == "before the commit":
            cut(self.conn)

    def wake(self: Any, *arguments: Any) -> None:
        raise StoreUnavailableError("the process is gone")

    enqueue_many, save = Producer.enqueue_many, held.save
    with monkeypatch.context() as patch:
        patch.setattr(Producer, "enqueue_many", enqueue)
        patch.setattr(held, "save", saved)
        if point == "before the wake-up":
            patch.setattr(Producer, "wake_for", wake)
        yield


POINTS = ["before the jobs", "between the two", "before the commit", "before the wake-up"]


@pytest.mark.parametrize("point", POINTS)
def test_a_scheduler_that_dies_has_done_nothing_or_all(
    bench: Bench, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bench.put()
    bench.set(at("12:05"))
    with dying(bench, point, monkeypatch), pytest.raises(StoreUnavailableError):
        bench.run()
    if point == "before the wake-up":
        assert bench.slots() == [at("12:05")] and bench.get().next_run_at == at("12:10")
        assert bench.run() == 0 and bench.transport.sent == type(bench.transport.sent)()
        assert Relay(bench.job_store, bench.transport).run() == 1
    else:
        assert bench.slots() == [] and bench.get() == before
        assert bench.run() == 1 and bench.slots() == [at("12:05")]


def test_schedulers_killed_at_random_over_200_ticks_lose_and_double_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, cron in PLANS.items():
        bench.put(name, cron, catch_up="all")
    random, now, deaths = Random(11), NOON, Counter[str]()
    for _ in range(200):
        now += random.choice([30, 60, 90]) * timedelta(seconds=1)
        bench.set(now)
        point = random.choice([*POINTS, *["never"] * 6])
        with dying(bench, point, monkeypatch):
            try:
                bench.run()
            except StoreUnavailableError:
                deaths[point] += 1
    bench.run()
    assert set(deaths) == set(POINTS) and deaths.total() > 50
    for name, cron in PLANS.items():
        assert bench.slots(name) == expected_slots(cron, now)


# ------------------------------------------------------------------ one that cannot run


def test_a_payload_that_no_longer_validates_raises_an_alert_and_stops_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.put("a-broken")
    bench.put("b-good")
    bench.sql.execute("""update queue.scheduled_jobs set payload = '{"old": 1}' where name = 'a-broken'""")
    for clock in ("12:05", "12:10"):
        bench.set(at(clock))
        assert bench.run() == 1
    broken = bench.get("a-broken")
    assert broken.problem is not None and "payload" in broken.problem and broken.next_run_at == at("12:15")
    assert bench.slots("a-broken") == [] and len(bench.slots("b-good")) == 2
    assert "schedule.failed" in caplog.text
    assert bench.alerts() == [("schedule:a-broken", "warning", 2, True)]
    bench.put("a-broken")
    assert bench.get("a-broken").problem is None
    assert bench.alerts() == [("schedule:a-broken", "warning", 2, False)], "not at its next slot, a year from now"
    bench.set(at("12:15"))
    assert bench.run() == 2


def run_with_a_payload_that_is_none(bench: Bench) -> None:
    """The schedule `tyres`, which has an alert then."""
    bench.put()
    bench.sql.execute("update queue.scheduled_jobs set payload = '{}'")
    bench.set(at("12:05"))
    bench.run()


def test_a_paused_schedule_keeps_its_alert_until_it_is_resumed(bench: Bench) -> None:
    run_with_a_payload_that_is_none(bench)
    bench.schedules.pause("tyres")
    bench.run()
    assert bench.alerts() == [("schedule:tyres", "warning", 1, True)]
    bench.sql.execute("update queue.scheduled_jobs set payload = %s", (to_json(PAYLOAD),))
    bench.schedules.resume("tyres")
    assert bench.get().problem is None
    assert bench.alerts() == [("schedule:tyres", "warning", 1, False)]


def test_a_queue_that_was_closed_in_the_database_undoes_only_its_own_schedule(bench: Bench) -> None:
    bench.put("a-closed")
    bench.schedules.put("b-good", "outlook-outbound", MAIL, "*/5 * * * *")
    bench.sql.execute("update queue.queue_settings set closed = 'for repairs' where queue = %s", (QUEUE,))
    bench.set(at("12:06"))
    assert bench.run() == 1 and bench.slots("b-good") == [at("12:05")]
    assert bench.get("a-closed").problem == f'queue "{QUEUE}" takes no jobs: for repairs'
    assert bench.get("a-closed").next_run_at == at("12:10") and len(bench.alerts()) == 1


def test_a_deleted_schedule_takes_its_alert_along(bench: Bench) -> None:
    run_with_a_payload_that_is_none(bench)
    bench.schedules.delete("tyres")
    assert bench.alerts() == [("schedule:tyres", "warning", 1, False)]


# ------------------------------------------------------------------ from SQL


def insert(
    sql: psycopg.Connection, name: str, cron: str, time_zone: str = "UTC", planned_from: datetime = NOON
) -> None:
    sql.execute(
        "insert into queue.scheduled_jobs (name, queue, payload, cron, time_zone, planned_from)"
        " values (%s, %s, %s, %s, %s, %s)",
        (name, QUEUE, to_json(PAYLOAD), cron, time_zone, planned_from),
    )


def test_a_row_made_in_sql_loses_no_slot_until_it_is_planned(bench: Bench) -> None:
    insert(bench.sql, "tyres", "*/5 * * * *")
    bench.set(at("12:04"))
    assert bench.run() == 0 and bench.get().next_run_at == at("12:05")
    insert(bench.sql, "second", "*/5 * * * *")
    bench.set(at("12:06"))
    assert bench.run() == 2 and bench.slots("second") == [at("12:05")]


def test_a_row_counts_from_the_moment_of_its_insert(bench: Bench) -> None:
    bench.sql.execute(
        "insert into queue.scheduled_jobs (name, queue, payload, cron) values ('x', %s, '{}', '* * * * *')", (QUEUE,)
    )
    row = bench.sql.execute("select now() - planned_from < interval '1 minute', catch_up from queue.scheduled_jobs")
    assert row.fetchone() == (True, "once")


@pytest.mark.parametrize("change", ["cron = '*/10 * * * *'", "time_zone = 'Asia/Kolkata'", "paused = false"])
def test_a_change_in_sql_of_when_it_runs_is_planned_anew_from_now_on(bench: Bench, change: str) -> None:
    bench.put(paused=change.startswith("paused"))
    bench.sql.execute("update queue.scheduled_jobs set priority = 2, paused = paused")
    assert bench.get().next_run_at == at("12:05")
    bench.sql.execute(f"update queue.scheduled_jobs set {change}".encode())
    row = bench.sql.execute(
        "select next_run_at is null, clock_timestamp() - planned_from < interval '1 minute' from queue.scheduled_jobs"
    )
    assert row.fetchone() == (True, True)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ("'x', 'teams-outbound', '{}', '0 0 6 * * *', 'UTC'", psycopg.errors.CheckViolation),
        ("'x', 'teams-outbound', '{}', '0 6 * *', 'UTC'", psycopg.errors.CheckViolation),
        ("'', 'teams-outbound', '{}', '0 6 * * *', 'UTC'", psycopg.errors.CheckViolation),
        ("'x', 'teams-outbound', '[]', '0 6 * * *', 'UTC'", psycopg.errors.CheckViolation),
        ("'x', 'teams-outbound', '{}', '0 6 * * *', 'Mars/Phobos'", psycopg.errors.InvalidParameterValue),
        ("'x', 'nowhere', '{}', '0 6 * * *', 'UTC'", psycopg.errors.ForeignKeyViolation),
    ],
)
def test_sql_refuses_what_it_can_see_to_be_wrong(sql: psycopg.Connection, values: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        sql.execute(
            f"insert into queue.scheduled_jobs (name, queue, payload, cron, time_zone) values ({values})".encode()
        )


def test_an_expression_that_sql_could_not_check_waits_for_its_repair_and_stops_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    insert(bench.sql, "a-bad", "61 * * * *")
    bench.put("b-good")
    bench.set(at("12:05"))
    assert bench.run() == 1
    bench.set(at("12:10"))
    caplog.clear()
    assert bench.run() == 1 and "schedule.failed" not in caplog.text, "said once, not every minute"
    assert bench.alerts() == [("schedule:a-bad", "warning", 1, True)]
    bad = bench.get("a-bad")
    assert bad.next_run_at is None and bad.problem is not None and bad.problem.startswith("cron: bad minute")
    bench.sql.execute("update queue.scheduled_jobs set cron = '1 * * * *' where name = 'a-bad'")
    bench.sql.execute("update queue.scheduled_jobs set planned_from = %s where name = 'a-bad'", (at("12:10"),))
    bench.run()
    assert bench.get("a-bad").next_run_at == at("13:01") and bench.alerts()[0][3] is False
    bench.set(at("13:01"))
    bench.run()
    assert bench.slots("a-bad") == [at("13:01")]


def test_the_databases_own_clock_is_used_where_nothing_else_is_said(
    database: Database, sql: psycopg.Connection
) -> None:
    row = sql.execute("select clock_timestamp()").fetchone()
    assert row is not None and abs(PostgresSchedules(database).now() - row[0]) < timedelta(seconds=10)


def test_bootstrap_builds_both(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("QueueStorage", "AccountName=a;AccountKey=a2V5;QueueEndpoint=http://127.0.0.1:1/a;")
    monkeypatch.setenv("ENCRYPTION_KEY", base64.b64encode(bytes(32)).decode())
    bootstrap.stop()
    try:
        assert bootstrap.schedules().put("tyres", QUEUE, PAYLOAD, "* * * * *").next_run_at is not None
        assert bootstrap.scheduler().run() == 0
    finally:
        bootstrap.stop()
