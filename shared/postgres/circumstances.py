"""What surrounds a job, for its diagnosis: one statement, each part by an index."""

from __future__ import annotations

from typing import Any, LiteralString
from uuid import UUID

import psycopg

from shared.engine.job import JobRecord
from shared.postgres.admin_jobs import LONGEST_CHAIN
from shared.postgres.admin_lists import rows

#: So many waiting jobs are counted; there may be more (shared.admin.diagnosis.circumstances has the same number).
MOST_COUNTED = 1000
# Orders to a queue by their action: by the queue, all that was ever enqueued there by the API would be read.
_ORDER: LiteralString = (
    "select a.at, a.who from queue.audit_log a where a.action = {action} and a.target || '' = 'queue:' || %(queue)s"
    " and a.at <= coalesce(%(ended)s::timestamptz, clock_timestamp()) order by a.at desc, a.id desc limit 1"
)
_STATEMENT = f"""
with recursive before as (
    select d.job_id, d.error_class, 1 as step from queue.dead_letter_queue d where d.redriven_job_id = %(id)s
    union all
    select d.job_id, d.error_class, b.step + 1
      from before b join queue.dead_letter_queue d on d.redriven_job_id = b.job_id
     where b.step < {LONGEST_CHAIN}
),
other as (
    select %(other)s::uuid as id, 1 as step
    union all
    select d.redriven_job_id, o.step + 1 from other o join queue.dead_letter_queue d on d.job_id = o.id
     where d.redriven_job_id is not null and o.step < {LONGEST_CHAIN}
)
select clock_timestamp() as now, s.paused as is_paused,
       case when r.at is null or r.at < p.at then p.at end as paused_at,
       case when r.at is null or r.at < p.at then p.who end as paused_by,
       r.at as resumed_at, q.blocked_until as queue_blocked_until, k.blocked_until as key_blocked_until,
       run.started_at, w.key as waits_at, coalesce(at.in_use, 0) as key_in_use,
       l.holder, h.state as holder_state, hd.died_at as holder_since,
       (select count(*) from (select from queue.waiting b where b.key = %(lane)s
                               order by b.rank, b.run_at, b.id limit {MOST_COUNTED}) b) as behind,
       case when d.permits is not null then 'the rate of its queue is used up' end as reason,
       i.identity, i.since as identity_since, a.id as alert_id, a.details ->> 'reason' as alert_reason,
       a.details ->> 'remedy' as remedy,
       (select j.state from other o join lateral (select j.state from queue.jobs j where j.id = o.id limit 1) j on true
         order by o.step desc limit 1) as dependency_state,
       (select c.who from queue.audit_log c
         where c.action = 'queue.clear' and c.target || '' = 'queue:' || %(queue)s and %(cancelled)s
           and c.at >= %(ended)s::timestamptz and c.at < %(ended)s::timestamptz + interval '1 minute'
         order by c.at limit 1) as cleared_by,
       array(select error_class from before) as earlier,
       (select case when bool_or(m.resource ilike 'users/' || %(mailbox)s || '/%%' escape '') then true
                    when bool_or(m.resource not like 'users/%%@%%') then null  -- by an id: it may be this mailbox
                    else false end
          from queue.watched_resources m where m.kind = 'mail' and m.ended_at is null) as reports_watched
  from queue.queue_settings s
  left join lateral ({_ORDER.format(action="'queue.pause'")}) p on true
  left join lateral ({_ORDER.format(action="'queue.resume'")}) r on true
  left join queue.rate_limit_tracking q on q.key = 'queue:' || s.queue
  left join queue.rate_limit_tracking k on k.key = %(limit_key)s
  left join queue.rate_limit_tracking l on l.key = %(lane)s
  left join queue.job run on run.id = %(id)s
  left join queue.later d on d.id = %(id)s
  left join queue.waiting w on w.id = %(id)s
  left join queue.rate_limit_tracking at on at.key = w.key
  left join lateral (select j.state from queue.jobs j where j.id = l.holder limit 1) h on true
  left join queue.dead_letter_queue hd on hd.job_id = l.holder
  left join queue.identity_wait i on i.job_id = %(id)s
  left join queue.queue_alerts a on a.alert_key = 'identity:' || i.identity and a.resolved_at is null
 where s.queue = %(queue)s
"""  # noqa: S608 - of constants


def circumstances(
    conn: psycopg.Connection, job: JobRecord, other: UUID | None, mailbox: str | None
) -> dict[str, Any] | None:
    """The fields of Circumstances that the database knows; None: its queue is not known (any more).

    `other`: whose state is asked for as well, or its of whatever it was redriven as.
    """
    values = {
        "id": job.id, "queue": job.queue, "lane": job.lane, "limit_key": job.limit_key, "ended": job.finished_at,
        "cancelled": job.state == "cancelled", "other": other, "mailbox": mailbox,
    }  # fmt: skip
    found = rows(conn, _STATEMENT, values)
    return found[0] if found else None
