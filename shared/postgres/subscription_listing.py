"""What a listing of Graph's subscriptions shows, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, LiteralString
from uuid import uuid4

from shared.engine.json_text import to_json
from shared.graph.subscriptions import SubscriptionRecord
from shared.handlers.subscription_records import Listing
from shared.postgres import subscription_gaps as gaps
from shared.postgres.subscriptions import PostgresSubscriptions, record_json

KEEP_DAYS = 30

_CLAIM = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.subscription_upkeep u
   set list_token = %(token)s, list_claimed_until = clock.now + %(lease)s,
       list_started_at = coalesce(u.list_started_at, clock.now)
  from clock
 where (u.list_claimed_until is null or u.list_claimed_until <= clock.now)
   and (u.paused_until is null or u.paused_until <= clock.now)
   and (u.list_next_at is null or u.list_next_at <= clock.now)
   and (u.list_started_at is not null or u.list_due_at <= clock.now
        or exists (select from queue.watched_resources w where w.creating_since is not null
                      and (w.claimed_until is null or w.claimed_until <= clock.now)))
   and exists (select from queue.watched_resources union all select from queue.subscriptions)
returning u.list_link
"""

_ITEM = """
item as materialized (
    select i.*, coalesce(case when r.kind is not null then r.resource end, i.resource) as spelled
      from jsonb_to_recordset(%(items)s) as i(
               subscription_id text, resource text, change_type text, notification_url text, lifecycle_url text,
               include_resource_data boolean, certificate_id text, expires_at timestamptz)
           cross join lateral queue.read_resource(i.resource) r
),
turn as (select u.list_started_at from queue.subscription_upkeep u where u.list_token = %(token)s)"""

# One that we had given up and that is there all the same belongs to nothing from now on.
_SEEN = f"""
with {_ITEM}
update queue.subscriptions s
   set seen_at = turn.list_started_at, watch_id = case when s.removed_at is null then s.watch_id end,
       removed_at = null, removed_reason = null
  from item, turn where s.id = item.subscription_id
"""  # noqa: S608 - of constants

_ADD = f"""
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now), {_ITEM}
insert into queue.subscriptions (id, resource, change_type, notification_url, lifecycle_url, expires_at,
                                 include_resource_data, certificate_id, created_at, seen_at)
select i.subscription_id, i.spelled, i.change_type, i.notification_url, i.lifecycle_url, i.expires_at,
       i.include_resource_data, i.certificate_id, clock.now, turn.list_started_at
  from item i, turn, clock
 where left(i.notification_url, length(%(base_url)s)) = %(base_url)s
on conflict (id) do nothing
"""  # noqa: S608 - of constants

_GO_ON = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.subscription_upkeep u
   set list_token = null, list_claimed_until = null, list_link = %(link)s, list_next_at = clock.now + %(pause)s,
       list_started_at = case when %(link)s::text is not null then u.list_started_at end
  from clock where u.list_token = %(token)s
"""

_LOCK = """
select u.list_started_at from queue.subscription_upkeep u where u.list_token = %(token)s for update
"""

# Of rows whose creation nobody knows the end of: the newest subscription that fits.
_ADOPT = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now),
fitting as materialized (
    select distinct on (w.id) w.id as watch_id, s.id as subscription_id, w.creating_state_id, w.creating_since
      from queue.watched_resources w
      join queue.subscriptions s on s.watch_id is null and s.removed_at is null and s.resource = w.resource
       and s.include_resource_data = w.include_resource_data
       and string_to_array(replace(s.change_type, ' ', ''), ',') @> string_to_array(w.change_types, ',')
       and string_to_array(replace(s.change_type, ' ', ''), ',') <@ string_to_array(w.change_types, ','),
           clock
     where w.creating_since < %(started_at)s and s.seen_at = %(started_at)s
       and (w.claimed_until is null or w.claimed_until <= clock.now) and w.ended_at is null
     order by w.id, s.expires_at desc
),
before as (
    update queue.subscriptions s
       set removed_at = clock.now, updated_at = clock.now,
           removed_reason = case when s.expires_at <= clock.now then 'expired' else 'replaced' end
      from fitting f, clock where s.watch_id = f.watch_id and s.removed_at is null
)
select f.watch_id, f.subscription_id, f.creating_state_id, f.creating_since from fitting f
"""

_ATTACH = """
update queue.subscriptions s
   set watch_id = a.watch_id, client_state_id = a.state_id,
       renewed_at = case when a.state_id is not null then a.since end
  from unnest(%(watches)s::uuid[], %(ids)s::text[], %(states)s::text[], %(since)s::timestamptz[])
       as a(watch_id, id, state_id, since)
 where s.id = a.id
"""

