"""Fills a database with the history of a busy fleet, on the server's side: what `bench.views` asks about.

Shares are of real work: nine of ten jobs are messages in and out, one in two hundred ends dead. What is hard for a list
is in it too: a queue cleared of many jobs at once, an announcement that carries one correlation id, one large batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import LiteralString

import psycopg

DAYS = 30
#: Connections that fill days side by side.
FILLERS = 2
BATCH = "01900000-0000-7000-8000-000000000001"
ANNOUNCEMENT = "announcement-77"
#: By then yesterday's clearing of the queue attachments was done.
CLEARED_UNTIL = datetime.combine(datetime.now(UTC).date(), datetime.min.time(), UTC) - timedelta(hours=11, minutes=59)

# Jobs of one day: in the order of their end, with ids as they were made. `%(cleared)s` of them, in one minute, were
# cancelled when somebody cleared a queue; `%(announced)s` carry one correlation id, `%(batched)s` one batch.
_DAY: LiteralString = """
insert into queue.job_tracking (
    id, queue, state, priority, run_at, enqueued_at, started_at, finished_at, attempt, correlation_id, idempotency_key,
    payload, attempts, result, error_class, error_message, limit_key, batch_id)
select j.id, v.queue, w.state, 5, t.at, t.at, case when w.state <> 'cancelled' then t.at + interval '100 ms' end,
       t.finished, w.attempt,
       case when n <= %(announced)s then 'announcement-77'
            when n %% 5 > 0 then 'trip-' || %(day)s::date || '-' || n / 40 end,
       case when n %% 10 = 0 then 'order-' || %(day)s::date || '-' || n end,
       jsonb_build_object('chatId', '19:' || md5((n %% 5000)::text) || '@thread.v2', 'contentType', 'html', 'content',
                          'Trip ' || n || ' has left the depot in Rotterdam and is due at the harbour, gate 7, before'
                          ' noon; the driver has the papers, and the seal has the number ' || md5(n::text)),
       case when w.attempt > 1 or w.state = 'dead' then jsonb_build_array(jsonb_build_object(
           'number', 1, 'started_at', t.at, 'finished_at', t.at, 'worker', 'host-1:1', 'outcome', 'retry',
           'error_class', e.class, 'message', e.message)) end,
       case when w.state = 'completed' then jsonb_build_object('messageId', md5('m' || n)) end,
       case w.state when 'dead' then e.class end, case w.state when 'dead' then e.message end,
       case when v.queue = 'teams-outbound' then 'chat:19:' || md5((n %% 5000)::text) end,
       case when n > %(announced)s and n <= %(announced)s::integer + %(batched)s then %(batch)s::uuid end
  from generate_series(1, %(jobs)s::integer + %(cleared)s) n
 cross join lateral (select n > %(jobs)s as cleared, (n %% 1000 * 7919) %% 1000 as r,
                            md5(%(day)s || n::text) as random) x
 cross join lateral (
    select case when x.cleared then 'attachments' when r < 300 then 'teams-outbound'
                when r < 500 then 'outlook-outbound' when r < 650 then 'notifications' when r < 770 then 'teams-inbound'
                when r < 850 then 'outlook-inbound' when r < 950 then 'webhooks' when r < 965 then 'attachments'
                else 'sync' end as queue) v
 cross join lateral (
    select case when x.cleared then 'cancelled'
                when v.queue = 'webhooks' or n <= %(announced)s::integer + %(batched)s then 'completed'
                when (n * 31) %% 170 = 0 then 'dead' when (n * 31) %% 170 = 1 then 'cancelled'
                else 'completed' end as state,
           case when (n * 17) %% 20 = 0 then 2 else 1 end as attempt) w
 cross join lateral (
    select (array['network', 'timeout', 'validation', 'auth', 'unknown'])[1 + n %% 5] as class,
           (array['the peer does not answer', 'no answer within the time', 'the field content is not taken',
                  'access is refused', 'something else'])[1 + n %% 5]
               || ' (' || chr(97 + n / 7 %% 20) || '), case ' || n as message) e
 cross join lateral (
    select least(%(day)s::timestamp at time zone 'UTC' + case
               when x.cleared then interval '12 hours' + (n - %(jobs)s) * interval '100 microseconds'
               else n * (%(span)s::interval / %(jobs)s) end, clock_timestamp()) as finished) f
 cross join lateral (select f.finished, f.finished - interval '2 seconds' as at) t
 cross join lateral (
    select (lpad(to_hex(floor(extract(epoch from t.at) * 1000)::bigint), 12, '0')
            || '7' || substr(x.random, 1, 3) || '8' || substr(x.random, 4, 15))::uuid as id) j
