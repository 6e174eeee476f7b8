-- Control and deadlines: cancel a running job, reschedule, retry now, pause, resume, clear, expires_at.
-- Runs beside the release before: what that calls keeps its name, its arguments and its columns.

alter table queue.job
    add column expires_at timestamptz constraint job_expires_at check (isfinite(expires_at)),
    add column stop_requested_at timestamptz
        constraint job_stop_requested check (stop_requested_at is null or lease_token is not null);
alter table queue.later add column expires_at timestamptz constraint later_expires_at check (isfinite(expires_at));
alter table queue.waiting add column expires_at timestamptz constraint waiting_expires_at check (isfinite(expires_at));
alter table queue.job_tracking add column expires_at timestamptz;

-- A job without a deadline is in none of these. No claim changes a deadline, so claims stay HOT updates.
create index job_expiry on queue.job (expires_at) where expires_at is not null;
create index later_expiry on queue.later (expires_at) where expires_at is not null;
create index waiting_expiry on queue.waiting (expires_at) where expires_at is not null;

create or replace view queue.jobs as
    select id, queue, case when lease_token is null then 'ready' else 'active' end as state, priority, run_at, enqueued_at,
           started_at, null::timestamptz as finished_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload,
           attempts, null::jsonb as result, null::text as error_class, null::text as error_message, lease_until, leased_by,
           expires_at, stop_requested_at
      from queue.job
    union all
    select id, queue, 'scheduled', priority, run_at, enqueued_at, null, null, attempt, correlation_id, idempotency_key,
           redrive_of, effect_since, payload, attempts, null, null, null, null, null, expires_at, null
      from queue.later
    union all
    select id, queue, 'waiting', priority, run_at, enqueued_at, null, null, attempt, correlation_id, idempotency_key,
           redrive_of, effect_since, payload, attempts, null, null, null, null, null, expires_at, null
      from queue.waiting
    union all
    select id, queue, state, priority, run_at, enqueued_at, started_at, finished_at, attempt, correlation_id,
           idempotency_key, redrive_of, effect_since, payload, attempts, result, error_class, error_message, null, null,
           expires_at, null
      from queue.job_tracking;

-- Each element of p_jobs: {queue, payload, priority?, run_at?, delay_seconds?, expires_at?, expires_in_seconds?,
-- idempotency_key?, correlation_id?, redrive_of?, effect_since?}. One row an element, in order; `created` is false where the
-- idempotency key was known (or stood earlier in the same call), and `id` is then the job that has it; `due` is true where
-- a worker can take the job now: not of a paused queue.
create or replace function queue.enqueue_many(p_jobs jsonb)
returns table (ordinal integer, id uuid, created boolean, due boolean)
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    v_new uuid[] := '{}';
    v_wrong boolean;
    v_keyed boolean;
    v_timed boolean;
    v_paused boolean;
    v_problem text;
