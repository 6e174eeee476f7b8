"""The audit log: every change has its row or has not happened, and no row changes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared import bootstrap
from shared.access import Principal, Role
from shared.admin.ports import Order
from shared.admin.routes import ROUTES
from shared.engine.errors import TransportUnavailableError
from shared.engine.job import Dead, ErrorClass, Failure, JobState, Settlement
from shared.postgres.refusals import PostgresRefusals
from tests.integration.admin.conftest import CHAT, Api
from tests.unit.functions.admin_bench import signed_in

QUEUE = "teams-outbound"
ADA = Principal("ada", "token", Role.OPERATOR)
SYNC = {"resourceType": "emails", "userId": "a@b.c"}


def audit(api: Api, **filters: str) -> list[dict[str, Any]]:
    """Oldest first."""
    found: list[dict[str, Any]] = api.get("audit", filters)["items"]
    return found[::-1]


def die(api: Api) -> str:
    api.enqueue()
    [job] = bootstrap.store().claim(QUEUE, 1, "w", timedelta(seconds=45)).jobs
    bootstrap.store().settle([Settlement(job.id, job.lease_token, Dead(Failure(ErrorClass.VALIDATION, "gone")))])
    return str(api.get("jobs/{id}", id=str(job.id))["deadLetterId"])


def test_audit_has_exactly_one_row_for_each_change_of_every_route(api: Api, sql: psycopg.Connection) -> None:
    """Each route that changes something is asked once, in its good case."""
    jobs = [api.enqueue(delaySeconds=3600) for _ in range(3)]
    letters = [die(api) for _ in range(4)]
    [alert] = sql.execute(
        "insert into queue.queue_alerts (alert_key, level, title) values ('a', 'warning', 'A') returning id"
    ).fetchone() or [None]
    schedule = {"name": "daily", "queue": "sync", "cron": "0 6 * * *", "payload": SYNC}
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "enqueueJobs": ("job.enqueue", {"body": {"payload": CHAT}, "queue": QUEUE}),
        "changeJob": ("job.change", {"body": {"priority": 1}, "id": jobs[0]}),
        "cancelJob": ("job.cancel", {"id": jobs[1]}),
        "retryJob": ("job.retry", {"id": jobs[2]}),
        "pauseQueue": ("queue.pause", {"queue": QUEUE}),
        "resumeQueue": ("queue.resume", {"queue": QUEUE}),
        "changeLimits": ("queue.limits", {"body": {"concurrency": 3}, "queue": QUEUE}),
        "resetLimits": ("queue.limits", {"queue": QUEUE}),
        "reviewDeadLetter": ("dead_letter.review", {"body": {"note": "n"}, "id": letters[0]}),
        "redriveDeadLetters": ("dead_letter.redrive", {"body": {"ids": [letters[1]]}}),
        "reviewDeadLetters": ("dead_letter.review", {"body": {"ids": [letters[3]], "note": "n"}}),
        "discardDeadLetters": ("dead_letter.discard", {"body": {"ids": [letters[3]], "note": "n"}}),
        "discardDeadLetter": ("dead_letter.discard", {"id": letters[2]}),
        "createSchedule": ("schedule.create", {"body": schedule}),
        "changeSchedule": ("schedule.change", {"body": {"paused": True}, "name": "daily"}),
        "runSchedule": ("schedule.run", {"name": "daily"}),
        "deleteSchedule": ("schedule.delete", {"name": "daily"}),
        "acknowledgeAlert": ("alert.acknowledge", {"id": str(alert)}),
        "changeThresholds": ("threshold.change", {"body": {"items": [{"rule": "backlog", "warning": 5}]}}),
        "clearQueue": ("queue.clear", {"query": {"confirm": "yes"}, "queue": QUEUE}),
    }
    assert set(changes) == {route.operation for route in ROUTES if route.method != "GET"}
    routes = {route.operation: route for route in ROUTES}
    for operation, (action, given) in changes.items():
        route, before = routes[operation], len(audit(api, limit="200"))
        status, answer = api.ask(route.method, route.path, given.pop("body", None), **given)
        assert status < 300, (operation, answer)
        rows = audit(api, limit="200")[before:]
        assert [row["action"] for row in rows] == [action], operation
        assert (rows[0]["who"], rows[0]["kind"], rows[0]["role"]) == ("key 1", "key", "Admin")


def test_audit_says_who_did_what_to_which_and_how_it_was_before_and_after(api: Api) -> None:
    job_id = api.enqueue(delaySeconds=3600, priority=7)
    headers = signed_in("Operator") | {"x-correlation-id": "ticket-5", "content-type": "application/json"}
    api.ask("PATCH", "jobs/{id}", {"priority": 2}, headers=headers, id=job_id)
    [row] = audit(api, action="job.change")
    assert {name: row[name] for name in ("who", "kind", "role", "target", "correlationId")} == {
        "who": "ada@fleet.example", "kind": "app-service", "role": "Operator", "target": f"job:{job_id}",
        "correlationId": "ticket-5",
    }  # fmt: skip
    assert (row["before"]["priority"], row["after"]["priority"]) == (7, 2)
    assert audit(api, target=f"job:{job_id}") == audit(api, who="ada@fleet.example") == [row]


def test_audit_holds_no_payload(api: Api, sql: psycopg.Connection) -> None:
    api.enqueue()
    name = {"name": "secret", "queue": QUEUE, "cron": "0 6 * * *", "payload": CHAT | {"content": "the gate code"}}
    assert api.ask("POST", "schedules", name)[0] == 201
    api.ask("PATCH", "schedules/{name}", {"payload": CHAT | {"content": "another gate code"}}, name="secret")
    text = str(sql.execute("select * from queue.audit_log").fetchall())
    assert "schedule.change" in text and "gate code" not in text and CHAT["content"] not in text


def test_a_refused_change_leaves_no_row_in_the_audit(api: Api) -> None:
    job_id = api.enqueue()
    assert api.ask("POST", "jobs/{id}/cancel", headers=signed_in("Reader"), id=job_id)[0] == 403
    assert api.ask("PATCH", "jobs/{id}", {"priority": 99}, id=job_id)[0] == 422
    assert api.ask("POST", "{queue}/jobs", {"payload": {}}, queue=QUEUE)[0] == 422
    assert [row["action"] for row in audit(api)] == ["job.enqueue"]


class StopError(Exception):
    """The process ends here."""


def test_a_change_and_its_audit_row_come_together_or_not_at_all(api: Api) -> None:
    """Whoever dies before the commit has done neither, and has woken nobody."""
    job_id = UUID(api.enqueue(delaySeconds=3600))
    orders, store = bootstrap.admin().orders, bootstrap.store()

    def dying(order: Order, after_record: bool) -> None:
        order.control.retry_now(job_id)
        if after_record:
            order.record("job.retry", f"job:{job_id}", None, None)
        raise StopError

    for after_record in (False, True):
        with pytest.raises(StopError):
            orders.run(ADA, "c", lambda order, after_record=after_record: dying(order, after_record))  # type: ignore[misc]
        job = store.get(job_id)
        assert job is not None and job.state is JobState.SCHEDULED
    assert [row["action"] for row in audit(api)] == ["job.enqueue"] and not api.transport.sent


def test_an_order_whose_wake_up_was_never_sent_is_made_up_for_by_the_relay(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after the commit, or the Storage Queue is away: what was ordered has happened."""
    job_id = api.enqueue(delaySeconds=3600)

    def away(*_: Any) -> None:
        raise TransportUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(api.transport, "send", away)
        assert api.ask("POST", "retry/{id}", id=job_id)[0] == 200
    assert not api.transport.sent
    bootstrap.relay().run()
    assert [queue for queue, _, _ in api.transport.sent] == [QUEUE]
    assert [row["action"] for row in audit(api)] == ["job.enqueue", "job.retry"]


