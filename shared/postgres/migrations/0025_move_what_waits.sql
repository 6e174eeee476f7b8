-- Another priority or time also for a job that waits: for its key, or for the jobs that it depends on.

-- The answer gets a column; callers from before name those that they read.
drop function queue.reschedule(uuid, integer, timestamptz);

-- Gives a job that has not started another priority, another time, or both; no row when it runs, has ended or is unknown.
-- A waiting job goes on waiting, unless it waits for a key and its time is now later: then it is scheduled.
-- `freed`: how many others of its queue became ready, because it left its place in their ordering key.
create function queue.reschedule(p_id uuid, p_priority integer default null, p_run_at timestamptz default null)
returns table (queue text, state text, freed integer)
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