begin
    -- One look at everything; the exact words are found only where something is wrong.
    select bool_or(s.queue is null or s.closed <> ''
                   or jsonb_typeof(e -> 'payload') is distinct from 'object'
                   or (e ->> 'run_at' is not null and e ->> 'delay_seconds' is not null)
                   or coalesce((e ->> 'priority')::int not between 1 and 10, false)
                   or (e ->> 'expires_at' is not null and e ->> 'expires_in_seconds' is not null)
                   or (e ->> 'expires_in_seconds')::float8 <= coalesce((e ->> 'delay_seconds')::float8, 0)
                   or (e ->> 'expires_at')::timestamptz <= (e ->> 'run_at')::timestamptz),
           bool_or(e ->> 'idempotency_key' is not null),
           bool_or(e ->> 'run_at' is not null or e ->> 'delay_seconds' is not null
                   or e ->> 'expires_at' is not null or e ->> 'expires_in_seconds' is not null),
           bool_or(s.paused)
      into v_wrong, v_keyed, v_timed, v_paused
      from jsonb_array_elements(p_jobs) e
      left join queue.queue_settings s on s.queue = e ->> 'queue';
    if v_wrong then
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
               end as problem
          into v_problem
          from jsonb_array_elements(p_jobs) e
          left join queue.queue_settings s on s.queue = e ->> 'queue'
         order by problem nulls last
         limit 1;
        raise exception using errcode = 'invalid_parameter_value', message = v_problem,
            hint = 'The queues that take jobs: select queue from queue.queue_settings where closed = ''.';
    end if;

    -- The common case, in one insert: nothing to look up, nothing for later. Ids sort as they were made.
    if not v_keyed and not v_timed and not v_paused then
        return query
        with made as (
            insert into queue.job (id, queue, priority, run_at, enqueued_at, correlation_id, redrive_of, effect_since, payload)
            select queue.new_id(), a.e ->> 'queue', coalesce((a.e ->> 'priority')::smallint, s.priority), v_now, v_now,
                   a.e ->> 'correlation_id', (a.e ->> 'redrive_of')::uuid,
                   (a.e ->> 'effect_since')::timestamptz, a.e -> 'payload'
              from jsonb_array_elements(p_jobs) with ordinality a(e, ord)
              join queue.queue_settings s on s.queue = a.e ->> 'queue'
             order by a.ord
            returning id
        )
        select row_number() over (order by m.id)::int, m.id, true, true from made m;
        return;
    end if;

    if v_keyed then
        -- In key order, so that two bulk calls with the same keys wait for each other and never deadlock.
        with mine as (
            insert into queue.idempotency (queue, key, job_id)
            select k.queue, k.key, queue.new_id()
              from (select distinct e ->> 'queue' as queue, e ->> 'idempotency_key' as key
                      from jsonb_array_elements(p_jobs) e
                     where e ->> 'idempotency_key' is not null) k
             order by k.queue, k.key
            on conflict do nothing
            returning job_id
        )
        select coalesce(array_agg(job_id), '{}') into v_new from mine;
    end if;

    return query
    with asked as materialized (
        select a.ord::int as ord, a.e ->> 'queue' as queue, a.e -> 'payload' as payload,
               coalesce((a.e ->> 'priority')::smallint, s.priority) as priority,
               coalesce((a.e ->> 'run_at')::timestamptz,
                        v_now + make_interval(secs => (a.e ->> 'delay_seconds')::float8), v_now) as run_at,
               a.e ->> 'correlation_id' as correlation_id, a.e ->> 'idempotency_key' as idempotency_key,
               (a.e ->> 'redrive_of')::uuid as redrive_of,
               (a.e ->> 'effect_since')::timestamptz as effect_since,
               coalesce((a.e ->> 'expires_at')::timestamptz,
                        v_now + make_interval(secs => (a.e ->> 'expires_in_seconds')::float8)) as expires_at,
               s.paused, i.job_id as known_id, coalesce(i.job_id, queue.new_id()) as id
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
        insert into queue.job (id, queue, priority, run_at, enqueued_at, correlation_id, idempotency_key, redrive_of, effect_since, expires_at, payload)
        select t.id, t.queue, t.priority, t.run_at, v_now, t.correlation_id, t.idempotency_key, t.redrive_of, t.effect_since, t.expires_at,
               t.payload
          from told t where t.created and t.due
    ),
    scheduled as (
        insert into queue.later (id, queue, priority, run_at, enqueued_at, correlation_id, idempotency_key, redrive_of, effect_since, expires_at, payload)
        select t.id, t.queue, t.priority, t.run_at, v_now, t.correlation_id, t.idempotency_key, t.redrive_of, t.effect_since, t.expires_at,
               t.payload
          from told t where t.created and not t.due
    )
    select t.ord, t.id, t.created, t.due and not t.paused from told t order by t.ord;
end
$$;

-- With a deadline more; the shorter form goes, because calls would fit both.
drop function queue.enqueue(text, jsonb, integer, timestamptz, interval, text, text);

create function queue.enqueue(
    queue text,
    payload jsonb,
    priority integer default null,
    run_at timestamptz default null,
    delay interval default null,
    idempotency_key text default null,
    correlation_id text default null,
    expires_at timestamptz default null,
    expires_in interval default null
)
returns uuid
language sql
as $$
    select e.id
      from queue.enqueue_many(jsonb_build_array(jsonb_build_object(
          'queue', queue, 'payload', payload, 'priority', priority, 'run_at', run_at,
          'delay_seconds', extract(epoch from delay), 'idempotency_key', idempotency_key,
          'correlation_id', correlation_id, 'expires_at', expires_at,
          'expires_in_seconds', extract(epoch from expires_in)))) e
$$;

