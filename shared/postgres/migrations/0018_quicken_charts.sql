-- Charts beside a long history. Runs beside the release before: nothing that it uses changes.

-- As it was, but for the cells of latency: each is a sum of its own. Taken apart into rows and grouped, thirty days of ten queues
-- were 400,000 rows, and took three times as long. A caller that leaves out slowest does not pay for it.
create or replace function queue.statistics_of(p_from timestamptz, p_until timestamptz, p_step interval, p_hours boolean, p_queue text default null)
returns table (
    queue text, step_at timestamptz, enqueued bigint, completed bigint, failed bigint, dead bigint, cancelled bigint, processed bigint,
    processing_seconds float8, latency bigint[], failures jsonb, slowest jsonb, ready bigint, active bigint, scheduled bigint,
    waiting bigint, dead_letters bigint, oldest_ready_seconds float8
)
language sql
stable
as $$
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