# With a secret on the row the creation was ours and has not happened: at once again. Without one, somebody else's
# stood in its place: when its failure said.
_JUDGE = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.watched_resources w
   set creating_since = null, creating_state_id = null,
       due_at = case when w.creating_state_id is not null or w.id = any(%(adopted)s) then clock.now else w.due_at end
  from clock
 where w.creating_since < %(started_at)s and (w.claimed_until is null or w.claimed_until <= clock.now)
returning w.due_at <= clock.now
"""

# A page may miss one that is there; a renewal tells for certain.
_DOUBT = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.watched_resources w set renew_asked_at = clock.now, due_at = clock.now
  from queue.subscriptions s, clock
 where s.watch_id = w.id and s.removed_at is null and s.expires_at > clock.now and w.ended_at is null and w.tries = 0
   and s.created_at < %(started_at)s and s.renewed_at < %(started_at)s and s.seen_at is distinct from %(started_at)s
returning true
"""

_END_STRAYS = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.subscriptions s set removed_at = clock.now, removed_reason = 'ended', updated_at = clock.now
  from clock
 where s.watch_id is null and s.removed_at is null and s.created_at < %(started_at)s
   and s.seen_at is distinct from %(started_at)s
"""

_END = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.subscription_upkeep u
   set list_token = null, list_claimed_until = null, list_link = null, list_started_at = null, list_next_at = null,
       listed_at = clock.now, list_due_at = clock.now + %(every)s
  from clock
"""

_PRUNE: tuple[LiteralString, ...] = (
    "delete from queue.subscriptions s where s.removed_at"
    " < coalesce(%(now)s::timestamptz, clock_timestamp()) - make_interval(days => %(days)s)",
    "delete from queue.notification_gaps g where g.job_id is not null and g.recorded_at"
    " < coalesce(%(now)s::timestamptz, clock_timestamp()) - make_interval(days => %(days)s)",
)

_STRAYS = """
select s.id from queue.subscriptions s
 where s.watch_id is null and s.removed_at is null
   and not exists (select from queue.watched_resources w where w.resource = s.resource and w.creating_since is not null)
 order by s.id limit %s
"""


class PostgresSubscriptionRecords(PostgresSubscriptions):
    """See shared.handlers.subscription_records.SubscriptionRecords."""

    def claim_listing(self, lease: timedelta) -> Listing | None:
        token = uuid4()
        values = {"now": self._clock(), "token": token, "lease": lease}
        with self._database.connection() as conn:
            row = conn.execute(_CLAIM, values).fetchone()
        return Listing(token, row[0]) if row else None

    def save_page(self, listing: Listing, found: Sequence[SubscriptionRecord], base_url: str) -> None:
        if not found:
            return
        values: dict[str, Any] = {
            "now": self._clock(),
            "token": listing.token,
            "items": to_json([record_json(record) for record in found]),
            "base_url": base_url.rstrip("/") + "/",
        }
        with self._database.transaction() as conn:
            conn.execute(_SEEN, values)
            conn.execute(_ADD, values)

    def go_on_listing(self, listing: Listing, link: str | None, pause: timedelta) -> None:
        self._run(_GO_ON, token=listing.token, link=link, pause=pause)

    def end_listing(self, listing: Listing, every: timedelta) -> bool:
        now = self._clock()
        with self._database.transaction() as conn:
            row = conn.execute(_LOCK, {"token": listing.token}).fetchone()
            if row is None:
                return False
            values = {"now": now, "started_at": row[0], "every": every, "days": KEEP_DAYS}
            adopted = conn.execute(_ADOPT, values).fetchall()
            ids = [one[1] for one in adopted]
            watches = [one[0] for one in adopted]
            made = 0
            if adopted:
                states, since = [one[2] for one in adopted], [one[3] for one in adopted]
                conn.execute(_ATTACH, {"watches": watches, "ids": ids, "states": states, "since": since})
                conn.execute(gaps.ADD_GAPS, {"now": now, "ids": ids, "reason": "adopted"})
                made = gaps.sync_gaps(conn, self._producer)
            due = any(one[0] for one in conn.execute(_JUDGE, values | {"adopted": watches}).fetchall())
            doubted = conn.execute(_DOUBT, values).rowcount > 0
            conn.execute(_END_STRAYS, values)
            for statement in _PRUNE:
                conn.execute(statement, values)
            conn.execute(_END, values)
        gaps.wake_sync(self._producer, made)
        return due or doubted

    def strays(self, limit: int) -> list[str]:
        with self._database.connection() as conn:
            return [row[0] for row in conn.execute(_STRAYS, (limit,)).fetchall()]

    def remove_strays(self, ids: Sequence[str]) -> None:
        with self._database.connection() as conn:
            conn.execute(
                "update queue.subscriptions s set removed_at = clock_timestamp(), removed_reason = 'ended'"
                " where s.id = any(%s) and s.watch_id is null",
                (list(ids),),
            )