-- scheduled -> ready, of one queue, the earliest first. Returns how many. The clock is read in a subselect: a volatile
-- function in the condition itself would keep the index out of it, and every future job would be looked at.
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
        insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key,
                               redrive_of, effect_since, expires_at, payload, attempts)
        select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at, payload, attempts
          from due
        returning 1
    )
    select count(*)::integer from moved
$$;

-- ---------------------------------------------------------------- deadlines

-- What the history and the operator read.
create function queue.expiry_reason(p_expires_at timestamptz)
returns text
language sql
stable
as $$
    select 'it had not started by its deadline, ' || to_char(p_expires_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

-- Jobs that have not started by their deadline die, of one queue or of all; at most p_limit from each table. Returns how many.
create function queue.expire_due(p_queue text, p_limit integer)
returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    v_count integer;
    v_letters jsonb;
begin
    with ready as (
        delete from queue.job j
         where j.id = any(array(
                   select c.id from queue.job c
                    where c.expires_at <= v_now and c.lease_token is null and (p_queue is null or c.queue = p_queue)
                    order by c.expires_at limit p_limit for update skip locked))
           and j.lease_token is null
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, expires_at
    ),
    scheduled as (
        delete from queue.later l
         where l.id = any(array(
                   select c.id from queue.later c
                    where c.expires_at <= v_now and (p_queue is null or c.queue = p_queue)
                    order by c.expires_at limit p_limit for update skip locked))
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, expires_at
    ),
    waiting as (
        delete from queue.waiting w
         where w.id = any(array(
                   select c.id from queue.waiting c
                    where c.expires_at <= v_now and (p_queue is null or c.queue = p_queue)
                    order by c.expires_at limit p_limit for update skip locked))
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, expires_at
    ),
    gone as (
        select * from ready union all select * from scheduled union all select * from waiting
    ),
    tracked as (
        insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, finished_at, attempt, correlation_id,
                                        idempotency_key, redrive_of, effect_since, payload, attempts, expires_at,
                                        error_class, error_message)
        select id, queue, 'dead', priority, run_at, enqueued_at, v_now, attempt, correlation_id,
               idempotency_key, redrive_of, effect_since, payload, coalesce(attempts, '[]'), expires_at,
               'expired', queue.expiry_reason(expires_at)
          from gone
    ),
    buried as (
        insert into queue.dead_letter_queue (job_id, queue, error_class, error_message, died_at)
        select id, queue, 'expired', queue.expiry_reason(expires_at), v_now from gone
        returning id, queue, job_id
    )
    select (select count(*) from gone),
           (select jsonb_agg(jsonb_build_object('queue', 'dead-letter', 'payload', jsonb_build_object('deadLetterId', b.id),
                                                'correlation_id', g.correlation_id))
              from buried b join gone g on g.id = b.job_id where b.queue <> 'dead-letter')
      into v_count, v_letters;
    if v_letters is not null then
        perform queue.enqueue_many(v_letters);
    end if;
    return v_count;
end
$$;

-- ready -> active, the best p_limit jobs: lower priority number, then earlier due, then earlier enqueued (I3). As before, and
-- jobs past their deadline are neither handed out nor counted: a hundred are ended at a time, so that a long line of them
-- is gone after as many claims.
create or replace function queue.claim(p_queue text, p_limit integer, p_worker text, p_lease interval)
returns table (
    id uuid, priority smallint, run_at timestamptz, attempt smallint, lease_token uuid, correlation_id text,
    enqueued_at timestamptz, redrive_of uuid, effect_since timestamptz, attempts text, payload text
)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_token uuid := gen_random_uuid();
    v_now timestamptz := clock_timestamp();
begin
    perform from queue.queue_settings s where s.queue = p_queue and s.paused;
    if found then
        return;
    end if;
    perform from queue.later l where l.queue = p_queue and l.run_at <= v_now limit 1;
    if found then
        perform queue.promote_due(p_queue, greatest(100, p_limit));
    end if;
    perform from queue.job c
      where c.expires_at <= v_now and c.queue = p_queue and c.lease_token is null order by c.expires_at limit 1;
    if found then
        perform queue.expire_due(p_queue, greatest(100, p_limit));
    end if;
    return query
    update queue.job j
       set attempt = j.attempt + 1, lease_token = v_token, lease_until = clock_timestamp() + p_lease,
           leased_by = p_worker, started_at = clock_timestamp()
     where j.ctid = any(array(
               select c.ctid from queue.job c
                where c.queue = p_queue and c.lease_token is null and (c.expires_at is null or c.expires_at > v_now)
                order by c.priority, c.run_at, c.id
                limit p_limit for update skip locked))
       and j.lease_token is null
    returning j.id, j.priority, j.run_at, j.attempt, j.lease_token, j.correlation_id, j.enqueued_at,
              j.redrive_of, j.effect_since, j.attempts::text, j.payload::text;
