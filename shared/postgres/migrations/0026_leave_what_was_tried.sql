-- A job that was tried is another than one that was not: only the first blocks its ordering key when it dies, and only the
-- second gives way to a newer one with its key.

-- As before, and a job that dies before its first attempt (its deadline) never keeps its ordering key, also when it held
-- the key while it waited at its limit key.
create or replace function queue.end_alone(
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

-- As before, and a scheduled job that was tried, or repeats one that was, is `retrying`: its effect may have happened, so
-- it is neither replaced nor put off by a newer one with its singleton or debounce key.
create or replace function queue.live_state(p_id uuid) returns text
language plpgsql
as $$
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
