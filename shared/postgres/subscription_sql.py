"""The statements of shared.postgres.subscriptions. `now` is null but in tests: the database's own time counts."""

from __future__ import annotations

NOTE_SETTINGS = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now),
off as (
    select w.id
      from queue.watched_resources w
      join queue.subscriptions s on s.watch_id = w.id and s.removed_at is null,
           clock
     where w.due_at > clock.now and w.tries = 0 and w.ended_at is null
       and (s.notification_url <> %(url)s or s.lifecycle_url is distinct from %(lifecycle_url)s
            or s.client_state_id is null or s.client_state_id <> all(%(state_ids)s)
            or w.include_resource_data
               and s.certificate_id is distinct from coalesce(%(certificate_id)s, s.certificate_id))
     for update of w skip locked
)
update queue.watched_resources w set due_at = clock.now from off, clock where w.id = off.id
"""

CLAIM = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now),
due as (
    select w.id
      from queue.watched_resources w, queue.subscription_upkeep u, clock
     where w.due_at <= clock.now and w.creating_since is null
       and (w.claimed_until is null or w.claimed_until <= clock.now)
       and (u.paused_until is null or u.paused_until <= clock.now)
     order by w.due_at, w.id limit %(limit)s
     for update of w skip locked
),
claimed as (
    update queue.watched_resources w
       set claim_token = %(token)s, claimed_at = clock.now, claimed_until = clock.now + %(lease)s
      from due, clock where w.id = due.id
    returning w.*
)
select c.id, c.resource, c.kind, c.change_types, c.include_resource_data, c.ended_at is not null as is_ended, c.tries,
       c.renew_asked_at, c.claimed_at as now, s.id as subscription_id, s.resource as subscribed, s.change_type,
       s.notification_url, s.lifecycle_url, s.expires_at, s.include_resource_data as has_data, s.certificate_id,
       s.client_state_id, s.renewed_at
  from claimed c left join queue.subscriptions s on s.watch_id = c.id and s.removed_at is null
 order by c.due_at, c.id
"""

MARK_CREATING = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.watched_resources w set creating_since = clock.now, creating_state_id = %(state_id)s
  from clock where w.claim_token = %(token)s and w.id = any(%(ids)s)
"""

LOCK = "select id from queue.watched_resources where claim_token = %s and id = any(%s) order by id for update"

OUTCOME = """
outcome as materialized (
    select * from jsonb_to_recordset(%(outcomes)s) as o(
        watch_id uuid, state text, due_at timestamptz, state_id text, gap text, problem text, refused boolean,
        removed boolean, subscription_id text, resource text, change_type text, notification_url text,
        lifecycle_url text, include_resource_data boolean, certificate_id text, expires_at timestamptz)
)"""

# The claim's time is when a subscription was renewed: a request to renew that came later than that still counts.
SAVE_SUBSCRIPTIONS = f"""
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now), {OUTCOME},
ended as (
    update queue.subscriptions s
       set removed_at = clock.now, updated_at = clock.now,
           removed_reason = case when o.removed then 'replaced'
                                 when o.state = 'created' then coalesce(o.gap, 'replaced') else o.state end
      from outcome o, clock
     where s.watch_id = o.watch_id and s.removed_at is null
       and (o.state in ('gone', 'ended') or o.removed or o.state = 'created' and s.id <> o.subscription_id)
    returning s.watch_id
),
renewed as (
    update queue.subscriptions s
       set expires_at = o.expires_at, renewed_at = w.claimed_at, certificate_id = o.certificate_id,
           updated_at = clock.now
      from outcome o join queue.watched_resources w on w.id = o.watch_id, clock
     where o.state = 'renewed' and s.id = o.subscription_id and s.removed_at is null
    returning s.watch_id
)
select count(*) from ended full join renewed using (watch_id)
"""  # noqa: S608 - of constants

ADD_SUBSCRIPTIONS = f"""
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now), {OUTCOME}
insert into queue.subscriptions as s (id, watch_id, resource, change_type, notification_url, lifecycle_url, expires_at,
                                      include_resource_data, certificate_id, client_state_id, created_at, renewed_at)
select o.subscription_id, o.watch_id, w.resource, o.change_type, o.notification_url, o.lifecycle_url, o.expires_at,
       o.include_resource_data, o.certificate_id, o.state_id, clock.now, w.claimed_at
  from outcome o join queue.watched_resources w on w.id = o.watch_id, clock
 where o.state = 'created'
 order by o.subscription_id
on conflict (id) do update
   set watch_id = excluded.watch_id, resource = excluded.resource, change_type = excluded.change_type,
       expires_at = excluded.expires_at, client_state_id = excluded.client_state_id, renewed_at = excluded.renewed_at,
       removed_at = null, removed_reason = null, updated_at = excluded.created_at
"""  # noqa: S608 - of constants

# What somebody asked of the row after its claim (a change, a lifecycle event) is not put off by its outcome.
SAVE_WATCHES = f"""
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now), {OUTCOME}
update queue.watched_resources w
   set claim_token = null, claimed_at = null, claimed_until = null,
       due_at = case when o.state = 'released' then w.due_at
                     when w.due_at > w.claimed_at then least(w.due_at, coalesce(o.due_at, clock.now))
                     else coalesce(o.due_at, clock.now) end,
       creating_since = case when o.state = 'unfinished' then w.creating_since end,
       creating_state_id = case when o.state = 'unfinished' then o.state_id end,
       tries = case when o.problem is not null then w.tries + 1 when o.state = 'released' then w.tries else 0 end,
       problem = case when o.state = 'released' then w.problem else o.problem end,
       problem_since = case when o.state = 'released' then w.problem_since
                            when o.problem is not null then coalesce(w.problem_since, clock.now) end,
       refused = case when o.state = 'released' then w.refused else o.refused end
  from outcome o, clock
 where w.id = o.watch_id
