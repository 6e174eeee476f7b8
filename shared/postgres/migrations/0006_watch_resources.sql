-- What to watch, as the fleet application declares it; what keeps the subscriptions that this takes; and every time
-- during which nothing was watched. How it works: docs/how-to/watch-mailboxes-and-chats.md.
-- Runs beside the release before: what that reads of queue.subscriptions keeps its name and its columns.

create table queue.watched_resources (
    id uuid primary key default queue.new_id(),
    resource text not null,
    kind text not null,
    change_types text not null,
    include_resource_data boolean not null default false,
    -- Whose sync makes up for a gap, where the resource's path names nobody.
    sync_user text,
    declared_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    due_at timestamptz not null default clock_timestamp(),
    claim_token uuid,
    claimed_at timestamptz,
    claimed_until timestamptz,
    renew_asked_at timestamptz,
    -- A creation went out and nobody knows how it ended: a listing of what Graph has tells.
    creating_since timestamptz,
    creating_state_id text,
    tries integer not null default 0,
    problem text,
    problem_since timestamptz,
    -- Only a person can end the problem: a permission, a quota.
    refused boolean not null default false,
    constraint watched_resources_resource unique (resource),
    constraint watched_resources_kind check (kind in ('mail', 'event', 'contact', 'chat', 'channel', 'drive')),
    constraint watched_resources_claimed check ((claim_token is null) = (claimed_until is null) and (claim_token is null) = (claimed_at is null)),
    constraint watched_resources_problem check ((problem is null) = (problem_since is null))
);

create index watched_resources_due on queue.watched_resources (due_at);
create index watched_resources_creating on queue.watched_resources (creating_since) where creating_since is not null;

alter table queue.subscriptions
    add column watch_id uuid references queue.watched_resources (id) on delete set null,
    add column lifecycle_url text,
    add column include_resource_data boolean not null default false,
    add column certificate_id text,
    -- Which secret made its clientState (never the secret); null where we do not know.
    add column client_state_id text,
    add column renewed_at timestamptz,
    add column seen_at timestamptz,
    add column removed_reason text;

drop index queue.subscriptions_live;
create unique index subscriptions_live on queue.subscriptions (watch_id) where removed_at is null;
create index subscriptions_of_watch on queue.subscriptions (watch_id);

-- A time during which changes may have been missed. It ends in one job of the queue sync; no job_id: not yet.
create table queue.notification_gaps (
    id uuid primary key default queue.new_id(),
    gap_key text not null,
    resource text not null,
    subscription_id text not null,
    reason text not null,
    from_at timestamptz,
    until_at timestamptz not null,
    recorded_at timestamptz not null default clock_timestamp(),
    job_id uuid,
    constraint notification_gaps_key unique (gap_key),
    constraint notification_gaps_reason
        check (reason in ('new', 'expired', 'removed', 'gone', 'replaced', 'adopted', 'missed'))
);

create index notification_gaps_open on queue.notification_gaps (recorded_at) where job_id is null;
create index notification_gaps_age on queue.notification_gaps (recorded_at);

-- One row: when Graph wants to be left alone, and how far the listing of what Graph has is.
create table queue.subscription_upkeep (
    only_row boolean primary key default true check (only_row),
    paused_until timestamptz,
    pause_reason text,
    list_due_at timestamptz not null default clock_timestamp(),
    list_started_at timestamptz,
    list_link text,
    list_next_at timestamptz,
    list_token uuid,
    list_claimed_until timestamptz,
    listed_at timestamptz
);

insert into queue.subscription_upkeep default values;

