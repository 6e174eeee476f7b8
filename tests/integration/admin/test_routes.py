"""What every route does on a real database."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest

from shared import bootstrap
from shared.engine.errors import ParkedError
from shared.engine.job import Completed, Dead, ErrorClass, Failure, Settlement
from shared.monitoring.health import Health
from shared.postgres.alerts import PostgresAlerts
from shared.postgres.circumstances import circumstances
from shared.postgres.identity_waits import PostgresIdentityWaits
from shared.postgres.migrate import check
from tests.integration.admin.conftest import Api

QUEUE = "teams-outbound"


def end(outcome: Any, queue: str = QUEUE) -> UUID:
    """Claim the queue's next job and end its attempt."""
    store = bootstrap.store()
    [job] = store.claim(queue, 1, "worker-1", timedelta(seconds=45)).jobs
    assert not store.settle([Settlement(job.id, job.lease_token, outcome)]).lost
    return job.id


def die(message: str = "chat 17 is gone") -> UUID:
    return end(Dead(Failure(ErrorClass.VALIDATION, message)))


def test_jobs_are_listed_newest_first_page_by_page_in_every_state(api: Api) -> None:
    ids = [api.enqueue(idempotencyKey=f"k{n}", correlationId="trip-1") for n in range(5)]
    done, dead = end(Completed()), die()
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = api.get("{queue}/jobs", {"limit": "2", **cursor}, queue=QUEUE)
        assert len(page["items"]) <= 2
        seen += [job["id"] for job in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert sorted(seen) == sorted(ids) and seen[:2] == [str(dead), str(done)] and seen[2:] == ids[:1:-1]
    assert [job["id"] for job in api.get("{queue}/failed", queue=QUEUE)["items"]] == [str(dead)]
    for status, count in {"ready": 3, "active": 0, "completed": 1, "dead": 1, "scheduled": 0, "waiting": 0}.items():
        assert len(api.get("{queue}/jobs", {"status": status}, queue=QUEUE)["items"]) == count, status
    assert len(api.get("{queue}/jobs", {"search": "trip-1"}, queue=QUEUE)["items"]) == 5
    assert [job["id"] for job in api.get("{queue}/jobs", {"search": "k4"}, queue=QUEUE)["items"]] == [ids[4]]
    assert [job["id"] for job in api.get("{queue}/jobs", {"search": ids[3]}, queue=QUEUE)["items"]] == [ids[3]]
    assert api.get("{queue}/jobs", {"search": "trip-1"}, queue="sync")["items"] == []
    for search in ("k4", ids[4]):
        assert [job["id"] for job in api.get("jobs", {"search": search})["items"]] == [ids[4]]
    assert [job["id"] for job in api.get("jobs", {"search": " TRIP-1 "})["items"]] == seen
    assert [job["id"] for job in api.get("jobs")["items"]] == seen, "internal jobs only where their queue is named"
    [told] = api.get("{queue}/jobs", {"search": "trip-1"}, queue="dead-letter")["items"]
    shown = api.get("jobs/{id}", id=told["id"])
    assert shown["internal"]
    assert shown["related"] == [{"relation": "about", "id": str(dead), "queue": QUEUE, "state": "dead"}]
    assert [job["id"] for job in api.get("jobs", {"search": told["id"]})["items"]] == [told["id"]]


def test_one_job_tells_what_happened_to_it_and_which_others_it_has_to_do_with(api: Api) -> None:
    api.enqueue(correlationId="trip-1")
    dead = die("the chat is gone")
    status, again = api.ask("POST", "retry/{id}", id=str(dead))
    assert (status, again["created"]) == (200, True)
    shown = api.get("jobs/{id}", id=str(dead))
    events = [moment["event"] for moment in shown["timeline"]]
    assert events[:4] == ["enqueued", "started", "attempt", "finished"]
    assert {"redriven", "job.redrive"} <= set(events[4:])
    assert shown["related"] == [{"relation": "redrivenAs", "id": again["id"], "queue": QUEUE, "state": "ready"}]
    assert shown["deadLetterId"]
    related = api.get("jobs/{id}", id=again["id"])["related"]
    assert related == [{"relation": "redriveOf", "id": str(dead), "queue": QUEUE, "state": "dead"}]


def told(api: Api, job_id: object) -> dict[str, Any]:
    found: dict[str, Any] = api.get("jobs/{id}", id=str(job_id))["diagnosis"]
    return found


def test_the_diagnosis_names_what_is_in_the_way_and_who_put_it_there(api: Api, sql: psycopg.Connection) -> None:
    lane = {"orderingKey": "truck-7", "orderingOnDead": "block"}
    first = api.enqueue(**lane)
    second = api.enqueue(**lane)
    assert die("the chat is gone") == UUID(first)
    bootstrap.store().claim(QUEUE, 1, "w", timedelta(seconds=45))
    blocked = told(api, second)
    assert blocked["headline"].startswith(f"Blocked by dead job {first} since ") and blocked["label"] == "blocked"
    assert blocked["next"][0]["target"] == first
    assert any("1 job of ordering key truck-7" in text for text in told(api, first)["why"])
    assert "blocked" in [moment["event"] for moment in api.get("jobs/{id}", id=second)["timeline"]]

    assert api.ask("POST", "{queue}/pause", queue=QUEUE)[0] == 200
    ready = api.enqueue()
    paused = told(api, ready)
    assert paused["label"] == "paused" and " by " in paused["headline"]
    assert paused["next"][0] == {
        "text": "Let the queue go on.",
        "action": "resume-queue",
        "target": QUEUE,
        "payload": None,
    }
    assert api.ask("POST", "{queue}/resume", queue=QUEUE)[0] == 200

    sql.execute("select queue.block_keys(array['queue:' || %s], array[240.0], '{}')", (QUEUE,))
    assert told(api, ready)["headline"].endswith("for this queue (429)")
    sql.execute("update queue.rate_limit_tracking set blocked_until = null where key = 'queue:' || %s", (QUEUE,))

    later = api.enqueue(delaySeconds=600)
    assert told(api, later)["next"][1]["action"] == "retry"
    waits = PostgresIdentityWaits(bootstrap.database())
    needs = ParkedError(
        "it is not signed in.", needs="queue@fleet.example", remedy="sign in", urgent=True, pause=timedelta()
    )
    waits.wait(UUID(later), needs)
    parked = told(api, later)
    listed = {job["id"]: job["label"] for job in api.get("{queue}/jobs", queue=QUEUE)["items"]}
    assert (listed[later], listed[second], listed[first]) == ("parked", "blocked", "dead")
    assert parked["headline"] == "Parked: no token for queue@fleet.example"
    assert "parked" in [moment["event"] for moment in api.get("jobs/{id}", id=later)["timeline"]]
    assert [one["action"] for one in parked["next"]] == ["sign-in", "show-alert"]

    assert api.ask("POST", "jobs/{id}/cancel", id=later)[0] == 200
    assert " by " in told(api, later)["headline"]
    assert api.ask("POST", "{queue}/clear", query={"confirm": "yes"}, queue=QUEUE)[0] == 200
    assert f"emptied the queue {QUEUE}" in told(api, ready)["headline"]
    again = api.ask("POST", "retry/{id}", id=first)[1]["id"]
    redriven = told(api, first)
    assert (redriven["label"], redriven["next"][0]["target"]) == ("dead, redriven", again)


def test_the_diagnosis_of_a_deadline_and_of_a_dependency_says_what_was_in_the_way(
    api: Api, sql: psycopg.Connection
) -> None:
    parent = api.enqueue()
    dies, stops = (api.enqueue(dependsOn=[parent], ifDependencyFails=rule) for rule in ("die", "cancel"))
    assert die() == UUID(parent)
    dead, cancelled = told(api, dies), told(api, stops)
    assert dead["headline"] == f"Not sent: job {parent}, which it depends on, ended dead"
    assert [one["target"] for one in dead["next"]][:2] == [parent, dies]
    assert "although that job has not succeeded" in dead["next"][1]["text"]
    assert f"since job {parent} ended dead" in cancelled["headline"]
    assert api.ask("POST", "retry/{id}", id=parent)[0] == 200
    end(Completed())
    assert "although" not in told(api, dies)["next"][1]["text"]

    late = api.enqueue(expiresInSeconds=3600)
    assert api.ask("POST", "{queue}/pause", queue=QUEUE)[0] == 200
    sql.execute("update queue.job set expires_at = clock_timestamp() where id = %s", (late,))
    assert bootstrap.store().expire_due(10) == 1
    assert api.ask("POST", "{queue}/resume", queue=QUEUE)[0] == 200
    [why, *_] = told(api, late)["why"]
    assert why.startswith(f"It did not start: the queue {QUEUE} was paused by ")


def test_a_job_is_moved_and_cancelled_and_wakes_a_worker_after_the_commit(api: Api) -> None:
    job_id = api.enqueue(delaySeconds=3600)
    assert api.ask("PATCH", "jobs/{id}", {"priority": 1}, id=job_id)[1]["state"] == "scheduled"
    assert api.ask("POST", "retry/{id}", id=job_id) == (200, {"id": job_id, "created": False})
    assert [queue for queue, _, _ in api.transport.sent] == [QUEUE]
    assert api.ask("POST", "jobs/{id}/cancel", id=job_id) == (200, {"id": job_id, "outcome": "cancelled"})
    assert api.ask("POST", "jobs/{id}/cancel", id=job_id)[0] == 409
    assert api.ask("PATCH", "jobs/{id}", {"priority": 2}, id=job_id)[0] == 409
    assert api.ask("POST", "retry/{id}", id=job_id)[0] == 409
    for method, path in (("POST", "jobs/{id}/cancel"), ("POST", "retry/{id}"), ("GET", "jobs/{id}")):
        assert api.ask(method, path, id=str(uuid4()))[0] == 404


def test_a_waiting_job_gets_another_priority_and_is_told_why_it_does_not_run_now(api: Api) -> None:
    job_id = api.enqueue(dependsOn=[api.enqueue()])
    assert api.ask("PATCH", "jobs/{id}", {"priority": 1}, id=job_id)[1]["state"] == "waiting"
    shown = api.get("jobs/{id}", id=job_id)
    assert (shown["state"], shown["priority"]) == ("waiting", 1)
    status, refused = api.ask("POST", "retry/{id}", id=job_id)
    assert status == 409 and "as soon as what holds it back is gone" in refused["detail"]


def test_a_job_is_cancelled_although_the_history_has_no_partition_for_today(api: Api, sql: psycopg.Connection) -> None:
    """The timer was down for days: the order makes it and goes on."""
    job_id = api.enqueue()
    names = sql.execute("select relname from pg_inherits join pg_class on oid = inhrelid"
                        " where inhparent = 'queue.job_tracking'::regclass").fetchall()  # fmt: skip
    for (name,) in names:
        sql.execute(f"drop table queue.{name}".encode())
    assert api.ask("POST", "jobs/{id}/cancel", id=job_id) == (200, {"id": job_id, "outcome": "cancelled"})
    assert [row["action"] for row in api.get("audit", {"target": f"job:{job_id}"})["items"]] == ["job.cancel"]


def test_a_queue_is_paused_resumed_cleared_and_limited(api: Api) -> None:
    [first, *_] = [api.enqueue() for _ in range(3)]
    assert api.ask("POST", "{queue}/pause", queue=QUEUE) == (200, {"queue": QUEUE, "paused": True, "changed": True})
    assert api.ask("POST", "{queue}/pause", queue=QUEUE)[1]["changed"] is False
    assert bootstrap.store().claim(QUEUE, 1, "w", timedelta(seconds=45)).jobs == ()
    assert api.ask("POST", "{queue}/resume", queue=QUEUE)[1]["changed"] is True
    assert api.ask("POST", "{queue}/clear", queue=QUEUE)[0] == 422
    assert api.ask("POST", "{queue}/clear", query={"confirm": "yes"}, queue=QUEUE)[1]["cancelled"] == 3
    assert api.get("jobs/{id}", id=first)["state"] == "cancelled"
    limits = {"rate": {"limit": 5, "windowSeconds": 10}, "concurrency": 2}
    assert api.ask("PUT", "{queue}/limits", limits, queue=QUEUE)[0] == 200
    api.enqueue()
    bootstrap.store().claim(QUEUE, 1, "w", timedelta(seconds=45))
    shown = api.get("{queue}/limits", queue=QUEUE)
    assert (shown["rate"], shown["concurrency"]) == ({"limit": 5, "windowSeconds": 10.0}, 2)
    assert (shown["usedInWindow"], shown["inUse"]) == (1, 1)
    for field, body in {
        "rate.limit": {"rate": {"limit": 0, "windowSeconds": 1}},
        "rate.windowSeconds": {"rate": {"limit": 10, "windowSeconds": 1e-9}},
        "keyRate.windowSeconds": {"keyRate": {"limit": 10, "windowSeconds": 5e-324}},
        "jobCost": {"rate": {"limit": 2, "windowSeconds": 1}, "jobCost": 3},
    }.items():
        status, answer = api.ask("PUT", "{queue}/limits", body, queue=QUEUE)
        assert (status, [one["field"] for one in answer["errors"]]) == (422, [field])
    status, shown = api.ask("DELETE", "{queue}/limits", queue=QUEUE)
    assert (status, shown["concurrency"], shown["changedAt"]) == (200, 10, None)
    assert shown["builtIn"] == {name: shown[name] for name in shown["builtIn"]}
    assert api.ask("POST", "{queue}/pause", queue="nowhere")[0] == 404


def test_dead_letters_are_grouped_reviewed_redriven_and_discarded(api: Api) -> None:
    for _ in range(4):
        api.enqueue()
    dead = [die(f"chat {number} is gone") for number in range(3)]
    other = die("the mailbox is full")
    [group, _] = api.get("dead-letter/groups")["groups"]
    assert (group["pattern"], group["count"], group["unreviewed"]) == ("chat # is gone", 3, 3)
    listed = api.get("dead-letter", {"pattern": group["pattern"], "queue": QUEUE})["items"]
    assert [letter["jobId"] for letter in listed] == [str(job) for job in reversed(dead)]
    status, letter = api.ask("POST", "dead-letter/{id}/review", {"note": "driver left"}, id=str(other))
    assert (status, letter["reviewNote"], letter["reviewedBy"]) == (200, "driver left", "key 1")
    assert [one["jobId"] for one in api.get("dead-letter", {"reviewed": "true"})["items"]] == [str(other)]
    order = {"filter": {"pattern": group["pattern"]}, "limit": 2, "ratePerSecond": 0.1}
    status, answer = api.ask("POST", "dead-letter/redrive", order)
    assert status == 200 and len(answer["redriven"]) == 2 and answer["more"] is True and answer["skipped"] == []
    states = [api.get("jobs/{id}", id=one["jobId"])["state"] for one in answer["redriven"]]
    assert states == ["ready", "scheduled"]
    status, answer = api.ask("POST", "dead-letter/redrive", {"ids": [listed[0]["id"], listed[2]["id"]]})
    assert [len(answer["redriven"]), len(answer["skipped"])] == [1, 1]
    assert api.ask("POST", "dead-letter/{id}/discard", id=letter["id"])[1]["state"] == "discarded"
    assert api.ask("POST", "dead-letter/{id}/discard", id=letter["id"])[0] == 409
    assert api.get("dead-letter", {"status": "open"})["items"] == []
    ended = api.get("{queue}/jobs", {"status": "dead"}, queue=QUEUE)["items"]
    assert {one["id"]: one["deadLetter"] for one in ended}[str(other)] == "discarded"
    assert [one["deadLetter"] for one in ended].count("redriven") == 3
    bootstrap.store().bury(QUEUE, "<xml>", "it is no JSON", "m1")
    [message] = api.get("dead-letter", {"status": "open"})["items"]
    assert (message["jobId"], message["body"], message["text"]) == (None, "<xml>", "<xml>")
    assert api.ask("POST", "dead-letter/redrive", {"ids": [message["id"]]})[1]["skipped"]
    assert api.ask("POST", "dead-letter/{id}/discard", id=message["id"])[1]["discardedBy"] == "key 1"


def test_portions_of_a_redrive_keep_its_rate_and_pass_over_what_is_no_longer_kept(
    api: Api, sql: psycopg.Connection
) -> None:
    for _ in range(7):
        api.enqueue()
    dead = [die("the chat is busy") for _ in range(7)]
    sql.execute("delete from queue.job_tracking where id = any(%s)", (dead[:3],))
    order: dict[str, Any] = {"filter": {"queue": QUEUE}, "limit": 2, "ratePerSecond": 0.1}
    due: list[datetime] = []
    for more in (True, False):
        _, answer = api.ask("POST", "dead-letter/redrive", order)
        assert (len(answer["redriven"]), answer["skipped"], answer["more"]) == (2, [], more)
        jobs = [api.get("jobs/{id}", id=one["jobId"]) for one in answer["redriven"]]
        due += [datetime.fromisoformat(job["runAt"]) for job in jobs]
        order["startAt"] = answer["nextAt"]
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(due)]
    assert gaps == pytest.approx([10, 10, 10], abs=1)
    assert {one["jobId"] for one in api.get("dead-letter", {"status": "open"})["items"]} == {
        str(job) for job in dead[:3]
    }