"""
_KEYS: LiteralString = """
insert into queue.idempotency (queue, key, job_id, created_at)
select queue, idempotency_key, id, finished_at from queue.job_tracking
 where idempotency_key is not null and finished_at >= %(day)s::timestamp at time zone 'UTC'
   and finished_at < (%(day)s::date + 1)::timestamp at time zone 'UTC'
"""
#: A row for each message that was sent: from one mailbox to 20,000 people, into 5,000 chats.
_MESSAGES: LiteralString = """
insert into queue.communication_logs (direction, channel, external_id, account, thread_id, sender, recipients, subject,
                                      body, body_type, text, internet_message_id, recorded_at, job_id, correlation_id)
select 'out', v.channel, v.place || '/' || m.id, 'dispatch@fleet.example', v.place, 'dispatch@fleet.example',
       array[v.place], 'Trip', 'It has left the depot.', 'text', 'It has left the depot.',
       case when v.channel = 'outlook' then '<' || m.id || '@fleet.example>' end, t.finished_at, t.id, t.correlation_id
  from queue.job_tracking t
 cross join lateral (select md5(t.id::text) as id) m
 cross join lateral (
    select case t.queue when 'teams-outbound' then 'teams' else 'outlook' end as channel,
           case t.queue when 'teams-outbound' then substr(t.limit_key, 6)
                else 'driver-' || ('x' || substr(m.id, 1, 8))::bit(32)::bigint %% 20000 || '@fleet.example'
           end as place) v
 where t.queue in ('teams-outbound', 'outlook-outbound') and t.state = 'completed'
   and t.finished_at >= %(day)s::timestamp at time zone 'UTC'
   and t.finished_at < (%(day)s::date + 1)::timestamp at time zone 'UTC'
"""
#: Of the dead jobs: one in three redriven, one in twenty discarded, one in ten reviewed.
_REST: tuple[LiteralString, ...] = (
    """
insert into queue.dead_letter_queue (job_id, queue, error_class, error_message, died_at, redriven_at, redriven_by,
                                     redriven_job_id, discarded_at, discarded_by, reviewed_at, reviewed_by, review_note)
select id, queue, error_class, error_message, finished_at,
       case when n % 3 = 0 then finished_at end, case when n % 3 = 0 then 'ada' end,
       case when n % 3 = 0 then queue.new_id() end, case when n % 20 = 1 then finished_at end,
       case when n % 20 = 1 then 'ada' end, case when n % 10 = 2 then finished_at end,
       case when n % 10 = 2 then 'ada' end, case when n % 10 = 2 then 'looked at' end
  from (select j.*, row_number() over () as n from queue.job_tracking j where state = 'dead') d
""",
    """
insert into queue.batch (id, total, completed, created_at, finished_at)
select batch_id, count(*), count(*), min(finished_at), max(finished_at)
  from queue.job_tracking where batch_id is not null group by batch_id
""",
    """
insert into queue.audit_log (at, who, kind, role, action, target, before, after, correlation_id)
select clock_timestamp() - n * interval '25 seconds', 'operator-' || n % 40, 'token', 'Operator',
       (array['job.cancel', 'dead_letter.redrive', 'dead_letter.review', 'queue.pause'])[1 + n % 4],
       (array['job:', 'dead-letter:', 'dead-letter:', 'queue:'])[1 + n % 4] || queue.new_id(), '{}', '{}', md5(n::text)
  from generate_series(1, 100000) n
