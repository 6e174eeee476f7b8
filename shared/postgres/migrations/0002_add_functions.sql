-- The verbs of the engine. Functions, because their plans are cached in the server, which is safe behind a
-- transaction pooler (docs/decisions/0002-one-hot-table.md). Generic plans: the parameters tell the planner nothing,
-- and planning anew cost more than running.

-- Each element of p_jobs: {queue, payload, priority?, run_at?, delay_seconds?, idempotency_key?, correlation_id?,
-- redrive_of?, effect_since?}. One row an element, in order; `created` is false where the idempotency key was known (or stood
-- earlier in the same call), and `id` is then the job that has it.
create function queue.enqueue_many(p_jobs jsonb)
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
    v_problem text;
begin
    -- One look at everything; the exact words are found only where something is wrong.
    select bool_or(s.queue is null or s.closed <> ''
                   or jsonb_typeof(e -> 'payload') is distinct from 'object'
                   or (e ->> 'run_at' is not null and e ->> 'delay_seconds' is not null)
                   or coalesce((e ->> 'priority')::int not between 1 and 10, false)),
           bool_or(e ->> 'idempotency_key' is not null),
           bool_or(e ->> 'run_at' is not null or e ->> 'delay_seconds' is not null)
      into v_wrong, v_keyed, v_timed
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
    if not v_keyed and not v_timed then
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
               i.job_id as known_id, coalesce(i.job_id, queue.new_id()) as id
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
        insert into queue.job (id, queue, priority, run_at, enqueued_at, correlation_id, idempotency_key, redrive_of, effect_since, payload)
        select t.id, t.queue, t.priority, t.run_at, v_now, t.correlation_id, t.idempotency_key, t.redrive_of, t.effect_since, t.payload
          from told t where t.created and t.due
    ),
    scheduled as (
        insert into queue.later (id, queue, priority, run_at, enqueued_at, correlation_id, idempotency_key, redrive_of, effect_since, payload)
        select t.id, t.queue, t.priority, t.run_at, v_now, t.correlation_id, t.idempotency_key, t.redrive_of, t.effect_since, t.payload
          from told t where t.created and not t.due
    )
    select t.ord, t.id, t.created, t.due from told t order by t.ord;
end
$$;

-- For any language: enqueue inside your own transaction. The relay wakes a worker within seconds of the commit.
create function queue.enqueue(
    queue text,
    payload jsonb,
    priority integer default null,
    run_at timestamptz default null,
    delay interval default null,
    idempotency_key text default null,
    correlation_id text default null
)
returns uuid
language sql
as $$
    select e.id
      from queue.enqueue_many(jsonb_build_array(jsonb_build_object(
          'queue', queue, 'payload', payload, 'priority', priority, 'run_at', run_at,
          'delay_seconds', extract(epoch from delay), 'idempotency_key', idempotency_key,
          'correlation_id', correlation_id))) e
$$;

-- scheduled -> ready, of one queue, the earliest first. Returns how many. The clock is read in a subselect: a volatile
-- function in the condition itself would keep the index out of it, and every future job would be looked at.
create function queue.promote_due(p_queue text, p_limit integer)
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
                               redrive_of, effect_since, payload, attempts)
        select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts
          from due
        returning 1
    )
    select count(*)::integer from moved
$$;

-- ready -> active, the best p_limit jobs: lower priority number, then earlier due, then earlier enqueued (I3).
-- The order is the index's, so nothing is sorted. The list of row addresses comes from an array subselect, which is
-- evaluated once: a join could be planned so that it runs again and locks more than p_limit rows. The condition on
-- the token is repeated in the update, because a row may change between the lock and the update. The settings keep
-- the plan what it is whatever the statistics say: with none yet, a seq scan and a sort were ten times slower.
create function queue.claim(p_queue text, p_limit integer, p_worker text, p_lease interval)
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
    return query
    update queue.job j
       set attempt = j.attempt + 1, lease_token = v_token, lease_until = clock_timestamp() + p_lease,
           leased_by = p_worker, started_at = clock_timestamp()
     where j.ctid = any(array(
               select c.ctid from queue.job c
                where c.queue = p_queue and c.lease_token is null
                order by c.priority, c.run_at, c.id
                limit p_limit for update skip locked))
       and j.lease_token is null
    returning j.id, j.priority, j.run_at, j.attempt, j.lease_token, j.correlation_id, j.enqueued_at,
              j.redrive_of, j.effect_since, j.attempts::text, j.payload::text;
end
$$;

