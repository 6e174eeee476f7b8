-- Totals that only grow, for whoever computes rates of them (Prometheus).
-- Runs beside the release before: what that one keeps is counted as well.

-- Since the table was made, as of the last bucket that was kept. failed are attempts, the others jobs.
create table queue.queue_totals (
    queue text primary key,
    enqueued bigint not null,
    completed bigint not null,
    failed bigint not null,
    dead bigint not null,
    cancelled bigint not null
);

-- A bucket that is written, or written again with what was committed late, adds what is new in it. Deleting it takes
-- nothing away, so totals outlive the statistics that they are made of.
create function queue.add_to_totals()
returns trigger
language plpgsql
as $$
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

create trigger queue_statistics_totals after insert or update on queue.queue_statistics
    for each row execute function queue.add_to_totals();
