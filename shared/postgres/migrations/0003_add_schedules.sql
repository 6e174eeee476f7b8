-- Recurring schedules. SQL does not read cron expressions: a row that has no next_run_at is planned by the scheduler's
-- next pass, which counts every slot after planned_from, so that none is lost between the two.

alter table queue.scheduled_jobs
    alter column next_run_at drop not null,
    add column catch_up text not null default 'once',
    add column planned_from timestamptz not null default clock_timestamp(),
    add column problem text,
    add constraint scheduled_jobs_name check (name ~ '^[^[:cntrl:]]{1,100}$'),
    add constraint scheduled_jobs_five_fields check (cron ~ '^\s*\S+(\s+\S+){4}\s*$' and length(cron) <= 200),
    add constraint scheduled_jobs_catch_up check (catch_up in ('skip', 'once', 'all')),
    add constraint scheduled_jobs_payload check (jsonb_typeof(payload) = 'object'),
    add constraint scheduled_jobs_planned check (isfinite(planned_from));

-- Whoever changes when a schedule runs, or resumes it, gets it planned from now on, unless he plans it himself.
create function queue.plan_schedule()
returns trigger
language plpgsql
as $$
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

create trigger plan_schedule
    before insert or update of cron, time_zone, paused on queue.scheduled_jobs
    for each row execute function queue.plan_schedule();