-- Ends attempts. Each element: {id, token, outcome, delay_seconds?, result?, error_class?, message?, details?,
-- follow_ups?}; outcome is completed, dead, retry, deferred or released. Every one is guarded by its lease token
-- (I2). Follow-ups come into being here or not at all (I6). Returns the ids that were not settled: lease lost.
create function queue.settle(p_settlements jsonb, p_only_expired boolean default false)
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
           and not (s.outcome = 'released' or s.outcome = 'retry' and s.delay_seconds = 0)
           and (not p_only_expired or j.lease_until < v_now)
        returning j.*, s.outcome, s.delay_seconds, s.result, s.error_class, s.message,
            queue.attempt_entry(j.attempt, j.started_at, v_now, j.leased_by, s.outcome, s.error_class, s.message, s.details) as entry
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
           and (s.outcome = 'released' or s.outcome = 'retry' and s.delay_seconds = 0)
           and (not p_only_expired or j.lease_until < v_now)
        returning j.id
    ),
    tracked as (
        insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, started_at, finished_at, attempt,
                                        correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts, result,
                                        error_class, error_message)
        select id, queue, outcome, priority, run_at, enqueued_at, started_at, v_now, attempt, correlation_id,
               idempotency_key, redrive_of, effect_since, payload, coalesce(attempts, '[]') || entry, result, error_class, message
          from gone where outcome in ('completed', 'dead')
    ),
    postponed as (
        insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key,
                                 redrive_of, effect_since, payload, attempts)
        select id, queue, priority, v_now + make_interval(secs => delay_seconds), enqueued_at,
               case outcome when 'deferred' then attempt - 1 else attempt end,
               correlation_id, idempotency_key, redrive_of, effect_since, payload,
               case outcome when 'deferred' then attempts else coalesce(attempts, '[]') || entry end
          from gone where outcome in ('retry', 'deferred')
    ),
    buried as (
        insert into queue.dead_letter_queue (job_id, queue, error_class, error_message, died_at)
        select id, queue, error_class, message, v_now from gone where outcome = 'dead'
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

-- One ended attempt, as kept on the job (I5).
create function queue.attempt_entry(
    p_number smallint, p_started_at timestamptz, p_finished_at timestamptz, p_worker text, p_outcome text,
    p_error_class text, p_message text, p_details jsonb
)
returns jsonb
language sql
stable
as $$
    select jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'number', p_number, 'started_at', p_started_at, 'finished_at', p_finished_at, 'worker', p_worker,
        'outcome', p_outcome, 'error_class', p_error_class, 'message', p_message, 'details', p_details)))
$$;

-- The worker's hot path: one round trip and one commit for the last batch's end and the next one's start. The first
-- row carries the lost leases and no job; the others carry a job each.
create function queue.settle_and_claim(
    p_settlements jsonb, p_queue text, p_limit integer, p_worker text, p_lease interval
)
returns table (
    lost uuid[], id uuid, priority smallint, run_at timestamptz, attempt smallint, lease_token uuid,
    correlation_id text, enqueued_at timestamptz, redrive_of uuid, effect_since timestamptz, attempts text, payload text
)
language plpgsql
as $$
begin
    lost := queue.settle(p_settlements);
    return next;
    return query select null::uuid[], c.* from queue.claim(p_queue, p_limit, p_worker, p_lease) c;
end
$$;

-- Extends leases that are still held; returns the ids of those that are not.
create function queue.renew(p_ids uuid[], p_tokens uuid[], p_lease interval)
returns uuid[]
language sql
as $$
    with held as (
        update queue.job j set lease_until = clock_timestamp() + p_lease
          from unnest(p_ids, p_tokens) u(id, token)
         where j.id = u.id and j.lease_token = u.token
        returning j.id
    )
    select array(select i from unnest(p_ids) i where i not in (select id from held))
$$;

-- Cancels a job that has not started; false when it is active, ended or unknown.
create function queue.cancel(p_id uuid)
returns boolean
language sql
as $$
    with ready as (
        delete from queue.job where id = p_id and lease_token is null
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts
    ),
    scheduled as (
        delete from queue.later where id = p_id
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts
    ),
    waiting as (
        delete from queue.waiting where id = p_id
        returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload, attempts
    ),
    moved as (
        insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, finished_at, attempt, correlation_id,
                                        idempotency_key, redrive_of, effect_since, payload, attempts)
        select c.id, c.queue, 'cancelled', c.priority, c.run_at, c.enqueued_at, clock_timestamp(), c.attempt, c.correlation_id,
               c.idempotency_key, c.redrive_of, c.effect_since, c.payload, c.attempts
          from (select * from ready union all select * from scheduled union all select * from waiting) c
        returning 1
    )
    select exists (select from moved)
$$;