"""  # noqa: S608 - of constants

FORGET = """
with forgotten as (
    delete from queue.watched_resources w where w.id = any(%(ids)s) and w.ended_at is not null returning w.resource
)
delete from queue.notification_gaps g using forgotten f where g.resource = f.resource and g.job_id is null
"""

POSTPONE_KIND = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now),
put_off as (
    select w.id from queue.watched_resources w, clock
     where w.kind = %(kind)s and w.ended_at is null and w.due_at <= clock.now + %(pause)s
       and (w.claimed_until is null or w.claimed_until <= clock.now)
       and not exists (select from queue.subscriptions s where s.watch_id = w.id and s.removed_at is null)
     for update of w skip locked
)
update queue.watched_resources w
   set due_at = clock.now + %(pause)s, problem = coalesce(w.problem, %(problem)s),
       problem_since = coalesce(w.problem_since, clock.now), refused = true
  from put_off, clock where w.id = put_off.id
"""

PAUSE = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.subscription_upkeep u
   set paused_until = greatest(u.paused_until, clock.now + %(pause)s), pause_reason = %(reason)s from clock
"""

IS_DUE = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
select (select count(*) from queue.watched_resources w
         where w.due_at <= clock.now and w.creating_since is null
           and (w.claimed_until is null or w.claimed_until <= clock.now)),
       exists (select from queue.watched_resources w where w.creating_since is not null)
       or exists (select from queue.subscriptions s where s.watch_id is null and s.removed_at is null)
       or exists (select from queue.subscription_upkeep u
                   where case when u.list_started_at is null then u.list_due_at else u.list_next_at end <= clock.now)
          and exists (select from queue.watched_resources)
  from clock, queue.subscription_upkeep pause
 where pause.paused_until is null or pause.paused_until <= clock.now
"""

LOCK_OF_SUBSCRIPTION = """
select w.id from queue.watched_resources w join queue.subscriptions s on s.watch_id = w.id
 where s.id = %s and s.removed_at is null for update of w
"""

REMOVED = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now),
removed as (
    update queue.subscriptions s set removed_at = clock.now, removed_reason = 'removed', updated_at = clock.now
      from clock where s.id = %(id)s and s.removed_at is null
    returning s.watch_id
)
update queue.watched_resources w set due_at = clock.now from removed, clock where w.id = removed.watch_id
"""

REAUTHORIZE = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
update queue.watched_resources w
   set renew_asked_at = clock.now,
       due_at = least(greatest(w.due_at, clock.now), greatest(clock.now, s.renewed_at + %(pause)s))
  from queue.subscriptions s, clock
 where s.id = %(id)s and s.removed_at is null and w.id = s.watch_id
"""

MISSED = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now)
insert into queue.notification_gaps (gap_key, resource, subscription_id, reason, from_at, until_at, recorded_at)
select %(key)s, w.resource, s.id, 'missed', s.renewed_at, clock.now, clock.now
  from queue.subscriptions s join queue.watched_resources w on w.id = s.watch_id, clock
 where s.id = %(id)s and s.removed_at is null
on conflict (gap_key) do nothing
"""

ALERTS = """
with clock as (select coalesce(%(now)s::timestamptz, clock_timestamp()) as now),
watched as materialized (
    select w.*, s.expires_at, s.renewed_at
      from queue.watched_resources w
      left join queue.subscriptions s on s.watch_id = w.id and s.removed_at is null
     where w.ended_at is null
),
found as materialized (
    select 'subscriptions:failing:' || w.kind as alert_key, 'warning' as level,
           format('%%s resources of the kind %%s are not watched as they should be', count(*), w.kind) as title,
           jsonb_build_object('count', count(*), 'since', min(w.problem_since), 'resource', min(w.resource),
                              'problem', (array_agg(w.problem order by w.tries desc, w.problem_since))[1]) as details
      from watched w, clock
     where w.problem is not null and (w.refused or w.tries >= 3)
     group by w.kind
    union all
    select 'subscriptions:expiring', 'critical',
           format('%%s subscriptions run out soon and could not be renewed', count(*)),
           jsonb_build_object('count', count(*), 'firstAt', min(w.expires_at), 'resource', min(w.resource))
      from watched w, clock
     where w.expires_at > clock.now and w.expires_at - clock.now < (w.expires_at - w.renewed_at) / 6
    having count(*) > 0
    union all
    select 'subscriptions:uncovered', 'critical', format('%%s declared resources have no subscription', count(*)),
           jsonb_build_object('count', count(*), 'resource', min(w.resource))
      from watched w, clock
     where (w.expires_at is null or w.expires_at <= clock.now)
       and greatest(w.declared_at, w.expires_at, w.problem_since) < clock.now - interval '15 minutes'
    having count(*) > 0
),
opened as (
    insert into queue.queue_alerts as a (alert_key, level, title, details)
    select alert_key, level, title, details from found
    on conflict (alert_key) where resolved_at is null do update
       set title = excluded.title, details = excluded.details, updated_at = clock_timestamp()
)
update queue.queue_alerts a set resolved_at = clock_timestamp()
 where a.alert_key like 'subscriptions:%%' and a.resolved_at is null
   and a.alert_key not in (select alert_key from found)
"""