""",
    """
insert into queue.queue_alerts (alert_key, level, title, details, opened_at, resolved_at, sent_level)
select 'backlog:queue-' || n, (array['info', 'warning'])[1 + n % 2], 'Many jobs are ready',
       jsonb_build_object('queue', 'queue-' || n), clock_timestamp() - n * interval '2 minutes',
       case when n > 20 then clock_timestamp() - (n - 1) * interval '2 minutes' end, 'warning'
  from generate_series(1, 50000) n
""",
    """
insert into queue.daily_report (day, figures, subject, html)
select current_date - n, jsonb_build_object('filler', repeat('x', 5000)), 'A day', repeat('<p>figures</p>', 2000)
  from generate_series(1, 365) n
""",
    """
insert into queue.sync_history (resource_type, account, kind, started_at, finished_at, outcome, pages)
select (array['emails', 'calendar', 'contacts', 'messages'])[1 + n / 1500 % 4],
       'user-' || n % 1500 || '@fleet.example', 'delta', clock_timestamp() - n * interval '5 seconds',
       clock_timestamp() - n * interval '5 seconds', 'completed', 2
  from generate_series(1, 500000) n
""",
    """
insert into queue.watched_resources (resource, kind, change_types, declared_at, due_at, problem, problem_since)
select 'users/user-' || n || '@fleet.example/messages', 'mail', 'created,updated',
       clock_timestamp() - n * interval '1 minute', clock_timestamp() + interval '1 day',
       case when n % 500 = 0 then 'Graph refuses it' end, case when n % 500 = 0 then clock_timestamp() end
  from generate_series(1, 10000) n
""",
    """
insert into queue.subscriptions (id, watch_id, resource, change_type, notification_url, expires_at, renewed_at)
select w.id::text, w.id, w.resource, w.change_types, 'https://fleet.example/api/webhooks/graph',
       clock_timestamp() + interval '1 day', clock_timestamp()
  from queue.watched_resources w where w.problem is null
""",
    """
insert into queue.rate_limit_tracking (key, in_use, window_seconds, bucket, counts)
select key, in_use, seconds, floor(extract(epoch from clock_timestamp()) * 20 / seconds) - n, array_fill(1, array[21])
  from (select 0, 'queue:' || queue, 0, rate_seconds from queue.queue_settings where rate_seconds is not null
        union all select n, 'chat:19:' || md5(n::text), (n < 5)::integer, 1 from generate_series(1, 20000) n
        union all select n / 20, 'mailbox:user-' || n, 0, 60 from generate_series(1, 5000) n) k(n, key, in_use, seconds)
""",
    """
insert into queue.scheduled_jobs (name, queue, payload, cron, next_run_at)
select 'nightly-' || n, 'sync', '{}', '0 3 * * *', clock_timestamp() + interval '1 day' from generate_series(1, 200) n
""",
)
#: What lies in the queues now: a backlog, future jobs, and jobs behind a key.
_LIVE: tuple[LiteralString, ...] = (
    """
insert into queue.job (id, queue, priority, run_at, enqueued_at, correlation_id, payload, lease_token, lease_until,
                       leased_by, started_at)
select queue.new_id(), v.queue, 5, clock_timestamp(), clock_timestamp(), 'trip-now-' || n / 40,
       jsonb_build_object('content', repeat('x', 300)),
       case when running then queue.new_id() end, case when running then clock_timestamp() + interval '1 hour' end,
       case when running then 'host-1:1' end, case when running then clock_timestamp() end
  from generate_series(1, %(live)s) n
 cross join lateral (select case when n %% 4 = 0 then 'outlook-outbound' else 'teams-outbound' end as queue,
                            n %% 10000 = 5 as running) v
""",
    """
insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, payload)
select queue.new_id(), 'notifications', 5, clock_timestamp() + n * interval '1 second', clock_timestamp(), n %% 2,
       jsonb_build_object('content', repeat('x', 300)) from generate_series(1, %(live)s) n