end
$$;

-- ---------------------------------------------------------------- settling

-- What an outcome means for a job: it does not run again when it was asked to stop or when its deadline would have passed.
create function queue.verdict(
    p_outcome text, p_delay_seconds float8, p_stop_requested_at timestamptz, p_expires_at timestamptz, p_now timestamptz
)
returns text
language sql
stable
as $$
    select case
               when p_stop_requested_at is not null and p_outcome in ('retry', 'deferred', 'released') then 'cancelled'
               when p_outcome = 'retry' and p_expires_at <= p_now + make_interval(secs => p_delay_seconds) then 'expired'
               when p_outcome = 'retry' and p_delay_seconds = 0 then 'ready'
               else p_outcome
           end
$$;

-- One try of queue.settle.
create function queue.settle_once(p_settlements jsonb, p_only_expired boolean)
returns uuid[]
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_settled uuid[];
    v_lost uuid[];
    v_more jsonb;
begin
    with s as materialized (
        select *
          from jsonb_to_recordset(p_settlements) as s(
              id uuid, token uuid, outcome text, delay_seconds float8, result jsonb, error_class text, message text,
              details jsonb)
    ),
    gone as (
        delete from queue.job j using s
         where j.id = s.id and j.lease_token = s.token
           and queue.verdict(s.outcome, s.delay_seconds, j.stop_requested_at, j.expires_at, v_now) not in ('ready', 'released')
           and (not p_only_expired or j.lease_until < v_now)
        returning j.*, s.delay_seconds, s.result, s.error_class, s.message,
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
        returning j.id
    ),
    judged as (
        select g.*, case g.verdict
                        when 'dead' then g.error_class
                        when 'expired' then 'expired' end as verdict_class,
               case g.verdict
                   when 'dead' then g.message
                   when 'expired' then queue.expiry_reason(g.expires_at) || ' (next attempt); the last one failed: ' || g.message
               end as verdict_message
          from gone g
    ),
    tracked as (
        insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, started_at, finished_at, attempt,
                                        correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, result,
                                        error_class, error_message, expires_at)
        select id, queue, case verdict when 'expired' then 'dead' else verdict end, priority, run_at, enqueued_at, started_at,
               v_now, counted, correlation_id, idempotency_key, redrive_of, effect_since, payload, coalesce(ended, '[]'), result,
               verdict_class, verdict_message, expires_at
          from judged where verdict in ('completed', 'dead', 'expired', 'cancelled')
    ),
    postponed as (
        insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key,
                                 redrive_of, effect_since, expires_at, payload, attempts)
        select id, queue, priority, v_now + make_interval(secs => delay_seconds), enqueued_at, counted,
               correlation_id, idempotency_key, redrive_of, effect_since, expires_at, payload, ended
          from gone where verdict in ('retry', 'deferred')
    ),
    buried as (
        insert into queue.dead_letter_queue (job_id, queue, error_class, error_message, died_at)
        select id, queue, verdict_class, verdict_message, v_now from judged where verdict in ('dead', 'expired')
        returning id, queue, job_id
    )
    select array(select id from gone union all select id from kept),
           (select jsonb_agg(jsonb_build_object('queue', 'dead-letter', 'payload', jsonb_build_object('deadLetterId', b.id),
                                                'correlation_id', g.correlation_id))
              from buried b join gone g on g.id = b.job_id where b.queue <> 'dead-letter')
      into v_settled, v_more;

    if v_more is not null then
        perform queue.enqueue_many(v_more);
    end if;
    if p_settlements @? '$[*].follow_ups[*]' then
        select jsonb_agg(f.e order by s.ord, f.ord)
          into v_more
          from jsonb_array_elements(p_settlements) with ordinality s(e, ord),
               jsonb_array_elements(s.e -> 'follow_ups') with ordinality f(e, ord)
         where (s.e ->> 'id')::uuid = any(v_settled);
        if v_more is not null then
            perform queue.enqueue_many(v_more);
        end if;
    end if;
    select array_agg((e ->> 'id')::uuid) into v_lost
      from jsonb_array_elements(p_settlements) e where not (e ->> 'id')::uuid = any(v_settled);
    return coalesce(v_lost, '{}');
