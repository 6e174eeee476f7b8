"""A system with a past and a present, for the dashboard to show: made through the engine, before any host runs."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import psycopg

from shared import bootstrap
from shared.engine.job import Completed, Dead, ErrorClass, Failure, Outcome, Retry, Settlement
from shared.engine.json_text import to_json
from shared.monitoring.histogram import CELLS
from shared.monitoring.report import Material, summarise
from shared.monitoring.report_html import render
from shared.monitoring.statistics import Activity
from tests.limits import LIFT

CHAT, MAIL, SYNC = "teams-outbound", "outlook-outbound", "sync"
#: What a hostile sender would like to be run. It sets a variable that tests look for.
HOSTILE = '<img src=x onerror="window.stolen=1"><script>window.stolen=1</script>'
REQUEST_ID = "6c0a3b4e-8a31-4d7b-9a52-0a6c1f2d3e4f"
DEAD_CHATS = 12
#: The day of the report.
REPORTED = date(2026, 3, 1)
#: Dead letters that a test redrives.
FULL_MAILBOXES = 3
NO_CHAT = "Graph answered 404 NotFound to POST /chats/{id}/messages"
#: Of the dead mail.
ATTEMPTS = 4
#: A message of somebody else, put into a queue of ours.
FOREIGN = f"hello: {HOSTILE}"


@dataclass(frozen=True)
class Seeded:
    """Jobs that tests look for."""

    dead_mail: uuid.UUID
    dead_chat: uuid.UUID
    hostile: uuid.UUID
    ready: uuid.UUID
    scheduled: uuid.UUID
    foreign: uuid.UUID


def fill(database_url: str) -> Seeded:
    """Everything that a view can show. Queues are paused at the end, so that it stays as it is."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(LIFT.encode())
        seeded = _jobs(conn)
        conn.execute(STATISTICS.format(cells=CELLS).encode())
        conn.execute(AROUND.encode(), {"title": f"Backlog of {CHAT}", "hostile": HOSTILE})
        _report(conn)
    bootstrap.schedules().put(
        "morning-plan", CHAT, _chat("The plan of today"), "0 6 * * 1-5", time_zone="Europe/Berlin"
    )
    bootstrap.schedules().put(
        "nightly-sync", SYNC, {"resourceType": "calendar", "userId": "u1"}, "0 2 * * *", paused=True
    )
    return seeded


def _report(conn: psycopg.Connection) -> None:
    """Of REPORTED, as the timer makes it."""
    activity = Activity(CHAT, datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=1), 1204, 1180, 96, 12, 3, 1200, 900.0)
    slow = replace(activity, failures={"network": 90, "validation": 6}, latency=[0] * 20 + [1180] + [0] * (CELLS - 21),
                   slowest=({"id": str(uuid.UUID(int=7)), "seconds": 41.5},))  # fmt: skip
    letters = [{"queue": CHAT, "errorClass": "validation", "count": 12, "newest": "2026-03-01 20:15"}]
    alerts = [{"level": "warning", "title": HOSTILE, "key": "backlog:x", "openedAt": "2026-03-01 10:00",
               "resolvedAt": None}]  # fmt: skip
    watched = {"watched": 3, "live": 2, "withProblem": 1, "nextExpiry": "2026-03-02 09:00"}
    figures = summarise(REPORTED, Material([slow], [activity], [slow], [activity], letters, alerts, watched))
    subject, page = render(figures, None)
    conn.execute(
        "insert into queue.daily_report (day, subject, html, figures) values (%s, %s, %s, %s)",
        (REPORTED, subject, page, to_json(figures)),
    )


def _chat(content: str) -> dict[str, object]:
    return {"chatId": "19:dispatch@thread.v2", "content": content}


def _jobs(conn: psycopg.Connection) -> Seeded:
    make = bootstrap.producer().enqueue
    for number in range(6):
        make(CHAT, _chat(f"Truck {number} is on its way"), correlation_id=f"trip-{number}")
        _end(CHAT, Completed({"messageId": str(number)}))
    for number in range(DEAD_CHATS):
        dead_chat = make(CHAT, _chat("Where are you?"), correlation_id=f"trip-{number}").id
        _end(CHAT, Dead(Failure(ErrorClass.VALIDATION, f"{NO_CHAT}: chat {4000 + number} does not exist")))
    mail = {"from": "dispatch@fleet.example", "to": ["ann@fleet.example"], "subject": "Invoice", "body": "Attached."}
    dead_mail = make(MAIL, mail, correlation_id="invoice-2024-17", idempotency_key="invoice-2024-17").id
    for number in range(ATTEMPTS - 1):
        _end(MAIL, Retry(_away(str(uuid.UUID(int=number))), timedelta(0)))
    _end(MAIL, Dead(_away(REQUEST_ID)))
    for number in range(FULL_MAILBOXES):
        make(MAIL, mail | {"subject": f"Reminder {number}"})
        _end(MAIL, Dead(Failure(ErrorClass.UNCERTAIN, f"The mailbox of driver {number} is full")))
    hostile = make(CHAT, _chat(HOSTILE), correlation_id=HOSTILE[:100]).id
    _end(CHAT, Dead(Failure(ErrorClass.UNKNOWN, HOSTILE)))
    bootstrap.store().bury(SYNC, base64.b64encode(FOREIGN.encode()).decode(), "payload: it is missing", "m1")
    foreign = conn.execute("select id from queue.dead_letter_queue where job_id is null").fetchall()[0][0]
    ready = make(CHAT, _chat("Please call back"), correlation_id="call-1").id
    make(MAIL, mail | {"subject": "Second invoice"})
    scheduled = make(CHAT, _chat("Good morning"), run_at=datetime.now(UTC) + timedelta(hours=9)).id
    return Seeded(
        dead_mail=dead_mail, dead_chat=dead_chat, hostile=hostile, ready=ready, scheduled=scheduled, foreign=foreign
    )


