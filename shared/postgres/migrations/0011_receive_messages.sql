-- What came in, in full: edits and deletions, what wrote it by itself, full-text search, and events for the fleet
-- application. How it is used: docs/how-to/follow-messages.md.

-- deleted_at: when its sender deleted it; automatic: written by a machine (an out-of-office reply, a bot, a list).
alter table queue.communication_logs
    add column edited_at timestamptz,
    add column deleted_at timestamptz,
    add column automatic boolean not null default false;
update queue.communication_logs
   set deleted_at = (raw ->> 'deletedDateTime')::timestamptz
 where raw ? 'deletedDateTime';

create index communication_logs_automatic on queue.communication_logs (thread_id, recorded_at) where automatic;

-- What its kind adds: the subject and sender of an attached message, the content id of an inline image.
alter table queue.attachments add column details jsonb not null default '{}';

-- A tsvector has room for a megabyte, so a text counts with its beginning only.
create function queue.searchable(subject text, content text)
returns tsvector
language sql
immutable
parallel safe
as $$
    select to_tsvector('pg_catalog.simple', left(coalesce(subject, '') || ' ' || coalesce(content, ''), 100000))
$$;

create index communication_logs_search on queue.communication_logs using gin (queue.searchable(subject, text));

create function queue.search_messages(words text, most integer default 50)
returns setof queue.communication_logs
language sql
stable
as $$
    select *
      from queue.communication_logs
     where queue.searchable(subject, text) @@ websearch_to_tsquery('pg_catalog.simple', words)
     order by occurred_at desc nulls last, id
     limit most
$$;

-- One row for each message that came in, and for each edit, deletion and undoing of a deletion of it.
create table queue.outgoing_events (
    position bigint generated always as identity primary key,
    id uuid not null unique default queue.new_id(),
    kind text not null,
    communication_id uuid not null references queue.communication_logs (id) on delete cascade,
    job_id uuid,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint outgoing_events_kind
        check (kind in ('message.received', 'message.edited', 'message.deleted', 'message.restored'))
);
create index outgoing_events_message on queue.outgoing_events (communication_id, job_id);
create index outgoing_events_age on queue.outgoing_events (recorded_at);

-- The lock is held until the commit, so positions become visible in their order: who reads on from the last position
-- that it saw misses none. Call it last in a transaction.
create function queue.add_outgoing_event(p_kind text, p_communication_id uuid, p_job_id uuid)
returns uuid
language plpgsql
as $$
declare
    v_id uuid;
begin
    perform pg_advisory_xact_lock(hashtextextended('queue.outgoing_events', 0));
    insert into queue.outgoing_events (kind, communication_id, job_id)
    values (p_kind, p_communication_id, p_job_id)
    returning id into v_id;
    return v_id;
end
$$;