""",
    """
insert into queue.waiting (id, queue, priority, run_at, enqueued_at, payload, limit_key, key, rank)
select queue.new_id(), 'teams-outbound', 5, clock_timestamp(), clock_timestamp(),
       jsonb_build_object('content', repeat('x', 300)), 'chat:' || n %% 500, 'chat:' || n %% 500, 5
  from generate_series(1, %(live)s / 2) n
""",
)
# Kept figures as the timer writes them, of every queue and five minutes.
_STATISTICS: LiteralString = """
insert into queue.queue_statistics (
    queue, bucket_at, enqueued, completed, failed, dead, cancelled, processed, processing_seconds, latency, failures,
    slowest, ready, active, scheduled, waiting, dead_letters, oldest_ready_seconds)
select s.queue, b, 120, 115, 4, 1, 0, 116, 40,
       array_fill(0::bigint, array[10]) || '{1,2,4,8,15,20,22,16,10,6,4,3,2,1,1,1}' || array_fill(0::bigint, array[30]),
       '{"network": 3, "timeout": 1}',
       jsonb_build_array(jsonb_build_object('id', queue.new_id(), 'seconds', 3.5)), 10, 2, 30, 4, 5, 1.5
  from queue.queue_settings s
 cross join generate_series(date_bin('5 minutes', clock_timestamp(), 'epoch') - interval '30 days',
                            date_bin('5 minutes', clock_timestamp(), 'epoch') - interval '5 minutes', '5 minutes') b
"""
_HOURS: LiteralString = (
    "select queue.keep_hour(h) from generate_series(date_trunc('hour', clock_timestamp()) - interval '30 days',"
    " date_trunc('hour', clock_timestamp()), interval '1 hour') h"
)


def fill(url: str, jobs: int) -> None:
    """About `jobs` ended jobs of the last DAYS days and today, and what else an operator looks at."""
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in range(DAYS, -1, -1)]
    with psycopg.connect(url, autocommit=True) as conn:
        for day in days:
            _make_partition(conn, day)
    with ThreadPoolExecutor(FILLERS) as fillers:
        for _ in fillers.map(lambda day: _fill_day(url, day, today, jobs), days):
            pass
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in _REST:
            conn.execute(statement)
        for statement in _LIVE:
            conn.execute(statement, {"live": max(100, jobs // 100)})
        with conn.transaction():
            # Its trigger adds up totals, a row at a time.
            conn.execute("set local session_replication_role = replica")
            conn.execute(_STATISTICS)
        conn.execute(_HOURS)
        for table in _tables(conn):
            conn.execute(f"vacuum (analyze) queue.{table}".encode())


def _make_partition(conn: psycopg.Connection, day: date) -> None:
    conn.execute(
        f"create table if not exists queue.job_tracking_{day:%Y%m%d} partition of queue.job_tracking"
        f" for values from ('{day} 00:00:00+00') to ('{day + timedelta(days=1)} 00:00:00+00')".encode()
    )


def _fill_day(url: str, day: date, today: date, jobs: int) -> None:
    """A day's share, and the hard cases on days of their own."""
    daily = jobs // (DAYS + 1)
    back = (today - day).days
    values = {
        "day": day,
        "jobs": daily,
        "span": datetime.now(UTC) - datetime.combine(day, datetime.min.time(), UTC) if back == 0 else timedelta(days=1),
        "cleared": jobs // 40 if back == 1 else 0,
        "announced": daily // 6 if back == 3 else 0,
        "batched": daily // 15 if back == 4 else 0,
        "batch": BATCH,
    }
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_DAY, values)
        conn.execute(_KEYS, values)
        conn.execute(_MESSAGES, values)


def _tables(conn: psycopg.Connection) -> Iterator[str]:
    names = conn.execute(
        "select relname from pg_catalog.pg_class where relnamespace = 'queue'::regnamespace and relkind = 'r'"
    ).fetchall()
    return (name for (name,) in names)