def test_many_dead_letters_are_reviewed_and_discarded_with_a_note_that_is_in_the_audit_log(api: Api) -> None:
    for _ in range(4):
        api.enqueue()
    for number in range(4):
        die(f"chat {number} is gone")
    bootstrap.store().bury(QUEUE, "eyJoZWxsbyI6ICJ3w7ZybGQifQ==", "chat 9 is gone", "m1")
    letters = {one["foreign"]: one for one in api.get("dead-letter/groups")["groups"]}
    group, message = letters[False], letters[True]
    assert [one["count"] for one in (group, message)] == [4, 1] and group["pattern"] == message["pattern"]
    chosen = {name: group[name] for name in ("queue", "errorClass", "pattern", "foreign")}
    for path in ("dead-letter/discard", "dead-letter/review"):
        status, answer = api.ask("POST", path, {"filter": chosen})
        assert (status, [one["field"] for one in answer["errors"]]) == (422, ["note"])
    order = {"filter": chosen, "note": "the chats were closed", "limit": 3}
    assert [len(api.ask("POST", "dead-letter/review", order)[1]["reviewed"]) for _ in range(3)] == [3, 1, 0]
    found = {"filter": chosen | {"reviewed": True}, "note": "x"}
    assert api.ask("POST", "dead-letter/review", found)[0] == 422
    status, answer = api.ask("POST", "dead-letter/discard", order)
    assert (status, len(answer["discarded"]), answer["more"]) == (200, 3, True)
    [last] = api.get("dead-letter", {"status": "open", "foreign": "false"})["items"]
    ids = {"ids": [last["id"], answer["discarded"][0], str(uuid4())], "note": "late"}
    status, answer = api.ask("POST", "dead-letter/discard", ids)
    assert (answer["discarded"], len(answer["skipped"]), answer["more"]) == ([last["id"]], 2, False)
    rows = api.get("audit", {"target": f"dead-letter:{last['id']}"})["items"]
    assert [row["action"] for row in rows] == ["dead_letter.discard", "dead_letter.review"]
    assert rows[0]["before"] == {"state": "open", "note": "the chats were closed"}
    assert rows[0]["after"] == {"state": "discarded", "note": "late"}
    [kept] = api.get("dead-letter", {"status": "open"})["items"]
    assert (kept["jobId"], kept["text"]) == (None, '{"hello": "wörld"}')