def test_an_order_that_meets_a_deadlock_is_carried_out_once_more(api: Api, sql: psycopg.Connection) -> None:
    """The whole transaction again, as nothing of the first try is left; the audit has one row."""
    tries: list[int] = []

    def order(order: Order) -> None:
        tries.append(1)
        order.control.pause(QUEUE)
        if len(tries) == 1:  # what two transactions in each other's way would get
            order.store._database._conn.execute(  # type: ignore[attr-defined]
                "do $$ begin raise exception using errcode = '40P01'; end $$"
            )
        order.record("queue.pause", f"queue:{QUEUE}", None, None)

    bootstrap.admin().orders.run(ADA, "c", order)
    assert len(tries) == 2 and [row["action"] for row in audit(api)] == ["queue.pause"]


def test_the_audit_log_takes_no_update_no_deletion_and_no_emptying(api: Api, sql: psycopg.Connection) -> None:
    api.ask("POST", "{queue}/pause", queue=QUEUE)
    for statement in (
        "update queue.audit_log set who = 'nobody'",
        "delete from queue.audit_log",
        "truncate queue.audit_log",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="the audit log takes no"):
            sql.execute(statement.encode())
    assert len(audit(api)) == 1


def test_retention_drops_what_is_older_than_a_year_from_the_audit(api: Api, sql: psycopg.Connection) -> None:
    columns = "insert into queue.audit_log (at, who, kind, role, action, target, correlation_id) values"
    for days in (364, 367):
        sql.execute(f"{columns} (now() - make_interval(days => {days}), 'a', 'key', 'Admin', 'x', 'y', 'c')".encode())
    bootstrap.partitions().maintain()
    assert sql.execute("select count(*) from queue.audit_log").fetchone() == (1,)


