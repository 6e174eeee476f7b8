-- Limits over all instances, keys (ordering, concurrency, fairness, singleton, debounce, throttle), dependencies, batches
-- and progress. How they work: docs/decisions/0007 and 0008, docs/how-to/limit-and-order-jobs.md.
-- Runs beside the release before: what that calls keeps its name, its arguments and its columns.

-- {error class: [seconds before retry 1, 2, …]}: what takes the place of the table's delays in one queue.
create function queue.are_retry_delays(p_delays jsonb)
returns boolean
language sql
immutable
as $$
    select coalesce(jsonb_typeof(p_delays) = 'object'
        and p_delays - '{rate-limit,network,timeout,auth,validation,uncertain,unknown,worker-lost}'::text[] = '{}'
        and not p_delays @? 'strict $.* ? (@.type() != "array")'
        and not p_delays @? '$.*[*] ? (@.type() != "number" || @ < 0 || @ > 604800)', true)
$$;

alter table queue.queue_settings
    add column rate_limit integer constraint queue_settings_rate_limit check (rate_limit > 0),
    add column rate_seconds float8 constraint queue_settings_rate_seconds check (rate_seconds > 0),
    add column concurrency integer constraint queue_settings_concurrency check (concurrency > 0),
    add column job_cost integer not null default 1 constraint queue_settings_job_cost check (job_cost > 0),
    add column key_rate_limit integer constraint queue_settings_key_rate_limit check (key_rate_limit > 0),
    add column key_rate_seconds float8 constraint queue_settings_key_rate_seconds check (key_rate_seconds > 0),
    add column key_concurrency integer constraint queue_settings_key_concurrency check (key_concurrency > 0),
    add column key_scope text,
    add column key_fields jsonb,
    add column limits_changed_at timestamptz,
    add column retry_delays jsonb constraint queue_settings_retry_delays check (queue.are_retry_delays(retry_delays)),
    add column retry_delays_changed_at timestamptz,
    add column ageing_seconds float8 constraint queue_settings_ageing_seconds check (ageing_seconds > 0),
    add column ageing_changed_at timestamptz,
    add constraint queue_settings_rate check ((rate_limit is null) = (rate_seconds is null)),
    add constraint queue_settings_key_rate check ((key_rate_limit is null) = (key_rate_seconds is null)),
    add constraint queue_settings_cost_fits check (job_cost <= rate_limit);

-- lane: what the job's ordering, concurrency or fairness key is called in rate_limit_tracking; limit_key: the same for what
-- the queue's keyed limits count by; permits: what it could not have of the queue's rate, so that its next start takes them too.
alter table queue.job
    add column lane text, add column lane_rule text, add column lane_limit integer, add column limit_key text,
    add column batch_id uuid, add column progress jsonb, add column singleton_key text, add column permits integer,
    add constraint job_lane_rule check (lane_rule in ('order', 'order-block', 'concurrency', 'fair')) not valid;
alter table queue.later
    add column lane text, add column lane_rule text, add column lane_limit integer, add column limit_key text,
    add column batch_id uuid, add column progress jsonb, add column singleton_key text, add column permits integer;
alter table queue.waiting
    add column lane text, add column lane_rule text, add column lane_limit integer, add column limit_key text,
    add column batch_id uuid, add column progress jsonb, add column singleton_key text, add column permits integer,
    add column rank smallint not null default 0;
alter table queue.job_tracking
    add column lane text, add column lane_rule text, add column lane_limit integer, add column limit_key text,
    add column batch_id uuid, add column progress jsonb, add column singleton_key text;
alter table queue.dead_letter_queue
    add column discarded_at timestamptz, add column discarded_by text,
    add constraint dead_letter_discarded check ((discarded_at is null) = (discarded_by is null));

-- A job without keys is in neither, and no claim changes a key: claims stay HOT updates.
create index job_lane on queue.job (lane, run_at, id) where lane is not null;
create index job_limit_key on queue.job (limit_key) where limit_key is not null;
-- A waiting job waits at one key at a time (`key`; empty: for other jobs). Inside an ordering key rank is 0, else the priority.
drop index queue.waiting_order;
create index waiting_key on queue.waiting (key, rank, run_at, id);

