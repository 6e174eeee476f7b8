"""Records notifications, and enqueues what they ask for in the same statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psycopg

from shared.engine.json_text import clean_text, to_json
from shared.handlers.webhooks import Event, EventRefusedError, Recorded
from shared.postgres.job_rows import new_job_json
from shared.postgres.pool import Database
from shared.postgres.sealer import Sealer
from shared.postgres.sync import DECLARED_USERS

# Two hosts with the same event meet at the job's idempotency key: one inserts it, the other waits there and then
# finds it, so that the job exists once; the event's own key is unique as well. Keys are inserted in order in both
# places, so that two batches never wait for each other in a circle.
_RECORD = """
with event as materialized (
    select * from jsonb_to_recordset(%(events)s) as e(
        dedupe_key text, subscription_id text, kind text, change_type text, resource text, tenant_id text,
        received_at timestamptz, outcome text, raw jsonb, job jsonb)
),
new as materialized (
    select e.*, row_number() over (partition by e.job is null order by e.dedupe_key) as job_number
      from event e
     where not exists (select from queue.webhook_events w where w.dedupe_key = e.dedupe_key)
),
job as materialized (
    select j.*
      from (select jsonb_agg(n.job order by n.job_number) as jobs from new n where n.job is not null) asked,
           lateral queue.enqueue_many(asked.jobs) j
     where asked.jobs is not null
),
recorded as (
    insert into queue.webhook_events (dedupe_key, subscription_id, kind, change_type, resource, tenant_id,
                                      received_at, outcome, job_id, raw)
    select n.dedupe_key, n.subscription_id, n.kind, n.change_type, n.resource, n.tenant_id,
           coalesce(n.received_at, clock_timestamp()), n.outcome, j.id, n.raw
      from new n left join job j on n.job is not null and j.ordinal = n.job_number
     order by n.dedupe_key
    on conflict (dedupe_key) do nothing
    returning dedupe_key
)
select n.dedupe_key, case when j.created then n.job ->> 'queue' end, case when j.created then j.id end
  from new n
  left join job j on n.job is not null and j.ordinal = n.job_number
 where j.created or n.dedupe_key in (select dedupe_key from recorded)
 order by n.dedupe_key
"""


class PostgresWebhookEvents:
    """See shared.handlers.webhooks.WebhookEvents."""

    def __init__(self, database: Database, sealer: Sealer | None = None) -> None:
        self._database = database
        self._sealer = sealer or Sealer()

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        try:
            text = to_json([_event_json(event, self._sealer) for event in events])
            with self._database.connection() as conn:
                rows = conn.execute(_RECORD, {"events": text}).fetchall()
        except (psycopg.DataError, psycopg.IntegrityError, ValueError, TypeError) as error:
            raise EventRefusedError(f"{type(error).__name__}: {error}") from error
        return [Recorded(*row) for row in rows]

    def declared_users(self, subscription_ids: Collection[str]) -> Mapping[str, str]:
        with self._database.connection() as conn:
            rows = conn.execute(DECLARED_USERS, ([clean_text(one) for one in subscription_ids],)).fetchall()
        return dict(rows)


def _event_json(event: Event, sealer: Sealer) -> dict[str, Any]:
    job = event.job
    return {
        "dedupe_key": event.dedupe_key,
        "subscription_id": event.subscription_id,
        "kind": event.kind,
        "change_type": event.change_type,
        "resource": event.resource,
        "tenant_id": event.tenant_id,
        "received_at": event.received_at.isoformat() if event.received_at else None,
        "outcome": event.outcome,
        "raw": event.raw,
        "job": new_job_json(job, sealer) if job is not None else None,
    }