end
$$;

-- Ends attempts. Each element: {id, token, outcome, delay_seconds?, result?, error_class?, message?, details?,
-- follow_ups?}; outcome is completed, dead, retry, deferred, released or cancelled. Every one is guarded by its lease token
-- (I2). Follow-ups come into being here or not at all (I6). Returns the ids that were not settled: lease lost.
-- A request to stop that is committed while this waits for the row changes the verdict between the look and the lock, so
-- that neither branch takes the row: what was not settled is tried once more, with the row as it is now.
create or replace function queue.settle(p_settlements jsonb, p_only_expired boolean default false)
returns uuid[]
language plpgsql
as $$
declare
    v_lost uuid[] := queue.settle_once(p_settlements, p_only_expired);
begin
    if v_lost = '{}' then
        return v_lost;
    end if;
    return queue.settle_once(
        (select jsonb_agg(e) from jsonb_array_elements(p_settlements) e where (e ->> 'id')::uuid = any(v_lost)), p_only_expired);
end
$$;

-- Extends leases that are still held. A row for each lease that the worker must know of: lost, or asked to stop.
create function queue.renew_leases(p_ids uuid[], p_tokens uuid[], p_lease interval)
returns table (id uuid, lost boolean)
language sql
as $$
    with held as (
        update queue.job j set lease_until = clock_timestamp() + p_lease
          from unnest(p_ids, p_tokens) u(id, token)
         where j.id = u.id and j.lease_token = u.token
        returning j.id, j.stop_requested_at
    )
    select i, true from unnest(p_ids) i where i not in (select h.id from held h)
    union all
    select h.id, false from held h where h.stop_requested_at is not null
$$;

-- ---------------------------------------------------------------- control

-- Takes no new jobs from the queue's claims; true when it was not paused. Running jobs end as they would.
create function queue.pause(p_queue text)
returns boolean
language plpgsql
as $$
begin
    perform queue.must_exist(p_queue);
    update queue.queue_settings s set paused = true, updated_at = clock_timestamp() where s.queue = p_queue and not s.paused;
    return found;
end
$$;

-- Lets claims go on; true when it was paused. The relay wakes workers within seconds.
create function queue.resume(p_queue text)
returns boolean
language plpgsql
as $$
begin
    perform queue.must_exist(p_queue);
    update queue.queue_settings s set paused = false, updated_at = clock_timestamp() where s.queue = p_queue and s.paused;
    return found;
end
$$;

create function queue.must_exist(p_queue text)
returns void
language plpgsql
stable
as $$
begin
    perform from queue.queue_settings s where s.queue = p_queue;
    if not found then
        raise exception using errcode = 'invalid_parameter_value', message = format('queue "%s" does not exist', p_queue);
    end if;
end
$$;

-- Cancels a job that has not started; false when it is active, ended or unknown.
create or replace function queue.cancel(p_id uuid)
returns boolean
language sql
as $$
    with ready as (
        delete from queue.job where id = p_id and lease_token is null
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, expires_at
    ),
    scheduled as (
        delete from queue.later where id = p_id
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, expires_at
    ),
    waiting as (
        delete from queue.waiting where id = p_id
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, expires_at
    ),
    moved as (
        insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, finished_at, attempt, correlation_id,
                                        idempotency_key, redrive_of, effect_since, payload, attempts, expires_at)
        select c.id, c.queue, 'cancelled', c.priority, c.run_at, c.enqueued_at, clock_timestamp(), c.attempt, c.correlation_id,
               c.idempotency_key, c.redrive_of, c.effect_since, c.payload, c.attempts, c.expires_at
          from (select * from ready union all select * from scheduled union all select * from waiting) c
        returning 1
    )
    select exists (select from moved)
$$;

