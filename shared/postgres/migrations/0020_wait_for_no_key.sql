-- A claim waits for no key that another transaction has: it looks at other jobs. An insert with "on conflict do nothing"
-- waits for whoever is updating the row that it meets; so claims waited for settlements, which waited for the claim's queue:
-- a deadlock a second where workers share keys.

-- Makes the row of a key that has none. False when it has one, or when another is making it.
create function queue.add_key(p_key text)
returns boolean
language plpgsql
set enable_seqscan = off
as $$
begin
    perform from queue.rate_limit_tracking t where t.key = p_key;
    if found or not pg_try_advisory_xact_lock(hashtextextended('queue.add_key ' || p_key, 0)) then
        return false;
    end if;
    insert into queue.rate_limit_tracking (key) values (p_key) on conflict do nothing;
    return true;
end
$$;

-- As before, by it.
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

-- As before, but after the last that was looked at of a priority it takes none that comes later: the next of that priority
-- may be better. Where others had locked all of them, it went on with worse ones.
create or replace function queue.best_aged(
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