-- The one spelling of a resource, and its kind; null where it is none that can be watched. Ids keep their letters' case.
create function queue.read_resource(p_resource text, out resource text, out kind text)
language sql
immutable
as $$
    with spelled as (
        select regexp_replace(ltrim(btrim(p_resource), '/'), '/mailFolders/([^/()]+)/', '/mailFolders(''\1'')/') as path
    ),
    named as (
        select case when path ~ '^users/[^/]+/' then regexp_replace(path, '^users/[^/]+', lower(substring(path from '^users/[^/]+')))
                    else path end as path
          from spelled
    )
    select path, case
        when path ~ '^users/[^/?#()''\s]{1,200}/(mailFolders\(''[^/?#()''\s]{1,250}''\)/)?messages(\?\$select=[A-Za-z0-9,]{1,250})?$' then 'mail'
        when path ~ '^users/[^/?#()''\s]{1,200}/events(\?\$select=[A-Za-z0-9,]{1,250})?$' then 'event'
        when path ~ '^users/[^/?#()''\s]{1,200}/contacts(\?\$select=[A-Za-z0-9,]{1,250})?$' then 'contact'
        when path ~ '^chats/[^/?#()''\s]{1,200}/messages$' or path ~ '^users/[^/?#()''\s]{1,200}/chats/getAllMessages$' then 'chat'
        when path ~ '^teams/[^/?#()''\s]{1,200}/channels/[^/?#()''\s]{1,200}/messages$' then 'channel'
        when path ~ '^drives/[^/?#()''\s]{1,200}/root$' or path ~ '^users/[^/?#()''\s]{1,200}/drive/root$' then 'drive'
    end
      from named
$$;

create function queue.refuse_watch(p_problem text, p_remedy text)
returns void
language plpgsql
as $$
begin
    raise exception using errcode = 'invalid_parameter_value', message = p_problem, hint = p_remedy;
end
$$;

-- A pass over what is due: one for a transaction, so that it sees all that this one has changed, and begins after it.
create function queue.ask_for_upkeep()
returns void
language sql
as $$
    select queue.enqueue('subscriptions', '{}',
        idempotency_key => format('declared:%s:%s', pg_current_xact_id(), extract(epoch from transaction_timestamp())))
$$;

-- Watches a resource from now on, or changes how it is watched; a subscription follows within seconds. Part of the caller's
-- transaction. change_types: created, updated, deleted, separated by commas; all that its kind has when left out.
create function queue.watch(
    resource text,
    change_types text default null,
    include_resource_data boolean default false,
    sync_user text default null
)
returns uuid
language plpgsql
as $$
#variable_conflict use_variable
declare
    v_resource text;
    v_kind text;
    v_types text;
    v_named boolean;
    v_id uuid;
begin
    select r.resource, r.kind into v_resource, v_kind from queue.read_resource(resource) r;
    if v_kind is null then
        perform queue.refuse_watch('resource: it is none that can be watched', 'Give one of users/{id}/messages, '
            'users/{id}/mailFolders(''{folder}'')/messages, users/{id}/events, users/{id}/contacts, users/{id}/chats/getAllMessages, '
            'users/{id}/drive/root, chats/{id}/messages, teams/{id}/channels/{id}/messages, drives/{id}/root.');
    end if;
    select string_agg(distinct btrim(t), ',' order by btrim(t)) into v_types
      from unnest(string_to_array(coalesce(change_types, case v_kind when 'drive' then 'updated' else 'created,updated,deleted' end), ',')) t;
    if v_types is null or exists (select from unnest(string_to_array(v_types, ',')) t where t not in ('created', 'updated', 'deleted')) then
        perform queue.refuse_watch('change_types: one of them is not known', 'Give created, updated and deleted, or some of them, separated by commas.');
    end if;
    if v_kind = 'drive' and v_types <> 'updated' then
        perform queue.refuse_watch('change_types: a drive has updated only', 'Give updated, or leave it out.');
    end if;
    if include_resource_data is null or (v_kind = 'drive' and include_resource_data) then
        perform queue.refuse_watch('include_resource_data: a drive''s notifications carry no data', 'Give false, or leave it out.');
    end if;
    if include_resource_data and v_kind in ('mail', 'event', 'contact') and v_resource !~ '\?\$select=' then
        perform queue.refuse_watch('resource: Outlook sends data of named properties only', 'Add ?$select= and their names, for instance ?$select=subject,from.');
    end if;
    if not include_resource_data and v_resource ~ '\?' then
        perform queue.refuse_watch('resource: $select goes with include_resource_data', 'Leave ?$select= out, or set include_resource_data.');
    end if;
    v_named := v_resource ~ '^(users|teams)/';
    if v_named and sync_user is not null then
        perform queue.refuse_watch('sync_user: the resource names its owner itself', 'Leave it out.');
    end if;
    if not v_named and (sync_user is null or sync_user !~ '^[^/?#\s]{1,200}$') then
        perform queue.refuse_watch('sync_user: it must be the id of a user', 'Name a member of the chat or the owner of the drive: their sync makes up for missed notifications.');
    end if;
    insert into queue.watched_resources as w (resource, kind, change_types, include_resource_data, sync_user)
    values (v_resource, v_kind, v_types, include_resource_data, sync_user)
    on conflict on constraint watched_resources_resource do update
       set change_types = excluded.change_types, include_resource_data = excluded.include_resource_data,
           sync_user = excluded.sync_user, ended_at = null, due_at = clock_timestamp(), tries = 0,
           problem = null, problem_since = null
     where (w.change_types, w.include_resource_data, w.ended_at is null)
           is distinct from (excluded.change_types, excluded.include_resource_data, true)
        or w.sync_user is distinct from excluded.sync_user or w.problem is not null
    returning w.id into v_id;
    if v_id is null then
        select w.id into v_id from queue.watched_resources w where w.resource = v_resource;
        return v_id;
    end if;
    perform queue.ask_for_upkeep();
    return v_id;
