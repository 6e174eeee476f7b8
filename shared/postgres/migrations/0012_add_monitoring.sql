-- Statistics by five minutes and by hour, what alerts are judged by, and the daily report. How they work:
-- docs/how-to/monitor.md. Runs beside the release before: what that uses keeps its name and its columns.

-- What ended in a queue lately, newest first; the key of lists too.
create index job_tracking_finished on queue.job_tracking (queue, finished_at, id);
-- Jobs that failed and run again: the others of `later` are in no such list.
create index later_retrying on queue.later (queue) where attempt > 0;

-- Counts are of the five minutes from bucket_at; ready, active, scheduled, waiting, dead_letters and oldest_ready_seconds
-- are as they were at its end, null in a bucket that was made up for after an outage.
-- latency: jobs by the time from when they were due to their end, cell i from 2^((i-1)/2) to 2^(i/2) milliseconds.
alter table queue.queue_statistics
    alter column ready drop not null, alter column ready drop default,
    alter column active drop not null, alter column active drop default,
    alter column scheduled drop not null, alter column scheduled drop default,
    add column waiting bigint,
    add column dead_letters bigint,
    add column cancelled bigint not null default 0,
    add column processed bigint not null default 0,
    add column latency bigint[],
    add column failures jsonb,
    add column slowest jsonb;

create index queue_statistics_bucket on queue.queue_statistics (bucket_at);

-- The same by the hour; gauges are the hour's highest.
create table queue.queue_statistics_hour (like queue.queue_statistics including defaults, primary key (queue, bucket_at));

create index queue_statistics_hour_bucket on queue.queue_statistics_hour (bucket_at);

-- The last five minutes of each queue, measured every minute.
create table queue.queue_health (
    queue text primary key,
    measured_at timestamptz not null,
    enqueued bigint not null,
    completed bigint not null,
    failed bigint not null,
    dead bigint not null,
    processed bigint not null,
    processing_seconds double precision not null,
    latency bigint[]
);