-- A dead job runs again as a new job, attempts reset; null when there is nothing to redrive. `redrive_of` names the
-- first job of the chain, whose id marks the effect; `effect_since` says from when on the effect may have happened, so
-- that a send that did happen is found and not repeated. p_uncertain: the error classes that leave that open.
create function queue.redrive(
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
    select * into v_letter from queue.dead_letter_queue where job_id = p_job_id and redriven_at is null for update;
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
      from queue.enqueue_many(jsonb_build_array(jsonb_build_object(
          'queue', v_job.queue, 'payload', v_job.payload, 'priority', v_job.priority,
          'correlation_id', v_job.correlation_id, 'redrive_of', coalesce(v_job.redrive_of, p_job_id),
          'effect_since', v_since))) e;
    update queue.dead_letter_queue
       set redriven_at = clock_timestamp(), redriven_by = p_by, redriven_job_id = v_new
     where id = v_letter.id;
    return v_new;
end
$$;

-- A message that is no job becomes a dead letter, once per source (the message's id); true when it was new.
create function queue.bury(p_queue text, p_body text, p_reason text, p_source text)
returns boolean
language plpgsql
as $$
declare
    v_id uuid;
begin
    insert into queue.dead_letter_queue (source, queue, error_class, error_message, body)
    values (p_source, p_queue, 'validation', p_reason, p_body)
    on conflict (source) do nothing
    returning id into v_id;
    if v_id is null then
        return false;
    end if;
    perform queue.enqueue_many(jsonb_build_array(jsonb_build_object(
        'queue', 'dead-letter', 'payload', jsonb_build_object('deadLetterId', v_id))));
    return true;
end
$$;

-- A message of a poison queue that carries a job becomes a job that is dead, once per source; null when known.
create function queue.bury_job(p_job jsonb, p_reason text, p_source text)
returns uuid
language plpgsql
as $$
declare
    v_job record;
    v_letter uuid;
begin
    select e.id, e.created into v_job
      from queue.enqueue_many(jsonb_build_array(
          p_job || jsonb_build_object('idempotency_key', 'message:' || p_source, 'run_at', null, 'delay_seconds', null))) e;
    if not v_job.created then
        return null;
    end if;
    with gone as (
        delete from queue.job where id = v_job.id returning *
    )
    insert into queue.job_tracking (id, queue, state, priority, run_at, enqueued_at, finished_at, attempt, correlation_id,
                                    idempotency_key, payload, attempts, error_class, error_message)
    select id, queue, 'dead', priority, run_at, enqueued_at, clock_timestamp(), attempt, correlation_id,
           idempotency_key, payload, '[]', 'worker-lost', p_reason
      from gone;
    insert into queue.dead_letter_queue (job_id, queue, error_class, error_message)
    values (v_job.id, p_job ->> 'queue', 'worker-lost', p_reason)
    returning id into v_letter;
    perform queue.enqueue_many(jsonb_build_array(jsonb_build_object(
        'queue', 'dead-letter', 'payload', jsonb_build_object('deadLetterId', v_letter))));
    return v_job.id;
end
$$;

-- A timer's turn for one host; null when another has it.
create function queue.take_turn(p_timer text, p_at_most interval)
returns uuid
language sql
as $$
    insert into queue.timer_turn as t (timer, token, taken_until, last_started_at)
    values (p_timer, gen_random_uuid(), clock_timestamp() + p_at_most, clock_timestamp())
    on conflict (timer) do update
       set token = excluded.token, taken_until = excluded.taken_until, last_started_at = excluded.last_started_at
     where t.taken_until is null or t.taken_until < clock_timestamp()
    returning t.token
$$;

-- Partitions of the history, one for each UTC day from yesterday to p_days ahead. Made apart and then attached,
-- because attaching locks the history against other changes of its layout only, never against inserts.
create function queue.make_partitions(p_days integer)
returns integer
language plpgsql
as $$
declare
    v_day date;
    v_name text;
    v_made integer := 0;
begin
    for v_day in
        select d::date
          from generate_series((clock_timestamp() at time zone 'UTC')::date - 1,
                               (clock_timestamp() at time zone 'UTC')::date + p_days, interval '1 day') d
    loop
        v_name := 'job_tracking_' || to_char(v_day, 'YYYYMMDD');
        if to_regclass('queue.' || v_name) is null then
            perform pg_advisory_xact_lock(hashtext('queue.make_partitions'));
            if to_regclass('queue.' || v_name) is null then
                execute format('create table queue.%I (like queue.job_tracking including defaults including constraints)', v_name);
                execute format('alter table queue.job_tracking attach partition queue.%I for values from (%L) to (%L)',
                               v_name, v_day || ' 00:00:00+00', (v_day + 1) || ' 00:00:00+00');
                v_made := v_made + 1;
            end if;
        end if;
    end loop;
    return v_made;
end
$$;

-- Every job, whatever its state: the one place where a table stands for a state.
create view queue.jobs as
    select id, queue, case when lease_token is null then 'ready' else 'active' end as state, priority, run_at, enqueued_at,
           started_at, null::timestamptz as finished_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, payload,
           attempts, null::jsonb as result, null::text as error_class, null::text as error_message, lease_until, leased_by
      from queue.job
    union all
    select id, queue, 'scheduled', priority, run_at, enqueued_at, null, null, attempt, correlation_id, idempotency_key,
           redrive_of, effect_since, payload, attempts, null, null, null, null, null
      from queue.later
    union all
    select id, queue, 'waiting', priority, run_at, enqueued_at, null, null, attempt, correlation_id, idempotency_key,
           redrive_of, effect_since, payload, attempts, null, null, null, null, null
      from queue.waiting
    union all
    select id, queue, state, priority, run_at, enqueued_at, started_at, finished_at, attempt, correlation_id,
           idempotency_key, redrive_of, effect_since, payload, attempts, result, error_class, error_message, null, null
      from queue.job_tracking;

select queue.make_partitions(7);
