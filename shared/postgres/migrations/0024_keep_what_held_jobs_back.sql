-- What a job's diagnosis needs and nobody kept: why one was cancelled that depended on another, and what kept one from
-- starting whose deadline passed.

-- As before, and a job that is cancelled since another did not succeed says so in its result.
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


-- What keeps a job from starting: its queue's pause, its queue's 429 (`limit`), the key that it waits at, other jobs, what
-- it was put off for, or else that no worker is free.
create function queue.held_back(p_id uuid, p_queue text, p_place text, p_key text, p_permits integer, p_now timestamptz)
returns jsonb
language sql
stable
as $$
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

-- As before, and each that dies keeps what had held it back.
create or replace function queue.expire_due(p_queue text, p_limit integer)
returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
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
