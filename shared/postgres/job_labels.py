"""What became of the jobs of a page, in a word or two: one statement for all, each part by an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from shared.postgres.admin_lists import rows

_FACTS: LiteralString = """
select u.id, s.paused, i.identity is not null as parked, w.key as waits_at,
       t.blocked_until > clock_timestamp() as closed,
       exists (select from queue.dead_letter_queue d
                where d.job_id = t.holder and d.redriven_at is null and d.discarded_at is null) as blocked,
       f.undelivered, f.recipients
  from unnest(%(ids)s::uuid[], %(queues)s::text[]) u(id, queue)
  left join queue.queue_settings s on s.queue = u.queue
  left join queue.identity_wait i on i.job_id = u.id
  left join queue.waiting w on w.id = u.id
  left join queue.rate_limit_tracking t on t.key = w.key
  left join lateral (
      select count(distinct lower(d.recipient)) as undelivered, max(cardinality(c.recipients)) as recipients
        from queue.communication_logs c
        join queue.delivery_failures d on d.internet_message_id = c.internet_message_id
       where c.job_id = u.id and c.direction = 'out' and c.channel = 'outlook') f on true
"""


def facts(conn: psycopg.Connection, jobs: Sequence[Mapping[str, Any]]) -> dict[UUID, dict[str, Any]]:
    """Of rows of a list, by their ids."""
    if not jobs:
        return {}
    values = {"ids": [job["id"] for job in jobs], "queues": [job["queue"] for job in jobs]}
    return {row["id"]: row for row in rows(conn, _FACTS, values)}