-- Cancels a job that has not started ('cancelled'), or asks a running one to stop ('requested': its handler is told at
-- its next checkpoint, and it does not run again whatever the handler does); null when it has ended or is unknown.
-- Looks again when the job went from one table to another between two looks.
create function queue.cancel_job(p_id uuid)
returns text
language plpgsql
as $$
begin
    for v_look in 1..3 loop
        if queue.cancel(p_id) then
            return 'cancelled';
        end if;
        update queue.job j set stop_requested_at = coalesce(j.stop_requested_at, clock_timestamp())
         where j.id = p_id and j.lease_token is not null;
        if found then
            return 'requested';
        end if;
    end loop;
    return null;
end
$$;

-- Another priority or another time for a ready or scheduled job; no row when it is neither. A time that has come makes
-- it ready.
create function queue.reschedule(p_id uuid, p_priority integer default null, p_run_at timestamptz default null)
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
        if v_job.ready and p_run_at > v_now then
            with moved as (delete from queue.job where id = p_id returning *)
            insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key,
                                     redrive_of, effect_since, expires_at, payload, attempts)
            select id, queue, coalesce(p_priority, priority), p_run_at, enqueued_at, attempt, correlation_id, idempotency_key,
                   redrive_of, effect_since, expires_at, payload, attempts
              from moved;
            state := 'scheduled';
        elsif v_job.ready then
            update queue.job j set priority = coalesce(p_priority, j.priority), run_at = coalesce(p_run_at, j.run_at)
             where j.id = p_id;
            state := 'ready';
        elsif p_run_at <= v_now then
            with moved as (delete from queue.later where id = p_id returning *)
            insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key,
                                   redrive_of, effect_since, expires_at, payload, attempts)
            select id, queue, coalesce(p_priority, priority), p_run_at, enqueued_at, attempt, correlation_id, idempotency_key,
                   redrive_of, effect_since, expires_at, payload, attempts
              from moved;
            state := 'ready';
        else
            update queue.later l set priority = coalesce(p_priority, l.priority), run_at = coalesce(p_run_at, l.run_at)
             where l.id = p_id;
            state := 'scheduled';
        end if;
        return next;
        return;
    end loop;
end
$$;

-- A scheduled job, first run or retry, becomes ready at once; its queue, or null when it is not scheduled.
create function queue.retry_now(p_id uuid)
returns text
language sql
as $$
    with due as (
        delete from queue.later where id = p_id returning *
    )
    insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key,
                           redrive_of, effect_since, expires_at, payload, attempts)
    select id, queue, priority, least(run_at, clock_timestamp()), enqueued_at, attempt, correlation_id, idempotency_key,
           redrive_of, effect_since, expires_at, payload, attempts
      from due
    returning queue
$$;

-- Cancels up to p_limit jobs of a queue that wait in one of the states; returns how many. Call it, a transaction each,
-- until it returns less than the limit. p_confirm repeats the name of the queue.
create function queue.clear(
    p_queue text, p_confirm text, p_states text[] default '{ready,scheduled}', p_limit integer default 1000
)
returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    v_count integer;
begin
    perform queue.must_exist(p_queue);
    if p_confirm is distinct from p_queue then
        raise exception using errcode = 'invalid_parameter_value',
            message = format('confirm: repeat the name "%s" to cancel the jobs of this queue', p_queue);
    end if;
    if not p_states <@ '{ready,scheduled}' or p_states = '{}' then
        raise exception using errcode = 'invalid_parameter_value', message = 'states: they are ready and scheduled';
    end if;
    with ready as (
        delete from queue.job j
         where j.id = any(array(
                   select c.id from queue.job c
                    where 'ready' = any(p_states) and c.queue = p_queue and c.lease_token is null
                    order by c.priority, c.run_at, c.id limit p_limit for update skip locked))
           and j.lease_token is null
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, expires_at
    ),
    scheduled as (
        delete from queue.later l
         where l.id = any(array(
                   select c.id from queue.later c
                    where 'scheduled' = any(p_states) and c.queue = p_queue
                    order by c.run_at limit p_limit - (select count(*) from ready) for update skip locked))
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, expires_at
    )
    insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, finished_at, attempt, correlation_id,
                                    idempotency_key, redrive_of, effect_since, payload, attempts, expires_at)
    select c.id, c.queue, 'cancelled', c.priority, c.run_at, c.enqueued_at, v_now, c.attempt, c.correlation_id,
           c.idempotency_key, c.redrive_of, c.effect_since, c.payload, c.attempts, c.expires_at
      from (select * from ready union all select * from scheduled) c;
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
