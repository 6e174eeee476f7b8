-- The admin API: the audit log, refused sign-ins, and the order in which lists are read.
-- Runs beside the release before: nothing that it uses changes.

-- ---------------------------------------------------------------- audit

create table queue.audit_log (
    id uuid primary key default queue.new_id(),
    at timestamptz not null default clock_timestamp(),
    who text not null,
    kind text not null,
    role text not null,
    action text not null,
    target text not null,
    before jsonb,
    after jsonb,
    correlation_id text not null
);

create index audit_log_at on queue.audit_log (at, id);
create index audit_log_target on queue.audit_log (target, at, id);
create index audit_log_who on queue.audit_log (who, at, id);
create index audit_log_action on queue.audit_log (action, at, id);

-- What is written stays as it is for a year, whoever asks.
create function queue.keep_audit_log()
returns trigger
language plpgsql
as $$
begin
    if tg_op = 'DELETE' and old.at < clock_timestamp() - interval '365 days' then
        return old;
    end if;
    raise exception using errcode = 'insufficient_privilege', message = format('the audit log takes no %s', lower(tg_op));
end
$$;

create trigger audit_log_rows before update or delete on queue.audit_log
    for each row execute function queue.keep_audit_log();
create trigger audit_log_whole before truncate on queue.audit_log
    for each statement execute function queue.keep_audit_log();

-- ---------------------------------------------------------------- refused sign-ins

create table queue.refused_sign_in (
    minute timestamptz primary key,
    refusals bigint not null
);

-- Adds to this minute's refusals of all instances; how many there were in this minute and the one before it.
create function queue.refuse_sign_ins(p_count integer)
returns bigint
language sql
as $$
    insert into queue.refused_sign_in as r (minute, refusals) values (date_trunc('minute', clock_timestamp()), p_count)
    on conflict (minute) do update set refusals = r.refusals + excluded.refusals;
    delete from queue.refused_sign_in where minute < clock_timestamp() - interval '30 days';
    select coalesce(sum(refusals), 0)::bigint from queue.refused_sign_in
     where minute >= date_trunc('minute', clock_timestamp()) - interval '1 minute';
$$;

-- ---------------------------------------------------------------- lists

-- An error's text without what differs from case to case: ids and numbers.
create function queue.error_pattern(p_message text)
returns text
language sql
immutable parallel safe
as $$
    select regexp_replace(left(p_message, 300), '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]+', '#', 'g')
$$;

create index dead_letter_time on queue.dead_letter_queue (died_at, id);
create index dead_letter_queue_time on queue.dead_letter_queue (queue, died_at, id);
create index dead_letter_unsettled on queue.dead_letter_queue (died_at, id)
    where redriven_at is null and discarded_at is null;
create index dead_letter_unreviewed on queue.dead_letter_queue (died_at, id)
    where redriven_at is null and discarded_at is null and reviewed_at is null;
create index dead_letter_pattern
    on queue.dead_letter_queue (queue, error_class, queue.error_pattern(error_message), died_at, id)
    where redriven_at is null and discarded_at is null;
create index dead_letter_redriven on queue.dead_letter_queue (redriven_job_id) where redriven_job_id is not null;

create index queue_alerts_unresolved on queue.queue_alerts (opened_at, id) where resolved_at is null;
create index sync_history_time on queue.sync_history (started_at, id);

-- No claim changes any of these columns: claims stay HOT updates.
create index job_list on queue.job (queue, enqueued_at, id);
create index later_list on queue.later (queue, enqueued_at, id);
create index waiting_list on queue.waiting (queue, enqueued_at, id);
create index job_tracking_unsuccessful on queue.job_tracking (queue, state, finished_at, id) where state <> 'completed';
create index job_correlation on queue.job (correlation_id) where correlation_id is not null;
create index later_correlation on queue.later (correlation_id) where correlation_id is not null;
create index waiting_correlation on queue.waiting (correlation_id) where correlation_id is not null;
create index job_tracking_correlation on queue.job_tracking (correlation_id) where correlation_id is not null;
create index job_batch on queue.job (batch_id) where batch_id is not null;
create index later_batch on queue.later (batch_id) where batch_id is not null;
create index waiting_batch on queue.waiting (batch_id) where batch_id is not null;
create index job_tracking_batch on queue.job_tracking (batch_id) where batch_id is not null;