def test_schedules_are_made_changed_run_and_deleted(api: Api) -> None:
    new = {
        "name": "daily",
        "queue": "sync",
        "cron": "0 6 * * *",
        "payload": {"resourceType": "emails", "userId": "a@b.c"},
    }
    status, made = api.ask("POST", "schedules", new)
    assert status == 201, made
    assert api.ask("POST", "schedules", new)[0] == 409
    status, wrong = api.ask("POST", "schedules", new | {"name": "x", "cron": "nonsense", "queue": "nowhere"})
    assert status == 422 and {one["field"] for one in wrong["errors"]} == {"cron", "queue"}
    assert api.ask("PATCH", "schedules/{name}", {"paused": True}, name="daily")[1]["paused"] is True
    assert api.ask("PATCH", "schedules/{name}", {"cron": "1 6 * * *"}, name="daily")[1]["cron"] == "1 6 * * *"
    status, receipt = api.ask("POST", "schedules/{name}/run", name="daily")
    assert status == 202 and api.get("jobs/{id}", id=receipt["id"])["queue"] == "sync"
    assert [one["name"] for one in api.get("schedules")["items"]] == ["daily"]
    assert api.ask("DELETE", "schedules/{name}", name="daily") == (204, "")
    shown = api.get("schedule-times", {"cron": "0 6 * * mon-fri", "timeZone": "Europe/Berlin"})
    times = [datetime.fromisoformat(one).astimezone(ZoneInfo("Europe/Berlin")) for one in shown["times"]]
    assert (
        len(times) == 5 and times == sorted(times) and {(one.hour, one.weekday() < 5) for one in times} == {(6, True)}
    )
    status, wrong = api.ask("GET", "schedule-times", query={"cron": "x", "timeZone": "Mars"})
    assert (status, {one["field"] for one in wrong["errors"]}) == (422, {"cron", "timeZone"})
    assert api.ask("DELETE", "schedules/{name}", name="daily")[0] == 404
    for method, path in (("POST", "schedules/{name}/run"), ("DELETE", "schedules/{name}")):
        assert api.ask(method, path, name="da\x00ily")[0] == 404, "no name that PostgreSQL can be asked for"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("alter schema queue rename to elsewhere", "not migrated"),
        ("delete from queue.schema_version where version > 1; drop function queue.backlog()", "not migrated"),
        ("alter database {name} set role = 'pg_monitor'", "no rights"),
    ],
)
def test_a_database_that_cannot_be_used_yet_is_503_with_the_remedy(
    api: Api, sql: psycopg.Connection, database_name: str, change: str, state: str
) -> None:
    sql.execute(change.format(name=database_name).encode())
    report = Health({"database": lambda: check(bootstrap.database())}, list).report()
    assert report.checks == {"database": state}
    for path in ("stats", "prometheus"):
        status, answer = api.ask("GET", path)
        assert status == 503 and state in answer["detail"] and "./dev migrate" in answer["detail"], answer