def _away(request_id: str) -> Failure:
    call = {"method": "POST", "path": "/users/{id}/messages", "status": 503, "request_id": request_id,
            "client_request_id": "0f0e0d0c-1111-4222-8333-944455556666"}  # fmt: skip
    looked = call | {"method": "GET", "status": 200}
    details: dict[str, object] = {"graph_calls": [looked, call], "failed_call": call}
    return Failure(
        ErrorClass.NETWORK, "Graph answered 503 to POST /users/{id}/messages: Service Unavailable", details=details
    )


def _end(queue: str, outcome: Outcome, details: dict[str, object] | None = None) -> None:
    store = bootstrap.store()
    [job] = store.claim(queue, 1, "host-1:worker-3", timedelta(seconds=45)).jobs
    result = store.settle([Settlement(job.id, job.lease_token, outcome, details=details or {})])
    assert not result.lost


#: A day of figures for two queues, with a slow hour.
STATISTICS = """
insert into queue.queue_statistics (queue, bucket_at, enqueued, completed, failed, dead, processed, processing_seconds,
                                    latency, failures, ready, active, scheduled, waiting, dead_letters)
select q.name, b.at, v.n + 3, v.n, v.n / 9, v.n / 40, v.n, v.n * 0.4,
       array(select (v.n * greatest(0, 8 - abs(g - 17 - v.n / 25)))::bigint from generate_series(1, {cells}) g),
       '{{"network": 2}}', v.n / 3, 4, 7, 0, v.n / 20
  from (values ('teams-outbound', 1.0), ('outlook-outbound', 0.4)) q (name, share)
 cross join generate_series(
       date_bin('5 minutes', clock_timestamp() - interval '24 hours', 'epoch'),
       clock_timestamp() - interval '5 minutes', interval '5 minutes') b (at)
 cross join lateral (select (q.share * (60 + 40 * sin(extract(epoch from b.at) / 5000)
                     + 12 * sin(extract(epoch from b.at) / 700)))::bigint as n) v
on conflict (queue, bucket_at) do nothing
"""

AROUND = """
with paused as (
    update queue.queue_settings set paused = true, rate_limit = 50, rate_seconds = 1, concurrency = 10
     where queue in ('teams-outbound', 'outlook-outbound')
),
alerts as (
    insert into queue.queue_alerts (alert_key, level, title, details, resolved_at)
    values ('probe:backlog', 'warning', %(title)s, '{"value": 1204, "threshold": 1000}', null),
           ('probe:hostile', 'critical', %(hostile)s, jsonb_build_object('value', %(hostile)s::text), null),
           ('probe:sync', 'warning', 'Dead letters of sync', '{"value": 51}', clock_timestamp())
),
watched as (
    insert into queue.watched_resources (resource, kind, change_types, due_at, problem, problem_since, refused)
    values ('users/dispatch@fleet.example/messages', 'mail', 'created,updated',
            clock_timestamp() + interval '1 day', null, null, false),
           ('chats/19:dispatch@thread.v2/messages', 'chat', 'created',
            clock_timestamp() + interval '1 day', 'Graph answered 403: Forbidden', clock_timestamp(), true)
    returning id, resource
),
subscribed as (
    insert into queue.subscriptions (id, resource, change_type, notification_url, expires_at, watch_id, renewed_at)
    select 'a1b2c3d4-0000-4000-8000-000000000001', resource, 'created,updated',
           'https://app.example/api/webhooks/graph', clock_timestamp() + interval '2 days', id, clock_timestamp()
      from watched where resource like 'users/%%'
)
insert into queue.sync_history (resource_type, account, kind, started_at, finished_at, outcome, created_count,
                                updated_count, pages, error_message)
values ('calendar', 'ann', 'delta', clock_timestamp() - interval '60 minutes',
        clock_timestamp() - interval '59 minutes', 'completed', 3, 12, 2, null),
       ('messages', 'ben', 'full', clock_timestamp() - interval '20 minutes',
        clock_timestamp() - interval '19 minutes', 'failed', 0, 0, 1, 'Graph answered 403: Forbidden')
"""
