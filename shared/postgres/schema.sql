-- All migrations together, to read: `./dev schema` writes this file, and nothing applies it.

CREATE SCHEMA queue;

CREATE FUNCTION queue.activity(p_from timestamp with time zone, p_until timestamp with time zone) RETURNS TABLE(queue text, enqueued bigint, completed bigint, failed bigint, dead bigint, cancelled bigint, processed bigint, processing_seconds double precision, latency bigint[], failures jsonb, slowest jsonb)
    LANGUAGE sql STABLE
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
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
$_$;

CREATE FUNCTION queue.add_job(e jsonb, p_now timestamp with time zone) RETURNS TABLE(id uuid, created boolean, due boolean, replaced uuid)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION queue.add_jobs(p_jobs jsonb) RETURNS TABLE(ordinal integer, id uuid, created boolean, due boolean, replaced uuid)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.add_key(p_key text) RETURNS boolean
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
    perform from queue.rate_limit_tracking t where t.key = p_key;
    if found or not pg_try_advisory_xact_lock(hashtextextended('queue.add_key ' || p_key, 0)) then
        return false;
    end if;
    insert into queue.rate_limit_tracking (key) values (p_key) on conflict do nothing;
    return true;
end
$$;

CREATE FUNCTION queue.add_letters(p_dead jsonb, p_now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.add_outgoing_event(p_kind text, p_communication_id uuid, p_job_id uuid) RETURNS uuid
    LANGUAGE plpgsql
    AS $$
declare
    v_id uuid;
begin
    perform pg_advisory_xact_lock(hashtextextended('queue.outgoing_events', 0));
    insert into queue.outgoing_events (kind, communication_id, job_id)
    values (p_kind, p_communication_id, p_job_id)
    returning id into v_id;
    return v_id;
end
$$;

CREATE FUNCTION queue.add_to_totals() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    insert into queue.queue_totals as t (queue, enqueued, completed, failed, dead, cancelled)
    values (new.queue, greatest(0, new.enqueued - coalesce(old.enqueued, 0)),
            greatest(0, new.completed - coalesce(old.completed, 0)), greatest(0, new.failed - coalesce(old.failed, 0)),
            greatest(0, new.dead - coalesce(old.dead, 0)), greatest(0, new.cancelled - coalesce(old.cancelled, 0)))
    on conflict (queue) do update
       set enqueued = t.enqueued + excluded.enqueued, completed = t.completed + excluded.completed,
           failed = t.failed + excluded.failed, dead = t.dead + excluded.dead, cancelled = t.cancelled + excluded.cancelled;
    return null;
end
$$;

CREATE FUNCTION queue.after_end(p_ids uuid[], p_states text[], p_batches uuid[]) RETURNS text[]
    LANGUAGE sql
    AS $$
    select queue.resolve_dependents(p_ids, p_states) || queue.count_ends(p_states, p_batches)
$$;

CREATE FUNCTION queue.aged(p_priority integer, p_since timestamp with time zone, p_seconds double precision, p_now timestamp with time zone) RETURNS double precision
    LANGUAGE sql IMMUTABLE
    AS $$
    select greatest(1, p_priority - greatest(0, coalesce(floor(extract(epoch from p_now - p_since)::float8 / p_seconds), 0)))
$$;

CREATE FUNCTION queue.are_retry_delays(p_delays jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $_$
    select coalesce(jsonb_typeof(p_delays) = 'object'
        and p_delays - '{rate-limit,network,timeout,auth,validation,uncertain,unknown,worker-lost}'::text[] = '{}'
        and not p_delays @? 'strict $.* ? (@.type() != "array")'
        and not p_delays @? '$.*[*] ? (@.type() != "number" || @ < 0 || @ > 604800)', true)
$_$;

CREATE FUNCTION queue.ask_for_upkeep() RETURNS void
    LANGUAGE sql
    AS $$
    select queue.enqueue('subscriptions', '{}',
        idempotency_key => format('declared:%s:%s', pg_current_xact_id(), extract(epoch from transaction_timestamp())))
$$;

CREATE FUNCTION queue.attempt_entry(p_number smallint, p_started_at timestamp with time zone, p_finished_at timestamp with time zone, p_worker text, p_outcome text, p_error_class text, p_message text, p_details jsonb) RETURNS jsonb
    LANGUAGE sql STABLE
    AS $$
    select jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'number', p_number, 'started_at', p_started_at, 'finished_at', p_finished_at, 'worker', p_worker,
        'outcome', p_outcome, 'error_class', p_error_class, 'message', p_message, 'details', p_details)))
$$;

CREATE FUNCTION queue.backlog() RETURNS TABLE(queue text, paused boolean, ready bigint, active bigint, scheduled bigint, waiting bigint, retrying bigint, dead_letters bigint, oldest_ready_seconds double precision)
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION queue.best_aged(p_queue text, p_seconds double precision, p_now timestamp with time zone, p_limit integer, p_but uuid[], p_locked text[], OUT ids uuid[], OUT keyed bigint, OUT most_permits integer) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    v_most integer := p_limit + 4;
    v_seen integer[];
    v_is_cut boolean;
    v_look record;
    v_job record;
begin
    keyed := 0;
    loop
        v_seen := array_fill(0, array[10]);
        v_is_cut := false;
        for v_look in
            select c.id, p.priority
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
            select j.id, j.lane, j.limit_key, j.permits into v_job from queue.job j
             where j.id = v_look.id and j.queue = p_queue and j.lease_token is null for update skip locked;
            if found then
                ids := ids || v_job.id;
                keyed := keyed + num_nonnulls(v_job.lane, v_job.limit_key);
                most_permits := greatest(most_permits, v_job.permits);
                exit when cardinality(ids) >= p_limit;
            end if;
            v_seen[v_look.priority] := v_seen[v_look.priority] + 1;
            v_is_cut := v_seen[v_look.priority] >= v_most;
            exit when v_is_cut;
        end loop;
        exit when ids is not null or not v_is_cut;
        v_most := v_most * 8;
    end loop;
end
$$;