def test_alerts_are_listed_and_acknowledged(api: Api, sql: psycopg.Connection) -> None:
    sql.execute("insert into queue.queue_alerts (alert_key, level, title) values ('a', 'warning', 'A')")
    [alert] = api.get("alerts", {"status": "open", "level": "warning"})["items"]
    assert api.ask("POST", "alerts/{id}/acknowledge", id=alert["id"])[1]["acknowledgedBy"] == "key 1"
    shown = api.get("alerts/{id}", id=alert["id"])
    assert (shown["acknowledgedBy"], bool(shown["meaning"]), bool(shown["remedy"])) == ("key 1", True, True)
    sql.execute("update queue.queue_alerts set resolved_at = now()")
    for unknown in (str(uuid4()), "x"):
        assert api.ask("GET", "alerts/{id}", id=unknown)[0] == 404
    assert api.ask("POST", "alerts/{id}/acknowledge", id=alert["id"])[0] == 409
    assert api.ask("POST", "alerts/{id}/acknowledge", id=str(uuid4()))[0] == 404


def test_figures_of_now_and_over_time(api: Api, sql: psycopg.Connection) -> None:
    api.enqueue()
    [queue] = [one for one in api.get("stats")["queues"] if one["queue"] == QUEUE]
    assert (queue["ready"], queue["active"], queue["paused"], queue["queueClass"]) == (1, 0, False, "high")
    end(Completed())
    sql.execute("select queue.keep_bucket(date_bin('5 minutes', now(), '2000-01-01'), true)")
    sql.execute("select queue.keep_hour(date_trunc('hour', now()))")
    for span in ("1h", "6h", "24h", "7d", "30d"):
        found = [one for one in api.get("metrics", {"timeRange": span})["buckets"] if one["queue"] == QUEUE]
        assert sum(one["completed"] for one in found) == 1, span
    assert api.ask("GET", "metrics", query={"timeRange": "1y"})[0] == 422
    assert 'fleet_queue_active_jobs{queue="teams-outbound"} 0.0' in api.get("prometheus").splitlines()


