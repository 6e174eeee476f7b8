"""Alerts in PostgreSQL: opened, told and resolved once each, whoever dies and however many evaluate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shared.access import Principal, Role
from shared.engine.enqueue import Producer
from shared.engine.job import NewJob
from shared.handlers.registry import QUEUES
from shared.handlers.services import Operator
from shared.monitoring.alerts import AlertWatch, ToldAlert
from shared.monitoring.notices import Notices
from shared.monitoring.rules import TIMERS, Threshold
from shared.postgres.admin_orders import PostgresOrders
from shared.postgres.alert_board import PostgresAlertBoards
from shared.postgres.open_alerts import OpenAlerts
from shared.postgres.pool import Database
from shared.postgres.sealer import Sealer
from shared.postgres.statistics import PostgresStatistics
from shared.postgres.store import PostgresStore
from shared.postgres.thresholds import PostgresThresholds
from tests.integration.monitoring.conftest import QUEUE, History

CLOCK = "test_clock.now()"
MINUTE = timedelta(minutes=1)
OPERATOR = Operator(mail_from="fleet@fleet.example", mail_to="ops@fleet.example", dashboard="https://fleet.example/d")


class Wire:
    """A transport that notes what was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None:
        self.sent.append(queue)

    def visible(self, queue: str, cap: int) -> int:
        return 0


class Bench:
    """Alerts evaluated at times of the test's choice."""

    def __init__(self, database: Database, sql: psycopg.Connection, set_clock: Callable[[datetime], None]) -> None:
        self.sql = sql
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.wire = Wire()
        self._set_clock = set_clock
        self.boards = PostgresAlertBoards(database, CLOCK)
        self.producer = Producer(PostgresStore(database), self.wire, QUEUES, lambda queue, text: text)
        self.watch = self.watch_with(Notices(OPERATOR).jobs)

    def watch_with(self, jobs_for: Callable[[Sequence[ToldAlert]], Sequence[NewJob]]) -> AlertWatch:
        return AlertWatch(self.boards, self.producer, jobs_for)

    def timers_ran(self) -> None:
        for timer in TIMERS:
            self.sql.execute(
                "insert into queue.timer_turn (timer, last_started_at, last_finished_at) values (%(t)s, %(at)s, %(at)s)"
                " on conflict (timer) do update set last_finished_at = excluded.last_finished_at",
                {"t": timer, "at": self.now},
            )

    def evaluate(self, minutes: int = 1) -> None:
        for _ in range(minutes):
            self.now += MINUTE
            self._set_clock(self.now)
            self.timers_ran()
            self.watch.run()

    def alerts(self, key: str) -> list[tuple[Any, ...]]:
        """Level, and whether it is open, of each alert of the key."""
        return self.sql.execute(
            "select level, resolved_at is null from queue.queue_alerts where alert_key = %s order by opened_at", (key,)
        ).fetchall()

    def messages(self) -> list[str]:
        rows = self.sql.execute(
            "select payload ->> 'subject' from queue.jobs where queue = 'outlook-outbound'"
            " and idempotency_key like 'operator-notice:%' order by enqueued_at, id"
        ).fetchall()
        return [row[0] for row in rows]

    def bury(self, letters: int) -> None:
        self.sql.execute(
            "insert into queue.dead_letter_queue (source, queue, error_class, error_message)"
            " select gen_random_uuid()::text, %s, 'validation', 'why' from generate_series(1, %s)",
            (QUEUE, letters),
        )


@pytest.fixture
def bench(database: Database, sql: psycopg.Connection, set_clock: Callable[[datetime], None]) -> Bench:
    bench = Bench(database, sql, set_clock)
    bench.evaluate()
    assert sql.execute("select count(*) from queue.queue_alerts").fetchone() == (0,)
    return bench


