"""Gaps: times during which changes may have been missed, and the syncs that make up for them."""

from __future__ import annotations

import psycopg

from shared.engine.enqueue import Producer
from shared.engine.errors import QueueClosedError
from shared.engine.job import NewJob
from shared.handlers.watching import sync_request

SYNC = "sync"
GAPS_AT_ONCE = 200

#: One gap for each subscription that was not there before: from the end of the one before it, or the declaration.
ADD_GAPS = """
insert into queue.notification_gaps (gap_key, resource, subscription_id, reason, from_at, until_at, recorded_at)
select s.id, w.resource, s.id,
       coalesce(%(reason)s, case when last.removed_reason in ('expired', 'removed', 'gone', 'replaced')
                                 then last.removed_reason end, 'new'),
       coalesce(least(last.expires_at, last.removed_at), w.declared_at), clock.now, clock.now
  from queue.subscriptions s
  join queue.watched_resources w on w.id = s.watch_id
  left join lateral (select t.* from queue.subscriptions t
                      where t.watch_id = w.id and t.id <> s.id and t.removed_at is not null
                      order by t.removed_at desc limit 1) last on true,
       (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now) clock
 where s.id = any(%(ids)s)
on conflict (gap_key) do nothing
"""

_OPEN_GAPS = """
select g.id, g.resource, w.sync_user
  from queue.notification_gaps g left join queue.watched_resources w on w.resource = g.resource
 where g.job_id is null and (g.resource ~ '^(users|teams)/' or w.sync_user is not null)
 order by g.recorded_at limit %s
 for update of g skip locked
"""


def sync_gaps(conn: psycopg.Connection, producer: Producer) -> int:
    """Enqueue the syncs of gaps that have none yet, in the caller's transaction; how many. None while the queue is
    closed: they wait."""
    gaps = conn.execute(_OPEN_GAPS, (GAPS_AT_ONCE,)).fetchall()
    jobs = [
        NewJob(SYNC, payload, idempotency_key=f"gap:{gap_id}", correlation_id=f"gap:{gap_id}")
        for gap_id, resource, sync_user in gaps
        if (payload := sync_request(resource, sync_user)) is not None
    ]
    if not jobs:
        return 0
    try:
        made = producer.enqueue_many(jobs, conn=conn)
    except QueueClosedError:
        return 0
    conn.execute(
        "update queue.notification_gaps g set job_id = j.job_id"
        " from unnest(%s::uuid[], %s::uuid[]) as j(id, job_id) where g.id = j.id",
        ([gap[0] for gap in gaps], [one.id for one in made]),
    )
    return sum(one.created for one in made)


def wake_sync(producer: Producer, jobs: int) -> None:
    """After the commit."""
    if jobs:
        producer.wake(SYNC, jobs)