def test_an_alert_names_what_it_is_about(api: Api, sql: psycopg.Connection) -> None:
    api.enqueue()
    die("the chat is gone")
    [letter] = sql.execute("select id from queue.dead_letter_queue").fetchone() or [None]
    alerts = PostgresAlerts(bootstrap.database())
    found = alerts.dead_letter(UUID(str(letter)))
    assert found is not None and alerts.raise_alert(found)
    [alert] = api.get("alerts")["items"]
    job = api.get("dead-letter/{id}", id=str(letter))["jobId"]
    assert alert["about"] == [{"kind": "dead-letters", "name": QUEUE}, {"kind": "job", "name": job}]
    assert "redrive" in alert["remedy"]


def test_daily_reports_are_listed_page_by_page_and_shown(api: Api, sql: psycopg.Connection) -> None:
    sql.execute(
        "insert into queue.daily_report (day, figures, subject, html)"
        " select date '2026-03-01' + n, jsonb_build_object('day', n), 'Day ' || n, '<p>' from generate_series(1, 5) n"
    )
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = api.get("reports", {"limit": "2", **cursor})
        seen += [one["day"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert seen == [f"2026-03-0{n}" for n in (6, 5, 4, 3, 2)]
    shown = api.get("reports/{day}", day="2026-03-03")
    assert (shown["subject"], shown["figures"]) == ("Day 2", {"day": 2})
    for unknown in ("2026-03-09", "yesterday"):
        assert api.ask("GET", "reports/{day}", day=unknown)[0] == 404


def test_thresholds_are_shown_changed_together_and_reset(api: Api) -> None:
    shown = {(one["rule"], one["scope"]): one for one in api.get("thresholds")["items"]}
    assert (shown["backlog", ""]["warning"], shown["backlog", ""]["changedBy"]) == (1000, None)
    assert shown["timer", "relay"]["critical"] == 300
    change = {"rule": "backlog", "scope": QUEUE, "warning": 5, "critical": 9}
    wrong = {"rule": "backlog", "scope": "nowhere", "warning": 5}
    status, answer = api.ask("PUT", "thresholds", {"items": [change, wrong]})
    assert (status, [one["field"] for one in answer["errors"]]) == (422, ["items.1.scope"])
    status, answer = api.ask("PUT", "thresholds", {"items": [change]})
    assert status == 200
    [row] = [one for one in answer["items"] if one["scope"] == QUEUE]
    assert (row["warning"], row["critical"], row["changedBy"]) == (5, 9, "key 1")
    assert (row["builtInWarning"], row["builtInCritical"]) == (1000, 10_000)
    reset = {"items": [{"rule": "backlog", "scope": QUEUE, "reset": True}]}
    answer = api.ask("PUT", "thresholds", reset)[1]
    assert not [one for one in answer["items"] if one["scope"] == QUEUE]
    told = len(api.get("audit", {"action": "threshold.change"})["items"])
    assert api.ask("PUT", "thresholds", reset)[0] == 200
    assert len(api.get("audit", {"action": "threshold.change"})["items"]) == told, "nothing was changed"


def test_a_threshold_level_that_is_left_out_stays_and_null_switches_it_off(api: Api, sql: psycopg.Connection) -> None:
    def put(*items: dict[str, Any]) -> dict[tuple[str, str], tuple[float | None, float | None]]:
        status, answer = api.ask("PUT", "thresholds", {"items": items})
        assert status == 200, answer
        return {
            (one["rule"], one["scope"]): (one["warning"], one["critical"])
            for one in answer["items"]
            if one["changedBy"] is not None
        }

    mine = {"rule": "backlog", "scope": QUEUE}
    assert put(mine | {"warning": 5}) == {("backlog", QUEUE): (5, 10_000)}, "the built-in critical stays"
    assert put(mine | {"critical": 9}) == {("backlog", QUEUE): (5, 9)}
    assert put(mine | {"warning": None}) == {("backlog", QUEUE): (None, 9)}
    every = {"rule": "backlog", "critical": 50_000}
    assert put(every, mine | {"reset": True}) == {("backlog", ""): (1000, 50_000)}
    assert put(mine | {"warning": 7}) == {("backlog", ""): (1000, 50_000), ("backlog", QUEUE): (7, 50_000)}
    sql.execute("update queue.alert_thresholds set rule = 'no longer declared' where scope = ''")
    left = put({"rule": "no longer declared", "reset": True})
    assert left == {("backlog", QUEUE): (7, 50_000)}, "what was set can be taken back whatever became of its rule"


@pytest.mark.parametrize(
    ("items", "fields"),
    [
        ([{"rule": "nonsense", "scope": "x", "reset": True}], ["items.0.rule"]),
        ([{"rule": "backlog", "scope": "nowhere", "reset": True}], ["items.0.scope"]),
        ([{"rule": "backlog", "scope": "\x00", "reset": True}], ["items.0.scope"]),
        ([{"rule": "nonsense", "warning": 5}], ["items.0.rule"]),
        ([{"rule": "backlog", "reset": True, "warning": 5}], ["items.0.reset"]),
        ([{"rule": "backlog", "reset": True, "critical": None}], ["items.0.reset"]),
        ([{"rule": "backlog", "scope": ""}, {"rule": "stalled"}], ["items.0.warning", "items.1.warning"]),
        ([{"rule": "backlog", "warning": 5}, {"rule": "backlog", "critical": 7}], ["items.1.scope"]),
        ([{"rule": "backlog", "warning": 10_001}, {"rule": "stalled", "critical": 1}],
         ["items.0.warning", "items.1.critical"]),
    ],
)  # fmt: skip
def test_a_change_of_thresholds_that_cannot_be_is_refused_by_its_fields_and_changes_nothing(
    api: Api, sql: psycopg.Connection, items: list[dict[str, Any]], fields: list[str]
) -> None:
    good = {"rule": "timer", "scope": "relay", "warning": 5}
    status, answer = api.ask("PUT", "thresholds", {"items": [*items, good]})
    assert (status, [one["field"] for one in answer["errors"]]) == (422, fields)
    assert all(one["message"] for one in answer["errors"])
    kept = "select (select count(*) from queue.alert_thresholds), (select count(*) from queue.audit_log)"
    assert sql.execute(kept).fetchone() == (0, 0)


def test_a_queue_of_a_filter_that_never_was_is_named_and_one_that_was_keeps_its_history(
    api: Api, sql: psycopg.Connection
) -> None:
    order = {"note": "x"}
    asks: list[tuple[str, str, dict[str, Any] | None, str]] = [
        ("GET", "metrics", None, "queue"),
        ("GET", "dead-letter", None, "queue"),
        ("GET", "dead-letter/groups", None, "queue"),
        ("POST", "dead-letter/redrive", {}, "filter.queue"),
        ("POST", "dead-letter/discard", order, "filter.queue"),
        ("POST", "dead-letter/review", order, "filter.queue"),
    ]

    def ask(method: str, path: str, body: dict[str, Any] | None, queue: str) -> tuple[int, Any]:
        given = body if body is None else body | {"filter": {"queue": queue}}
        return api.ask(method, path, given, query={"queue": queue} if body is None else {})

    for method, path, body, field in asks:
        status, answer = ask(method, path, body, "teams-outbund")
        assert (status, [one["field"] for one in answer["errors"]]) == (422, [field]), path
        assert "did you mean teams-outbound?" in answer["errors"][0]["message"]
        assert ask(method, path, body, QUEUE)[0] == 200, "there is nothing of it, and it is a queue"
    sql.execute(
        "with was as (select s from queue.queue_settings s where queue = 'sync')"
        ' insert into queue.queue_settings select (jsonb_populate_record(s, \'{"queue": "retired"}\')).* from was'
    )
    for method, path, body, _ in asks:
        assert ask(method, path, body, "retired")[0] == 200, path


def test_whether_reports_of_a_mailbox_are_seen_is_known_where_watches_name_mailboxes(
    api: Api, sql: psycopg.Connection
) -> None:
    job = bootstrap.store().get(UUID(api.enqueue()))
    assert job is not None

    def seen() -> object:
        found = circumstances(sql, job, None, "ada@fleet.example")
        return found and found["reports_watched"]

    assert seen() is False
    sql.execute("select queue.watch('users/bob@fleet.example/messages', 'created')")
    assert seen() is False
    sql.execute("select queue.watch('users/01890000-0000-7000-8000-000000000001/messages', 'created')")
    assert seen() is None
    sql.execute("select queue.watch('users/ada@fleet.example/messages', 'created')")
    assert seen() is True


def test_what_is_watched_and_synced_is_listed(api: Api, sql: psycopg.Connection) -> None:
    sql.execute("select queue.watch('users/ada@fleet.example/messages', 'created')")
    page = api.get("subscriptions", {"status": "uncovered"})
    assert [one["subscriptionId"] for one in page["items"]] == [None] and page["counts"]["uncovered"] == 1
    assert api.get("subscriptions", {"status": "covered"})["items"] == []
    sql.execute("insert into queue.sync_history (resource_type, account, kind) values ('emails', 'ada', 'delta')")
    [sync] = api.get("syncs", {"account": "ada", "resourceType": "emails"})["items"]
    assert (sync["outcome"], sync["kind"]) == (None, "delta")


@pytest.mark.parametrize("cursor", ["x", "é", "YWJj", "MjAyNg", "a" * 200])
def test_a_cursor_that_is_none_of_ours_is_named(api: Api, cursor: str) -> None:
    for path in ("{queue}/jobs", "dead-letter", "alerts", "audit"):
        status, answer = api.ask("GET", path, query={"cursor": cursor}, queue=QUEUE)
        assert (status, [one["field"] for one in answer["errors"]]) == (422, ["cursor"])