CREATE FUNCTION queue.best_aged_waiting(p_key text, p_most integer) RETURNS uuid[]
    LANGUAGE sql STABLE
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.block_keys(p_keys text[], p_seconds double precision[], p_others text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.bury(p_queue text, p_body text, p_reason text, p_source text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.bury_job(p_job jsonb, p_reason text, p_source text) RETURNS uuid
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.cancel(p_id uuid) RETURNS boolean
    LANGUAGE sql
    AS $$
    select (queue.end_unstarted(array[p_id], 'cancelled', null, null, null)).ended = 1
$$;

CREATE FUNCTION queue.cancel_job(p_id uuid) RETURNS text
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.claim(p_queue text, p_limit integer, p_worker text, p_lease interval) RETURNS TABLE(id uuid, priority smallint, run_at timestamp with time zone, attempt smallint, lease_token uuid, correlation_id text, enqueued_at timestamp with time zone, redrive_of uuid, effect_since timestamp with time zone, attempts text, payload text)
    LANGUAGE sql
    AS $$
    select t.id, t.priority, t.run_at, t.attempt, t.lease_token, t.correlation_id, t.enqueued_at, t.redrive_of, t.effect_since,
           t.attempts, t.payload
      from queue.take(p_queue, p_limit, p_worker, p_lease) t
     where t.id is not null
$$;

CREATE FUNCTION queue.clear(p_queue text, p_confirm text, p_states text[] DEFAULT '{ready,scheduled,waiting}'::text[], p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.count_ends(p_states text[], p_batches uuid[]) RETURNS text[]
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
    if array_remove(p_batches, null) = '{}' then
        return '{}';
    end if;
    perform from queue.batch b where b.id = any(p_batches) order by b.id for update;
    update queue.batch b
       set completed = b.completed + n.completed, dead = b.dead + n.dead, cancelled = b.cancelled + n.cancelled
      from (select u.batch, count(*) filter (where u.state = 'completed') as completed,
                   count(*) filter (where u.state = 'dead') as dead,
                   count(*) filter (where u.state = 'cancelled') as cancelled
              from unnest(p_states, p_batches) u(state, batch) where u.batch is not null group by u.batch) n
     where b.id = n.batch;
    return queue.finish_batches(p_batches);
end
$$;

CREATE FUNCTION queue.create_batch(p_jobs jsonb, p_callback jsonb) RETURNS TABLE(batch_id uuid, ordinal integer, id uuid, created boolean, due boolean, replaced uuid)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    v_batch uuid := queue.new_id();
    v_problem text;
begin
    perform from queue.queue_settings s where s.queue = p_callback ->> 'queue' and s.closed = '';
    if p_callback is not null and not found then
        raise exception using errcode = 'invalid_parameter_value',
            message = format('callback: queue "%s" does not exist or takes no jobs', p_callback ->> 'queue');
    end if;
    if num_nonnulls(p_callback ->> 'unique', p_callback ->> 'depends_on', p_callback ->> 'batch_id') > 0 then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'callback: it cannot be unique, depend on others or belong to a batch; leave these out';
    end if;
    select 'callback: ' || queue.job_problem(p_callback, s) into v_problem
      from queue.queue_settings s where s.queue = p_callback ->> 'queue';
    if v_problem is not null then
        raise exception using errcode = 'invalid_parameter_value', message = v_problem;
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

CREATE FUNCTION queue.discard(p_job_id uuid, p_by text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.end_alone(p_ids uuid[], p_state text, p_class text, p_message text, p_result jsonb, OUT ids uuid[], OUT freed text[]) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    v_now timestamptz := clock_timestamp();
    v_states text[];
    v_batches uuid[];
    v_held text[];
    v_letters jsonb;
begin
    freed := '{}';
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
               limit_key, batch_id, progress, singleton_key, p_state, v_now,
               coalesce(p_result, case when p_state = 'cancelled' and p_class = 'dependency' then jsonb_build_object('reason', p_message) end),
               case p_state when 'dead' then p_class end,
               case p_state when 'dead' then coalesce(p_message, queue.expiry_reason(expires_at)) end
          from gone
    )
    select array_agg(id), array_agg(p_state), array_agg(batch_id),
           array_agg(lane) filter (where lane_rule = 'order' or lane_rule = 'order-block' and (p_state <> 'dead' or attempt = 0)),
           jsonb_agg(queue.letter_of(id, queue, correlation_id, p_class, coalesce(p_message, queue.expiry_reason(expires_at))))
               filter (where p_state = 'dead')
      into ids, v_states, v_batches, v_held, v_letters
      from gone;
    if ids is null then
        ids := '{}';
        return;
    end if;
    if v_letters is not null then
        perform queue.add_letters(v_letters, v_now);
    end if;
    delete from queue.dependency d where d.job_id = any(ids);
    freed := queue.count_ends(v_states, v_batches);
    if v_held is not null then
        freed := freed || queue.leave_keys('{}', v_held, ids);
    end if;
end
$$;

CREATE FUNCTION queue.end_and_take(p_settlements jsonb, p_queue text, p_limit integer, p_worker text, p_lease interval) RETURNS TABLE(lost uuid[], freed text[], wait_seconds double precision, id uuid, priority smallint, run_at timestamp with time zone, attempt smallint, lease_token uuid, correlation_id text, enqueued_at timestamp with time zone, redrive_of uuid, effect_since timestamp with time zone, attempts text, payload text, progress text, batch_id uuid, permits integer)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.end_attempts(p_settlements jsonb, p_only_expired boolean DEFAULT false, OUT lost uuid[], OUT freed text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.end_attempts_once(p_settlements jsonb, p_only_expired boolean, OUT lost uuid[], OUT freed text[]) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
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
$_$;

CREATE FUNCTION queue.end_unstarted(p_ids uuid[], p_state text, p_class text, p_message text, p_result jsonb, OUT ended integer, OUT freed text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
declare
    v_ids uuid[];
begin
    select e.ids, e.freed into v_ids, freed from queue.end_alone(p_ids, p_state, p_class, p_message, p_result) e;
    ended := cardinality(v_ids);
    freed := freed || queue.resolve_dependents(v_ids, array_fill(p_state, array[ended]));
end
$$;

CREATE FUNCTION queue.enqueue(queue text, payload jsonb, priority integer DEFAULT NULL::integer, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, idempotency_key text DEFAULT NULL::text, correlation_id text DEFAULT NULL::text, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, expires_in interval DEFAULT NULL::interval, singleton_key text DEFAULT NULL::text, ordering_key text DEFAULT NULL::text, concurrency_key text DEFAULT NULL::text, concurrency_limit integer DEFAULT NULL::integer, fairness_key text DEFAULT NULL::text, depends_on uuid[] DEFAULT NULL::uuid[]) RETURNS uuid
    LANGUAGE sql
    AS $$
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

CREATE FUNCTION queue.enqueue_many(p_jobs jsonb) RETURNS TABLE(ordinal integer, id uuid, created boolean, due boolean)
    LANGUAGE sql
    AS $$
    select a.ordinal, a.id, a.created, a.due from queue.add_jobs(p_jobs) a
$$;

CREATE FUNCTION queue.error_pattern(p_message text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
declare
    v_at integer := strpos(p_message, ' answered ');
    v_head text := left(p_message, 300);
    v_said text[];
    v_kept text := '';
begin
    if v_at between 1 and 200 then
        v_said := regexp_match(substr(p_message, v_at, 300),
            '^( answered ([0-9]{3}))(?:( [[:alpha:]][[:alnum:]_.-]*)?( to [A-Z]+ (?:workflow )?[^ ]+)?: )?');
        if v_said is not null then
            v_kept := v_said[1] || case when v_said[2] ~ '^(5|429)' then '' else coalesce(v_said[3], '') end
                || coalesce(v_said[4], '');
            v_head := left(p_message, v_at - 1);
        end if;
    elsif v_head like '% (%' then
        v_head := regexp_replace(v_head, '(the answer was lost|cannot be reached) \([[:alnum:]_]+\)', '\1');
    end if;
    if v_head like '%20__-__-__%' then
        v_head := regexp_replace(
            v_head, '20[0-9]{2}-[0-9]{2}-[0-9]{2}([T ][0-9][0-9:.]+(Z|[+-][0-9:]+)?)?', '#', 'g');
    end if;
    if v_head ~ '[0-9@]' then
        v_head := regexp_replace(v_head,
            '[[:alnum:]_=-]{24,}|[^[:space:]<>"''(),;=]+@[[:alnum:]_-]+(\.[[:alnum:]_-]+)+|\m[0-9]+', '#', 'g');
    end if;
    return v_head || v_kept;
end
$$;

CREATE FUNCTION queue.expire_due(p_queue text, p_limit integer) RETURNS integer
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    v_now timestamptz := clock_timestamp();
    v_ids uuid[];
    v_late uuid[];
    v_held jsonb[];
    v_ended integer;
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
    if v_ids = '{}' then
        return 0;
    end if;
    select array_agg(l.id), array_agg(queue.held_back(l.id, l.queue, l.place, l.key, l.permits, v_now))
      into v_late, v_held
      from (select c.id, c.queue, 'job' as place, null as key, null::integer as permits from queue.job c where c.id = any(v_ids)
            union all
            select c.id, c.queue, 'later', null, c.permits from queue.later c where c.id = any(v_ids)
            union all
            select c.id, c.queue, 'waiting', c.key, null from queue.waiting c where c.id = any(v_ids)) l;
    v_ended := (queue.end_unstarted(v_ids, 'dead', 'expired', null, null)).ended;
    -- In one end for all, so that the rows of keys are locked in their order.
    update queue.job_tracking t set result = jsonb_build_object('heldBack', u.held)
      from unnest(v_late, v_held) u(id, held)
     where t.id = u.id and t.finished_at >= v_now and t.error_class = 'expired';
    return v_ended;
end
$$;

CREATE FUNCTION queue.expiry_reason(p_expires_at timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    select 'it had not started by its deadline, ' || to_char(p_expires_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

CREATE FUNCTION queue.file_path(p_account text, p_external_id text) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    with recursive up as (
        select f.parent_id, '/' || f.name as path, 1 as depth
          from queue.files f where f.account = p_account and f.external_id = p_external_id
        union all
        select f.parent_id, '/' || f.name || up.path, up.depth + 1
          from up join queue.files f on f.account = p_account and f.external_id = up.parent_id
         where f.parent_id is not null and up.depth < 100
    )
    select path from up order by depth desc limit 1
$$;

CREATE FUNCTION queue.finish_batches(p_batches uuid[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
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
            begin
                select e.id, e.due into v_callback_id, v_due
                  from queue.add_jobs(jsonb_build_array(jsonb_build_object('correlation_id', v_batch.id) || v_batch.callback)) e;
                if v_due then
                    v_queues := v_queues || (v_batch.callback ->> 'queue');
                end if;
            exception when data_exception or integrity_constraint_violation then
                perform queue.bury(v_batch.callback ->> 'queue', v_batch.callback::text,
                                   'the callback of the batch could not be enqueued: ' || sqlerrm, 'batch/' || v_batch.id);
            end;
        end if;
        update queue.batch b set finished_at = clock_timestamp(), callback_id = v_callback_id where b.id = v_batch.id;
    end loop;
    return v_queues;
end
$$;

CREATE FUNCTION queue.first_id(p_at timestamp with time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE
    AS $$
    select (lpad(to_hex(floor(extract(epoch from p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

CREATE FUNCTION queue.free_dependents(p_ids uuid[]) RETURNS text[]
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.held_back(p_id uuid, p_queue text, p_place text, p_key text, p_permits integer, p_now timestamp with time zone) RETURNS jsonb
    LANGUAGE sql STABLE
    AS $$
    select case
               when s.paused then jsonb_build_object('by', 'pause')
               when p_key = '' then jsonb_build_object('by', 'jobs')
               when p_key is not null then jsonb_strip_nulls(jsonb_build_object(
                   'by', 'key', 'key', p_key, 'holder', k.holder,
                   'blockedUntil', case when k.blocked_until > p_now then k.blocked_until end))
               when i.identity is not null then jsonb_build_object('by', 'later', 'reason', 'no token for ' || i.identity)
               when p_permits is not null then jsonb_build_object('by', 'later', 'reason', 'the rate of its queue was used up')
               when q.blocked_until > p_now then jsonb_build_object('by', 'limit', 'blockedUntil', q.blocked_until)
               when p_place = 'later' then jsonb_build_object('by', 'later')
               else jsonb_build_object('by', 'workers')
           end
      from queue.queue_settings s
      left join queue.rate_limit_tracking q on q.key = 'queue:' || s.queue
      left join queue.rate_limit_tracking k on k.key = p_key
      left join queue.identity_wait i on i.job_id = p_id
     where s.queue = p_queue
$$;

CREATE FUNCTION queue.hold_sync(p_round uuid, p_owner uuid) RETURNS boolean
    LANGUAGE sql
    AS $$
    select exists (
        select from queue.sync_history h where h.id = p_round and h.owner = p_owner and h.finished_at is null for update)
$$;

CREATE TABLE queue.queue_settings (
    queue text NOT NULL,
    class text NOT NULL,
    carries text NOT NULL,
    priority smallint NOT NULL,
    closed text DEFAULT ''::text NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    lease_seconds integer DEFAULT 45 NOT NULL,
    wake_size integer DEFAULT 16 NOT NULL,
    claim_batch integer DEFAULT 1 NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    rate_limit integer,
    rate_seconds double precision,
    concurrency integer,
    job_cost integer DEFAULT 1 NOT NULL,
    key_rate_limit integer,
    key_rate_seconds double precision,
    key_concurrency integer,
    key_scope text,
    key_fields jsonb,
    limits_changed_at timestamp with time zone,
    retry_delays jsonb,
    retry_delays_changed_at timestamp with time zone,
    ageing_seconds double precision,
    ageing_changed_at timestamp with time zone,
    CONSTRAINT queue_settings_ageing_seconds CHECK ((ageing_seconds > (0)::double precision)),
    CONSTRAINT queue_settings_claim_batch CHECK (((claim_batch >= 1) AND (claim_batch <= 1000))),
    CONSTRAINT queue_settings_concurrency CHECK ((concurrency > 0)),
    CONSTRAINT queue_settings_cost_fits CHECK ((job_cost <= rate_limit)),
    CONSTRAINT queue_settings_job_cost CHECK ((job_cost > 0)),
    CONSTRAINT queue_settings_key_concurrency CHECK ((key_concurrency > 0)),
    CONSTRAINT queue_settings_key_rate CHECK (((key_rate_limit IS NULL) = (key_rate_seconds IS NULL))),
    CONSTRAINT queue_settings_key_rate_limit CHECK ((key_rate_limit > 0)),
    CONSTRAINT queue_settings_key_rate_seconds CHECK ((key_rate_seconds > (0)::double precision)),
    CONSTRAINT queue_settings_lease CHECK (((lease_seconds >= 1) AND (lease_seconds <= 3600))),
    CONSTRAINT queue_settings_priority CHECK (((priority >= 1) AND (priority <= 10))),
    CONSTRAINT queue_settings_rate CHECK (((rate_limit IS NULL) = (rate_seconds IS NULL))),
    CONSTRAINT queue_settings_rate_limit CHECK ((rate_limit > 0)),
    CONSTRAINT queue_settings_rate_seconds CHECK ((rate_seconds > (0)::double precision)),
    CONSTRAINT queue_settings_retry_delays CHECK (queue.are_retry_delays(retry_delays)),
    CONSTRAINT queue_settings_wake_size CHECK (((wake_size >= 1) AND (wake_size <= 1000)))
);

CREATE FUNCTION queue.job_problem(e jsonb, s queue.queue_settings) RETURNS text
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION queue.keep_audit_log() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if tg_op = 'DELETE' and old.at < clock_timestamp() - interval '365 days' then
        return old;
    end if;
    raise exception using errcode = 'insufficient_privilege', message = format('the audit log takes no %s', lower(tg_op));
end
$$;

CREATE FUNCTION queue.keep_bucket(p_bucket timestamp with time zone, p_now boolean) RETURNS void
    LANGUAGE sql
    AS $$
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

CREATE FUNCTION queue.keep_hour(p_hour timestamp with time zone) RETURNS void
    LANGUAGE sql
    AS $$
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

CREATE FUNCTION queue.lane_of(e jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$
    select (e ->> 'queue') || ':' || split_part(e -> 'lane' ->> 'rule', '-', 1) || ':' || (e -> 'lane' ->> 'key')
$$;

CREATE FUNCTION queue.leave_keys(p_slots text[], p_held text[], p_holders uuid[]) RETURNS text[]
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.letter_of(p_job_id uuid, p_queue text, p_correlation_id text, p_class text, p_message text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
    select jsonb_build_object('job_id', p_job_id, 'queue', p_queue, 'correlation_id', p_correlation_id,
                              'error_class', p_class, 'error_message', p_message)
$$;

CREATE FUNCTION queue.limit_key_of(p_payload jsonb, p_scope text, p_fields jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    AS $$
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

CREATE FUNCTION queue.live_state(p_id uuid) RETURNS text
    LANGUAGE plpgsql
    AS $$
declare
    v_state text;
begin
    for v_look in 1..2 loop
        select case when l.attempt > 0 or l.effect_since is not null then 'retrying' else 'scheduled' end into v_state
          from queue.later l where l.id = p_id for update;
        if found then
            return v_state;
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

CREATE FUNCTION queue.make_partitions(p_days integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.message_names(p_channel text, p_direction text, p_account text, p_sender text, p_recipients text[], p_external_id text, p_internet_message_id text, p_recorded_at timestamp with time zone) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    select array_agg(distinct n.name)
      from (select lower(case when p_channel = 'teams' then substring(p.party from '[^/]*$') else p.party end) || ' '
                   || floor(extract(epoch from p_recorded_at at time zone 'UTC') / 604800)::integer as name
              from unnest(p_recipients || case when p_direction = 'in' then p_sender end) p(party)
             where p.party <> '' and lower(p.party) is distinct from lower(p_account)
               and not (p_channel = 'teams' and p.party like '%:%' and p.party not like '%/%')
            union all
            select case when p_channel = 'teams' then substring(p_external_id from '[^/]*$')
                        else trim(both '<>' from p_internet_message_id) end) n
     where n.name <> ''
$_$;

CREATE FUNCTION queue.must_exist(p_queue text) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
begin
    perform from queue.queue_settings s where s.queue = p_queue;
    if not found then
        raise exception using errcode = 'invalid_parameter_value', message = format('queue "%s" does not exist', p_queue);
    end if;
end
$$;

CREATE FUNCTION queue.new_id() RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    AS $$select uuidv7()$$;

CREATE FUNCTION queue.open_due(p_limit integer) RETURNS integer
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    v_count integer := cardinality(queue.open_due_keys(p_limit));
    v_resolved integer := 0;
    v_other uuid;
    v_state text;
    v_end record;
begin
    for v_other in
        select distinct d.depends_on from queue.dependency d
         where d.job_id in (select c.job_id from queue.dependency c where not c.checked order by c.job_id limit p_limit) and not d.checked
         order by d.depends_on
    loop
        -- Waits for whoever is ending it at this moment.
        perform from queue.later l where l.id = v_other for key share;
        perform from queue.waiting w where w.id = v_other for key share;
        perform from queue.job j where j.id = v_other for key share;
        select j.state into v_state from queue.jobs j where j.id = v_other;
        if v_state in ('completed', 'dead', 'cancelled') or v_state is null then
            select m.freed, m.resolved into v_end
              from queue.resolve_most(array[v_other], array[coalesce(v_state, 'completed')], p_limit) m;
            v_count := v_count + cardinality(v_end.freed);
            v_resolved := v_resolved + v_end.resolved;
            exit when v_resolved >= p_limit;
        else
            update queue.dependency d set checked = true where d.depends_on = v_other and not d.checked;
        end if;
    end loop;
    return case when v_resolved >= p_limit then greatest(v_count, p_limit) else v_count end;
end
$$;

CREATE FUNCTION queue.open_due_keys(p_limit integer) RETURNS text[]
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.open_key(p_key text, p_most integer) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.park(p_key text, p_is_lane boolean, p_but uuid[], p_most integer) RETURNS integer
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.pause(p_queue text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
    perform queue.must_exist(p_queue);
    update queue.queue_settings s set paused = true, updated_at = clock_timestamp() where s.queue = p_queue and not s.paused;
    return found;
end
$$;

CREATE FUNCTION queue.plan_schedule() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if tg_op = 'INSERT' or new.time_zone <> old.time_zone then
        perform clock_timestamp() at time zone new.time_zone;  -- an unknown zone is refused here and now
    end if;
    if tg_op = 'UPDATE' and new.planned_from = old.planned_from and new.next_run_at is not distinct from old.next_run_at
       and (new.cron <> old.cron or new.time_zone <> old.time_zone or old.paused and not new.paused) then
        new.planned_from := clock_timestamp();
        new.next_run_at := null;
        new.problem := null;
    end if;
    return new;
end
$$;

CREATE FUNCTION queue.promote_due(p_queue text, p_limit integer) RETURNS integer
    LANGUAGE sql
    AS $$
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

CREATE FUNCTION queue.read_resource(p_resource text, OUT resource text, OUT kind text) RETURNS record
    LANGUAGE sql IMMUTABLE
    AS $_$
    with spelled as (
        select regexp_replace(ltrim(btrim(p_resource), '/'), '/mailFolders/([^/()]+)/', '/mailFolders(''\1'')/') as path
    ),
    named as (
        select case when path ~ '^users/[^/]+/' then regexp_replace(path, '^users/[^/]+', lower(substring(path from '^users/[^/]+')))
                    else path end as path
          from spelled
    )
    select path, case
        when path ~ '^users/[^/?#()''\s]{1,200}/(mailFolders\(''[^/?#()''\s]{1,250}''\)/)?messages(\?\$select=[A-Za-z0-9,]{1,250})?$' then 'mail'
        when path ~ '^users/[^/?#()''\s]{1,200}/events(\?\$select=[A-Za-z0-9,]{1,250})?$' then 'event'
        when path ~ '^users/[^/?#()''\s]{1,200}/contacts(\?\$select=[A-Za-z0-9,]{1,250})?$' then 'contact'
        when path ~ '^chats/[^/?#()''\s]{1,200}/messages$' or path ~ '^users/[^/?#()''\s]{1,200}/chats/getAllMessages$' then 'chat'
        when path ~ '^teams/[^/?#()''\s]{1,200}/channels/[^/?#()''\s]{1,200}/messages$' then 'channel'
        when path ~ '^drives/[^/?#()''\s]{1,200}/root$' or path ~ '^users/[^/?#()''\s]{1,200}/drive/root$' then 'drive'
    end
      from named
$_$;

CREATE FUNCTION queue.redrive(p_job_id uuid, p_by text, p_uncertain text[] DEFAULT '{network,timeout,uncertain,unknown,worker-lost}'::text[]) RETURNS uuid
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.refuse_sign_ins(p_count integer) RETURNS bigint
    LANGUAGE sql
    AS $$
    insert into queue.refused_sign_in as r (minute, refusals) values (date_trunc('minute', clock_timestamp()), p_count)
    on conflict (minute) do update set refusals = r.refusals + excluded.refusals;
    delete from queue.refused_sign_in where minute < clock_timestamp() - interval '30 days';
    select coalesce(sum(refusals), 0)::bigint from queue.refused_sign_in
     where minute >= date_trunc('minute', clock_timestamp()) - interval '1 minute';
$$;

CREATE FUNCTION queue.refuse_watch(p_problem text, p_remedy text) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    raise exception using errcode = 'invalid_parameter_value', message = p_problem, hint = p_remedy;
end
$$;

CREATE FUNCTION queue.renew(p_ids uuid[], p_tokens uuid[], p_lease interval) RETURNS uuid[]
    LANGUAGE sql
    AS $$
    with held as (
        update queue.job j set lease_until = clock_timestamp() + p_lease
          from unnest(p_ids, p_tokens) u(id, token)
         where j.id = u.id and j.lease_token = u.token
        returning j.id
    )
    select array(select i from unnest(p_ids) i where i not in (select id from held))
$$;

CREATE FUNCTION queue.renew_leases(p_ids uuid[], p_tokens uuid[], p_lease interval) RETURNS TABLE(id uuid, lost boolean)
    LANGUAGE sql
    AS $$
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

CREATE FUNCTION queue.repair(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.request_ids(p_attempts jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    select array_agg(distinct lower(found.id #>> '{}'))
      from jsonb_path_query(p_attempts, '$[*].details.*[*] ? (@.type() == "object").keyvalue()
                                         ? (@.key == "request_id" || @.key == "client_request_id").value') found(id)
     where jsonb_typeof(found.id) = 'string'
$_$;

CREATE FUNCTION queue.reschedule(p_id uuid, p_priority integer DEFAULT NULL::integer, p_run_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(queue text, state text, freed integer)
    LANGUAGE plpgsql
    AS $$
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
    freed := 0;
    -- Its row is locked before the row of its key, as where a job is cancelled: who has the key's row waits for no job.
    for v_look in 1..4 loop
        select 'job' as place, j.queue, j.attempt, j.expires_at, j.lane, j.lane_rule, j.redrive_of,
               j.lease_token is not null as active, null as key
          into v_job from queue.job j where j.id = p_id for update;
        if not found then
            select 'later' as place, l.queue, l.attempt, l.expires_at, l.lane, l.lane_rule, l.redrive_of,
                   false as active, null as key
              into v_job from queue.later l where l.id = p_id for update;
        end if;
        if not found then
            select 'waiting' as place, w.queue, w.attempt, w.expires_at, w.lane, w.lane_rule, w.redrive_of,
                   false as active, w.key
              into v_job from queue.waiting w where w.id = p_id for update;
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
        state := case
            when v_job.place = 'waiting' and (v_job.key = '' or coalesce(p_run_at <= v_now, true)) then 'waiting'
            when p_run_at > v_now or p_run_at is null and v_job.place = 'later' then 'scheduled'
            else 'ready' end;
        if v_job.place = 'job' then
            update queue.job j set priority = coalesce(p_priority, j.priority), run_at = coalesce(p_run_at, j.run_at)
             where j.id = p_id;
        elsif v_job.place = 'later' then
            update queue.later l set priority = coalesce(p_priority, l.priority), run_at = coalesce(p_run_at, l.run_at)
             where l.id = p_id;
        else
            update queue.waiting w
               set priority = coalesce(p_priority, w.priority), run_at = coalesce(p_run_at, w.run_at),
                   rank = case when w.key = w.lane and w.lane_rule like 'order%' then 0 else coalesce(p_priority, w.priority) end
             where w.id = p_id;
        end if;
        if state = 'scheduled' and v_job.place <> 'later' then
            with ready as (
                delete from queue.job where id = p_id
                returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                          payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
            ),
            waiting as (
                delete from queue.waiting where id = p_id
                returning id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                          payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
            )
            insert into queue.later (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                     payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
            select * from ready union all select * from waiting;
        elsif state = 'ready' and v_job.place = 'later' then
            with moved as (delete from queue.later where id = p_id returning *)
            insert into queue.job (id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                                   payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits)
            select id, queue, priority, run_at, enqueued_at, attempt, correlation_id, idempotency_key, redrive_of, effect_since, expires_at,
                   payload, attempts, lane, lane_rule, lane_limit, limit_key, batch_id, progress, singleton_key, permits
              from moved;
        end if;
        -- Put off before its first attempt it leaves its place in its ordering key to the next. One that was tried keeps
        -- it, and so does one that stands for a dead job which blocks the key.
        if state = 'scheduled' and p_run_at > v_now and v_job.attempt = 0 and v_job.lane_rule like 'order%'
           and not (v_job.lane_rule = 'order-block' and v_job.redrive_of is not null) then
            freed := cardinality(queue.leave_keys('{}', array[v_job.lane], array[p_id]));
        end if;
        return next;
        return;
    end loop;
end
$$;

CREATE FUNCTION queue.resolve_dependents(p_ids uuid[], p_states text[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
begin
    return (queue.resolve_most(p_ids, p_states, 1000)).freed;
end
$$;

CREATE FUNCTION queue.resolve_most(p_ids uuid[], p_states text[], p_most integer, OUT freed text[], OUT resolved integer) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    v_ids uuid[] := p_ids;
    v_states text[] := p_states;
    v_jobs uuid[];
    v_free uuid[] := '{}';
    v_ended uuid[];
    v_ended_states text[];
    v_dep record;
    v_end record;
begin
    freed := '{}';
    resolved := 0;
    loop
        v_jobs := array(select d.job_id from queue.dependency d where d.depends_on = any(v_ids) limit p_most - resolved);
        exit when v_jobs = '{}';
        resolved := resolved + cardinality(v_jobs);
        perform from queue.waiting w where w.id = any(v_jobs) order by w.id for update;
        v_ended := '{}';
        v_ended_states := '{}';
        for v_dep in
            with gone as (
                delete from queue.dependency d using unnest(v_ids, v_states) u(id, state)
                 where d.depends_on = u.id and d.job_id = any(v_jobs)
                returning d.job_id, d.rule, u.id as other, u.state
            )
            select distinct on (g.job_id) g.job_id, g.other, g.state,
                   case when g.state = 'completed' or g.rule = 'run' then 'run' else g.rule end as verdict
              from gone g
             order by g.job_id, (g.state = 'completed' or g.rule = 'run')
        loop
            if v_dep.verdict = 'run' then
                v_free := v_free || v_dep.job_id;
                continue;
            end if;
            select e.ids, e.freed into v_end
              from queue.end_alone(
                  array[v_dep.job_id], case v_dep.verdict when 'die' then 'dead' else 'cancelled' end, 'dependency',
                  format('job %s, which it depends on, ended as %s', v_dep.other, v_dep.state), null) e;
            v_ended := v_ended || v_end.ids;
            v_ended_states := v_ended_states
                || array_fill(case v_dep.verdict when 'die' then 'dead' else 'cancelled' end, array[cardinality(v_end.ids)]);
            freed := freed || v_end.freed;
        end loop;
        v_ids := v_ids || v_ended;
        v_states := v_states || v_ended_states;
    end loop;
    if resolved >= p_most then
        -- The relay looks at what is not checked.
        update queue.dependency d set checked = false where d.depends_on = any(v_ids) and d.checked;
    end if;
    freed := freed || queue.free_dependents(v_free);
end
$$;

CREATE FUNCTION queue.resume(p_queue text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
    perform queue.must_exist(p_queue);
    update queue.queue_settings s set paused = false, updated_at = clock_timestamp() where s.queue = p_queue and s.paused;
    return found;
end
$$;

CREATE FUNCTION queue.retry_now(p_id uuid) RETURNS text
    LANGUAGE sql
    AS $$
    with due as (
        update queue.later set run_at = least(run_at, clock_timestamp()) where id = p_id returning id
    )
    select (queue.reschedule(d.id, null, clock_timestamp())).queue from due d
$$;

CREATE FUNCTION queue.runnable(p_cap integer) RETURNS TABLE(queue text, jobs integer)
    LANGUAGE sql STABLE
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.save_progress(p_id uuid, p_token uuid, p_progress jsonb) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
    update queue.job j set progress = p_progress where j.id = p_id and j.lease_token = p_token;
    return found;
end
$$;

CREATE TABLE queue.communication_logs (
    id uuid DEFAULT queue.new_id() NOT NULL,
    direction text NOT NULL,
    channel text NOT NULL,
    external_id text NOT NULL,
    account text,
    thread_id text,
    sender text,
    recipients text[] DEFAULT '{}'::text[] NOT NULL,
    subject text,
    body text NOT NULL,
    body_type text NOT NULL,
    text text NOT NULL,
    internet_message_id text,
    occurred_at timestamp with time zone,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    job_id uuid,
    correlation_id text,
    raw jsonb DEFAULT '{}'::jsonb NOT NULL,
    edited_at timestamp with time zone,
    deleted_at timestamp with time zone,
    automatic boolean DEFAULT false NOT NULL,
    CONSTRAINT communication_logs_body_type CHECK ((body_type = ANY (ARRAY['text'::text, 'html'::text]))),
    CONSTRAINT communication_logs_channel CHECK ((channel = ANY (ARRAY['teams'::text, 'outlook'::text]))),
    CONSTRAINT communication_logs_direction CHECK ((direction = ANY (ARRAY['in'::text, 'out'::text])))
);

CREATE FUNCTION queue.search_messages(words text, most integer DEFAULT 50) RETURNS SETOF queue.communication_logs
    LANGUAGE sql STABLE
    AS $$
    select *
      from queue.communication_logs
     where queue.searchable(subject, text) @@ websearch_to_tsquery('pg_catalog.simple', words)
     order by occurred_at desc nulls last, id
     limit most
$$;

CREATE FUNCTION queue.searchable(subject text, content text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select to_tsvector('pg_catalog.simple', left(coalesce(subject, '') || ' ' || coalesce(content, ''), 100000))
$$;

CREATE FUNCTION queue.set_ageing(p_queue text, p_every interval) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.set_limits(p_queue text, p_limits jsonb) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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
     where t.wake_at > clock_timestamp() and coalesce(t.blocked_until <= clock_timestamp(), true)
       and exists (select from queue.waiting w where w.key = t.key and w.queue = p_queue);
exception when check_violation then
    raise exception using errcode = 'invalid_parameter_value',
        message = 'limits: every one is 1 or more, a rate has a window, and a job''s cost is not above the rate';
end
$$;

CREATE FUNCTION queue.set_retry_delays(p_queue text, p_delays jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.settle(p_settlements jsonb, p_only_expired boolean DEFAULT false) RETURNS uuid[]
    LANGUAGE sql
    AS $$
    select o.lost from queue.end_attempts(p_settlements, p_only_expired) o
$$;

CREATE FUNCTION queue.settle_and_claim(p_settlements jsonb, p_queue text, p_limit integer, p_worker text, p_lease interval) RETURNS TABLE(lost uuid[], id uuid, priority smallint, run_at timestamp with time zone, attempt smallint, lease_token uuid, correlation_id text, enqueued_at timestamp with time zone, redrive_of uuid, effect_since timestamp with time zone, attempts text, payload text)
    LANGUAGE sql
    AS $$
    select t.lost, t.id, t.priority, t.run_at, t.attempt, t.lease_token, t.correlation_id, t.enqueued_at, t.redrive_of,
           t.effect_since, t.attempts, t.payload
      from queue.end_and_take(p_settlements, p_queue, p_limit, p_worker, p_lease) t
$$;

CREATE TABLE queue.rate_limit_tracking (
    key text NOT NULL,
    in_use integer DEFAULT 0 NOT NULL,
    holder uuid,
    blocked_until timestamp with time zone,
    wake_at timestamp with time zone,
    reserved_until timestamp with time zone,
    window_seconds double precision,
    bucket bigint DEFAULT 0 NOT NULL,
    counts integer[],
    CONSTRAINT rate_limit_tracking_times CHECK ((isfinite(blocked_until) AND isfinite(wake_at)))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='1000');

CREATE FUNCTION queue.slots_at(t queue.rate_limit_tracking, p_seconds double precision, p_now timestamp with time zone, OUT slot bigint, OUT slots integer[]) RETURNS record
    LANGUAGE plpgsql IMMUTABLE
    AS $$
declare
    v_age integer;
begin
    slot := floor(extract(epoch from p_now)::float8 / (p_seconds / 20))::bigint;
    if t.counts is null then
        slots := array_fill(0, array[21]);
    elsif t.window_seconds = p_seconds then
        slot := greatest(t.bucket, slot);
        v_age := least(21, slot - t.bucket);
        slots := (array_fill(0, array[v_age]) || t.counts)[1:21];
    else
        slots := array(
            select coalesce(sum(c.n), 0)::integer
              from generate_series(0, 20) as age
              left join unnest(t.counts) with ordinality c(n, i)
                on slot - age = least(slot, floor((t.bucket - c.i + 2) * t.window_seconds / p_seconds)::bigint)
             group by age order by age);
    end if;
end
$$;

CREATE FUNCTION queue.slots_free(p_slots integer[], p_limit integer) RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$
    select p_limit - sum(c)::integer from unnest(p_slots) c
$$;

CREATE FUNCTION queue.slots_free_at(p_slots integer[], p_bucket bigint, p_seconds double precision, p_limit integer, p_n integer) RETURNS timestamp with time zone
    LANGUAGE plpgsql IMMUTABLE
    AS $$
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

CREATE FUNCTION queue.statistics_of(p_from timestamp with time zone, p_until timestamp with time zone, p_step interval, p_hours boolean, p_queue text DEFAULT NULL::text) RETURNS TABLE(queue text, step_at timestamp with time zone, enqueued bigint, completed bigint, failed bigint, dead bigint, cancelled bigint, processed bigint, processing_seconds double precision, latency bigint[], failures jsonb, slowest jsonb, ready bigint, active bigint, scheduled bigint, waiting bigint, dead_letters bigint, oldest_ready_seconds double precision)
    LANGUAGE sql STABLE
    AS $$
    with kept as materialized (
        select k.*, date_bin(p_step, k.bucket_at, p_from) as step_at from queue.queue_statistics k
         where not p_hours and k.bucket_at >= p_from and k.bucket_at < p_until and (p_queue is null or k.queue = p_queue)
        union all
        select k.*, date_bin(p_step, k.bucket_at, p_from) from queue.queue_statistics_hour k
         where p_hours and k.bucket_at >= p_from and k.bucket_at < p_until and (p_queue is null or k.queue = p_queue)
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
               max(k.dead_letters) as dead_letters, max(k.oldest_ready_seconds) as oldest_ready_seconds,
               case when count(k.latency) > 0 then array[
                   sum(k.latency[1]), sum(k.latency[2]), sum(k.latency[3]), sum(k.latency[4]),
                   sum(k.latency[5]), sum(k.latency[6]), sum(k.latency[7]), sum(k.latency[8]),
                   sum(k.latency[9]), sum(k.latency[10]), sum(k.latency[11]), sum(k.latency[12]),
                   sum(k.latency[13]), sum(k.latency[14]), sum(k.latency[15]), sum(k.latency[16]),
                   sum(k.latency[17]), sum(k.latency[18]), sum(k.latency[19]), sum(k.latency[20]),
                   sum(k.latency[21]), sum(k.latency[22]), sum(k.latency[23]), sum(k.latency[24]),
                   sum(k.latency[25]), sum(k.latency[26]), sum(k.latency[27]), sum(k.latency[28]),
                   sum(k.latency[29]), sum(k.latency[30]), sum(k.latency[31]), sum(k.latency[32]),
                   sum(k.latency[33]), sum(k.latency[34]), sum(k.latency[35]), sum(k.latency[36]),
                   sum(k.latency[37]), sum(k.latency[38]), sum(k.latency[39]), sum(k.latency[40]),
                   sum(k.latency[41]), sum(k.latency[42]), sum(k.latency[43]), sum(k.latency[44]),
                   sum(k.latency[45]), sum(k.latency[46]), sum(k.latency[47]), sum(k.latency[48]),
                   sum(k.latency[49]), sum(k.latency[50]), sum(k.latency[51]), sum(k.latency[52]),
                   sum(k.latency[53]), sum(k.latency[54]), sum(k.latency[55]), sum(k.latency[56])
               ]::bigint[] end as latency
          from kept k group by 1, 2
    )
    select s.queue, s.step_at, s.enqueued, s.completed, s.failed, s.dead, s.cancelled, s.processed, s.processing_seconds, s.latency,
           f.failures, w.slowest, s.ready, s.active, s.scheduled, s.waiting, s.dead_letters, s.oldest_ready_seconds
      from sums s
      left join failures f on f.queue = s.queue and f.step_at = s.step_at
      left join slow w on w.queue = s.queue and w.step_at = s.step_at
$$;

CREATE FUNCTION queue.take(p_queue text, p_limit integer, p_worker text, p_lease interval) RETURNS TABLE(wait_seconds double precision, id uuid, priority smallint, run_at timestamp with time zone, attempt smallint, lease_token uuid, correlation_id text, enqueued_at timestamp with time zone, redrive_of uuid, effect_since timestamp with time zone, attempts text, payload text, progress text, batch_id uuid, permits integer)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.take_permits(p_queue text, p_n integer) RETURNS double precision
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.take_turn(p_timer text, p_at_most interval) RETURNS uuid
    LANGUAGE sql
    AS $$
    insert into queue.timer_turn as t (timer, token, taken_until, last_started_at)
    values (p_timer, gen_random_uuid(), clock_timestamp() + p_at_most, clock_timestamp())
    on conflict (timer) do update
       set token = excluded.token, taken_until = excluded.taken_until, last_started_at = excluded.last_started_at
     where t.taken_until is null or t.taken_until < clock_timestamp()
    returning t.token
$$;

CREATE FUNCTION queue.try_keys(p_id uuid, s queue.queue_settings, p_chosen uuid[], OUT chosen uuid, OUT wait_until timestamp with time zone, OUT locked text, OUT parked integer) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    v_j record;
    v_lane queue.rate_limit_tracking;
    v_limit queue.rate_limit_tracking;
    v_now timestamptz;
    v_slot bigint;
    v_slots integer[];
    v_head uuid;
    v_head_run_at timestamptz;
    v_away uuid;
    v_held boolean := false;
begin
    parked := 0;
    select j.id, j.lane, j.lane_rule, j.lane_limit, j.limit_key into v_j
      from queue.job j where j.id = p_id and j.lease_token is null;
    if not found then
        return;
    end if;

    if v_j.lane is not null then
        select * into v_lane from queue.rate_limit_tracking t where t.key = v_j.lane for update skip locked;
        if not found and queue.add_key(v_j.lane) then
            select * into v_lane from queue.rate_limit_tracking t where t.key = v_j.lane for update skip locked;
        end if;
        if v_lane.key is null then
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
            select j.id, j.run_at into v_head, v_head_run_at from queue.job j
             where j.lane = v_j.lane and j.lease_token is null order by j.run_at, j.id limit 1;
            select w.id into v_away from queue.waiting w
             where w.lane = v_j.lane and w.lane_rule like 'order%' and w.key <> '' and w.key <> w.lane
               and (w.run_at, w.id) < (v_head_run_at, v_head)
             order by w.run_at, w.id limit 1;
            if found then
                perform from queue.waiting w where w.id = v_away for update skip locked;
                if not found then
                    locked := v_lane.key;
                    return;
                end if;
                update queue.rate_limit_tracking t set holder = v_away where t.key = v_j.lane;
                parked := queue.park(v_j.lane, true, p_chosen, 1000);
                return;
            end if;
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
        select * into v_limit from queue.rate_limit_tracking t where t.key = v_j.limit_key for update skip locked;
        if not found and queue.add_key(v_j.limit_key) then
            select * into v_limit from queue.rate_limit_tracking t where t.key = v_j.limit_key for update skip locked;
        end if;
        if v_limit.key is null then
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

CREATE FUNCTION queue.unpark(p_key text, p_most integer, p_run_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS text[]
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION queue.unwatch(resource text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
declare
    v_resource text;
begin
    select r.resource into v_resource from queue.read_resource(resource) r;
    update queue.watched_resources w
       set ended_at = clock_timestamp(), due_at = clock_timestamp(), tries = 0, problem = null, problem_since = null
     where w.resource = v_resource and w.ended_at is null;
    if not found then
        return false;
    end if;
    perform queue.ask_for_upkeep();
    return true;
end
$$;

CREATE FUNCTION queue.verdict(p_outcome text, p_delay_seconds double precision, p_stop_requested_at timestamp with time zone, p_expires_at timestamp with time zone, p_now timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    select case
               when p_stop_requested_at is not null and p_outcome in ('retry', 'deferred', 'released') then 'cancelled'
               when p_outcome = 'retry' and p_expires_at <= p_now + make_interval(secs => p_delay_seconds) then 'expired'
               when p_outcome = 'retry' and p_delay_seconds = 0 then 'ready'
               else p_outcome
           end
$$;

CREATE FUNCTION queue.watch(resource text, change_types text DEFAULT NULL::text, include_resource_data boolean DEFAULT false, sync_user text DEFAULT NULL::text) RETURNS uuid
    LANGUAGE plpgsql
    AS $_$
#variable_conflict use_variable
declare
    v_resource text;
    v_kind text;
    v_types text;
    v_named boolean;
    v_id uuid;
begin
    select r.resource, r.kind into v_resource, v_kind from queue.read_resource(resource) r;
    if v_kind is null then
        perform queue.refuse_watch('resource: it is none that can be watched', 'Give one of users/{id}/messages, '
            'users/{id}/mailFolders(''{folder}'')/messages, users/{id}/events, users/{id}/contacts, users/{id}/chats/getAllMessages, '
            'users/{id}/drive/root, chats/{id}/messages, teams/{id}/channels/{id}/messages, drives/{id}/root.');
    end if;
    select string_agg(distinct btrim(t), ',' order by btrim(t)) into v_types
      from unnest(string_to_array(coalesce(change_types, case v_kind when 'drive' then 'updated' else 'created,updated,deleted' end), ',')) t;
    if v_types is null or exists (select from unnest(string_to_array(v_types, ',')) t where t not in ('created', 'updated', 'deleted')) then
        perform queue.refuse_watch('change_types: one of them is not known', 'Give created, updated and deleted, or some of them, separated by commas.');
    end if;
    if v_kind = 'drive' and v_types <> 'updated' then
        perform queue.refuse_watch('change_types: a drive has updated only', 'Give updated, or leave it out.');
    end if;
    if include_resource_data is null or (v_kind = 'drive' and include_resource_data) then
        perform queue.refuse_watch('include_resource_data: a drive''s notifications carry no data', 'Give false, or leave it out.');
    end if;
    if include_resource_data and v_kind in ('mail', 'event', 'contact') and v_resource !~ '\?\$select=' then
        perform queue.refuse_watch('resource: Outlook sends data of named properties only', 'Add ?$select= and their names, for instance ?$select=subject,from.');
    end if;
    if not include_resource_data and v_resource ~ '\?' then
        perform queue.refuse_watch('resource: $select goes with include_resource_data', 'Leave ?$select= out, or set include_resource_data.');
    end if;
    v_named := v_resource ~ '^(users|teams)/';
    if v_named and sync_user is not null then
        perform queue.refuse_watch('sync_user: the resource names its owner itself', 'Leave it out.');
    end if;
    if not v_named and (sync_user is null or sync_user !~ '^[^/?#\s]{1,200}$') then
        perform queue.refuse_watch('sync_user: it must be the id of a user', 'Name a member of the chat or the owner of the drive: their sync makes up for missed notifications.');
    end if;
    insert into queue.watched_resources as w (resource, kind, change_types, include_resource_data, sync_user)
    values (v_resource, v_kind, v_types, include_resource_data, sync_user)
    on conflict on constraint watched_resources_resource do update
       set change_types = excluded.change_types, include_resource_data = excluded.include_resource_data,
           sync_user = excluded.sync_user, ended_at = null, due_at = clock_timestamp(), tries = 0,
           problem = null, problem_since = null
     where (w.change_types, w.include_resource_data, w.ended_at is null)
           is distinct from (excluded.change_types, excluded.include_resource_data, true)
        or w.sync_user is distinct from excluded.sync_user or w.problem is not null
    returning w.id into v_id;
    if v_id is null then
        select w.id into v_id from queue.watched_resources w where w.resource = v_resource;
        return v_id;
    end if;
    perform queue.ask_for_upkeep();
    return v_id;
end
$_$;

CREATE TABLE queue.alert_state (
    alert_key text NOT NULL,
    breached_since timestamp with time zone,
    calm_since timestamp with time zone
);

CREATE TABLE queue.alert_thresholds (
    rule text NOT NULL,
    scope text DEFAULT ''::text NOT NULL,
    warning double precision,
    critical double precision,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    changed_by text NOT NULL,
    CONSTRAINT alert_thresholds_order CHECK ((warning <= critical))
);

CREATE TABLE queue.attachments (
    id uuid DEFAULT queue.new_id() NOT NULL,
    communication_id uuid NOT NULL,
    external_id text NOT NULL,
    name text NOT NULL,
    content_type text,
    size_bytes bigint,
    is_inline boolean DEFAULT false NOT NULL,
    kind text NOT NULL,
    state text DEFAULT 'recorded'::text NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL
);

CREATE TABLE queue.audit_log (
    id uuid DEFAULT queue.new_id() NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    who text NOT NULL,
    kind text NOT NULL,
    role text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    before jsonb,
    after jsonb,
    correlation_id text NOT NULL
);

CREATE TABLE queue.batch (
    id uuid NOT NULL,
    total integer DEFAULT 0 NOT NULL,
    completed integer DEFAULT 0 NOT NULL,
    dead integer DEFAULT 0 NOT NULL,
    cancelled integer DEFAULT 0 NOT NULL,
    callback jsonb,
    callback_id uuid,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone
);

CREATE TABLE queue.calendar_events (
    id uuid DEFAULT queue.new_id() NOT NULL,
    account text NOT NULL,
    external_id text NOT NULL,
    ical_uid text,
    type text,
    series_master_id text,
    subject text,
    preview text,
    start_at timestamp with time zone,
    start_time_zone text,
    end_at timestamp with time zone,
    end_time_zone text,
    is_all_day boolean,
    is_cancelled boolean,
    is_online_meeting boolean,
    online_meeting_url text,
    show_as text,
    sensitivity text,
    importance text,
    organizer_name text,
    organizer_address text,
    attendees jsonb,
    location text,
    recurrence jsonb,
    categories text[],
    response text,
    web_link text,
    etag text,
    modified_at timestamp with time zone,
    deleted_at timestamp with time zone,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    raw jsonb DEFAULT '{}'::jsonb NOT NULL
);

CREATE VIEW queue.calendar AS
 SELECT e.account,
    e.external_id,
    COALESCE(e.ical_uid, m.ical_uid) AS ical_uid,
    e.type,
    e.series_master_id,
    COALESCE(e.subject, m.subject) AS subject,
    COALESCE(e.preview, m.preview) AS preview,
    e.start_at,
    COALESCE(e.start_time_zone, m.start_time_zone) AS start_time_zone,
    e.end_at,
    COALESCE(e.end_time_zone, m.end_time_zone) AS end_time_zone,
    COALESCE(e.is_all_day, m.is_all_day) AS is_all_day,
    COALESCE(e.is_cancelled, m.is_cancelled) AS is_cancelled,
    COALESCE(e.show_as, m.show_as) AS show_as,
    COALESCE(e.organizer_name, m.organizer_name) AS organizer_name,
    COALESCE(e.organizer_address, m.organizer_address) AS organizer_address,
    COALESCE(e.attendees, m.attendees) AS attendees,
    COALESCE(e.location, m.location) AS location,
    COALESCE(e.online_meeting_url, m.online_meeting_url) AS online_meeting_url,
    COALESCE(e.web_link, m.web_link) AS web_link,
    e.updated_at
   FROM (queue.calendar_events e
     LEFT JOIN queue.calendar_events m ON (((m.account = e.account) AND (m.external_id = e.series_master_id))))
  WHERE ((e.deleted_at IS NULL) AND (e.type IS DISTINCT FROM 'seriesMaster'::text));

CREATE TABLE queue.contacts (
    id uuid DEFAULT queue.new_id() NOT NULL,
    account text NOT NULL,
    external_id text NOT NULL,
    folder_id text,
    display_name text,
    given_name text,
    surname text,
    company_name text,
    job_title text,
    department text,
    email_addresses text[],
    mobile_phone text,
    business_phones text[],
    home_phones text[],
    categories text[],
    notes text,
    etag text,
    modified_at timestamp with time zone,
    deleted_at timestamp with time zone,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    raw jsonb DEFAULT '{}'::jsonb NOT NULL
);

CREATE TABLE queue.daily_report (
    day date NOT NULL,
    made_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    figures jsonb NOT NULL,
    subject text NOT NULL,
    html text NOT NULL
);

CREATE TABLE queue.dead_letter_queue (
    id uuid DEFAULT queue.new_id() NOT NULL,
    job_id uuid,
    source text,
    queue text NOT NULL,
    error_class text NOT NULL,
    error_message text NOT NULL,
    body text,
    died_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    reviewed_at timestamp with time zone,
    reviewed_by text,
    review_note text,
    redriven_at timestamp with time zone,
    redriven_by text,
    redriven_job_id uuid,
    alerted_at timestamp with time zone,
    discarded_at timestamp with time zone,
    discarded_by text,
    names bytea[],
    CONSTRAINT dead_letter_discarded CHECK (((discarded_at IS NULL) = (discarded_by IS NULL))),
    CONSTRAINT dead_letter_origin CHECK (((job_id IS NULL) <> (source IS NULL))),
    CONSTRAINT dead_letter_redriven CHECK (((redriven_at IS NULL) = (redriven_by IS NULL))),
    CONSTRAINT dead_letter_reviewed CHECK (((reviewed_at IS NULL) = (reviewed_by IS NULL)))
);

CREATE TABLE queue.delivery_failures (
    id uuid DEFAULT queue.new_id() NOT NULL,
    internet_message_id text NOT NULL,
    recipient text NOT NULL,
    status text NOT NULL,
    diagnostic text NOT NULL,
    report_id text NOT NULL,
    account text NOT NULL,
    reported_at timestamp with time zone NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE queue.delta_links (
    resource text NOT NULL,
    link text,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    resource_type text DEFAULT ''::text NOT NULL,
    account text DEFAULT ''::text NOT NULL,
    parent text,
    parent_pass bigint,
    state text DEFAULT 'new'::text NOT NULL,
    is_full boolean DEFAULT true NOT NULL,
    pass bigint DEFAULT 0 NOT NULL,
    full_pass bigint DEFAULT 0 NOT NULL,
    stale_pages integer DEFAULT 0 NOT NULL,
    round_id uuid,
    version bigint DEFAULT 0 NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    resynced_at timestamp with time zone,
    CONSTRAINT delta_links_pass CHECK (((state <> 'pass'::text) OR (link IS NOT NULL))),
    CONSTRAINT delta_links_state CHECK ((state = ANY (ARRAY['new'::text, 'pass'::text, 'ready'::text])))
);

CREATE TABLE queue.dependency (
    job_id uuid NOT NULL,
    depends_on uuid NOT NULL,
    rule text NOT NULL,
    checked boolean DEFAULT false NOT NULL,
    CONSTRAINT dependency_rule CHECK ((rule = ANY (ARRAY['die'::text, 'cancel'::text, 'run'::text])))
);

CREATE TABLE queue.files (
    id uuid DEFAULT queue.new_id() NOT NULL,
    account text NOT NULL,
    external_id text NOT NULL,
    drive_id text,
    parent_id text,
    name text,
    is_folder boolean,
    size_bytes bigint,
    mime_type text,
    quick_xor_hash text,
    sha1_hash text,
    sha256_hash text,
    web_url text,
    created_by text,
    modified_by text,
    is_malware boolean,
    etag text,
    ctag text,
    modified_at timestamp with time zone,
    deleted_at timestamp with time zone,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    raw jsonb DEFAULT '{}'::jsonb NOT NULL
);

CREATE TABLE queue.idempotency (
    queue text NOT NULL,
    key text NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE queue.identity_wait (
    job_id uuid NOT NULL,
    identity text NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE queue.job (
    id uuid NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    run_at timestamp with time zone NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    lease_token uuid,
    lease_until timestamp with time zone,
    leased_by text,
    started_at timestamp with time zone,
    correlation_id text,
    idempotency_key text,
    redrive_of uuid,
    effect_since timestamp with time zone,
    payload jsonb NOT NULL,
    attempts jsonb,
    expires_at timestamp with time zone,
    stop_requested_at timestamp with time zone,
    lane text,
    lane_rule text,
    lane_limit integer,
    limit_key text,
    batch_id uuid,
    progress jsonb,
    singleton_key text,
    permits integer,
    CONSTRAINT job_expires_at CHECK (isfinite(expires_at)),
    CONSTRAINT job_lease CHECK ((((lease_token IS NULL) = (lease_until IS NULL)) AND ((lease_token IS NULL) = (leased_by IS NULL)) AND ((lease_token IS NULL) = (started_at IS NULL)))),
    CONSTRAINT job_priority CHECK (((priority >= 1) AND (priority <= 10))),
    CONSTRAINT job_stop_requested CHECK (((stop_requested_at IS NULL) OR (lease_token IS NOT NULL))),
    CONSTRAINT job_times CHECK ((isfinite(run_at) AND isfinite(enqueued_at)))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='2000');

CREATE TABLE queue.job_tracking (
    id uuid NOT NULL,
    queue text NOT NULL,
    state text NOT NULL,
    priority smallint NOT NULL,
    run_at timestamp with time zone NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    attempt smallint NOT NULL,
    correlation_id text,
    idempotency_key text,
    redrive_of uuid,
    effect_since timestamp with time zone,
    payload jsonb NOT NULL,
    attempts jsonb,
    result jsonb,
    error_class text,
    error_message text,
    expires_at timestamp with time zone,
    lane text,
    lane_rule text,
    lane_limit integer,
    limit_key text,
    batch_id uuid,
    progress jsonb,
    singleton_key text,
    CONSTRAINT job_tracking_error CHECK (((state = 'dead'::text) = (error_class IS NOT NULL))),
    CONSTRAINT job_tracking_state CHECK ((state = ANY (ARRAY['completed'::text, 'dead'::text, 'cancelled'::text])))
)
PARTITION BY RANGE (finished_at);

CREATE TABLE queue.later (
    id uuid NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    run_at timestamp with time zone NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    correlation_id text,
    idempotency_key text,
    redrive_of uuid,
    effect_since timestamp with time zone,
    payload jsonb NOT NULL,
    attempts jsonb,
    expires_at timestamp with time zone,
    lane text,
    lane_rule text,
    lane_limit integer,
    limit_key text,
    batch_id uuid,
    progress jsonb,
    singleton_key text,
    permits integer,
    CONSTRAINT later_expires_at CHECK (isfinite(expires_at)),
    CONSTRAINT later_priority CHECK (((priority >= 1) AND (priority <= 10))),
    CONSTRAINT later_times CHECK ((isfinite(run_at) AND isfinite(enqueued_at)))
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='2000');

CREATE TABLE queue.waiting (
    id uuid NOT NULL,
    queue text NOT NULL,
    key text NOT NULL,
    priority smallint NOT NULL,
    run_at timestamp with time zone NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    correlation_id text,
    idempotency_key text,
    redrive_of uuid,
    effect_since timestamp with time zone,
    payload jsonb NOT NULL,
    attempts jsonb,
    expires_at timestamp with time zone,
    lane text,
    lane_rule text,
    lane_limit integer,
    limit_key text,
    batch_id uuid,
    progress jsonb,
    singleton_key text,
    permits integer,
    rank smallint DEFAULT 0 NOT NULL,
    CONSTRAINT waiting_expires_at CHECK (isfinite(expires_at)),
    CONSTRAINT waiting_priority CHECK (((priority >= 1) AND (priority <= 10))),
    CONSTRAINT waiting_times CHECK ((isfinite(run_at) AND isfinite(enqueued_at)))
);

CREATE VIEW queue.jobs AS
 SELECT job.id,
    job.queue,
        CASE
            WHEN (job.lease_token IS NULL) THEN 'ready'::text
            ELSE 'active'::text
        END AS state,
    job.priority,
    job.run_at,
    job.enqueued_at,
    job.started_at,
    NULL::timestamp with time zone AS finished_at,
    job.attempt,
    job.correlation_id,
    job.idempotency_key,
    job.redrive_of,
    job.effect_since,
    job.payload,
    job.attempts,
    NULL::jsonb AS result,
    NULL::text AS error_class,
    NULL::text AS error_message,
    job.lease_until,
    job.leased_by,
    job.expires_at,
    job.stop_requested_at,
    job.lane,
    job.limit_key,
    job.batch_id,
    job.progress,
    job.singleton_key
   FROM queue.job
UNION ALL
 SELECT later.id,
    later.queue,
    'scheduled'::text AS state,
    later.priority,
    later.run_at,
    later.enqueued_at,
    NULL::timestamp with time zone AS started_at,
    NULL::timestamp with time zone AS finished_at,
    later.attempt,
    later.correlation_id,
    later.idempotency_key,
    later.redrive_of,
    later.effect_since,
    later.payload,
    later.attempts,
    NULL::jsonb AS result,
    NULL::text AS error_class,
    NULL::text AS error_message,
    NULL::timestamp with time zone AS lease_until,
    NULL::text AS leased_by,
    later.expires_at,
    NULL::timestamp with time zone AS stop_requested_at,
    later.lane,
    later.limit_key,
    later.batch_id,
    later.progress,
    later.singleton_key
   FROM queue.later
UNION ALL
 SELECT waiting.id,
    waiting.queue,
    'waiting'::text AS state,
    waiting.priority,
    waiting.run_at,
    waiting.enqueued_at,
    NULL::timestamp with time zone AS started_at,
    NULL::timestamp with time zone AS finished_at,
    waiting.attempt,
    waiting.correlation_id,
    waiting.idempotency_key,
    waiting.redrive_of,
    waiting.effect_since,
    waiting.payload,
    waiting.attempts,
    NULL::jsonb AS result,
    NULL::text AS error_class,
    NULL::text AS error_message,
    NULL::timestamp with time zone AS lease_until,
    NULL::text AS leased_by,
    waiting.expires_at,
    NULL::timestamp with time zone AS stop_requested_at,
    waiting.lane,
    waiting.limit_key,
    waiting.batch_id,
    waiting.progress,
    waiting.singleton_key
   FROM queue.waiting
UNION ALL
 SELECT job_tracking.id,
    job_tracking.queue,
    job_tracking.state,
    job_tracking.priority,
    job_tracking.run_at,
    job_tracking.enqueued_at,
    job_tracking.started_at,
    job_tracking.finished_at,
    job_tracking.attempt,
    job_tracking.correlation_id,
    job_tracking.idempotency_key,
    job_tracking.redrive_of,
    job_tracking.effect_since,
    job_tracking.payload,
    job_tracking.attempts,
    job_tracking.result,
    job_tracking.error_class,
    job_tracking.error_message,
    NULL::timestamp with time zone AS lease_until,
    NULL::text AS leased_by,
    job_tracking.expires_at,
    NULL::timestamp with time zone AS stop_requested_at,
    job_tracking.lane,
    job_tracking.limit_key,
    job_tracking.batch_id,
    job_tracking.progress,
    job_tracking.singleton_key
   FROM queue.job_tracking;

CREATE TABLE queue.notification_gaps (
    id uuid DEFAULT queue.new_id() NOT NULL,
    gap_key text NOT NULL,
    resource text NOT NULL,
    subscription_id text NOT NULL,
    reason text NOT NULL,
    from_at timestamp with time zone,
    until_at timestamp with time zone NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    job_id uuid,
    CONSTRAINT notification_gaps_reason CHECK ((reason = ANY (ARRAY['new'::text, 'expired'::text, 'removed'::text, 'gone'::text, 'replaced'::text, 'adopted'::text, 'missed'::text])))
);

CREATE TABLE queue.notification_routes (
    user_id text NOT NULL,
    channels text[] NOT NULL,
    endpoint text,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT notification_routes_channels CHECK ((((cardinality(channels) >= 1) AND (cardinality(channels) <= 3)) AND (array_position(channels, NULL::text) IS NULL) AND (channels <@ ARRAY['teams-activity'::text, 'push'::text, 'webhook'::text]))),
    CONSTRAINT notification_routes_endpoint CHECK (((NOT ('webhook'::text = ANY (channels))) OR (endpoint IS NOT NULL)))
);

CREATE TABLE queue.outgoing_events (
    "position" bigint NOT NULL,
    id uuid DEFAULT queue.new_id() NOT NULL,
    kind text NOT NULL,
    communication_id uuid NOT NULL,
    job_id uuid,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT outgoing_events_kind CHECK ((kind = ANY (ARRAY['message.received'::text, 'message.edited'::text, 'message.deleted'::text, 'message.restored'::text])))
);

ALTER TABLE queue.outgoing_events ALTER COLUMN "position" ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME queue.outgoing_events_position_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE queue.queue_alerts (
    id uuid DEFAULT queue.new_id() NOT NULL,
    alert_key text NOT NULL,
    level text NOT NULL,
    title text NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    occurrences integer DEFAULT 1 NOT NULL,
    opened_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    acknowledged_at timestamp with time zone,
    acknowledged_by text,
    resolved_at timestamp with time zone,
    value double precision,
    threshold double precision,
    sent_level text,
    resolved_sent_at timestamp with time zone,
    CONSTRAINT queue_alerts_level CHECK ((level = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text]))),
    CONSTRAINT queue_alerts_sent_level CHECK ((sent_level = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text])))
);

CREATE TABLE queue.queue_health (
    queue text NOT NULL,
    measured_at timestamp with time zone NOT NULL,
    enqueued bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    dead bigint NOT NULL,
    processed bigint NOT NULL,
    processing_seconds double precision NOT NULL,
    latency bigint[]
);

CREATE TABLE queue.queue_statistics (
    queue text NOT NULL,
    bucket_at timestamp with time zone NOT NULL,
    enqueued bigint DEFAULT 0 NOT NULL,
    completed bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    dead bigint DEFAULT 0 NOT NULL,
    ready bigint,
    active bigint,
    scheduled bigint,
    oldest_ready_seconds double precision,
    processing_seconds double precision DEFAULT 0 NOT NULL,
    waiting bigint,
    dead_letters bigint,
    cancelled bigint DEFAULT 0 NOT NULL,
    processed bigint DEFAULT 0 NOT NULL,
    latency bigint[],
    failures jsonb,
    slowest jsonb
);

CREATE TABLE queue.queue_statistics_hour (
    queue text CONSTRAINT queue_statistics_queue_not_null NOT NULL,
    bucket_at timestamp with time zone CONSTRAINT queue_statistics_bucket_at_not_null NOT NULL,
    enqueued bigint DEFAULT 0 CONSTRAINT queue_statistics_enqueued_not_null NOT NULL,
    completed bigint DEFAULT 0 CONSTRAINT queue_statistics_completed_not_null NOT NULL,
    failed bigint DEFAULT 0 CONSTRAINT queue_statistics_failed_not_null NOT NULL,
    dead bigint DEFAULT 0 CONSTRAINT queue_statistics_dead_not_null NOT NULL,
    ready bigint,
    active bigint,
    scheduled bigint,
    oldest_ready_seconds double precision,
    processing_seconds double precision DEFAULT 0 CONSTRAINT queue_statistics_processing_seconds_not_null NOT NULL,
    waiting bigint,
    dead_letters bigint,
    cancelled bigint DEFAULT 0 CONSTRAINT queue_statistics_cancelled_not_null NOT NULL,
    processed bigint DEFAULT 0 CONSTRAINT queue_statistics_processed_not_null NOT NULL,
    latency bigint[],
    failures jsonb,
    slowest jsonb
);

CREATE TABLE queue.queue_totals (
    queue text NOT NULL,
    enqueued bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    dead bigint NOT NULL,
    cancelled bigint NOT NULL
);

CREATE TABLE queue.refused_sign_in (
    minute timestamp with time zone NOT NULL,
    refusals bigint NOT NULL
);

CREATE TABLE queue.scheduled_jobs (
    name text NOT NULL,
    queue text NOT NULL,
    payload jsonb NOT NULL,
    priority smallint,
    cron text NOT NULL,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    next_run_at timestamp with time zone,
    last_run_at timestamp with time zone,
    last_job_id uuid,
    catch_up text DEFAULT 'once'::text NOT NULL,
    planned_from timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    problem text,
    CONSTRAINT scheduled_jobs_catch_up CHECK ((catch_up = ANY (ARRAY['skip'::text, 'once'::text, 'all'::text]))),
    CONSTRAINT scheduled_jobs_five_fields CHECK (((cron ~ '^\s*\S+(\s+\S+){4}\s*$'::text) AND (length(cron) <= 200))),
    CONSTRAINT scheduled_jobs_name CHECK ((name ~ '^[^[:cntrl:]]{1,100}$'::text)),
    CONSTRAINT scheduled_jobs_payload CHECK ((jsonb_typeof(payload) = 'object'::text)),
    CONSTRAINT scheduled_jobs_planned CHECK (isfinite(planned_from)),
    CONSTRAINT scheduled_jobs_priority CHECK (((priority >= 1) AND (priority <= 10))),
    CONSTRAINT scheduled_jobs_times CHECK (isfinite(next_run_at))
);

CREATE TABLE queue.schema_version (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE queue.subscription_upkeep (
    only_row boolean DEFAULT true NOT NULL,
    paused_until timestamp with time zone,
    pause_reason text,
    list_due_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    list_started_at timestamp with time zone,
    list_link text,
    list_next_at timestamp with time zone,
    list_token uuid,
    list_claimed_until timestamp with time zone,
    listed_at timestamp with time zone,
    CONSTRAINT subscription_upkeep_only_row_check CHECK (only_row)
);

CREATE TABLE queue.subscriptions (
    id text NOT NULL,
    resource text NOT NULL,
    change_type text NOT NULL,
    notification_url text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    removed_at timestamp with time zone,
    watch_id uuid,
    lifecycle_url text,
    include_resource_data boolean DEFAULT false NOT NULL,
    certificate_id text,
    client_state_id text,
    renewed_at timestamp with time zone,
    seen_at timestamp with time zone,
    removed_reason text
);

CREATE TABLE queue.watched_resources (
    id uuid DEFAULT queue.new_id() NOT NULL,
    resource text NOT NULL,
    kind text NOT NULL,
    change_types text NOT NULL,
    include_resource_data boolean DEFAULT false NOT NULL,
    sync_user text,
    declared_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    due_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    claim_token uuid,
    claimed_at timestamp with time zone,
    claimed_until timestamp with time zone,
    renew_asked_at timestamp with time zone,
    creating_since timestamp with time zone,
    creating_state_id text,
    tries integer DEFAULT 0 NOT NULL,
    problem text,
    problem_since timestamp with time zone,
    refused boolean DEFAULT false NOT NULL,
    CONSTRAINT watched_resources_claimed CHECK ((((claim_token IS NULL) = (claimed_until IS NULL)) AND ((claim_token IS NULL) = (claimed_at IS NULL)))),
    CONSTRAINT watched_resources_kind CHECK ((kind = ANY (ARRAY['mail'::text, 'event'::text, 'contact'::text, 'chat'::text, 'channel'::text, 'drive'::text]))),
    CONSTRAINT watched_resources_problem CHECK (((problem IS NULL) = (problem_since IS NULL)))
);

CREATE VIEW queue.subscription_status AS
 SELECT count(*) FILTER (WHERE (w.ended_at IS NULL)) AS declared,
    count(*) FILTER (WHERE ((w.ended_at IS NULL) AND (s.expires_at > clock_timestamp()))) AS covered,
    count(*) FILTER (WHERE ((w.ended_at IS NULL) AND COALESCE((s.expires_at <= clock_timestamp()), true))) AS uncovered,
    count(*) FILTER (WHERE (w.problem IS NOT NULL)) AS failing,
    count(*) FILTER (WHERE ((w.ended_at IS NULL) AND (s.expires_at > clock_timestamp()) AND ((s.expires_at - clock_timestamp()) < ((s.expires_at - s.renewed_at) / (6)::double precision)))) AS expiring,
    min(s.expires_at) FILTER (WHERE (w.ended_at IS NULL)) AS next_expiry_at,
    ( SELECT count(*) AS count
           FROM queue.subscriptions t
          WHERE ((t.watch_id IS NULL) AND (t.removed_at IS NULL))) AS strays,
    ( SELECT count(*) AS count
           FROM queue.notification_gaps g
          WHERE (g.job_id IS NULL)) AS gaps_not_synced,
    ( SELECT u.paused_until
           FROM queue.subscription_upkeep u) AS paused_until
   FROM (queue.watched_resources w
     LEFT JOIN queue.subscriptions s ON (((s.watch_id = w.id) AND (s.removed_at IS NULL))));

CREATE TABLE queue.sync_history (
    id uuid DEFAULT queue.new_id() NOT NULL,
    resource_type text NOT NULL,
    account text NOT NULL,
    kind text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    outcome text,
    created_count integer DEFAULT 0 NOT NULL,
    updated_count integer DEFAULT 0 NOT NULL,
    deleted_count integer DEFAULT 0 NOT NULL,
    job_id uuid,
    error_message text,
    pages integer DEFAULT 0 NOT NULL,
    resyncs integer DEFAULT 0 NOT NULL,
    owner uuid,
    owner_job_id uuid,
    CONSTRAINT sync_history_ended CHECK (((finished_at IS NULL) = (outcome IS NULL))),
    CONSTRAINT sync_history_kind CHECK ((kind = ANY (ARRAY['delta'::text, 'full'::text]))),
    CONSTRAINT sync_history_outcome CHECK ((outcome = ANY (ARRAY['completed'::text, 'failed'::text, 'replaced'::text])))
);

CREATE TABLE queue.sync_items (
    resource_type text NOT NULL,
    account text NOT NULL,
    external_id text NOT NULL,
    resource text NOT NULL,
    pass bigint NOT NULL,
    gone boolean DEFAULT false NOT NULL
)
WITH (fillfactor='80');

CREATE TABLE queue.timer_turn (
    timer text NOT NULL,
    token uuid,
    taken_until timestamp with time zone,
    last_started_at timestamp with time zone,
    last_finished_at timestamp with time zone
);

CREATE TABLE queue.token_cache (
    account text NOT NULL,
    key_id text NOT NULL,
    ciphertext bytea NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE VIEW queue.undelivered AS
 SELECT sent.job_id,
    sent.id AS communication_id,
    sent.account,
    failure.recipient,
    failure.status,
    failure.diagnostic,
    failure.reported_at,
    failure.report_id
   FROM (queue.communication_logs sent
     JOIN queue.delivery_failures failure ON ((failure.internet_message_id = sent.internet_message_id)))
  WHERE ((sent.direction = 'out'::text) AND (sent.channel = 'outlook'::text));

CREATE TABLE queue.uniqueness (
    queue text NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    job_id uuid NOT NULL,
    first_at timestamp with time zone NOT NULL,
    until timestamp with time zone,
    CONSTRAINT uniqueness_kind CHECK ((kind = ANY (ARRAY['singleton'::text, 'debounce'::text, 'throttle'::text])))
);

CREATE TABLE queue.webhook_events (
    dedupe_key text NOT NULL,
    subscription_id text NOT NULL,
    kind text NOT NULL,
    change_type text,
    resource text,
    tenant_id text,
    received_at timestamp with time zone NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    outcome text NOT NULL,
    job_id uuid,
    raw jsonb NOT NULL,
    CONSTRAINT webhook_events_kind CHECK ((kind = ANY (ARRAY['change'::text, 'lifecycle'::text]))),
    CONSTRAINT webhook_events_outcome CHECK ((outcome = ANY (ARRAY['enqueued'::text, 'recorded'::text, 'ignored'::text])))
);

ALTER TABLE ONLY queue.alert_state
    ADD CONSTRAINT alert_state_pkey PRIMARY KEY (alert_key);

ALTER TABLE ONLY queue.alert_thresholds
    ADD CONSTRAINT alert_thresholds_pkey PRIMARY KEY (rule, scope);

ALTER TABLE ONLY queue.attachments
    ADD CONSTRAINT attachments_communication_id_external_id_key UNIQUE (communication_id, external_id);

ALTER TABLE ONLY queue.attachments
    ADD CONSTRAINT attachments_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.batch
    ADD CONSTRAINT batch_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.calendar_events
    ADD CONSTRAINT calendar_events_once UNIQUE (account, external_id);

ALTER TABLE ONLY queue.calendar_events
    ADD CONSTRAINT calendar_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.communication_logs
    ADD CONSTRAINT communication_logs_once UNIQUE (channel, direction, external_id);

ALTER TABLE ONLY queue.communication_logs
    ADD CONSTRAINT communication_logs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.contacts
    ADD CONSTRAINT contacts_once UNIQUE (account, external_id);

ALTER TABLE ONLY queue.contacts
    ADD CONSTRAINT contacts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.daily_report
    ADD CONSTRAINT daily_report_pkey PRIMARY KEY (day);

ALTER TABLE ONLY queue.dead_letter_queue
    ADD CONSTRAINT dead_letter_queue_job_id_key UNIQUE (job_id);

ALTER TABLE ONLY queue.dead_letter_queue
    ADD CONSTRAINT dead_letter_queue_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.dead_letter_queue
    ADD CONSTRAINT dead_letter_queue_source_key UNIQUE (source);

ALTER TABLE ONLY queue.delivery_failures
    ADD CONSTRAINT delivery_failures_once UNIQUE (internet_message_id, recipient, report_id);

ALTER TABLE ONLY queue.delivery_failures
    ADD CONSTRAINT delivery_failures_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.delta_links
    ADD CONSTRAINT delta_links_pkey PRIMARY KEY (resource);

ALTER TABLE ONLY queue.dependency
    ADD CONSTRAINT dependency_pkey PRIMARY KEY (job_id, depends_on);

ALTER TABLE ONLY queue.files
    ADD CONSTRAINT files_once UNIQUE (account, external_id);

ALTER TABLE ONLY queue.files
    ADD CONSTRAINT files_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (queue, key);

ALTER TABLE ONLY queue.identity_wait
    ADD CONSTRAINT identity_wait_pkey PRIMARY KEY (job_id);

ALTER TABLE queue.job
    ADD CONSTRAINT job_lane_rule CHECK ((lane_rule = ANY (ARRAY['order'::text, 'order-block'::text, 'concurrency'::text, 'fair'::text]))) NOT VALID;

ALTER TABLE ONLY queue.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.job_tracking
    ADD CONSTRAINT job_tracking_pkey PRIMARY KEY (id, finished_at);

ALTER TABLE ONLY queue.later
    ADD CONSTRAINT later_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.notification_gaps
    ADD CONSTRAINT notification_gaps_key UNIQUE (gap_key);

ALTER TABLE ONLY queue.notification_gaps
    ADD CONSTRAINT notification_gaps_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.notification_routes
    ADD CONSTRAINT notification_routes_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY queue.outgoing_events
    ADD CONSTRAINT outgoing_events_id_key UNIQUE (id);

ALTER TABLE ONLY queue.outgoing_events
    ADD CONSTRAINT outgoing_events_pkey PRIMARY KEY ("position");

ALTER TABLE ONLY queue.queue_alerts
    ADD CONSTRAINT queue_alerts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.queue_health
    ADD CONSTRAINT queue_health_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY queue.queue_settings
    ADD CONSTRAINT queue_settings_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY queue.queue_statistics_hour
    ADD CONSTRAINT queue_statistics_hour_pkey PRIMARY KEY (queue, bucket_at);

ALTER TABLE ONLY queue.queue_statistics
    ADD CONSTRAINT queue_statistics_pkey PRIMARY KEY (queue, bucket_at);

ALTER TABLE ONLY queue.queue_totals
    ADD CONSTRAINT queue_totals_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY queue.rate_limit_tracking
    ADD CONSTRAINT rate_limit_tracking_pkey PRIMARY KEY (key);

ALTER TABLE ONLY queue.refused_sign_in
    ADD CONSTRAINT refused_sign_in_pkey PRIMARY KEY (minute);

ALTER TABLE ONLY queue.scheduled_jobs
    ADD CONSTRAINT scheduled_jobs_pkey PRIMARY KEY (name);

ALTER TABLE ONLY queue.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);

ALTER TABLE ONLY queue.subscription_upkeep
    ADD CONSTRAINT subscription_upkeep_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY queue.subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.sync_history
    ADD CONSTRAINT sync_history_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.sync_items
    ADD CONSTRAINT sync_items_pkey PRIMARY KEY (resource_type, account, external_id);

ALTER TABLE ONLY queue.timer_turn
    ADD CONSTRAINT timer_turn_pkey PRIMARY KEY (timer);

ALTER TABLE ONLY queue.token_cache
    ADD CONSTRAINT token_cache_pkey PRIMARY KEY (account);

ALTER TABLE ONLY queue.uniqueness
    ADD CONSTRAINT uniqueness_pkey PRIMARY KEY (queue, kind, key);

ALTER TABLE ONLY queue.waiting
    ADD CONSTRAINT waiting_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.watched_resources
    ADD CONSTRAINT watched_resources_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue.watched_resources
    ADD CONSTRAINT watched_resources_resource UNIQUE (resource);

ALTER TABLE ONLY queue.webhook_events
    ADD CONSTRAINT webhook_events_pkey PRIMARY KEY (dedupe_key);

CREATE INDEX audit_log_action ON queue.audit_log USING btree (action, at, id);

CREATE INDEX audit_log_again ON queue.audit_log USING btree (((after ->> 'correlationId'::text))) WHERE (action = 'job.again'::text);

CREATE INDEX audit_log_at ON queue.audit_log USING btree (at, id);

CREATE INDEX audit_log_target ON queue.audit_log USING btree (target, at, id);

CREATE INDEX audit_log_who ON queue.audit_log USING btree (who, at, id);

CREATE INDEX batch_finished ON queue.batch USING btree (finished_at) WHERE (finished_at IS NOT NULL);

CREATE INDEX calendar_events_series ON queue.calendar_events USING btree (account, series_master_id) WHERE (series_master_id IS NOT NULL);

CREATE INDEX calendar_events_time ON queue.calendar_events USING btree (account, start_at, end_at) WHERE (deleted_at IS NULL);

CREATE INDEX calendar_events_updated ON queue.calendar_events USING btree (updated_at);

CREATE INDEX communication_logs_automatic ON queue.communication_logs USING btree (thread_id, recorded_at) WHERE automatic;

CREATE INDEX communication_logs_job ON queue.communication_logs USING btree (job_id) WHERE (job_id IS NOT NULL);

CREATE UNIQUE INDEX communication_logs_mail ON queue.communication_logs USING btree (account, internet_message_id, direction) WHERE (internet_message_id IS NOT NULL);

CREATE INDEX communication_logs_names ON queue.communication_logs USING gin (queue.message_names(channel, direction, account, sender, recipients, external_id, internet_message_id, recorded_at));

CREATE INDEX communication_logs_search ON queue.communication_logs USING gin (queue.searchable(subject, text));

CREATE INDEX communication_logs_thread ON queue.communication_logs USING btree (thread_id, occurred_at);

CREATE INDEX contacts_mail ON queue.contacts USING gin (email_addresses);

CREATE INDEX contacts_name ON queue.contacts USING btree (account, display_name) WHERE (deleted_at IS NULL);

CREATE INDEX contacts_updated ON queue.contacts USING btree (updated_at);

CREATE INDEX dead_letter_class ON queue.dead_letter_queue USING btree (error_class, died_at, id);

CREATE INDEX dead_letter_discarded_time ON queue.dead_letter_queue USING btree (died_at, id) WHERE (discarded_at IS NOT NULL);

CREATE INDEX dead_letter_names ON queue.dead_letter_queue USING gin (names);

CREATE INDEX dead_letter_open ON queue.dead_letter_queue USING btree (queue, died_at) WHERE (redriven_at IS NULL);

CREATE INDEX dead_letter_pattern ON queue.dead_letter_queue USING btree (queue, error_class, queue.error_pattern(error_message), died_at, id) WHERE ((redriven_at IS NULL) AND (discarded_at IS NULL));

CREATE INDEX dead_letter_queue_time ON queue.dead_letter_queue USING btree (queue, died_at, id);

CREATE INDEX dead_letter_redriven ON queue.dead_letter_queue USING btree (redriven_job_id) WHERE (redriven_job_id IS NOT NULL);

CREATE INDEX dead_letter_redriven_time ON queue.dead_letter_queue USING btree (died_at, id) WHERE (redriven_at IS NOT NULL);

CREATE INDEX dead_letter_reviewed ON queue.dead_letter_queue USING btree (died_at, id) WHERE (reviewed_at IS NOT NULL);

CREATE INDEX dead_letter_same_error ON queue.dead_letter_queue USING btree (queue.error_pattern(error_message), died_at, id);

CREATE INDEX dead_letter_time ON queue.dead_letter_queue USING btree (died_at, id);

CREATE INDEX dead_letter_unreviewed ON queue.dead_letter_queue USING btree (died_at, id) WHERE ((redriven_at IS NULL) AND (discarded_at IS NULL) AND (reviewed_at IS NULL));

CREATE INDEX dead_letter_unsettled ON queue.dead_letter_queue USING btree (died_at, id) WHERE ((redriven_at IS NULL) AND (discarded_at IS NULL));

CREATE INDEX delivery_failures_age ON queue.delivery_failures USING btree (recorded_at);

CREATE INDEX delta_links_account ON queue.delta_links USING btree (resource_type, account, round_id);

CREATE INDEX delta_links_parent ON queue.delta_links USING btree (parent) WHERE (parent IS NOT NULL);

CREATE INDEX dependency_on ON queue.dependency USING btree (depends_on);

CREATE INDEX dependency_unchecked ON queue.dependency USING btree (job_id) WHERE (NOT checked);

CREATE INDEX files_name ON queue.files USING btree (account, name) WHERE (deleted_at IS NULL);

CREATE INDEX files_parent ON queue.files USING btree (account, parent_id) WHERE (deleted_at IS NULL);

CREATE INDEX files_updated ON queue.files USING btree (updated_at);

CREATE INDEX idempotency_age ON queue.idempotency USING btree (created_at);

CREATE INDEX identity_wait_identity ON queue.identity_wait USING btree (identity, job_id);

CREATE INDEX job_batch ON queue.job USING btree (batch_id) WHERE (batch_id IS NOT NULL);

CREATE INDEX job_correlation ON queue.job USING btree (correlation_id) WHERE (correlation_id IS NOT NULL);

CREATE INDEX job_expiry ON queue.job USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX job_lane ON queue.job USING btree (lane, run_at, id) WHERE (lane IS NOT NULL);

CREATE INDEX job_limit_key ON queue.job USING btree (limit_key) WHERE (limit_key IS NOT NULL);

CREATE INDEX job_list ON queue.job USING btree (lower(queue), enqueued_at, id);

CREATE INDEX job_order ON queue.job USING btree (queue, priority, run_at, id);

CREATE INDEX job_tracking_batch ON ONLY queue.job_tracking USING btree (batch_id) WHERE (batch_id IS NOT NULL);

CREATE INDEX job_tracking_correlation ON ONLY queue.job_tracking USING btree (correlation_id) WHERE (correlation_id IS NOT NULL);

CREATE INDEX job_tracking_error ON ONLY queue.job_tracking USING btree (error_class, finished_at, id) WHERE (state = 'dead'::text);

CREATE INDEX job_tracking_finished ON ONLY queue.job_tracking USING btree (queue, finished_at, id);

CREATE INDEX job_tracking_limit_key ON ONLY queue.job_tracking USING btree (limit_key, finished_at, id) WHERE (limit_key IS NOT NULL);

CREATE INDEX job_tracking_requests ON ONLY queue.job_tracking USING gin (queue.request_ids(attempts)) WHERE ((attempt > 1) OR (state = 'dead'::text));

CREATE INDEX job_tracking_unsuccessful ON ONLY queue.job_tracking USING btree (queue, state, finished_at, id) WHERE (state <> 'completed'::text);

CREATE INDEX later_batch ON queue.later USING btree (batch_id) WHERE (batch_id IS NOT NULL);

CREATE INDEX later_correlation ON queue.later USING btree (correlation_id) WHERE (correlation_id IS NOT NULL);

CREATE INDEX later_due ON queue.later USING btree (queue, run_at);

CREATE INDEX later_expiry ON queue.later USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX later_limit_key ON queue.later USING btree (limit_key) WHERE (limit_key IS NOT NULL);

CREATE INDEX later_list ON queue.later USING btree (lower(queue), enqueued_at, id);

CREATE INDEX later_requests ON queue.later USING gin (queue.request_ids(attempts)) WHERE (attempt > 0);

CREATE INDEX later_retrying ON queue.later USING btree (queue) WHERE (attempt > 0);

CREATE INDEX notification_gaps_age ON queue.notification_gaps USING btree (recorded_at);

CREATE INDEX notification_gaps_open ON queue.notification_gaps USING btree (recorded_at) WHERE (job_id IS NULL);

CREATE INDEX outgoing_events_age ON queue.outgoing_events USING btree (recorded_at);

CREATE INDEX outgoing_events_message ON queue.outgoing_events USING btree (communication_id, job_id);

CREATE INDEX queue_alerts_age ON queue.queue_alerts USING btree (opened_at);

CREATE UNIQUE INDEX queue_alerts_open ON queue.queue_alerts USING btree (alert_key) WHERE (resolved_at IS NULL);

CREATE INDEX queue_alerts_resolved ON queue.queue_alerts USING btree (alert_key, resolved_at) WHERE (resolved_at IS NOT NULL);

CREATE INDEX queue_alerts_unresolved ON queue.queue_alerts USING btree (opened_at, id) WHERE (resolved_at IS NULL);

CREATE INDEX queue_alerts_untold ON queue.queue_alerts USING btree (resolved_at) WHERE ((resolved_at IS NOT NULL) AND (sent_level IS NOT NULL) AND (resolved_sent_at IS NULL) AND (acknowledged_at IS NULL));

CREATE INDEX queue_statistics_bucket ON queue.queue_statistics USING btree (bucket_at);

CREATE INDEX queue_statistics_hour_bucket ON queue.queue_statistics_hour USING btree (bucket_at);

CREATE INDEX rate_limit_tracking_wake ON queue.rate_limit_tracking USING btree (wake_at) WHERE (wake_at IS NOT NULL);

CREATE UNIQUE INDEX subscriptions_live ON queue.subscriptions USING btree (watch_id) WHERE (removed_at IS NULL);

CREATE INDEX subscriptions_of_watch ON queue.subscriptions USING btree (watch_id);

CREATE INDEX sync_history_account ON queue.sync_history USING btree (resource_type, account, started_at);

CREATE INDEX sync_history_age ON queue.sync_history USING btree (finished_at) WHERE (finished_at IS NOT NULL);

CREATE INDEX sync_history_job ON queue.sync_history USING btree (job_id) WHERE (job_id IS NOT NULL);

CREATE INDEX sync_history_of_account ON queue.sync_history USING btree (account, started_at, id);

CREATE UNIQUE INDEX sync_history_open ON queue.sync_history USING btree (resource_type, account) WHERE (finished_at IS NULL);

CREATE INDEX sync_history_time ON queue.sync_history USING btree (started_at, id);

CREATE INDEX sync_items_gone ON queue.sync_items USING btree (resource_type, account) WHERE gone;

CREATE INDEX sync_items_resource ON queue.sync_items USING btree (resource, pass);

CREATE INDEX uniqueness_age ON queue.uniqueness USING btree (first_at);

CREATE INDEX waiting_away ON queue.waiting USING btree (lane, run_at, id) WHERE ((lane_rule ~~ 'order%'::text) AND (key <> ''::text) AND (key <> lane));

CREATE INDEX waiting_batch ON queue.waiting USING btree (batch_id) WHERE (batch_id IS NOT NULL);

CREATE INDEX waiting_correlation ON queue.waiting USING btree (correlation_id) WHERE (correlation_id IS NOT NULL);

CREATE INDEX waiting_expiry ON queue.waiting USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX waiting_key ON queue.waiting USING btree (key, rank, run_at, id);

CREATE INDEX waiting_limit_key ON queue.waiting USING btree (limit_key) WHERE (limit_key IS NOT NULL);

CREATE INDEX waiting_list ON queue.waiting USING btree (lower(queue), enqueued_at, id);

CREATE INDEX watched_resources_creating ON queue.watched_resources USING btree (creating_since) WHERE (creating_since IS NOT NULL);

CREATE INDEX watched_resources_due ON queue.watched_resources USING btree (due_at);

CREATE INDEX webhook_events_age ON queue.webhook_events USING btree (recorded_at);

CREATE TRIGGER audit_log_rows BEFORE DELETE OR UPDATE ON queue.audit_log FOR EACH ROW EXECUTE FUNCTION queue.keep_audit_log();

CREATE TRIGGER audit_log_whole BEFORE TRUNCATE ON queue.audit_log FOR EACH STATEMENT EXECUTE FUNCTION queue.keep_audit_log();

CREATE TRIGGER plan_schedule BEFORE INSERT OR UPDATE OF cron, time_zone, paused ON queue.scheduled_jobs FOR EACH ROW EXECUTE FUNCTION queue.plan_schedule();

CREATE TRIGGER queue_statistics_totals AFTER INSERT OR UPDATE ON queue.queue_statistics FOR EACH ROW EXECUTE FUNCTION queue.add_to_totals();

ALTER TABLE ONLY queue.attachments
    ADD CONSTRAINT attachments_communication_id_fkey FOREIGN KEY (communication_id) REFERENCES queue.communication_logs(id) ON DELETE CASCADE;

ALTER TABLE ONLY queue.outgoing_events
    ADD CONSTRAINT outgoing_events_communication_id_fkey FOREIGN KEY (communication_id) REFERENCES queue.communication_logs(id) ON DELETE CASCADE;

ALTER TABLE ONLY queue.scheduled_jobs
    ADD CONSTRAINT scheduled_jobs_queue_fkey FOREIGN KEY (queue) REFERENCES queue.queue_settings(queue);

ALTER TABLE ONLY queue.subscriptions
    ADD CONSTRAINT subscriptions_watch_id_fkey FOREIGN KEY (watch_id) REFERENCES queue.watched_resources(id) ON DELETE SET NULL;