def test_wrong_keys_are_counted_over_all_instances_and_the_right_one_passes(api: Api) -> None:
    """Another instance's refusals slow a guesser here."""
    status, _ = api.ask("GET", "stats", headers={"x-admin-key": "guess"})
    assert status == 401
    refusals = PostgresRefusals(bootstrap.database())
    assert refusals.add(30) == 31
    assert refusals.add(1) == 32
    bootstrap.built.pop("admin_access")  # a new instance has counted nothing itself
    assert api.ask("GET", "stats", headers={"x-admin-key": "guess"})[0] == 429
    assert api.ask("GET", "stats")[0] == 200
    [alert] = api.get("alerts", {"status": "open"})["items"]
    assert (alert["key"], alert["level"]) == ("admin:guessing", "warning") and alert["details"]["refusals"] > 20


def test_without_a_database_an_instance_counts_for_itself(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    bootstrap.stop()
    assert PostgresRefusals(bootstrap.database()).add(1) is None


@pytest.mark.parametrize(
    ("method", "path", "changes", "lock", "action"),
    [
        (
            "PATCH", "schedules/{name}", ({"paused": True}, {"cron": "5 5 * * *"}),
            "select from queue.scheduled_jobs for update", "schedule.change",
        ),
        (
            "PUT", "thresholds",
            tuple({"items": [{"rule": "backlog", "scope": "sync", level: 2000}]} for level in ("warning", "critical")),
            "lock table queue.alert_thresholds in row exclusive mode", "threshold.change",
        ),
    ],
)  # fmt: skip
def test_audit_of_two_changes_at_the_same_moment_says_what_the_first_made_and_both_hold(
    api: Api, sql: psycopg.Connection, method: str, path: str, changes: tuple[Any, ...], lock: str, action: str
) -> None:
    api.ask("POST", "schedules", {"name": "daily", "queue": "sync", "cron": "0 6 * * *", "payload": SYNC})
    api.ask("PUT", "thresholds", {"items": [{"rule": "backlog", "scope": "sync", "warning": 1}]})

    def change(body: Any) -> int:
        return api.ask(method, path, body, name="daily")[0]

    with ThreadPoolExecutor(2) as pool:
        with sql.transaction():
            sql.execute(lock.encode())
            asked = [pool.submit(change, body) for body in changes]
            wait_blocked(sql, 2)
        assert [one.result(10) for one in asked] == [200, 200]
    first, second = audit(api, action=action)[-2:]
    assert second["before"] == first["after"] and second["after"] != first["after"]
    [now] = [one for one in api.get("thresholds")["items"] if one["scope"] == "sync"]
    [schedule] = api.get("schedules")["items"]
    if action == "schedule.change":
        assert (schedule["paused"], schedule["cron"]) == (True, "5 5 * * *")
    else:
        assert (now["warning"], now["critical"]) == (2000, 2000)


def test_audit_of_a_schedule_that_two_make_at_the_same_moment_is_of_the_first_alone(
    api: Api, sql: psycopg.Connection
) -> None:
    schedule = {"name": "daily", "queue": "sync", "payload": SYNC}
    with ThreadPoolExecutor(1) as pool:
        with sql.transaction():
            sql.execute(
                "insert into queue.scheduled_jobs (name, queue, payload, cron)"
                " values ('daily', 'sync', '{}', '0 6 * * *')"
            )
            asked = pool.submit(api.ask, "POST", "schedules", schedule | {"cron": "0 7 * * *"})
            wait_blocked(sql, 1)
        status, answer = asked.result(10)
    assert (status, answer["detail"]) == (409, 'there is a schedule "daily" already')
    assert audit(api, action="schedule.create") == [] and api.get("schedules")["items"][0]["cron"] == "0 6 * * *"


def wait_blocked(sql: psycopg.Connection, count: int) -> None:
    """Until so many wait for a lock."""
    deadline = time.monotonic() + 10
    asked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    while sql.execute(asked).fetchone() != (count,):
        assert time.monotonic() < deadline
        sql.execute("select pg_stat_clear_snapshot()")  # inside a transaction it would be seen once for all