-- The least id that a job made at this time can have.
create function queue.first_id(p_at timestamptz)
returns uuid
language sql
immutable
as $$
    select (lpad(to_hex(floor(extract(epoch from p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- What happened in [p_from, p_until): by index, never more of the history than that. Jobs count as enqueued by the time in
-- their ids; a failed attempt counts when its job ends. slowest: the three that ran longest.
create function queue.activity(p_from timestamptz, p_until timestamptz)
returns table (
    queue text, enqueued bigint, completed bigint, failed bigint, dead bigint, cancelled bigint, processed bigint,
    processing_seconds float8, latency bigint[], failures jsonb, slowest jsonb
)
language sql
stable
set enable_seqscan = off
as $$
    with made as (
        select m.queue, count(*) as jobs
          from (select j.queue from queue.job j where j.id >= queue.first_id(p_from) and j.id < queue.first_id(p_until)
                union all
                select l.queue from queue.later l where l.id >= queue.first_id(p_from) and l.id < queue.first_id(p_until)
                union all
                select w.queue from queue.waiting w where w.id >= queue.first_id(p_from) and w.id < queue.first_id(p_until)
                union all
                select t.queue from queue.job_tracking t
                 where t.id >= queue.first_id(p_from) and t.id < queue.first_id(p_until)
                   and t.finished_at >= p_from - interval '1 minute') m  -- clocks of hosts differ
         group by m.queue
    ),
    ended as materialized (
        select t.*
          from queue.queue_settings s
         cross join lateral (
            select t.queue, t.id, t.state, t.error_class, extract(epoch from t.finished_at - t.started_at)::float8 as seconds,
                   greatest(0, extract(epoch from t.finished_at - least(
                       t.run_at, case when t.attempt > 1 then (t.attempts #>> '{0,started_at}')::timestamptz end))::float8) as latency,
                   case when t.attempt > 1 or t.state <> 'completed' then t.attempts end as attempts
              from queue.job_tracking t
             where t.queue = s.queue and t.finished_at >= p_from and t.finished_at < p_until) t
    ),
    counted as (
        select e.queue, count(*) filter (where e.state = 'completed') as completed, count(*) filter (where e.state = 'dead') as dead,
               count(*) filter (where e.state = 'cancelled') as cancelled, count(e.seconds) as processed,
               coalesce(sum(e.seconds), 0) as processing_seconds
          from ended e group by e.queue
    ),
    cells as (
        select e.queue, least(56, 1 + floor(2 * ln(greatest(e.latency * 1000, 1)) / ln(2::float8)))::integer as cell, count(*) as jobs
          from ended e where e.seconds is not null group by 1, 2
    ),
    histograms as (
        select q.queue, array_agg(coalesce(c.jobs, 0) order by n) as latency
          from (select distinct queue from cells) q
         cross join generate_series(1, 56) n
          left join cells c on c.queue = q.queue and c.cell = n
         group by q.queue
    ),
    failed as (
        select f.queue, sum(f.times)::bigint as times, jsonb_object_agg(f.error_class, f.times) as classes
          from (select e.queue, coalesce(a ->> 'error_class', e.error_class) as error_class, count(*) as times
                  from ended e
                 cross join lateral jsonb_array_elements(
                     case when e.state = 'dead' and not coalesce(e.attempts @? '$[*].error_class', false) then '[{}]'
                          else coalesce(e.attempts, '[]') end) a
                 where a = '{}' or a ? 'error_class'
                 group by 1, 2) f
         group by f.queue
    ),
    slow as (
        select r.queue, jsonb_agg(jsonb_build_object('id', r.id, 'seconds', round(r.seconds::numeric, 3)) order by r.seconds desc) as jobs
          from (select e.queue, e.id, e.seconds, row_number() over (partition by e.queue order by e.seconds desc) as place
                  from ended e where e.seconds is not null) r
         where r.place <= 3
         group by r.queue
    )
    select s.queue, coalesce(m.jobs, 0), coalesce(c.completed, 0), coalesce(f.times, 0), coalesce(c.dead, 0), coalesce(c.cancelled, 0),
           coalesce(c.processed, 0), coalesce(c.processing_seconds, 0), h.latency, f.classes, w.jobs
      from queue.queue_settings s
      left join made m on m.queue = s.queue
      left join counted c on c.queue = s.queue
      left join histograms h on h.queue = s.queue
      left join failed f on f.queue = s.queue
      left join slow w on w.queue = s.queue
$$;

-- What lies in each queue now. dead_letters: those that nobody has redriven, discarded or reviewed.
create function queue.backlog()
returns table (
    queue text, paused boolean, ready bigint, active bigint, scheduled bigint, waiting bigint, retrying bigint,
    dead_letters bigint, oldest_ready_seconds float8
)
language sql
stable
as $$
    select s.queue, s.paused, coalesce(j.ready, 0), coalesce(j.active, 0), coalesce(l.jobs, 0), coalesce(w.jobs, 0),
           coalesce(r.jobs, 0), coalesce(d.letters, 0),
           case when j.oldest is not null then greatest(0, extract(epoch from clock_timestamp() - j.oldest)::float8) end
      from queue.queue_settings s
      left join (select j.queue, count(*) filter (where j.lease_token is null) as ready, count(j.lease_token) as active,
                        min(j.run_at) filter (where j.lease_token is null) as oldest
                   from queue.job j group by j.queue) j on j.queue = s.queue
      left join (select l.queue, count(*) as jobs from queue.later l group by l.queue) l on l.queue = s.queue
      left join (select l.queue, count(*) as jobs from queue.later l where l.attempt > 0 group by l.queue) r on r.queue = s.queue
      left join (select w.queue, count(*) as jobs from queue.waiting w group by w.queue) w on w.queue = s.queue
      left join (select d.queue, count(*) as letters from queue.dead_letter_queue d
                  where d.redriven_at is null and d.discarded_at is null and d.reviewed_at is null
                  group by d.queue) d on d.queue = s.queue
$$;

-- Writes a bucket, or writes it again with what was committed late. p_now: it has just ended, so that the gauges are its own.
create function queue.keep_bucket(p_bucket timestamptz, p_now boolean)
returns void
language sql
as $$
    insert into queue.queue_statistics as k (
        queue, bucket_at, enqueued, completed, failed, dead, cancelled, processed, processing_seconds, latency, failures, slowest,
        ready, active, scheduled, waiting, dead_letters, oldest_ready_seconds)
    select a.queue, p_bucket, a.enqueued, a.completed, a.failed, a.dead, a.cancelled, a.processed, a.processing_seconds, a.latency,
           a.failures, a.slowest, b.ready, b.active, b.scheduled, b.waiting, b.dead_letters, b.oldest_ready_seconds
      from queue.activity(p_bucket, p_bucket + interval '5 minutes') a
      left join (select * from queue.backlog() where p_now) b on b.queue = a.queue
    on conflict (queue, bucket_at) do update
       set enqueued = excluded.enqueued, completed = excluded.completed, failed = excluded.failed, dead = excluded.dead,
           cancelled = excluded.cancelled, processed = excluded.processed, processing_seconds = excluded.processing_seconds,
           latency = excluded.latency, failures = excluded.failures, slowest = excluded.slowest,
           ready = coalesce(k.ready, excluded.ready), active = coalesce(k.active, excluded.active),
           scheduled = coalesce(k.scheduled, excluded.scheduled), waiting = coalesce(k.waiting, excluded.waiting),
           dead_letters = coalesce(k.dead_letters, excluded.dead_letters),
           oldest_ready_seconds = coalesce(k.oldest_ready_seconds, excluded.oldest_ready_seconds)
$$;

-- Kept figures of [p_from, p_until) in steps from p_from; p_hours: from the hours in place of the five minutes. Gauges are
-- the highest of a step. p_queue null: all.
create function queue.statistics_of(p_from timestamptz, p_until timestamptz, p_step interval, p_hours boolean, p_queue text default null)
returns table (
    queue text, step_at timestamptz, enqueued bigint, completed bigint, failed bigint, dead bigint, cancelled bigint, processed bigint,
    processing_seconds float8, latency bigint[], failures jsonb, slowest jsonb, ready bigint, active bigint, scheduled bigint,
    waiting bigint, dead_letters bigint, oldest_ready_seconds float8
)
language sql
stable
as $$
    with kept as materialized (
        select k.*, date_bin(p_step, k.bucket_at, p_from) as step_at from queue.queue_statistics k
         where not p_hours and k.bucket_at >= p_from and k.bucket_at < p_until and (p_queue is null or k.queue = p_queue)
        union all
        select k.*, date_bin(p_step, k.bucket_at, p_from) from queue.queue_statistics_hour k
         where p_hours and k.bucket_at >= p_from and k.bucket_at < p_until and (p_queue is null or k.queue = p_queue)
    ),
    cells as (
        select k.queue, k.step_at, c.n, sum(c.jobs)::bigint as jobs
          from kept k cross join lateral unnest(k.latency) with ordinality c(jobs, n) group by 1, 2, 3
    ),
    histograms as (
        select c.queue, c.step_at, array_agg(c.jobs order by c.n) as latency from cells c group by 1, 2
    ),
    classes as (
        select k.queue, k.step_at, f.key, sum(f.value::bigint)::bigint as times
          from kept k cross join lateral jsonb_each_text(k.failures) f group by 1, 2, 3
    ),
    failures as (
        select c.queue, c.step_at, jsonb_object_agg(c.key, c.times) as failures from classes c group by 1, 2
    ),
    slow as (
        select r.queue, r.step_at, jsonb_agg(r.job order by r.place) as slowest
          from (select k.queue, k.step_at, j.job,
                       row_number() over (partition by k.queue, k.step_at order by (j.job ->> 'seconds')::float8 desc) as place
                  from kept k cross join lateral jsonb_array_elements(k.slowest) j(job)) r
         where r.place <= 10
         group by 1, 2
    ),
    sums as (
        select k.queue, k.step_at, sum(k.enqueued)::bigint as enqueued, sum(k.completed)::bigint as completed,
               sum(k.failed)::bigint as failed, sum(k.dead)::bigint as dead, sum(k.cancelled)::bigint as cancelled,
               sum(k.processed)::bigint as processed, sum(k.processing_seconds) as processing_seconds,
               max(k.ready) as ready, max(k.active) as active, max(k.scheduled) as scheduled, max(k.waiting) as waiting,
               max(k.dead_letters) as dead_letters, max(k.oldest_ready_seconds) as oldest_ready_seconds
          from kept k group by 1, 2
    )
    select s.queue, s.step_at, s.enqueued, s.completed, s.failed, s.dead, s.cancelled, s.processed, s.processing_seconds, h.latency,
           f.failures, w.slowest, s.ready, s.active, s.scheduled, s.waiting, s.dead_letters, s.oldest_ready_seconds
      from sums s
      left join histograms h on h.queue = s.queue and h.step_at = s.step_at
      left join failures f on f.queue = s.queue and f.step_at = s.step_at
      left join slow w on w.queue = s.queue and w.step_at = s.step_at
$$;

-- Writes an hour from its buckets, or writes it again.
create function queue.keep_hour(p_hour timestamptz)
returns void
language sql
as $$
    insert into queue.queue_statistics_hour (
        queue, bucket_at, enqueued, completed, failed, dead, cancelled, processed, processing_seconds, latency, failures, slowest,
        ready, active, scheduled, waiting, dead_letters, oldest_ready_seconds)
    select s.queue, s.step_at, s.enqueued, s.completed, s.failed, s.dead, s.cancelled, s.processed, s.processing_seconds, s.latency,
           s.failures, s.slowest, s.ready, s.active, s.scheduled, s.waiting, s.dead_letters, s.oldest_ready_seconds
      from queue.statistics_of(p_hour, p_hour + interval '1 hour', interval '1 hour', false) s
    on conflict (queue, bucket_at) do update
       set enqueued = excluded.enqueued, completed = excluded.completed, failed = excluded.failed, dead = excluded.dead,
           cancelled = excluded.cancelled, processed = excluded.processed, processing_seconds = excluded.processing_seconds,
           latency = excluded.latency, failures = excluded.failures, slowest = excluded.slowest, ready = excluded.ready,
           active = excluded.active, scheduled = excluded.scheduled, waiting = excluded.waiting,
           dead_letters = excluded.dead_letters, oldest_ready_seconds = excluded.oldest_ready_seconds
$$;

-- ---------------------------------------------------------------- alerts

-- sent_level: the highest level that was told; a message about the end follows only what was told.
alter table queue.queue_alerts
    add column value double precision,
    add column threshold double precision,
    add column sent_level text,
    add column resolved_sent_at timestamptz,
    add constraint queue_alerts_sent_level check (sent_level in ('info', 'warning', 'critical'));

create index queue_alerts_untold on queue.queue_alerts (resolved_at)
    where resolved_at is not null and sent_level is not null and resolved_sent_at is null and acknowledged_at is null;
create index queue_alerts_age on queue.queue_alerts (opened_at);

-- Since when a rule's value has been too high without a break, and since when an open alert's has not.
create table queue.alert_state (
    alert_key text primary key,
    breached_since timestamptz,
    calm_since timestamptz
);

-- What an operator set in place of a rule's own thresholds; scope: a queue or a timer, '' for all of them.
create table queue.alert_thresholds (
    rule text not null,
    scope text not null default '',
    warning double precision,
    critical double precision,
    changed_at timestamptz not null default clock_timestamp(),
    changed_by text not null,
    primary key (rule, scope),
    constraint alert_thresholds_order check (warning <= critical)
);

-- ---------------------------------------------------------------- the daily report

create table queue.daily_report (
    day date primary key,
    made_at timestamptz not null default clock_timestamp(),
    figures jsonb not null,
    subject text not null,
    html text not null
);