def test_an_alert_opens_once_updates_escalates_resolves_and_is_told_of_each(bench: Bench) -> None:
    bench.bury(51)
    bench.evaluate(3)
    assert bench.alerts("dead-letters:teams-outbound") == [("warning", True)]
    assert bench.messages() == ["[fleet-queue] warning: Dead letters of teams-outbound wait for somebody: 51"]
    assert bench.wire.sent == ["outlook-outbound"]
    bench.bury(450)
    bench.evaluate(3)
    assert bench.alerts("dead-letters:teams-outbound") == [("critical", True)]
    row = bench.sql.execute("select value, threshold, occurrences from queue.queue_alerts").fetchone()
    assert row == (501, 500, 6)
    bench.sql.execute("update queue.dead_letter_queue set reviewed_at = now(), reviewed_by = 'me'")
    bench.evaluate(5)
    assert bench.alerts("dead-letters:teams-outbound") == [("critical", True)]
    told = bench.sql.execute(
        "select title, value, details -> 'was', details -> 'now' from queue.queue_alerts"
    ).fetchone()
    was = "Dead letters of teams-outbound wait for somebody: 501"
    assert told == (f"{was}; now 0 dead letters", 0, was, 0)
    bench.evaluate(3)
    assert bench.alerts("dead-letters:teams-outbound") == [("critical", False)]
    assert [text.split(":")[0] for text in bench.messages()] == [
        "[fleet-queue] warning", "[fleet-queue] critical", "[fleet-queue] resolved",
    ]  # fmt: skip


def test_the_title_of_an_open_alert_stays_true_when_its_threshold_is_raised_and_when_it_comes_back(
    bench: Bench,
) -> None:
    def title() -> tuple[Any, ...] | None:
        return bench.sql.execute("select title, details ? 'was' from queue.queue_alerts").fetchone()

    change = (
        "insert into queue.alert_thresholds (rule, scope, warning, changed_by) values ('dead-letters', '', %s, 'me')"
    )
    bench.sql.execute(change + " on conflict (rule, scope) do update set warning = excluded.warning", (0,))
    bench.bury(1)
    bench.evaluate()
    assert title() == ("Dead letters of teams-outbound wait for somebody: 1", False)
    bench.sql.execute(change + " on conflict (rule, scope) do update set warning = excluded.warning", (30,))
    bench.bury(18)
    bench.evaluate(2)
    assert title() == ("Dead letters of teams-outbound wait for somebody: 1; now 19 dead letters", True)
    bench.bury(12)
    bench.evaluate()
    assert title() == ("Dead letters of teams-outbound wait for somebody: 31", False)


def test_an_acknowledged_alert_is_told_no_more_unless_it_rises_above_the_level_that_was_acknowledged(
    bench: Bench, database: Database
) -> None:
    def acknowledge() -> None:
        row = bench.sql.execute("select id from queue.queue_alerts where resolved_at is null").fetchone()
        orders = PostgresOrders(database, Sealer(), lambda: bench.wire, lambda *_: bench.producer)
        assert row is not None
        orders.run(Principal("me", "key", Role.ADMIN), "c", lambda order: order.acknowledge(row[0], "me"))

    def told() -> list[str]:
        return [text.removeprefix("[fleet-queue] ").split(":")[0] for text in bench.messages()]

    bench.bury(51)
    bench.evaluate()
    acknowledge()
    bench.bury(49)
    bench.evaluate()
    assert told() == ["warning"]
    bench.bury(500)
    bench.evaluate(3)
    assert bench.alerts("dead-letters:teams-outbound") == [("critical", True)]
    assert told() == ["warning", "critical"]
    bench.sql.execute(
        "delete from queue.dead_letter_queue where id in (select id from queue.dead_letter_queue limit 500)"
    )
    bench.evaluate()
    assert bench.alerts("dead-letters:teams-outbound") == [("warning", True)]
    acknowledge()
    bench.bury(500)
    bench.evaluate(2)
    assert told() == ["warning", "critical", "critical"], "the same level, but above the acknowledged one"
    bench.sql.execute("delete from queue.dead_letter_queue")
    bench.evaluate(8)
    assert bench.alerts("dead-letters:teams-outbound") == [("critical", False)]
    assert len(told()) == 3


def test_an_alert_that_is_acknowledged_before_it_is_told_is_not_told(bench: Bench, database: Database) -> None:
    OpenAlerts(database).open("identity:x", "warning", "No token", {})
    bench.sql.execute("update queue.queue_alerts set acknowledged_at = now(), acknowledged_by = 'me'")
    bench.evaluate()
    assert bench.messages() == []