-- One row for each key that is in use: what runs under it, what it let start lately, until when it is closed.
drop table queue.rate_limit_tracking;
create table queue.rate_limit_tracking (
    key text primary key,
    in_use integer not null default 0,
    holder uuid,
    blocked_until timestamptz,
    wake_at timestamptz,
    reserved_until timestamptz,
    window_seconds float8,
    bucket bigint not null default 0,
    counts integer[],
    constraint rate_limit_tracking_times check (isfinite(blocked_until) and isfinite(wake_at))
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

create index rate_limit_tracking_wake on queue.rate_limit_tracking (wake_at) where wake_at is not null;

-- Which job has a singleton, debounce or throttle key. Whether it is still alive is asked of the job.
create table queue.uniqueness (
    queue text not null,
    kind text not null,
    key text not null,
    job_id uuid not null,
    first_at timestamptz not null,
    until timestamptz,
    primary key (queue, kind, key),
    constraint uniqueness_kind check (kind in ('singleton', 'debounce', 'throttle'))
);

create index uniqueness_age on queue.uniqueness (first_at);

-- What a waiting job waits for. `checked`: seen after its commit, when it was certain that the other's end will see it.
create table queue.dependency (
    job_id uuid not null,
    depends_on uuid not null,
    rule text not null,
    checked boolean not null default false,
    primary key (job_id, depends_on),
    constraint dependency_rule check (rule in ('die', 'cancel', 'run'))
);

create index dependency_on on queue.dependency (depends_on);
create index dependency_unchecked on queue.dependency (job_id) where not checked;

create table queue.batch (
    id uuid primary key,
    total integer not null default 0,
    completed integer not null default 0,
    dead integer not null default 0,
    cancelled integer not null default 0,
    callback jsonb,
    callback_id uuid,
    created_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);

create index batch_finished on queue.batch (finished_at) where finished_at is not null;

create or replace view queue.jobs as
    select id, queue, case when lease_token is null then 'ready' else 'active' end as state, priority, run_at, enqueued_at,
           started_at, null::timestamptz as finished_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload,
           attempts, null::jsonb as result, null::text as error_class, null::text as error_message, lease_until, leased_by,
           expires_at, stop_requested_at, lane, limit_key, batch_id, progress, singleton_key
      from queue.job
    union all
    select id, queue, 'scheduled', priority, run_at, enqueued_at, null, null, attempt, correlation_id, idempotency_key,
           redrive_of, effect_since, payload, attempts, null, null, null, null, null, expires_at, null, lane, limit_key, batch_id,
           progress, singleton_key
      from queue.later
    union all
    select id, queue, 'waiting', priority, run_at, enqueued_at, null, null, attempt, correlation_id, idempotency_key,
           redrive_of, effect_since, payload, attempts, null, null, null, null, null, expires_at, null, lane, limit_key, batch_id,
           progress, singleton_key
      from queue.waiting
    union all
    select id, queue, state, priority, run_at, enqueued_at, started_at, finished_at, attempt, correlation_id,
           idempotency_key, redrive_of, effect_since, payload, attempts, result, error_class, error_message, null, null,
           expires_at, null, lane, limit_key, batch_id, progress, singleton_key
      from queue.job_tracking;

-- ---------------------------------------------------------------- windows

-- Starts are counted in 21 slots of a twentieth of the window. The 21 that any moment looks back on cover every window that
-- ends there, so that no window holds more than the limit; the price is a twentieth of the rate.

-- A key's slots as they stand now, newest first, and the number of the newest. Kept for another length of window, they all
-- count as new.
create function queue.slots_at(t queue.rate_limit_tracking, p_seconds float8, p_now timestamptz, out slot bigint, out slots integer[])
language plpgsql
immutable
as $$
declare
    v_age integer;
begin
    slot := greatest(t.bucket, floor(extract(epoch from p_now)::float8 / (p_seconds / 20))::bigint);
    v_age := least(21, slot - t.bucket);
    slots := case
                 when t.counts is null then array_fill(0, array[21])
                 when t.window_seconds is distinct from p_seconds
                     then (select sum(c)::integer from unnest(t.counts) c) || array_fill(0, array[20])
                 else (array_fill(0, array[v_age]) || t.counts)[1:21]
             end;
end
$$;

-- How much of the limit is free in the slots.
create function queue.slots_free(p_slots integer[], p_limit integer)
returns integer
language sql
immutable
as $$
    select p_limit - sum(c)::integer from unnest(p_slots) c
$$;

-- From when p_n are free, if nobody takes any.
create function queue.slots_free_at(p_slots integer[], p_bucket bigint, p_seconds float8, p_limit integer, p_n integer)
returns timestamptz
language plpgsql
immutable
as $$
declare
    v_free integer := queue.slots_free(p_slots, p_limit);
begin
    for i in reverse 21..1 loop
        exit when v_free >= p_n;
        v_free := v_free + p_slots[i];
        if v_free >= p_n then
            return to_timestamp((p_bucket - i + 22) * p_seconds / 20);
        end if;
    end loop;
    return to_timestamp(p_bucket * p_seconds / 20);
end
$$;

-- What a job's limit key is called: the first list of the queue's fields that the payload has all of.
create function queue.limit_key_of(p_payload jsonb, p_scope text, p_fields jsonb)
returns text
language plpgsql
immutable strict
as $$
declare
    v_path text[];
    v_key text;
begin
    -- Expressions only: a query here would cost more than the rest of an enqueue.
    for i in 0..jsonb_array_length(p_fields) - 1 loop
        v_key := null;
        for k in 0..jsonb_array_length(p_fields -> i) - 1 loop
            v_path := string_to_array(p_fields -> i ->> k, '.');
            if jsonb_typeof(p_payload #> v_path) is distinct from 'string' then
                v_key := null;
                exit;
            end if;
            v_key := concat(v_key || '/', p_payload #>> v_path);
        end loop;
        if v_key is not null then
            return p_scope || ':' || lower(v_key);
        end if;
    end loop;
    return null;
end
$$;

-- ---------------------------------------------------------------- keys

-- ready -> waiting: up to p_most jobs of a key, as its lane or as its limit key, but for p_but. The caller holds the key's row.
create function queue.park(p_key text, p_is_lane boolean, p_but uuid[], p_most integer)
returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_ids uuid[];
    v_count integer;
begin
    if p_is_lane then
        v_ids := array(select c.id from queue.job c
                        where c.lane = p_key and c.lease_token is null and c.id <> all(p_but) limit p_most for update skip locked);
    else
        v_ids := array(select c.id from queue.job c
                        where c.limit_key = p_key and c.lease_token is null and c.id <> all(p_but) limit p_most for update skip locked);
    end if;
    with moved as (
        delete from queue.job j where j.id = any(v_ids) and j.lease_token is null
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                  payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
    )
    insert into queue.waiting (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                               payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits,
                               key, rank)
    select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
           payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits,
           p_key, case when p_is_lane and lane_rule like 'order%' then 0 else priority end
      from moved;
    get diagnostics v_count = row_count;
    return v_count;
end
$$;

-- What a priority is worth after waiting since p_since in a queue that ages: one better for each p_seconds, 1 at best.
create function queue.aged(p_priority integer, p_since timestamptz, p_seconds float8, p_now timestamptz)
returns float8
language sql
immutable
as $$
    select greatest(1, p_priority - greatest(0, coalesce(floor(extract(epoch from p_now - p_since)::float8 / p_seconds), 0)))
$$;

-- The best p_limit ready jobs of a queue that ages, locked, best first. Jobs of one priority age alike, so each priority's
-- first ones by the index are all that can be among them. Taken and locked in two steps, so that nothing else is locked; when
-- others have locked what was found, it looks further.
create function queue.best_aged(
    p_queue text, p_seconds float8, p_now timestamptz, p_limit integer, p_but uuid[], p_locked text[],
    out ids uuid[], out keyed bigint, out most_permits integer
)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_most integer := p_limit + 4;
    v_seen integer;
    v_id uuid;
    v_job record;
begin
    keyed := 0;
    loop
        v_seen := 0;
        for v_id in
            select c.id
              from generate_series(1, 10) as p(priority)
             cross join lateral (
                 select j.id, j.run_at from queue.job j
                  where j.queue = p_queue and j.priority = p.priority::smallint and j.lease_token is null
                    and (j.expires_at is null or j.expires_at > p_now)
                    and j.id <> all(p_but)
                    and coalesce(j.lane, '') <> all(p_locked) and coalesce(j.limit_key, '') <> all(p_locked)
                  order by j.run_at, j.id limit v_most) c
             order by queue.aged(p.priority, c.run_at, p_seconds, p_now), c.run_at, c.id
        loop
            v_seen := v_seen + 1;
            select j.id, j.lane, j.limit_key, j.permits into v_job from queue.job j
             where j.id = v_id and j.queue = p_queue and j.lease_token is null for update skip locked;
            if found then
                ids := ids || v_job.id;
                keyed := keyed + num_nonnulls(v_job.lane, v_job.limit_key);
                most_permits := greatest(most_permits, v_job.permits);
                exit when cardinality(ids) >= p_limit;
            end if;
        end loop;
        exit when ids is not null or v_seen < v_most;
        v_most := v_most * 8;
    end loop;
end
$$;

-- The best p_most jobs that wait at a key, of queues that are not paused and may age. Inside an ordering key rank is 0.
create function queue.best_aged_waiting(p_key text, p_most integer)
returns uuid[]
language sql
stable
set enable_seqscan = off
as $$
    select array(
        select c.id
          from generate_series(0, 10) as r(rank)
         cross join lateral (
             select w.id, w.run_at, s.ageing_seconds
               from queue.waiting w join queue.queue_settings s on s.queue = w.queue
              where w.key = p_key and w.rank = r.rank::smallint and not s.paused
              order by w.run_at, w.id limit p_most) c
         order by queue.aged(r.rank, c.run_at, c.ageing_seconds, clock_timestamp()), c.run_at, c.id limit p_most)
$$;

-- waiting -> ready: up to p_most of the best of a key, of queues that are not paused. p_run_at: their new place in line, or
-- null: the place that they had. Returns the queue of each.
create function queue.unpark(p_key text, p_most integer, p_run_at timestamptz default null)
returns text[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_ids uuid[];
    v_queues text[];
begin
    perform from queue.queue_settings s where s.ageing_seconds is not null limit 1;
    if found then
        v_ids := array(select w.id from queue.waiting w
                        where w.id = any(queue.best_aged_waiting(p_key, p_most)) for update skip locked);
    else
        v_ids := array(select c.id from queue.waiting c
                        where c.key = p_key
                          and not (select s.paused from queue.queue_settings s where s.queue = c.queue)
                        order by c.rank, c.run_at, c.id limit p_most for update skip locked);
    end if;
    with moved as (
        delete from queue.waiting w where w.id = any(v_ids)
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                  payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
    ),
    placed as (
        insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                               payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
        select id, queue, priority, coalesce(p_run_at, run_at), enqueued_at, attempt, correlation_id, idempotency_key, redrive_of,
               effect_since, expires_at, payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress,
               singleton_key, permits
          from moved
        returning queue
    )
    select coalesce(array_agg(queue), '{}') into v_queues from placed;
    return v_queues;
end
$$;

-- Lets the next jobs of a key come forward; the caller holds the key's row. What stays behind is looked at again in ten
-- seconds, whatever else happens. Returns the queue of each that is ready now.
create function queue.open_key(p_key text, p_most integer)
returns text[]
language plpgsql
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_row queue.rate_limit_tracking;
    v_queues text[] := '{}';
    v_wake timestamptz;
begin
    select * into v_row from queue.rate_limit_tracking t where t.key = p_key;
    if v_row.blocked_until > v_now then
        v_wake := v_row.blocked_until;
    elsif v_row.holder is not null then
        -- The holder itself may have had to wait at its limit key; this key's other jobs wait for it.
        v_wake := null;
    else
        v_queues := queue.unpark(p_key, p_most);
    end if;
    if v_wake is null and v_row.holder is null then
        perform from queue.waiting w where w.key = p_key limit 1;
        if found then
            v_wake := v_now + interval '10 seconds';
        end if;
    end if;
    if v_wake is distinct from v_row.wake_at then
        update queue.rate_limit_tracking t set wake_at = v_wake where t.key = p_key;
    end if;
    return v_queues;
end
$$;

-- Opens keys whose time has come. Returns the queue of each job that is ready now.
create function queue.open_due_keys(p_limit integer)
returns text[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_key text;
    v_queues text[] := '{}';
begin
    for v_key in
        select t.key from queue.rate_limit_tracking t
         where t.wake_at <= (select clock_timestamp()) order by t.wake_at limit p_limit for update skip locked
    loop
        v_queues := v_queues || queue.open_key(v_key, 16);
    end loop;
    return v_queues;
end
$$;

-- Gives slots of keys back (a key as often as it gives), ends the hold of jobs on their ordering keys, and lets the next come
-- forward. Rows of keys are locked in the order of keys, after rows of jobs: see the explanation.
create function queue.leave_keys(p_slots text[], p_held text[], p_holders uuid[])
returns text[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_key text;
    v_given integer;
    v_queues text[] := '{}';
begin
    perform from queue.rate_limit_tracking t where t.key = any(p_slots || p_held) order by t.key for update;
    for v_key, v_given in
        select k, count(*) from unnest(p_slots || p_held) k group by k order by k
    loop
        update queue.rate_limit_tracking t
           set in_use = greatest(0, t.in_use - (select count(*)::integer from unnest(p_slots) s where s = v_key)),
               holder = case when t.holder = any(p_holders) then null else t.holder end
         where t.key = v_key;
        v_queues := v_queues || queue.open_key(v_key, v_given);
    end loop;
    return v_queues;
end
$$;

-- ---------------------------------------------------------------- ends

-- What the end of jobs means to others: those that depend on them, and their batches. Returns the queue of each job that is
-- ready now.
create function queue.after_end(p_ids uuid[], p_states text[], p_batches uuid[])
returns text[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_queues text[] := '{}';
begin
    perform from queue.dependency d where d.depends_on = any(p_ids) limit 1;
    if found then
        v_queues := queue.resolve_dependents(p_ids, p_states);
    end if;
    if array_remove(p_batches, null) <> '{}' then
        perform from queue.batch b where b.id = any(p_batches) order by b.id for update;
        update queue.batch b
           set completed = b.completed + n.completed, dead = b.dead + n.dead, cancelled = b.cancelled + n.cancelled
          from (select u.batch, count(*) filter (where u.state = 'completed') as completed,
                       count(*) filter (where u.state = 'dead') as dead,
                       count(*) filter (where u.state = 'cancelled') as cancelled
                  from unnest(p_states, p_batches) u(state, batch) where u.batch is not null group by u.batch) n
         where b.id = n.batch;
        v_queues := v_queues || queue.finish_batches(p_batches);
    end if;
    return v_queues;
end
$$;

-- Enqueues the callbacks of batches whose last job has ended; the caller holds their rows.
create function queue.finish_batches(p_batches uuid[])
returns text[]
language plpgsql
as $$
declare
    v_queues text[] := '{}';
    v_batch queue.batch;
    v_callback_id uuid;
    v_due boolean;
begin
    for v_batch in
        select * from queue.batch b
         where b.id = any(p_batches) and b.finished_at is null and b.total = b.completed + b.dead + b.cancelled
    loop
        v_callback_id := null;
        if v_batch.callback is not null then
            select e.id, e.due into v_callback_id, v_due
              from queue.add_jobs(jsonb_build_array(jsonb_build_object('correlation_id', v_batch.id) || v_batch.callback)) e;
            if v_due then
                v_queues := v_queues || (v_batch.callback ->> 'queue');
            end if;
        end if;
        update queue.batch b set finished_at = clock_timestamp(), callback_id = v_callback_id where b.id = v_batch.id;
    end loop;
    return v_queues;
end
$$;

-- Jobs that depend on ended ones: free, or ended too when one did not complete. Their rows are locked first, so that of two
-- ends at once the second sees the first.
create function queue.resolve_dependents(p_ids uuid[], p_states text[])
returns text[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_queues text[] := '{}';
    v_free uuid[] := '{}';
    v_dep record;
begin
    perform from queue.waiting w
      where w.id in (select d.job_id from queue.dependency d where d.depends_on = any(p_ids)) order by w.id for update;
    for v_dep in
        with gone as (
            delete from queue.dependency d using unnest(p_ids, p_states) u(id, state)
             where d.depends_on = u.id
            returning d.job_id, d.rule, u.id as other, u.state
        )
        select distinct on (g.job_id) g.job_id, g.other, g.state,
               case when g.state = 'completed' or g.rule = 'run' then 'run' else g.rule end as verdict
          from gone g
         order by g.job_id, (g.state = 'completed' or g.rule = 'run')
    loop
        if v_dep.verdict = 'run' then
            v_free := v_free || v_dep.job_id;
        else
            delete from queue.dependency d where d.job_id = v_dep.job_id;
            v_queues := v_queues || (queue.end_unstarted(
                array[v_dep.job_id], case v_dep.verdict when 'die' then 'dead' else 'cancelled' end, 'dependency',
                format('job %s, which it depends on, ended as %s', v_dep.other, v_dep.state), null)).freed;
        end if;
    end loop;
    return v_queues || queue.free_dependents(v_free);
end
$$;

-- waiting -> ready or scheduled, those of p_ids that wait for no other job any more.
create function queue.free_dependents(p_ids uuid[])
returns text[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_queues text[];
begin
    with free as (
        delete from queue.waiting w
         where w.id = any(p_ids) and w.key = ''
           and not exists (select from queue.dependency d where d.job_id = w.id)
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                  payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
    ),
    due as (
        insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                               payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
        select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
               payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
          from free where run_at <= v_now
        returning queue
    ),
    scheduled as (
        insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                 payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
        select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
               payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
          from free where run_at > v_now
    )
    select coalesce(array_agg(queue), '{}') into v_queues from due;
    return v_queues;
end
$$;

-- A dead job, as queue.add_letters takes it.
create function queue.letter_of(p_job_id uuid, p_queue text, p_correlation_id text, p_class text, p_message text)
returns jsonb
language sql
immutable
as $$
    select jsonb_build_object('job_id', p_job_id, 'queue', p_queue, 'correlation_id', p_correlation_id,
                              'error_class', p_class, 'error_message', p_message)
$$;

-- Dead letters of jobs that died just now, and the jobs that tell of them: none for one that told of another itself.
create function queue.add_letters(p_dead jsonb, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_tell jsonb;
begin
    with dead as (
        select * from jsonb_to_recordset(p_dead) d(job_id uuid, queue text, correlation_id text, error_class text, error_message text)
    ),
    buried as (
        insert into queue.dead_letter_queue (job_id, queue, error_class, error_message, died_at)
        select d.job_id, d.queue, d.error_class, d.error_message, p_now from dead d
        returning id, job_id
    )
    select jsonb_agg(jsonb_build_object('queue', 'dead-letter', 'payload', jsonb_build_object('deadLetterId', b.id),
                                        'correlation_id', d.correlation_id))
      into v_tell
      from buried b join dead d using (job_id) where d.queue <> 'dead-letter';
    if v_tell is not null then
        perform queue.add_jobs(v_tell);
    end if;
end
$$;

-- Ends jobs that have not started, as cancelled or dead; those that have started or ended are left alone. The message of an
-- expired job is made here. Returns the queue of each job that is ready now because of it.
create function queue.end_unstarted(
    p_ids uuid[], p_state text, p_class text, p_message text, p_result jsonb, out ended integer, out freed text[]
)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_ids uuid[];
    v_states text[];
    v_batches uuid[];
    v_held text[];
    v_letters jsonb;
begin
    freed := '{}';
    ended := 0;
    with ready as (
        delete from queue.job where id = any(p_ids) and lease_token is null
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                  payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
    ),
    scheduled as (
        delete from queue.later where id = any(p_ids)
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                  payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
    ),
    waiting as (
        delete from queue.waiting where id = any(p_ids)
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                  payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
    ),
    gone as (
        select * from ready union all select * from scheduled union all select * from waiting
    ),
    tracked as (
        insert into queue.job_tracking (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                        payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key,
                                        state, finished_at, result, error_class, error_message)
        select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since,
               expires_at, payload, case p_state when 'dead' then coalesce(attempts, '[]') else attempts end, lane, lane_rule, lane_limit,
               limit_key, batch_id, progress, singleton_key, p_state, v_now, p_result,
               case p_state when 'dead' then p_class end,
               case p_state when 'dead' then coalesce(p_message, queue.expiry_reason(expires_at)) end
          from gone
    )
    select array_agg(id), array_agg(p_state), array_agg(batch_id), array_agg(lane) filter (where lane_rule = 'order' or lane_rule = 'order-block' and p_state <> 'dead'),
           jsonb_agg(queue.letter_of(id, queue, correlation_id, p_class, coalesce(p_message, queue.expiry_reason(expires_at))))
               filter (where p_state = 'dead')
      into v_ids, v_states, v_batches, v_held, v_letters
      from gone;
    if v_ids is null then
        return;
    end if;
    ended := cardinality(v_ids);
    if v_letters is not null then
        perform queue.add_letters(v_letters, v_now);
    end if;
    delete from queue.dependency d where d.job_id = any(v_ids);
    freed := queue.after_end(v_ids, v_states, v_batches);
    if v_held is not null then
        freed := freed || queue.leave_keys('{}', v_held, v_ids);
    end if;
end
$$;

-- ---------------------------------------------------------------- enqueue

-- The state of a job that has not ended, else null. A scheduled one is locked, so that it stays so.
create function queue.live_state(p_id uuid)
returns text
language plpgsql
as $$
declare
    v_state text;
begin
    for v_look in 1..2 loop
        perform from queue.later l where l.id = p_id for update;
        if found then
            return 'scheduled';
        end if;
        select case when j.lease_token is null then 'ready' else 'active' end into v_state from queue.job j where j.id = p_id;
        if found then
            return v_state;
        end if;
        perform from queue.waiting w where w.id = p_id;
        if found then
            return 'waiting';
        end if;
    end loop;
    return null;
end
$$;

-- What is wrong with an element of p_jobs, or null.
create function queue.job_problem(e jsonb, s queue.queue_settings)
returns text
language sql
stable
as $$
    select case
               when s.queue is null then format('queue "%s" does not exist', e ->> 'queue')
               when s.closed <> '' then format('queue "%s" takes no jobs: %s', s.queue, s.closed)
               when jsonb_typeof(e -> 'payload') is distinct from 'object' then 'payload: it must be a JSON object'
               when e ->> 'run_at' is not null and e ->> 'delay_seconds' is not null
                   then 'run_at, delay: give one of the two, not both'
               when (e ->> 'priority')::int not between 1 and 10 then 'priority: it must be 1 (first) to 10 (last)'
               when e ->> 'expires_at' is not null and e ->> 'expires_in_seconds' is not null
                   then 'expires_at, expires_in: give one of the two, not both'
               when (e ->> 'expires_in_seconds')::float8 <= coalesce((e ->> 'delay_seconds')::float8, 0)
                    or (e ->> 'expires_at')::timestamptz <= (e ->> 'run_at')::timestamptz
                   then 'expires_at: it must be later than the time that the job may run from'
               when e -> 'unique' ->> 'kind' not in ('singleton', 'debounce', 'throttle')
                   then 'unique: its kind is singleton, debounce or throttle'
               when e -> 'unique' ->> 'kind' in ('debounce', 'throttle') and not coalesce((e -> 'unique' ->> 'seconds')::float8 > 0, false)
                   then 'unique: the window must be longer than nothing'
               when e -> 'unique' ->> 'kind' = 'debounce' and (e ->> 'run_at' is not null or e ->> 'delay_seconds' is not null)
                   then 'run_at, delay: a debounced job runs after its window, leave them out'
               when e -> 'lane' ->> 'rule' not in ('order', 'order-block', 'concurrency', 'fair')
                   then 'lane: its rule is order, order-block, concurrency or fair'
               when e -> 'lane' ->> 'rule' = 'concurrency' and not coalesce((e -> 'lane' ->> 'limit')::int > 0, false)
                   then 'concurrency_limit: it must be 1 or more'
           end
$$;

-- Each element of p_jobs: {queue, payload, id?, priority?, run_at?, delay_seconds?, expires_at?, expires_in_seconds?,
-- idempotency_key?, correlation_id?, redrive_of?, effect_since?, progress?, limit_key?, batch_id?,
--   unique?: {kind: singleton, key, policy} or {kind: debounce, key, seconds, at_most_seconds?} or {kind: throttle, key, seconds},
--   lane?: {rule: order | order-block | concurrency | fair, key, limit?},
--   depends_on?: [id], if_dependency_fails?: die | cancel | run}.
-- One row an element, in order; `created` is false where a job with one of the keys is there already (or stood earlier in the
-- same call), and `id` is then that one; `due` is true where a worker can take the job now: not of a paused queue; `replaced`
-- is the scheduled job in whose place this one was put.
create function queue.add_jobs(p_jobs jsonb)
returns table (ordinal integer, id uuid, created boolean, due boolean, replaced uuid)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    v_new uuid[] := '{}';
    v_keyed boolean;
    v_timed boolean;
    v_paused boolean;
    v_special boolean;
    v_batches uuid[];
    v_problem text;
    v_open integer;
begin
    select min(queue.job_problem(e, s)),
           bool_or(e ->> 'idempotency_key' is not null),
           bool_or(e ->> 'run_at' is not null or e ->> 'delay_seconds' is not null
                   or e ->> 'expires_at' is not null or e ->> 'expires_in_seconds' is not null),
           bool_or(s.paused),
           bool_or(e ->> 'unique' is not null or e ->> 'depends_on' is not null),
           array_agg(distinct (e ->> 'batch_id')::uuid) filter (where e ->> 'batch_id' is not null)
      into v_problem, v_keyed, v_timed, v_paused, v_special, v_batches
      from jsonb_array_elements(p_jobs) e
      left join queue.queue_settings s on s.queue = e ->> 'queue';
    if v_problem is not null then
        raise exception using errcode = 'invalid_parameter_value', message = v_problem,
            hint = 'The queues that take jobs: select queue from queue.queue_settings where closed = ''''.';
    end if;
    if v_batches is not null then
        perform from queue.batch b where b.id = any(v_batches) and b.finished_at is null order by b.id for update;
        get diagnostics v_open = row_count;
        if v_open < cardinality(v_batches) then
            raise exception using errcode = 'invalid_parameter_value',
                message = 'batch_id: the batch is not known or has finished';
        end if;
    end if;

    -- The common case, in one insert: nothing to look up, nothing for later. Ids sort as they were made.
    if not v_keyed and not v_timed and not v_paused and not v_special then
        if v_batches is not null then
            update queue.batch b set total = b.total + n.jobs
              from (select (e ->> 'batch_id')::uuid as id, count(*) as jobs from jsonb_array_elements(p_jobs) e group by 1) n
             where b.id = n.id;
        end if;
        return query
        with asked as materialized (
            select a.ord::int as ord, a.e, coalesce((a.e ->> 'id')::uuid, queue.new_id()) as id, s.priority, s.key_scope, s.key_fields
              from jsonb_array_elements(p_jobs) with ordinality a(e, ord)
              join queue.queue_settings s on s.queue = a.e ->> 'queue'
             order by a.ord
        ),
        made as (
            insert into queue.job (id, queue, priority, run_at, enqueued_at, correlation_id, redrive_of, effect_since, payload,
                                   lane, lane_rule, lane_limit, limit_key, batch_id, progress)
            select a.id, a.e ->> 'queue', coalesce((a.e ->> 'priority')::smallint, a.priority), v_now, v_now,
                   a.e ->> 'correlation_id', (a.e ->> 'redrive_of')::uuid, (a.e ->> 'effect_since')::timestamptz, a.e -> 'payload',
                   queue.lane_of(a.e), a.e -> 'lane' ->> 'rule', (a.e -> 'lane' ->> 'limit')::integer,
                   coalesce(a.e ->> 'limit_key', queue.limit_key_of(a.e -> 'payload', a.key_scope, a.key_fields)),
                   (a.e ->> 'batch_id')::uuid, a.e -> 'progress'
              from asked a
             order by a.ord
        )
        select a.ord, a.id, true, true, null::uuid from asked a order by a.ord;
        return;
    end if;

    -- Keys that look at other jobs go one by one, in the order of their keys, so that two calls with the same ones wait for
    -- each other. Ids are made first, in the order of the call.
    if v_special then
        return query
        with asked as materialized (
            select a.ord::int as ord, a.e || jsonb_build_object('id', coalesce((a.e ->> 'id')::uuid, queue.new_id())) as e
              from jsonb_array_elements(p_jobs) with ordinality a(e, ord)
             order by a.ord
        ),
        ordered as materialized (
            select a.* from asked a
             order by a.e ->> 'queue', a.e ->> 'idempotency_key', a.e -> 'unique' ->> 'kind', a.e -> 'unique' ->> 'key', a.ord
        ),
        added as materialized (
            select o.ord, one.* from ordered o cross join lateral queue.add_job(o.e, v_now) one
        )
        select a.ord, a.id, a.created, a.due, a.replaced from added a order by a.ord;
        return;
    end if;

    if v_keyed then
        -- In key order, so that two bulk calls with the same keys wait for each other and never deadlock.
        with mine as (
            insert into queue.idempotency (queue, key, job_id)
            select k.queue, k.key, coalesce(k.id, queue.new_id())
              from (select distinct on (e ->> 'queue', e ->> 'idempotency_key')
                           e ->> 'queue' as queue, e ->> 'idempotency_key' as key, (e ->> 'id')::uuid as id
                      from jsonb_array_elements(p_jobs) with ordinality a(e, ord)
                     where e ->> 'idempotency_key' is not null
                     order by e ->> 'queue', e ->> 'idempotency_key', a.ord) k
             order by k.queue, k.key
            on conflict do nothing
            returning job_id
        )
        select coalesce(array_agg(job_id), '{}') into v_new from mine;
    end if;

    return query
    with asked as materialized (
        select a.ord::int as ord, a.e, a.e ->> 'queue' as queue, a.e -> 'payload' as payload,
               coalesce((a.e ->> 'priority')::smallint, s.priority) as priority,
               coalesce((a.e ->> 'run_at')::timestamptz,
                        v_now + make_interval(secs => (a.e ->> 'delay_seconds')::float8), v_now) as run_at,
               a.e ->> 'correlation_id' as correlation_id, a.e ->> 'idempotency_key' as idempotency_key,
               (a.e ->> 'redrive_of')::uuid as redrive_of,
               (a.e ->> 'effect_since')::timestamptz as effect_since,
               coalesce((a.e ->> 'expires_at')::timestamptz,
                        v_now + make_interval(secs => (a.e ->> 'expires_in_seconds')::float8)) as expires_at,
               queue.lane_of(a.e) as lane, a.e -> 'lane' ->> 'rule' as lane_rule, (a.e -> 'lane' ->> 'limit')::integer as lane_limit,
               coalesce(a.e ->> 'limit_key', queue.limit_key_of(a.e -> 'payload', s.key_scope, s.key_fields)) as limit_key,
               (a.e ->> 'batch_id')::uuid as batch_id, a.e -> 'progress' as progress,
               s.paused, i.job_id as known_id, coalesce(i.job_id, (a.e ->> 'id')::uuid, queue.new_id()) as id
          from jsonb_array_elements(p_jobs) with ordinality a(e, ord)
          join queue.queue_settings s on s.queue = a.e ->> 'queue'
          left join queue.idempotency i on i.queue = a.e ->> 'queue' and i.key = a.e ->> 'idempotency_key'
         order by a.ord
    ),
    told as materialized (
        select a.*, a.run_at <= v_now as due,
               a.known_id is null
               or (a.known_id = any(v_new) and row_number() over (partition by a.known_id order by a.ord) = 1) as created
          from asked a
    ),
    ready as (
        insert into queue.job (id, queue, priority, run_at, enqueued_at, correlation_id, idempotency_key, redrive_of, effect_since,
                               expires_at, payload, lane, lane_rule, lane_limit, limit_key, batch_id, progress)
        select t.id, t.queue, t.priority, t.run_at, v_now, t.correlation_id, t.idempotency_key, t.redrive_of, t.effect_since,
               t.expires_at, t.payload, t.lane, t.lane_rule, t.lane_limit, t.limit_key, t.batch_id, t.progress
          from told t where t.created and t.due
    ),
    scheduled as (
        insert into queue.later (id, queue, priority, run_at, enqueued_at, correlation_id, idempotency_key, redrive_of, effect_since,
                                 expires_at, payload, lane, lane_rule, lane_limit, limit_key, batch_id, progress)
        select t.id, t.queue, t.priority, t.run_at, v_now, t.correlation_id, t.idempotency_key, t.redrive_of, t.effect_since,
               t.expires_at, t.payload, t.lane, t.lane_rule, t.lane_limit, t.limit_key, t.batch_id, t.progress
          from told t where t.created and not t.due
    ),
    joined as (
        update queue.batch b set total = b.total + n.jobs
          from (select t.batch_id as id, count(*) as jobs from told t where t.created and t.batch_id is not null group by 1) n
         where b.id = n.id
    )
    select t.ord, t.id, t.created, t.due and not t.paused, null::uuid from told t order by t.ord;
end
$$;

-- What an element's lane is called.
create function queue.lane_of(e jsonb)
returns text
language sql
immutable
as $$
    select (e ->> 'queue') || ':' || split_part(e -> 'lane' ->> 'rule', '-', 1) || ':' || (e -> 'lane' ->> 'key')
$$;

-- One element of queue.add_jobs, with its id, that has keys which look at other jobs.
create function queue.add_job(e jsonb, p_now timestamptz)
returns table (id uuid, created boolean, due boolean, replaced uuid)
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_id uuid := (e ->> 'id')::uuid;
    v_queue text := e ->> 'queue';
    v_unique jsonb := nullif(e -> 'unique', 'null');
    v_kind text := v_unique ->> 'kind';
    v_settings queue.queue_settings;
    v_known queue.uniqueness;
    v_state text;
    v_first_at timestamptz := p_now;
    v_replaced uuid;
    v_existing uuid;
    v_run_at timestamptz;
    v_other uuid;
    v_rule text := coalesce(e ->> 'if_dependency_fails', 'die');
    v_waits uuid[] := '{}';
    v_failed text;
    v_job queue.waiting;
begin
    select * into v_settings from queue.queue_settings s where s.queue = v_queue;
    v_run_at := coalesce((e ->> 'run_at')::timestamptz, p_now + make_interval(secs => (e ->> 'delay_seconds')::float8), p_now);
    if e ->> 'idempotency_key' is not null then
        insert into queue.idempotency (queue, key, job_id) values (v_queue, e ->> 'idempotency_key', v_id) on conflict do nothing;
        if not found then
            select i.job_id into v_existing from queue.idempotency i where i.queue = v_queue and i.key = e ->> 'idempotency_key';
            return query select v_existing, false, v_run_at <= p_now and not v_settings.paused, null::uuid;
            return;
        end if;
    end if;

    if v_unique is not null then
        if v_kind = 'debounce' then
            v_run_at := p_now + make_interval(secs => (v_unique ->> 'seconds')::float8);
        end if;
        insert into queue.uniqueness (queue, kind, key, job_id, first_at, until)
        values (v_queue, v_kind, v_unique ->> 'key', v_id, p_now,
                case v_kind when 'throttle' then p_now + make_interval(secs => (v_unique ->> 'seconds')::float8) end)
        on conflict do nothing;
        if not found then
            select * into v_known from queue.uniqueness u
             where u.queue = v_queue and u.kind = v_kind and u.key = v_unique ->> 'key' for update;
            if v_kind = 'throttle' then
                v_existing := case when v_known.until > p_now then v_known.job_id end;
            else
                v_state := queue.live_state(v_known.job_id);
                if v_kind = 'debounce' then
                    if v_state = 'scheduled' then
                        v_replaced := v_known.job_id;
                        v_first_at := v_known.first_at;
                        v_run_at := least(v_run_at, v_first_at + make_interval(secs => (v_unique ->> 'at_most_seconds')::float8));
                    end if;
                elsif v_state is not null then
                    if coalesce(v_unique ->> 'policy', 'return_existing') = 'reject' then
                        raise exception using errcode = 'invalid_parameter_value',
                            message = format('singleton_key: job %s is %s and has this key', v_known.job_id, v_state);
                    elsif v_unique ->> 'policy' = 'replace_scheduled' and v_state = 'scheduled' then
                        v_replaced := v_known.job_id;
                    else
                        v_existing := v_known.job_id;
                    end if;
                end if;
            end if;
            if v_existing is not null then
                update queue.idempotency i set job_id = v_existing
                 where i.queue = v_queue and i.key = e ->> 'idempotency_key' and i.job_id = v_id;
                return query select v_existing, false, v_run_at <= p_now and not v_settings.paused, null::uuid;
                return;
            end if;
            update queue.uniqueness u
               set job_id = v_id, first_at = v_first_at,
                   until = case v_kind when 'throttle' then p_now + make_interval(secs => (v_unique ->> 'seconds')::float8) end
             where u.queue = v_queue and u.kind = v_kind and u.key = v_unique ->> 'key';
        end if;
    end if;

    -- Before anything ends here, so that a batch does not finish while one more job joins it.
    if e ->> 'batch_id' is not null then
        update queue.batch b set total = b.total + 1 where b.id = (e ->> 'batch_id')::uuid;
    end if;
    if v_replaced is not null then
        perform queue.end_unstarted(array[v_replaced], 'cancelled', null, null, jsonb_build_object('replacedBy', v_id));
    end if;

    for v_other in
        select distinct d::uuid from jsonb_array_elements_text(coalesce(nullif(e -> 'depends_on', 'null'), '[]')) d
    loop
        select j.state into v_state from queue.jobs j where j.id = v_other;
        if v_state is null then
            raise exception using errcode = 'invalid_parameter_value', message = format('depends_on: job %s is not known', v_other);
        elsif v_state not in ('completed', 'dead', 'cancelled') then
            v_waits := v_waits || v_other;
        elsif v_state <> 'completed' and v_rule <> 'run' then
            v_failed := format('job %s, which it depends on, ended as %s', v_other, v_state);
        end if;
    end loop;

    v_job.id := v_id;
    v_job.queue := v_queue;
    v_job.priority := coalesce((e ->> 'priority')::smallint, v_settings.priority);
    v_job.run_at := v_run_at;
    v_job.enqueued_at := p_now;
    v_job.attempt := 0;
    v_job.correlation_id := e ->> 'correlation_id';
    v_job.idempotency_key := e ->> 'idempotency_key';
    v_job.redrive_of := (e ->> 'redrive_of')::uuid;
    v_job.effect_since := (e ->> 'effect_since')::timestamptz;
    v_job.expires_at := coalesce((e ->> 'expires_at')::timestamptz,
                                 p_now + make_interval(secs => (e ->> 'expires_in_seconds')::float8));
    v_job.payload := e -> 'payload';
    v_job.lane := queue.lane_of(e);
    v_job.lane_rule := e -> 'lane' ->> 'rule';
    v_job.lane_limit := (e -> 'lane' ->> 'limit')::integer;
    v_job.limit_key := coalesce(e ->> 'limit_key', queue.limit_key_of(e -> 'payload', v_settings.key_scope, v_settings.key_fields));
    v_job.batch_id := (e ->> 'batch_id')::uuid;
    v_job.progress := e -> 'progress';
    v_job.singleton_key := case v_kind when 'singleton' then v_unique ->> 'key' end;
    v_job.key := '';
    v_job.rank := v_job.priority;
    if v_failed is not null or v_waits <> '{}' then
        insert into queue.waiting values (v_job.*);
        insert into queue.dependency (job_id, depends_on, rule) select v_id, w, v_rule from unnest(v_waits) w;
        if v_failed is not null then
            perform queue.end_unstarted(
                array[v_id], case v_rule when 'cancel' then 'cancelled' else 'dead' end, 'dependency', v_failed, null);
        end if;
    elsif v_run_at <= p_now then
        insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                               payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
        select v_job.id, v_job.queue, v_job.priority, v_job.run_at, v_job.enqueued_at, v_job.attempt, v_job.correlation_id,
               v_job.idempotency_key, v_job.redrive_of, v_job.effect_since, v_job.expires_at, v_job.payload, v_job.attempts,
               v_job.lane, v_job.lane_rule, v_job.lane_limit, v_job.limit_key, v_job.batch_id, v_job.progress, v_job.singleton_key, v_job.permits;
    else
        insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                 payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
        select v_job.id, v_job.queue, v_job.priority, v_job.run_at, v_job.enqueued_at, v_job.attempt, v_job.correlation_id,
               v_job.idempotency_key, v_job.redrive_of, v_job.effect_since, v_job.expires_at, v_job.payload, v_job.attempts,
               v_job.lane, v_job.lane_rule, v_job.lane_limit, v_job.limit_key, v_job.batch_id, v_job.progress, v_job.singleton_key, v_job.permits;
    end if;
    return query select v_id, true, v_failed is null and v_waits = '{}' and v_run_at <= p_now and not v_settings.paused, v_replaced;
end
$$;

-- What releases before this one call.
create or replace function queue.enqueue_many(p_jobs jsonb)
returns table (ordinal integer, id uuid, created boolean, due boolean)
language sql
as $$
    select a.ordinal, a.id, a.created, a.due from queue.add_jobs(p_jobs) a
$$;

-- Jobs as one batch; p_callback, an element as the others, is enqueued when the last of them has ended.
create function queue.create_batch(p_jobs jsonb, p_callback jsonb)
returns table (batch_id uuid, ordinal integer, id uuid, created boolean, due boolean, replaced uuid)
language plpgsql
as $$
#variable_conflict use_column
declare
    v_batch uuid := queue.new_id();
begin
    perform from queue.queue_settings s where s.queue = p_callback ->> 'queue' and s.closed = '';
    if p_callback is not null and not found then
        raise exception using errcode = 'invalid_parameter_value',
            message = format('callback: queue "%s" does not exist or takes no jobs', p_callback ->> 'queue');
    end if;
    -- One more than it has until all are in: some of them may end as they come.
    insert into queue.batch (id, total, callback) values (v_batch, 1, p_callback);
    return query select v_batch, null::integer, null::uuid, null::boolean, null::boolean, null::uuid;
    return query
    select v_batch, a.ordinal, a.id, a.created, a.due, a.replaced
      from queue.add_jobs((select coalesce(jsonb_agg(x.e || jsonb_build_object('batch_id', v_batch) order by x.o), '[]')
                             from jsonb_array_elements(p_jobs) with ordinality x(e, o))) a;
    update queue.batch b set total = b.total - 1 where b.id = v_batch;
    perform queue.finish_batches(array[v_batch]);
end
$$;

-- With the keys; the shorter form goes, because calls would fit both.
drop function queue.enqueue(text, jsonb, integer, timestamptz, interval, text, text, timestamptz, interval);

create function queue.enqueue(
    queue text,
    payload jsonb,
    priority integer default null,
    run_at timestamptz default null,
    delay interval default null,
    idempotency_key text default null,
    correlation_id text default null,
    expires_at timestamptz default null,
    expires_in interval default null,
    singleton_key text default null,
    ordering_key text default null,
    concurrency_key text default null,
    concurrency_limit integer default null,
    fairness_key text default null,
    depends_on uuid[] default null
)
returns uuid
language sql
as $$
    select e.id
      from queue.add_jobs(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
          'queue', queue, 'priority', priority, 'run_at', run_at,
          'delay_seconds', extract(epoch from delay), 'idempotency_key', idempotency_key,
          'correlation_id', correlation_id, 'expires_at', expires_at,
          'expires_in_seconds', extract(epoch from expires_in),
          'unique', case when singleton_key is not null then
              jsonb_build_object('kind', 'singleton', 'key', singleton_key) end,
          'lane', case
              when ordering_key is not null then jsonb_build_object('rule', 'order', 'key', ordering_key)
              when concurrency_key is not null
                  then jsonb_build_object('rule', 'concurrency', 'key', concurrency_key, 'limit', concurrency_limit)
              when fairness_key is not null then jsonb_build_object('rule', 'fair', 'key', fairness_key) end,
          'depends_on', to_jsonb(depends_on))) || jsonb_build_object('payload', payload))) e
$$;

-- As before, by the one function that ends jobs; an idempotency key of its own stays, so that a copy of a job that is here
-- already is known. A lane it keeps: what else has to do with other jobs means nothing for one that never ran.
create or replace function queue.bury_job(p_job jsonb, p_reason text, p_source text)
returns uuid
language plpgsql
as $$
declare
    v_job record;
begin
    select a.id, a.created into v_job
      from queue.add_jobs(jsonb_build_array(
          p_job - '{run_at,delay_seconds,unique,depends_on,if_dependency_fails,batch_id}'::text[]
          || jsonb_build_object('idempotency_key', coalesce(p_job ->> 'idempotency_key', 'message:' || p_source)))) a;
    if not v_job.created then
        return null;
    end if;
    perform queue.end_unstarted(array[v_job.id], 'dead', 'worker-lost', p_reason, null);
    return v_job.id;
end
$$;

-- ---------------------------------------------------------------- time

-- As before, with the columns added here.
create or replace function queue.promote_due(p_queue text, p_limit integer)
returns integer
language sql
as $$
    with due as (
        delete from queue.later l
         where l.id = any(array(
             select c.id from queue.later c
              where c.queue = p_queue and c.run_at <= (select clock_timestamp())
              order by c.run_at limit p_limit for update skip locked))
        returning l.*
    ),
    moved as (
        insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                               payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
        select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
               payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
          from due
        returning 1
    )
    select count(*)::integer from moved
$$;

-- As before, by the one function that ends jobs.
create or replace function queue.expire_due(p_queue text, p_limit integer)
returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_ids uuid[];
begin
    v_ids := array(select c.id from queue.job c
                    where c.expires_at <= v_now and c.lease_token is null and (p_queue is null or c.queue = p_queue)
                    order by c.expires_at limit p_limit for update skip locked)
          || array(select c.id from queue.later c
                    where c.expires_at <= v_now and (p_queue is null or c.queue = p_queue)
                    order by c.expires_at limit p_limit for update skip locked)
          || array(select c.id from queue.waiting c
                    where c.expires_at <= v_now and (p_queue is null or c.queue = p_queue)
                    order by c.expires_at limit p_limit for update skip locked);
    return (queue.end_unstarted(v_ids, 'dead', 'expired', null, null)).ended;
end
$$;

-- Keys whose time has come, and dependencies that ended before anybody could see that somebody waits for them. Returns how
-- many jobs are ready now.
create function queue.open_due(p_limit integer)
returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_count integer := cardinality(queue.open_due_keys(p_limit));
    v_other uuid;
    v_state text;
begin
    for v_other in
        select distinct d.depends_on from queue.dependency d
         where d.job_id in (select c.job_id from queue.dependency c where not c.checked order by c.job_id limit p_limit) and not d.checked
         order by d.depends_on
    loop
        -- Waits for whoever is ending it at this moment.
        perform from queue.job j where j.id = v_other for key share;
        select j.state into v_state from queue.jobs j where j.id = v_other;
        if v_state in ('completed', 'dead', 'cancelled') or v_state is null then
            v_count := v_count + cardinality(queue.resolve_dependents(array[v_other], array[coalesce(v_state, 'completed')]));
        else
            update queue.dependency d set checked = true where d.depends_on = v_other and not d.checked;
        end if;
    end loop;
    return v_count;
end
$$;

-- ---------------------------------------------------------------- claim

-- ready -> active, the best p_limit jobs that may start: lower priority number, then earlier due, then earlier enqueued (I3).
-- A job whose key holds it back is parked in queue.waiting with the others of that key, so that the next claim does not meet
-- them. Permits are taken here, at the start, so that they are exact and belong to no job before (I10); `permits` says how many
-- besides its cost. The first row has no job: it says after how many seconds something held back by time may start, or null.
-- The others come best first. With ageing a priority counts for what it is worth now (queue.aged).
-- The settings keep the plan what it is whatever the statistics say.
create function queue.take(p_queue text, p_limit integer, p_worker text, p_lease interval)
returns table (
    wait_seconds float8, id uuid, priority smallint, run_at timestamptz, attempt smallint, lease_token uuid, correlation_id text,
    enqueued_at timestamptz, redrive_of uuid, effect_since timestamptz, attempts text, payload text, progress text, batch_id uuid,
    permits integer
)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    v_token uuid := gen_random_uuid();
    v_s record;
    v_key text := 'queue:' || p_queue;
    v_row queue.rate_limit_tracking;
    v_slots integer[];
    v_slot bigint;
    v_room integer := p_limit;
    v_wait_until timestamptz;
    v_chosen uuid[] := '{}';
    v_locked text[] := '{}';
    v_ids uuid[];
    v_id uuid;
    v_keyed bigint;
    v_most_permits integer;
    v_free integer;
    v_cost integer;
    v_paid integer := 0;
    v_refused boolean := false;
    v_step record;
    v_parked integer := 0;
begin
    select s.*, s as settings, s.rate_limit is not null or s.concurrency is not null as limited,
           exists (select from queue.later l where l.queue = p_queue and l.run_at <= v_now) as due,
           -- By the deadline's index also without statistics: the queue's own would read its whole backlog.
           exists (select from queue.job c where c.expires_at <= v_now and c.queue || '' = p_queue and c.lease_token is null) as late,
           exists (select from queue.rate_limit_tracking t where t.wake_at <= v_now) as opening,
           exists (select from queue.rate_limit_tracking t where t.key = v_key and t.blocked_until > v_now) as blocked
      into v_s
      from queue.queue_settings s where s.queue = p_queue;
    if v_s.paused is not false then
        return next;
        return;
    end if;
    if v_s.due then
        perform queue.promote_due(p_queue, greatest(100, p_limit));
    end if;
    if v_s.late then
        perform queue.expire_due(p_queue, greatest(100, p_limit));
    end if;

    -- The queue's own limits. Its row stays locked until the commit: after it, rows of keys are taken only when they are free.
    if v_s.limited or v_s.blocked then
        insert into queue.rate_limit_tracking (key) values (v_key) on conflict do nothing;
        select * into v_row from queue.rate_limit_tracking t where t.key = v_key for update;
        v_now := clock_timestamp();
        if v_row.blocked_until > v_now then
            v_room := 0;
            v_wait_until := v_row.blocked_until;
        end if;
        if v_s.concurrency is not null then
            v_room := least(v_room, v_s.concurrency - v_row.in_use);
        end if;
        if v_s.rate_limit is not null then
            select o.slot, o.slots into v_slot, v_slots from queue.slots_at(v_row, v_s.rate_seconds, v_now) o;
            v_free := queue.slots_free(v_slots, v_s.rate_limit);
            if v_room > 0 and v_free < v_s.job_cost then
                v_wait_until := queue.slots_free_at(v_slots, v_slot, v_s.rate_seconds, v_s.rate_limit, v_s.job_cost);
            end if;
            v_room := least(v_room, v_free / v_s.job_cost);
        end if;
        v_refused := v_room <= 0 and v_wait_until is not null;
    end if;

    if v_room > 0 then
        if v_s.opening then
            perform queue.open_due_keys(16);
        end if;
        for v_pass in 1..40 loop
            if v_s.ageing_seconds is null then
                select array_agg(c.id), count(c.lane) + count(c.limit_key), max(c.permits) into v_ids, v_keyed, v_most_permits
                  from (select j.id, j.lane, j.limit_key, j.permits from queue.job j
                         where j.queue = p_queue and j.lease_token is null and (j.expires_at is null or j.expires_at > v_now)
                           and j.id <> all(v_chosen)
                           and coalesce(j.lane, '') <> all(v_locked) and coalesce(j.limit_key, '') <> all(v_locked)
                         order by j.priority, j.run_at, j.id
                         limit v_room - cardinality(v_chosen) for update skip locked) c;
            else
                select b.ids, b.keyed, b.most_permits into v_ids, v_keyed, v_most_permits
                  from queue.best_aged(p_queue, v_s.ageing_seconds, v_now, v_room - cardinality(v_chosen), v_chosen, v_locked) b;
            end if;
            exit when v_ids is null;
            if v_keyed = 0 and (v_most_permits is null or v_free is null) then
                v_chosen := v_chosen || v_ids;
                v_paid := v_paid + cardinality(v_ids) * v_s.job_cost;
                exit;
            end if;
            foreach v_id in array v_ids loop
                -- The head of an ordering key may have been chosen already, in the place of another.
                continue when v_id = any(v_chosen);
                v_cost := v_s.job_cost;
                if v_most_permits is not null and v_free is not null then
                    -- Deferred for want of permits, it starts with them in hand, or nothing behind it starts before it.
                    select v_cost + case when v_cost + j.permits <= v_s.rate_limit then j.permits else 0 end into v_cost
                      from queue.job j where j.id = v_id;
                end if;
                if v_cost > v_free - v_paid then
                    v_room := cardinality(v_chosen);
                    v_wait_until := queue.slots_free_at(v_slots, v_slot, v_s.rate_seconds, v_s.rate_limit, v_paid + v_cost);
                    v_refused := v_chosen = '{}';
                    exit;
                end if;
                select * into v_step from queue.try_keys(v_id, v_s.settings, v_chosen);
                v_chosen := array_remove(v_chosen || v_step.chosen, null);
                v_paid := v_paid + case when v_step.chosen is null then 0 else v_cost end;
                v_locked := array_remove(v_locked || v_step.locked, null);
                v_parked := v_parked + v_step.parked;
                v_wait_until := least(v_wait_until, v_step.wait_until);
            end loop;
            exit when cardinality(v_chosen) >= v_room or v_parked >= 5000;
        end loop;
        if v_chosen = '{}' and not v_refused and (v_parked >= 5000 or v_locked <> '{}') then
            v_wait_until := v_now;
        end if;
    end if;

    if v_refused then
        perform from queue.job c where c.queue = p_queue and c.lease_token is null limit 1;
        if found then
            -- Each that is refused comes back later than the one before, so that they do not all come at once.
            v_wait_until := greatest(v_wait_until, v_row.reserved_until);
            update queue.rate_limit_tracking t
               set reserved_until = v_wait_until + make_interval(secs => coalesce(
                       greatest(v_s.rate_seconds / 20, v_s.job_cost * v_s.rate_seconds / v_s.rate_limit), 0.05))
             where t.key = v_key;
        else
            v_wait_until := null;
        end if;
    end if;

    if v_chosen <> '{}' and v_s.limited then
        if v_s.rate_limit is not null then
            v_slots[1] := v_slots[1] + v_paid;
        end if;
        update queue.rate_limit_tracking t
           set in_use = t.in_use + cardinality(v_chosen), counts = v_slots, bucket = coalesce(v_slot, 0),
               window_seconds = v_s.rate_seconds
         where t.key = v_key;
    end if;
    wait_seconds := case when v_wait_until is not null then greatest(0, extract(epoch from v_wait_until - clock_timestamp())) end;
    return next;
    if v_chosen = '{}' then
        return;
    end if;
    return query
    with started as (
        update queue.job j
           set attempt = j.attempt + 1, lease_token = v_token, lease_until = clock_timestamp() + p_lease,
               leased_by = p_worker, started_at = clock_timestamp()
         where j.id = any(v_chosen)
           and j.lease_token is null
        returning j.*
    )
    select null::float8, j.id, j.priority, j.run_at, j.attempt, j.lease_token, j.correlation_id, j.enqueued_at,
           j.redrive_of, j.effect_since, j.attempts::text, j.payload::text, j.progress::text, j.batch_id,
           case when v_s.job_cost + j.permits <= v_s.rate_limit then j.permits else 0 end
      from started j
     order by array_position(v_chosen, j.id);
end
$$;

-- Whether a ready job may start as far as its keys go, and takes what it needs of them. `chosen`: it, or the head of its
-- ordering key in its place; else `parked` says how many jobs had to make way, `wait_until` when its key may go on, `locked`
-- which key another transaction has at this moment.
create function queue.try_keys(
    p_id uuid, s queue.queue_settings, p_chosen uuid[],
    out chosen uuid, out wait_until timestamptz, out locked text, out parked integer
)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_j record;
    v_lane queue.rate_limit_tracking;
    v_limit queue.rate_limit_tracking;
    v_now timestamptz;
    v_slot bigint;
    v_slots integer[];
    v_head uuid;
    v_held boolean := false;
begin
    parked := 0;
    select j.id, j.lane, j.lane_rule, j.lane_limit, j.limit_key into v_j
      from queue.job j where j.id = p_id and j.lease_token is null;
    if not found then
        return;
    end if;

    if v_j.lane is not null then
        insert into queue.rate_limit_tracking (key) values (v_j.lane) on conflict do nothing;
        select * into v_lane from queue.rate_limit_tracking t where t.key = v_j.lane for update skip locked;
        if not found then
            locked := v_j.lane;
            return;
        end if;
    end if;
    if v_j.lane_rule like 'order%' then
        if v_lane.holder is null then
            -- The first of the key runs, in the place of the one that was found.
            perform from queue.waiting w
              where w.key = v_j.lane and (w.run_at, w.id) < (select j.run_at, j.id from queue.job j
                                                              where j.lane = v_j.lane and j.lease_token is null
                                                              order by j.run_at, j.id limit 1)
              limit 1;
            if found then
                perform queue.unpark(v_j.lane, 1);
            end if;
            -- Found without a lock, then locked: when another claim has it as a candidate, the next one must not go first.
            select j.id into v_head from queue.job j
             where j.lane = v_j.lane and j.lease_token is null order by j.run_at, j.id limit 1;
            select j.id, j.lane, j.lane_rule, j.lane_limit, j.limit_key into v_j
              from queue.job j where j.id = v_head and j.lease_token is null for update skip locked;
            if not found then
                locked := v_lane.key;
                return;
            end if;
            update queue.rate_limit_tracking t set holder = v_j.id where t.key = v_j.lane;
        elsif v_lane.holder <> v_j.id then
            parked := queue.park(v_j.lane, true, p_chosen || v_lane.holder, 1000);
            return;
        end if;
    elsif v_j.lane_rule = 'concurrency' and v_lane.in_use >= v_j.lane_limit then
        parked := queue.park(v_j.lane, true, p_chosen, 1000);
        update queue.rate_limit_tracking t set wake_at = clock_timestamp() + interval '10 seconds'
         where t.key = v_j.lane and t.wake_at is null;
        return;
    end if;

    if v_j.limit_key is not null then
        insert into queue.rate_limit_tracking (key) values (v_j.limit_key) on conflict do nothing;
        select * into v_limit from queue.rate_limit_tracking t where t.key = v_j.limit_key for update skip locked;
        if not found then
            locked := v_j.limit_key;
            return;
        end if;
        v_now := clock_timestamp();
        if s.key_rate_limit is not null then
            select o.slot, o.slots into v_slot, v_slots from queue.slots_at(v_limit, s.key_rate_seconds, v_now) o;
        end if;
        if v_limit.blocked_until > v_now then
            v_held := true;
            wait_until := v_limit.blocked_until;
        elsif v_limit.in_use >= s.key_concurrency then
            v_held := true;
        elsif queue.slots_free(v_slots, s.key_rate_limit) < 1 then
            v_held := true;
            wait_until := queue.slots_free_at(v_slots, v_slot, s.key_rate_seconds, s.key_rate_limit, 1);
        end if;
        if v_held then
            parked := queue.park(v_j.limit_key, false, p_chosen, 1000);
            -- Whoever sets the time tells its worker to come back then; the others need not.
            if v_limit.wake_at > v_now and v_limit.wake_at <= wait_until then
                wait_until := null;
            else
                update queue.rate_limit_tracking t set wake_at = coalesce(wait_until, t.wake_at, v_now + interval '10 seconds')
                 where t.key = v_j.limit_key;
            end if;
            return;
        end if;
        if v_slots is not null then
            v_slots[1] := v_slots[1] + 1;
        end if;
        update queue.rate_limit_tracking t
           set in_use = t.in_use + 1, counts = coalesce(v_slots, t.counts), bucket = coalesce(v_slot, t.bucket),
               window_seconds = case when v_slots is null then t.window_seconds else s.key_rate_seconds end
         where t.key = v_j.limit_key;
    end if;

    chosen := v_j.id;
    if v_j.lane_rule = 'concurrency' then
        update queue.rate_limit_tracking t set in_use = t.in_use + 1 where t.key = v_j.lane;
    elsif v_j.lane_rule = 'fair' then
        -- The key's next job goes to the end of the line, and the others wait behind it.
        perform queue.park(v_j.lane, true, p_chosen || chosen, 5000);
        perform queue.unpark(v_j.lane, 1, clock_timestamp());
        perform from queue.waiting w where w.key = v_j.lane limit 1;
        if found then
            update queue.rate_limit_tracking t set wake_at = clock_timestamp() + interval '10 seconds'
             where t.key = v_j.lane and t.wake_at is null;
        end if;
    end if;
end
$$;

-- What releases before this one call.
create or replace function queue.claim(p_queue text, p_limit integer, p_worker text, p_lease interval)
returns table (
    id uuid, priority smallint, run_at timestamptz, attempt smallint, lease_token uuid, correlation_id text,
    enqueued_at timestamptz, redrive_of uuid, effect_since timestamptz, attempts text, payload text
)
language sql
as $$
    select t.id, t.priority, t.run_at, t.attempt, t.lease_token, t.correlation_id, t.enqueued_at, t.redrive_of, t.effect_since,
           t.attempts, t.payload
      from queue.take(p_queue, p_limit, p_worker, p_lease) t
     where t.id is not null
$$;

-- Permits of the queue's rate for requests beyond the cost of a job; null when they were given, else how many seconds until
-- they can be had. Refused where even a start with nothing else in the window could not have them.
create function queue.take_permits(p_queue text, p_n integer)
returns float8
language plpgsql
as $$
declare
    v_s queue.queue_settings;
    v_row queue.rate_limit_tracking;
    v_now timestamptz;
    v_slot bigint;
    v_slots integer[];
begin
    select * into v_s from queue.queue_settings s where s.queue = p_queue;
    insert into queue.rate_limit_tracking (key) values ('queue:' || p_queue) on conflict do nothing;
    select * into v_row from queue.rate_limit_tracking t where t.key = 'queue:' || p_queue for update;
    v_now := clock_timestamp();
    if v_row.blocked_until > v_now then
        return extract(epoch from v_row.blocked_until - v_now);
    end if;
    if v_s.rate_limit is null then
        return null;
    end if;
    select o.slot, o.slots into v_slot, v_slots from queue.slots_at(v_row, v_s.rate_seconds, v_now) o;
    if queue.slots_free(v_slots, v_s.rate_limit) < p_n then
        if p_n + v_s.job_cost > v_s.rate_limit then
            raise exception using errcode = 'invalid_parameter_value',
                message = format('permits: %s at once, besides the %s that a job costs, are above the rate of queue "%s", %s: '
                                 'ask for fewer at a time, or raise the rate', p_n, v_s.job_cost, p_queue, v_s.rate_limit);
        end if;
        return greatest(0, extract(epoch from
            queue.slots_free_at(v_slots, v_slot, v_s.rate_seconds, v_s.rate_limit, p_n) - v_now));
    end if;
    v_slots[1] := v_slots[1] + p_n;
    update queue.rate_limit_tracking t set counts = v_slots, bucket = v_slot, window_seconds = v_s.rate_seconds
     where t.key = 'queue:' || p_queue;
    return null;
end
$$;

-- Jobs that may start within ten seconds, per queue with any, counted no further than p_cap.
create function queue.runnable(p_cap integer)
returns table (queue text, jobs integer)
language sql
stable
set enable_seqscan = off
set enable_bitmapscan = off
as $$
    select s.queue, least(c.jobs, r.room)
      from queue.queue_settings s
     cross join lateral (
         select count(*)::integer as jobs
           from (select from queue.job j where j.queue = s.queue and j.lease_token is null limit p_cap) counted
     ) c
      left join queue.rate_limit_tracking t on t.key = 'queue:' || s.queue
     cross join lateral (
         select case when t.blocked_until > clock_timestamp() then 0 else least(
             s.concurrency - coalesce(t.in_use, 0),
             (queue.slots_free((queue.slots_at(t, s.rate_seconds, clock_timestamp())).slots, s.rate_limit)
              + ceil(s.rate_limit * 10 / s.rate_seconds)::integer) / s.job_cost) end as room
     ) r
     where not s.paused and c.jobs > 0 and coalesce(r.room, 1) > 0
$$;

-- ---------------------------------------------------------------- settling

-- One try of queue.end_attempts.
create function queue.end_attempts_once(p_settlements jsonb, p_only_expired boolean, out lost uuid[], out freed text[])
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_settled uuid[];
    v_slots text[];
    v_queues text[];
    v_ended uuid[];
    v_states text[];
    v_batches uuid[];
    v_held text[];
    v_letters jsonb;
    v_more jsonb;
    v_blocked text[];
    v_block_seconds float8[];
begin
    with s as materialized (
        select *
          from jsonb_to_recordset(p_settlements) as s(
              id uuid, token uuid, outcome text, delay_seconds float8, result jsonb, error_class text, message text,
              details jsonb, block_seconds float8, permits integer)
    ),
    gone as (
        delete from queue.job j using s
         where j.id = s.id and j.lease_token = s.token
           and queue.verdict(s.outcome, s.delay_seconds, j.stop_requested_at, j.expires_at, v_now) not in ('ready', 'released')
           and (not p_only_expired or j.lease_until < v_now)
        returning j.*, s.block_seconds, s.delay_seconds, s.result, s.error_class, s.message, s.permits as asked_permits,
            queue.verdict(s.outcome, s.delay_seconds, j.stop_requested_at, j.expires_at, v_now) as verdict,
            case when s.outcome in ('deferred', 'released') then j.attempt - 1 else j.attempt end as counted,
            case when s.outcome in ('deferred', 'released') then j.attempts
                 else coalesce(j.attempts, '[]') || queue.attempt_entry(
                     j.attempt, j.started_at, v_now, j.leased_by, s.outcome, s.error_class, s.message, s.details) end as ended
    ),
    kept as (
        update queue.job j
           set lease_token = null, lease_until = null, leased_by = null, started_at = null,
               attempt = case s.outcome when 'released' then j.attempt - 1 else j.attempt end,
               attempts = case s.outcome when 'released' then j.attempts
                          else coalesce(j.attempts, '[]') || queue.attempt_entry(
                              j.attempt, j.started_at, v_now, j.leased_by, s.outcome, s.error_class, s.message, s.details) end
          from s
         where j.id = s.id and j.lease_token = s.token
           and queue.verdict(s.outcome, s.delay_seconds, j.stop_requested_at, j.expires_at, v_now) in ('ready', 'released')
           and (not p_only_expired or j.lease_until < v_now)
        returning j.id, j.queue, j.lane, j.lane_rule, j.limit_key, s.block_seconds
    ),
    judged as (
        select g.*, case g.verdict
                        when 'dead' then g.error_class
                        when 'expired' then 'expired' end as verdict_class,
               case g.verdict
                   when 'dead' then g.message
                   when 'expired' then queue.expiry_reason(g.expires_at) || ' (next attempt); the last one failed: ' || g.message
               end as verdict_message,
               case g.verdict when 'expired' then 'dead' else g.verdict end as state
          from gone g
    ),
    tracked as (
        insert into queue.job_tracking (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                        payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key,
                                        state, started_at, finished_at, result, error_class, error_message)
        select id, queue, priority, run_at, enqueued_at, counted, correlation_id, idempotency_key, redrive_of, effect_since,
               expires_at, payload, coalesce(ended, '[]'), lane, lane_rule, lane_limit, limit_key, batch_id, progress,
               singleton_key, state, started_at, v_now, result, verdict_class, verdict_message
          from judged where state in ('completed', 'dead', 'cancelled')
    ),
    postponed as (
        insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                 payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
        select id, queue, priority, v_now + make_interval(secs => delay_seconds), enqueued_at, counted, correlation_id,
               idempotency_key, redrive_of, effect_since, expires_at, payload, ended, lane, lane_rule, lane_limit, limit_key,
               batch_id, progress, singleton_key, asked_permits
          from gone where verdict in ('retry', 'deferred')
    ),
    left_ as (
        select id, queue, lane, lane_rule, limit_key, state, batch_id, block_seconds,
               case state when 'dead' then queue.letter_of(id, queue, correlation_id, verdict_class, verdict_message) end as letter
          from judged
        union all
        select id, queue, lane, lane_rule, limit_key, null, null, block_seconds, null from kept
    )
    select coalesce(array_agg(id), '{}'), coalesce(array_agg(queue), '{}'),
           coalesce(array_agg(limit_key) filter (where limit_key is not null), '{}')
               || coalesce(array_agg(lane) filter (where lane_rule = 'concurrency'), '{}'),
           array_agg(id) filter (where state in ('completed', 'dead', 'cancelled')),
           array_agg(state) filter (where state in ('completed', 'dead', 'cancelled')),
           array_agg(batch_id) filter (where state in ('completed', 'dead', 'cancelled')),
           coalesce(array_agg(lane) filter (where state in ('completed', 'cancelled') and lane_rule like 'order%'
                                                  or state = 'dead' and lane_rule = 'order'), '{}'),
           array_agg(coalesce(limit_key, 'queue:' || queue)) filter (where block_seconds is not null),
           array_agg(block_seconds) filter (where block_seconds is not null),
           jsonb_agg(letter) filter (where letter is not null)
      into v_settled, v_queues, v_slots, v_ended, v_states, v_batches, v_held, v_blocked, v_block_seconds, v_letters
      from left_;

    if v_letters is not null then
        perform queue.add_letters(v_letters, v_now);
    end if;
    if p_settlements @? '$[*].follow_ups[*]' then
        select jsonb_agg(f.e order by s.ord, f.ord)
          into v_more
          from jsonb_array_elements(p_settlements) with ordinality s(e, ord),
               jsonb_array_elements(s.e -> 'follow_ups') with ordinality f(e, ord)
         where (s.e ->> 'id')::uuid = any(v_settled);
        if v_more is not null then
            perform queue.add_jobs(v_more);
        end if;
    end if;
    freed := '{}';
    if v_ended is not null then
        freed := queue.after_end(v_ended, v_states, v_batches);
    end if;
    if v_blocked is not null then
        perform queue.block_keys(v_blocked, v_block_seconds, v_slots || v_held);
    end if;
    if v_slots <> '{}' or v_held <> '{}' then
        freed := freed || queue.leave_keys(v_slots, v_held, coalesce(v_ended, '{}'));
    end if;
    update queue.rate_limit_tracking t set in_use = greatest(0, t.in_use - n.jobs)
      from (select 'queue:' || q as key, count(*)::integer as jobs from unnest(v_queues) q group by q) n
     where t.key = n.key and t.in_use > 0;
    lost := array(select (e ->> 'id')::uuid from jsonb_array_elements(p_settlements) e where (e ->> 'id')::uuid <> all(v_settled));
end
$$;

-- Closes what a peer asked to leave alone (429): the limit keys of settled jobs, or their queue. A later, shorter block never
-- shortens one.
create function queue.block_keys(p_keys text[], p_seconds float8[], p_others text[])
returns void
language plpgsql
as $$
declare
    v_key text;
    v_seconds float8;
begin
    perform from queue.rate_limit_tracking t where t.key = any(p_keys || p_others) order by t.key for update;
    for v_key, v_seconds in
        select u.key, max(u.seconds) from unnest(p_keys, p_seconds) u(key, seconds) group by u.key order by u.key
    loop
        insert into queue.rate_limit_tracking as t (key, blocked_until)
        values (v_key, clock_timestamp() + make_interval(secs => v_seconds))
        on conflict (key) do update set blocked_until = greatest(t.blocked_until, excluded.blocked_until);
        if not starts_with(v_key, 'queue:') then
            perform queue.park(v_key, false, '{}', 1000);
        end if;
    end loop;
end
$$;

-- Ends attempts. Each element: {id, token, outcome, delay_seconds?, result?, error_class?, message?, details?, follow_ups?,
-- block_seconds?, permits?}; outcome is completed, dead, retry, deferred, released or cancelled; permits, of a deferral, is what
-- its next start takes of the queue's rate besides its cost. Every one is guarded by its lease token (I2). Follow-ups come into being here or not at all (I6). Returns the ids that were not settled (lease lost), and the queue
-- of each job that is ready now because of it.
-- A request to stop that is committed while this waits for the row changes the verdict between the look and the lock, so
-- that neither branch takes the row: what was not settled is tried once more, with the row as it is now.
create function queue.end_attempts(p_settlements jsonb, p_only_expired boolean default false, out lost uuid[], out freed text[])
language plpgsql
as $$
declare
    v_again record;
begin
    select o.lost, o.freed into lost, freed from queue.end_attempts_once(p_settlements, p_only_expired) o;
    if lost <> '{}' then
        select o.lost, o.freed into v_again
          from queue.end_attempts_once(
              (select jsonb_agg(e) from jsonb_array_elements(p_settlements) e where (e ->> 'id')::uuid = any(lost)), p_only_expired) o;
        lost := v_again.lost;
        freed := freed || v_again.freed;
    end if;
end
$$;

-- The worker's hot path: one round trip and one commit for the last batch's end and the next one's start. The first row
-- carries what the end did and how long to wait, and no job; the others carry a job each.
create function queue.end_and_take(p_settlements jsonb, p_queue text, p_limit integer, p_worker text, p_lease interval)
returns table (
    lost uuid[], freed text[], wait_seconds float8, id uuid, priority smallint, run_at timestamptz, attempt smallint,
    lease_token uuid, correlation_id text, enqueued_at timestamptz, redrive_of uuid, effect_since timestamptz, attempts text,
    payload text, progress text, batch_id uuid, permits integer
)
language plpgsql
as $$
declare
    v_lost uuid[];
    v_freed text[];
begin
    select o.lost, o.freed into v_lost, v_freed from queue.end_attempts(p_settlements) o;
    return query
    select case when t.id is null then v_lost end, case when t.id is null then v_freed end, t.*
      from queue.take(p_queue, p_limit, p_worker, p_lease) t;
end
$$;

-- What releases before this one call.
create or replace function queue.settle(p_settlements jsonb, p_only_expired boolean default false)
returns uuid[]
language sql
as $$
    select o.lost from queue.end_attempts(p_settlements, p_only_expired) o
$$;

create or replace function queue.settle_and_claim(
    p_settlements jsonb, p_queue text, p_limit integer, p_worker text, p_lease interval
)
returns table (
    lost uuid[], id uuid, priority smallint, run_at timestamptz, attempt smallint, lease_token uuid,
    correlation_id text, enqueued_at timestamptz, redrive_of uuid, effect_since timestamptz, attempts text, payload text
)
language sql
as $$
    select t.lost, t.id, t.priority, t.run_at, t.attempt, t.lease_token, t.correlation_id, t.enqueued_at, t.redrive_of,
           t.effect_since, t.attempts, t.payload
      from queue.end_and_take(p_settlements, p_queue, p_limit, p_worker, p_lease) t
$$;

drop function queue.settle_once(jsonb, boolean);

-- Keeps what a running job has done so far; false when its lease is lost.
create function queue.save_progress(p_id uuid, p_token uuid, p_progress jsonb)
returns boolean
language plpgsql
as $$
begin
    update queue.job j set progress = p_progress where j.id = p_id and j.lease_token = p_token;
    return found;
end
$$;

-- ---------------------------------------------------------------- control

create or replace function queue.cancel(p_id uuid)
returns boolean
language sql
as $$
    select (queue.end_unstarted(array[p_id], 'cancelled', null, null, null)).ended = 1
$$;

-- As before, with the columns added here.
create or replace function queue.reschedule(p_id uuid, p_priority integer default null, p_run_at timestamptz default null)
returns table (queue text, state text)
language plpgsql
as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    v_job record;
begin
    if p_priority not between 1 and 10 then
        raise exception using errcode = 'invalid_parameter_value', message = 'priority: it must be 1 (first) to 10 (last)';
    end if;
    if p_priority is null and p_run_at is null then
        raise exception using errcode = 'invalid_parameter_value', message = 'priority, run_at: give at least one of the two';
    end if;
    for v_look in 1..3 loop
        select j.queue, j.expires_at, j.lease_token is not null as active, true as ready
          into v_job from queue.job j where j.id = p_id for update;
        if not found then
            select l.queue, l.expires_at, false as active, false as ready
              into v_job from queue.later l where l.id = p_id for update;
        end if;
        continue when not found;
        if v_job.active then
            return;
        end if;
        if p_run_at >= v_job.expires_at then
            raise exception using errcode = 'invalid_parameter_value',
                message = 'run_at: it must be earlier than the job''s deadline';
        end if;
        queue := v_job.queue;
        state := case when p_run_at > v_now or p_run_at is null and not v_job.ready then 'scheduled' else 'ready' end;
        if v_job.ready then
            update queue.job j set priority = coalesce(p_priority, j.priority), run_at = coalesce(p_run_at, j.run_at)
             where j.id = p_id;
        else
            update queue.later l set priority = coalesce(p_priority, l.priority), run_at = coalesce(p_run_at, l.run_at)
             where l.id = p_id;
        end if;
        if v_job.ready and state = 'scheduled' then
            with moved as (delete from queue.job where id = p_id returning *)
            insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                     payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
            select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                   payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
              from moved;
        elsif not v_job.ready and state = 'ready' then
            with moved as (delete from queue.later where id = p_id returning *)
            insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                   payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
            select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                   payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
              from moved;
        end if;
        return next;
        return;
    end loop;
end
$$;

-- As before, with the columns added here.
create or replace function queue.retry_now(p_id uuid)
returns text
language sql
as $$
    with due as (
        update queue.later set run_at = least(run_at, clock_timestamp()) where id = p_id returning id
    )
    select (queue.reschedule(d.id, null, clock_timestamp())).queue from due d
$$;

-- Cancels up to p_limit jobs of a queue that wait in one of the states; returns how many. Call it, a transaction each,
-- until it returns less than the limit. p_confirm repeats the name of the queue.
create or replace function queue.clear(
    p_queue text, p_confirm text, p_states text[] default '{ready,scheduled,waiting}', p_limit integer default 1000
)
returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_ids uuid[];
begin
    perform queue.must_exist(p_queue);
    if p_confirm is distinct from p_queue then
        raise exception using errcode = 'invalid_parameter_value',
            message = format('confirm: repeat the name "%s" to cancel the jobs of this queue', p_queue);
    end if;
    if not p_states <@ '{ready,scheduled,waiting}' or p_states = '{}' then
        raise exception using errcode = 'invalid_parameter_value', message = 'states: they are ready, scheduled and waiting';
    end if;
    v_ids := array(select c.id from queue.job c
                    where 'ready' = any(p_states) and c.queue = p_queue and c.lease_token is null
                    order by c.priority, c.run_at, c.id limit p_limit for update skip locked);
    v_ids := v_ids || array(select c.id from queue.later c
                    where 'scheduled' = any(p_states) and c.queue = p_queue
                    order by c.run_at limit p_limit - cardinality(v_ids) for update skip locked);
    v_ids := v_ids || array(select c.id from queue.waiting c
                    where 'waiting' = any(p_states) and c.queue = p_queue
                    order by c.id limit p_limit - cardinality(v_ids) for update skip locked);
    return (queue.end_unstarted(v_ids, 'cancelled', null, null, null)).ended;
end
$$;

-- The limits of a queue from now on; what is left out has none. {rate_limit, rate_seconds, concurrency, job_cost,
-- key_rate_limit, key_rate_seconds, key_concurrency}.
create function queue.set_limits(p_queue text, p_limits jsonb)
returns void
language plpgsql
set enable_seqscan = off
as $$
begin
    perform queue.must_exist(p_queue);
    insert into queue.rate_limit_tracking (key) values ('queue:' || p_queue) on conflict do nothing;
    perform from queue.rate_limit_tracking t where t.key = 'queue:' || p_queue for update;
    update queue.queue_settings s
       set rate_limit = (p_limits ->> 'rate_limit')::integer, rate_seconds = (p_limits ->> 'rate_seconds')::float8,
           concurrency = (p_limits ->> 'concurrency')::integer, job_cost = coalesce((p_limits ->> 'job_cost')::integer, 1),
           key_rate_limit = (p_limits ->> 'key_rate_limit')::integer,
           key_rate_seconds = (p_limits ->> 'key_rate_seconds')::float8,
           key_concurrency = (p_limits ->> 'key_concurrency')::integer,
           limits_changed_at = clock_timestamp(), updated_at = clock_timestamp()
     where s.queue = p_queue;
    -- Only a queue with limits of its own counts what runs.
    update queue.rate_limit_tracking t
       set in_use = (select count(*)::integer from queue.job j
                      where j.queue = p_queue and j.lease_token is not null
                        and (p_limits ->> 'concurrency' is not null or p_limits ->> 'rate_limit' is not null)),
           reserved_until = null
     where t.key = 'queue:' || p_queue;
    -- What the old limits held back is looked at again.
    update queue.rate_limit_tracking t set wake_at = clock_timestamp()
     where t.wake_at > clock_timestamp() and t.blocked_until is null
       and exists (select from queue.waiting w where w.key = t.key and w.queue = p_queue);
exception when check_violation then
    raise exception using errcode = 'invalid_parameter_value',
        message = 'limits: every one is 1 or more, a rate has a window, and a job''s cost is not above the rate';
end
$$;

-- A waiting job of the queue gains one priority for each p_every from now on; null: none.
create function queue.set_ageing(p_queue text, p_every interval)
returns void
language plpgsql
as $$
begin
    perform queue.must_exist(p_queue);
    if p_every < interval '1 second' then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'ageing: it must be a second or longer; leave it out to age nothing';
    end if;
    update queue.queue_settings s
       set ageing_seconds = extract(epoch from p_every), ageing_changed_at = clock_timestamp(), updated_at = clock_timestamp()
     where s.queue = p_queue;
end
$$;

-- The queue's delays in seconds before retry 1, 2, … by class of error, from now on; classes left out are as ever.
create function queue.set_retry_delays(p_queue text, p_delays jsonb)
returns void
language plpgsql
as $$
begin
    perform queue.must_exist(p_queue);
    if not queue.are_retry_delays(p_delays) then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'retry_delays: it needs lists of seconds, up to 604800, by class of error, as {"network": [1, 5, 30]}';
    end if;
    update queue.queue_settings s
       set retry_delays = p_delays, retry_delays_changed_at = clock_timestamp(), updated_at = clock_timestamp()
     where s.queue = p_queue;
end
$$;

-- As before; the new job keeps the keys and what the dead one had saved, and takes its place where that blocks its ordering key.
create or replace function queue.redrive(
    p_job_id uuid, p_by text,
    p_uncertain text[] default '{network,timeout,uncertain,unknown,worker-lost}'
)
returns uuid
language plpgsql
as $$
declare
    v_letter queue.dead_letter_queue;
    v_job queue.job_tracking;
    v_since timestamptz;
    v_new uuid;
begin
    select * into v_letter from queue.dead_letter_queue
     where job_id = p_job_id and redriven_at is null and discarded_at is null for update;
    if not found then
        return null;
    end if;
    select * into v_job from queue.job_tracking where id = p_job_id and state = 'dead';
    if not found then
        return null;
    end if;
    select coalesce(v_job.effect_since, min((a ->> 'started_at')::timestamptz))
      into v_since
      from jsonb_array_elements(v_job.attempts) a
     where a ->> 'error_class' = any(p_uncertain);
    select e.id into v_new
      from queue.add_jobs(jsonb_build_array(jsonb_build_object('payload', v_job.payload) || jsonb_strip_nulls(jsonb_build_object(
          'queue', v_job.queue, 'priority', v_job.priority,
          'correlation_id', v_job.correlation_id, 'redrive_of', coalesce(v_job.redrive_of, p_job_id),
          'effect_since', v_since, 'limit_key', v_job.limit_key, 'progress', v_job.progress,
          'unique', case when v_job.singleton_key is not null then
              jsonb_build_object('kind', 'singleton', 'key', v_job.singleton_key, 'policy', 'reject') end,
          'lane', case when v_job.lane is not null then jsonb_build_object(
              'rule', v_job.lane_rule, 'limit', v_job.lane_limit,
              'key', substr(v_job.lane, length(v_job.queue) + length(split_part(v_job.lane_rule, '-', 1)) + 3)) end)))) e;
    update queue.rate_limit_tracking t set holder = v_new where t.key = v_job.lane and t.holder = p_job_id;
    update queue.dead_letter_queue
       set redriven_at = clock_timestamp(), redriven_by = p_by, redriven_job_id = v_new
     where id = v_letter.id;
    return v_new;
end
$$;

-- Gives a dead job up: no redrive any more, and an ordering key that it blocks goes on. False when there is nothing to give up.
create function queue.discard(p_job_id uuid, p_by text)
returns boolean
language plpgsql
as $$
declare
    v_lanes text[];
begin
    update queue.dead_letter_queue d set discarded_at = clock_timestamp(), discarded_by = p_by
     where d.job_id = p_job_id and d.redriven_at is null and d.discarded_at is null;
    if not found then
        return false;
    end if;
    v_lanes := array(select t.lane from queue.job_tracking t where t.id = p_job_id and t.lane_rule like 'order%');
    perform queue.leave_keys('{}', v_lanes, array[p_job_id]);
    return true;
end
$$;

-- ---------------------------------------------------------------- repair

-- Sets right what a hand on the tables or a mistake left wrong, and forgets keys that nobody uses. One look finds what is
-- wrong in one snapshot; each is then looked at again under its lock. Returns how many were wrong.
create function queue.repair(p_limit integer default 1000)
returns integer
language plpgsql
as $$
declare
    v_key text;
    v_wrong integer := 0;
    v_count integer;
begin
    for v_key in
        with running as (
            select k.key, count(*)::integer as jobs
              from queue.job j
             cross join lateral (
                 select 'queue:' || j.queue as key where exists (
                     select from queue.queue_settings s where s.queue = j.queue and (s.concurrency is not null or s.rate_limit is not null))
                 union all select j.limit_key where j.limit_key is not null
                 union all select j.lane where j.lane_rule = 'concurrency') k
             where j.lease_token is not null
             group by k.key
        )
        select coalesce(t.key, r.key)
          from queue.rate_limit_tracking t full join running r on r.key = t.key
         where coalesce(t.in_use, 0) <> coalesce(r.jobs, 0)
         order by 1 limit p_limit
    loop
        insert into queue.rate_limit_tracking (key) values (v_key) on conflict do nothing;
        perform from queue.rate_limit_tracking t where t.key = v_key for update;
        update queue.rate_limit_tracking t set in_use = n.jobs
          from (select count(*)::integer as jobs from queue.job j
                 where j.lease_token is not null
                   and (j.limit_key = v_key or j.lane = v_key and j.lane_rule = 'concurrency' or 'queue:' || j.queue = v_key)) n
         where t.key = v_key and t.in_use <> n.jobs;
        get diagnostics v_count = row_count;
        v_wrong := v_wrong + v_count;
    end loop;

    -- Holders that are neither alive nor dead letters that block.
    for v_key in
        select t.key from queue.rate_limit_tracking t
         where t.holder is not null
           and not exists (select from queue.job j where j.id = t.holder)
           and not exists (select from queue.later l where l.id = t.holder)
           and not exists (select from queue.waiting w where w.id = t.holder)
           and not exists (select from queue.dead_letter_queue d
                            where d.job_id = t.holder and d.redriven_at is null and d.discarded_at is null)
         order by 1 limit p_limit for update
    loop
        update queue.rate_limit_tracking t set holder = null where t.key = v_key;
        perform queue.open_key(v_key, 1);
        v_wrong := v_wrong + 1;
    end loop;

    -- Jobs that wait at a key which nothing will open.
    for v_key in
        with recursive keys as (
            (select w.key from queue.waiting w where w.key > '' order by w.key limit 1)
            union all
            select (select w.key from queue.waiting w where w.key > k.key order by w.key limit 1) from keys k where k.key is not null
        )
        select k.key from keys k left join queue.rate_limit_tracking t on t.key = k.key
         where k.key is not null and (t.key is null or t.wake_at is null and t.holder is null and t.in_use = 0)
         order by 1 limit p_limit
    loop
        insert into queue.rate_limit_tracking as t (key, wake_at) values (v_key, clock_timestamp())
        on conflict (key) do update set wake_at = clock_timestamp()
         where t.wake_at is null and t.holder is null and t.in_use = 0;
        get diagnostics v_count = row_count;
        v_wrong := v_wrong + v_count;
    end loop;

    -- Jobs that wait for others although none is left to wait for.
    v_wrong := v_wrong + cardinality(queue.free_dependents(array(
        select w.id from queue.waiting w
         where w.key = '' and not exists (select from queue.dependency d where d.job_id = w.id)
         order by w.id limit p_limit)));

    delete from queue.rate_limit_tracking t
     where t.key = any(array(
               select c.key from queue.rate_limit_tracking c
                where c.in_use = 0 and c.holder is null and c.wake_at is null
                  and (c.blocked_until is null or c.blocked_until < clock_timestamp())
                  and (c.counts is null or to_timestamp((c.bucket + 21) * c.window_seconds / 20) < clock_timestamp())
                  and (c.reserved_until is null or c.reserved_until < clock_timestamp())
                limit p_limit for update skip locked))
       and not exists (select from queue.waiting w where w.key = t.key);
    return v_wrong;
end
$$;