end
$$;

-- Watches it no longer; its subscription is deleted within seconds. False: it was not watched.
create function queue.unwatch(resource text)
returns boolean
language plpgsql
as $$
#variable_conflict use_variable
declare
    v_resource text;
begin
    select r.resource into v_resource from queue.read_resource(resource) r;
    update queue.watched_resources w
       set ended_at = clock_timestamp(), due_at = clock_timestamp(), tries = 0, problem = null, problem_since = null
     where w.resource = v_resource and w.ended_at is null;
    if not found then
        return false;
    end if;
    perform queue.ask_for_upkeep();
    return true;
end
$$;

-- How well all that is declared is watched. `expiring`: not renewed although less than a sixth of its life is left.
create view queue.subscription_status as
select count(*) filter (where w.ended_at is null) as declared,
       count(*) filter (where w.ended_at is null and s.expires_at > clock_timestamp()) as covered,
       count(*) filter (where w.ended_at is null and coalesce(s.expires_at <= clock_timestamp(), true)) as uncovered,
       count(*) filter (where w.problem is not null) as failing,
       count(*) filter (where w.ended_at is null and s.expires_at > clock_timestamp()
                        and s.expires_at - clock_timestamp() < (s.expires_at - s.renewed_at) / 6) as expiring,
       min(s.expires_at) filter (where w.ended_at is null) as next_expiry_at,
       (select count(*) from queue.subscriptions t where t.watch_id is null and t.removed_at is null) as strays,
       (select count(*) from queue.notification_gaps g where g.job_id is null) as gaps_not_synced,
       (select u.paused_until from queue.subscription_upkeep u) as paused_until
  from queue.watched_resources w
  left join queue.subscriptions s on s.watch_id = w.id and s.removed_at is null;

-- What the release before kept one by one is declared from now on, and replaced, since its secret is not on record.
insert into queue.watched_resources (resource, kind, change_types)
select distinct on (r.resource) r.resource, r.kind, (select string_agg(distinct btrim(t), ',' order by btrim(t)) from unnest(string_to_array(s.change_type, ',')) t)
  from queue.subscriptions s cross join lateral queue.read_resource(s.resource) r
 where s.removed_at is null and r.kind is not null and r.resource !~ '\?'
 order by r.resource, s.created_at desc;

update queue.subscriptions s set watch_id = w.id
  from queue.watched_resources w
 where s.removed_at is null and s.id = (
       select t.id from queue.subscriptions t cross join lateral queue.read_resource(t.resource) r
        where t.removed_at is null and r.resource = w.resource order by t.created_at desc limit 1);