def test_two_evaluators_at_once_open_one_alert_and_send_one_message(bench: Bench) -> None:
    bench.bury(51)
    barrier = threading.Barrier(4)

    def evaluate() -> None:
        barrier.wait(10)
        bench.watch.run()

    threads = [threading.Thread(target=evaluate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert bench.alerts("dead-letters:teams-outbound") == [("warning", True)]
    assert len(bench.messages()) == 1


def test_while_one_evaluates_another_leaves_it_alone(bench: Bench) -> None:
    bench.bury(51)
    with bench.boards.evaluation() as board:
        assert board is not None
        with bench.boards.evaluation() as other:
            assert other is None
        bench.watch.run()
    assert bench.alerts("dead-letters:teams-outbound") == []


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("point", ["before the messages", "after the messages"])
def test_an_alert_whose_evaluator_is_killed_is_opened_and_told_by_the_next(
    bench: Bench, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(51)

    def die(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        if point == "before the messages":
            patch.setattr(bench.producer, "enqueue_many", die)
        else:
            patch.setattr("shared.postgres.alert_board._Board.mark_told", die)
        with pytest.raises(Killed):
            bench.evaluate()
    assert bench.alerts("dead-letters:teams-outbound") == [] and bench.messages() == []
    bench.evaluate(2)
    assert bench.alerts("dead-letters:teams-outbound") == [("warning", True)]
    assert len(bench.messages()) == 1


def test_an_alert_whose_evaluator_is_killed_after_the_commit_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(51)

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bench.producer, "wake_for", die)
        with pytest.raises(Killed):
            bench.evaluate()
    bench.evaluate(2)
    assert len(bench.messages()) == 1
    assert bench.wire.sent == [], "the relay wakes for what lies there"


def test_an_alert_that_somebody_else_opened_is_told_and_so_is_its_end(bench: Bench, database: Database) -> None:
    alerts = OpenAlerts(database)
    alerts.open("identity:application", "critical", "No token", {"remedy": "Sign in."})
    bench.evaluate(2)
    assert bench.messages() == ["[fleet-queue] critical: No token"]
    alerts.resolve("identity:application")
    bench.evaluate(2)
    assert bench.messages()[1:] == ["[fleet-queue] resolved: No token"]


def test_an_alert_of_dead_letters_is_told_by_their_handler_and_resolves_when_they_are_dealt_with(
    bench: Bench,
) -> None:
    bench.bury(1)
    bench.sql.execute(
        "insert into queue.queue_alerts (alert_key, level, title, details)"
        " values ('dead-letter:teams-outbound:validation', 'warning', 'Dead letters',"
        " jsonb_build_object('queue', 'teams-outbound', 'errorClass', 'validation'))"
    )
    bench.evaluate(2)
    assert bench.alerts("dead-letter:teams-outbound:validation") == [("warning", True)]
    assert bench.messages() == []
    bench.sql.execute("update queue.dead_letter_queue set redriven_at = now(), redriven_by = 'me'")
    bench.evaluate(2)
    assert bench.alerts("dead-letter:teams-outbound:validation") == [("warning", False)]
    assert bench.messages() == ["[fleet-queue] resolved: Dead letters"]


def test_an_alert_of_an_event_resolves_a_day_after_the_last_one(bench: Bench) -> None:
    bench.sql.execute(
        "insert into queue.queue_alerts (alert_key, level, title, opened_at, updated_at) values"
        " ('notifications:suspicious', 'critical', 'Forged', %(at)s, %(at)s),"
        " ('schedule:x', 'warning', 'S', %(at)s, %(at)s)",
        {"at": bench.now - timedelta(hours=25)},
    )
    bench.evaluate()
    assert bench.alerts("notifications:suspicious") == [("critical", False)]
    assert bench.alerts("schedule:x") == [("warning", True)]


def test_an_alert_threshold_changed_at_run_time_holds_from_the_next_evaluation_on(
    bench: Bench, database: Database
) -> None:
    thresholds = PostgresThresholds(database)
    bench.bury(10)
    bench.evaluate()
    assert bench.alerts("dead-letters:teams-outbound") == []
    thresholds.set("dead-letters", QUEUE, Threshold(5, 100), "me")
    bench.evaluate()
    assert bench.alerts("dead-letters:teams-outbound") == [("warning", True)]
    [found] = thresholds.list()
    assert (found.rule, found.scope, found.threshold, found.changed_by) == (
        "dead-letters",
        QUEUE,
        Threshold(5, 100),
        "me",
    )
    assert thresholds.reset("dead-letters", QUEUE) is True
    assert thresholds.reset("dead-letters", QUEUE) is False
    bench.evaluate(7)
    assert bench.alerts("dead-letters:teams-outbound") == [("warning", False)]


def test_an_alert_threshold_is_part_of_the_callers_transaction(bench: Bench, database: Database) -> None:
    thresholds = PostgresThresholds(database)

    def change_and_die() -> None:
        with database.transaction() as conn:
            thresholds.set("backlog", "", Threshold(1, 2), "me", conn=conn)
            raise Killed

    with pytest.raises(Killed):
        change_and_die()
    assert thresholds.list() == []


def test_an_alert_tells_of_a_timer_that_stopped(bench: Bench) -> None:
    bench.sql.execute("update queue.timer_turn set last_finished_at = %s where timer = 'relay'", (bench.now,))
    for _ in range(4):
        bench.now += MINUTE
        bench._set_clock(bench.now)
        bench.watch.run()
    assert bench.alerts("timer:relay") == [("warning", True)]
    assert bench.alerts("timer:partitions") == []
    bench.evaluate(7)
    assert bench.alerts("timer:relay") == [("warning", False)]


def test_an_alert_tells_of_a_backlog_that_grows_while_nothing_ends(
    bench: Bench, database: Database, history: History
) -> None:
    store = PostgresStore(database)
    history.end(bench.now - 8 * MINUTE)
    store.enqueue([NewJob(QUEUE, {}) for _ in range(5)])
    bench.sql.execute("update queue.job set run_at = %s", (bench.now - 6 * MINUTE,))
    bench.sql.execute("update queue.queue_settings set paused = true")
    bench.evaluate()
    assert bench.alerts("stalled:teams-outbound") == []
    bench.sql.execute("update queue.queue_settings set paused = false")
    bench.evaluate()
    assert bench.alerts("stalled:teams-outbound") == [("warning", True)]
    for _ in range(7):
        history.end(bench.now)
        bench.evaluate()
    assert bench.alerts("stalled:teams-outbound")[0] == ("warning", False)


def test_a_rate_of_failures_opens_an_alert_from_the_last_five_minutes(bench: Bench, history: History) -> None:
    for n in range(20):
        history.end(bench.now - timedelta(seconds=n), errors=("network",) if n < 5 else (), took=100)
    bench.evaluate()
    assert bench.alerts("failure-rate:teams-outbound") == [("warning", True)]
    assert bench.alerts("processing-time:teams-outbound") == [("warning", True)]
    bench.evaluate(11)
    assert bench.alerts("failure-rate:teams-outbound") == [("warning", False)]


def test_a_failure_counts_for_the_rate_of_failures_while_it_is_younger_than_five_minutes(bench: Bench) -> None:
    bench.sql.execute(
        "insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, payload, attempts)"
        " select queue.new_id(), %(queue)s, 5, %(at)s + interval '1 day', %(at)s - interval '6 hours', 1, '{}',"
        " queue.attempt_entry(1::smallint, %(at)s, %(at)s, 'w', 'retry', 'network', 'why', null)"
        " from generate_series(1, 30)",
        {"queue": QUEUE, "at": bench.now},
    )
    bench.evaluate()
    assert bench.alerts("failure-rate:teams-outbound") == [("critical", True)]
    bench.evaluate(9)
    assert bench.alerts("failure-rate:teams-outbound") == [("critical", False)]


def test_a_way_that_is_set_up_wrongly_does_not_keep_an_alert_from_the_others(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def jobs(alerts: Sequence[ToldAlert]) -> list[NewJob]:
        return [NewJob("no-such-queue", {}), *Notices(OPERATOR).jobs(alerts)] if alerts else []

    bench.watch = bench.watch_with(jobs)
    bench.bury(51)
    bench.evaluate()
    assert bench.alerts("dead-letters:teams-outbound") == [("warning", True)]
    assert len(bench.messages()) == 1
    assert "alert.not_tellable" in caplog.text


def test_many_alerts_at_once_are_one_message(bench: Bench, database: Database) -> None:
    for _ in range(30):
        OpenAlerts(database).open(f"identity:{uuid4()}", "warning", "No token", {})
    bench.evaluate(2)
    assert bench.messages() == ["[fleet-queue] 30 alerts opened, 0 resolved"]


def test_alerts_that_were_resolved_long_ago_are_forgotten(bench: Bench, database: Database) -> None:
    bench.sql.execute(
        "insert into queue.queue_alerts (alert_key, level, title, opened_at, resolved_at) values"
        " ('old', 'info', '', now() - interval '91 days', now()),"
        " ('new', 'info', '', now() - interval '89 days', now()),"
        " ('open', 'info', '', now() - interval '91 days', null)"
    )
    PostgresStatistics(database).forget()
    rows = bench.sql.execute("select alert_key from queue.queue_alerts order by 1").fetchall()
    assert rows == [("new",), ("open",)]
