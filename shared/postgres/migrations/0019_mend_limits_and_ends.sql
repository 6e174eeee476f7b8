-- Mends what a review of limits, keys, dependencies and batches found. Functions keep their names and arguments, so that
-- the release before goes on beside it.

-- ---------------------------------------------------------------- windows

-- A key's slots as they stand now, newest first, and the number of the newest. What was kept for another length of window
-- goes into the slots in which it ended; before, it counted as of now at every look, in slots of the other length, so that
-- after a change to a longer window nothing ever left it.
create or replace function queue.slots_at(t queue.rate_limit_tracking, p_seconds float8, p_now timestamptz, out slot bigint, out slots integer[])
language plpgsql
immutable
as $$
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

-- Rows that this has closed: all that they counted counts as of now.
update queue.rate_limit_tracking t
   set bucket = n.slot, counts = array[(select sum(c)::integer from unnest(t.counts) c)] || array_fill(0, array[20])
  from (select r.key, floor(extract(epoch from clock_timestamp())::float8 / (r.window_seconds / 20))::bigint as slot
          from queue.rate_limit_tracking r where r.counts is not null) n
 where t.key = n.key and t.bucket > n.slot + 1;

-- ---------------------------------------------------------------- keys

-- Jobs of an ordering key that wait somewhere else, at their limit key.
create index waiting_away on queue.waiting (lane, run_at, id) where lane_rule like 'order%' and key <> '' and key <> lane;

-- As before, but the first of an ordering key holds the key also when it waits at its limit key: others of that limit key
-- may have put it there before it was looked at itself.
create or replace function queue.try_keys(
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

-- ---------------------------------------------------------------- ends

-- Ends jobs that have not started, as cancelled or dead; those that have started or ended are left alone. What depends on
-- them is the caller's. The message of an expired job is made here. Returns their ids, and the queue of each job that is
-- ready now because of it.
create function queue.end_alone(
    p_ids uuid[], p_state text, p_class text, p_message text, p_result jsonb, out ids uuid[], out freed text[]
)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
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
               limit_key, batch_id, progress, singleton_key, p_state, v_now, p_result,
               case p_state when 'dead' then p_class end,
               case p_state when 'dead' then coalesce(p_message, queue.expiry_reason(expires_at)) end
          from gone
    )
    select array_agg(id), array_agg(p_state), array_agg(batch_id), array_agg(lane) filter (where lane_rule = 'order' or lane_rule = 'order-block' and p_state <> 'dead'),
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

-- What the end of jobs means to their batches. Returns the queue of each callback that is ready now.
create function queue.count_ends(p_states text[], p_batches uuid[])
returns text[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
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

-- As before, and what depends on them ends or goes on.
create or replace function queue.end_unstarted(
    p_ids uuid[], p_state text, p_class text, p_message text, p_result jsonb, out ended integer, out freed text[]
)
language plpgsql
as $$
declare
    v_ids uuid[];
begin
    select e.ids, e.freed into v_ids, freed from queue.end_alone(p_ids, p_state, p_class, p_message, p_result) e;
    ended := cardinality(v_ids);
    freed := freed || queue.resolve_dependents(v_ids, array_fill(p_state, array[ended]));
end
$$;

-- As before.
create or replace function queue.after_end(p_ids uuid[], p_states text[], p_batches uuid[])
returns text[]
language sql
as $$
    select queue.resolve_dependents(p_ids, p_states) || queue.count_ends(p_states, p_batches)
$$;

-- As before, but step by step along a chain, however long, and no more than a thousand jobs in one transaction: what is
-- left is for queue.open_due. Else a job with a long chain or a hundred thousand jobs behind it could never end.
create or replace function queue.resolve_dependents(p_ids uuid[], p_states text[])
returns text[]
language plpgsql
as $$
begin
    return (queue.resolve_most(p_ids, p_states, 1000)).freed;
end
$$;

-- Jobs that depend on ended ones, up to p_most: free, or ended too when one did not complete, and then those that depend on
-- these. Their rows are locked first, so that of two ends at once the second sees the first.
create function queue.resolve_most(p_ids uuid[], p_states text[], p_most integer, out freed text[], out resolved integer)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
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

-- As before, but a callback that cannot be enqueued any more (its queue was closed) becomes a dead letter of its own: the
-- job whose end is told here has ended all the same.
create or replace function queue.finish_batches(p_batches uuid[])
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

-- As before, but a callback is refused that could not be enqueued later, in the transaction that ends the last job.
create or replace function queue.create_batch(p_jobs jsonb, p_callback jsonb)
returns table (batch_id uuid, ordinal integer, id uuid, created boolean, due boolean, replaced uuid)
language plpgsql
as $$
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

-- ---------------------------------------------------------------- time

-- As before, but it waits for whoever is ending the other job in any of its tables, and says p_limit where more is to do.
create or replace function queue.open_due(p_limit integer)
returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
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

-- ---------------------------------------------------------------- control

-- As before, but a block that has passed holds nothing back.
create or replace function queue.set_limits(p_queue text, p_limits jsonb)
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
     where t.wake_at > clock_timestamp() and coalesce(t.blocked_until <= clock_timestamp(), true)
       and exists (select from queue.waiting w where w.key = t.key and w.queue = p_queue);
exception when check_violation then
    raise exception using errcode = 'invalid_parameter_value',
        message = 'limits: every one is 1 or more, a rate has a window, and a job''s cost is not above the rate';
end
$$;
