-- Finds jobs by what callers have: a chat, a mailbox, a recipient, the id of a message or of a request. Nothing is added
-- to queue.job, and to the others nothing that a claim reads. Runs beside the release before.

-- Ids of the requests to Graph that attempts tell of, theirs and ours.
create function queue.request_ids(p_attempts jsonb)
returns text[]
language sql
immutable parallel safe
as $$
    select array_agg(distinct lower(found.id #>> '{}'))
      from jsonb_path_query(p_attempts, '$[*].details.*[*] ? (@.type() == "object").keyvalue()
                                         ? (@.key == "request_id" || @.key == "client_request_id").value') found(id)
     where jsonb_typeof(found.id) = 'string'
$$;

-- By what a message is found: whom it went to or came from, with the week, so that each list is short and the newest is
-- read first; the channel that it stands in; Teams' id of it, or a mail's own. A chat is found by its thread, a mailbox
-- of ours by its jobs' limit key.
create function queue.message_names(
    p_channel text, p_direction text, p_account text, p_sender text, p_recipients text[], p_external_id text,
    p_internet_message_id text, p_recorded_at timestamptz
)
returns text[]
language sql
immutable parallel safe
as $$
    select array_agg(distinct n.name)
      from (select lower(case when p_channel = 'teams' then substring(p.party from '[^/]*$') else p.party end) || ' '
                   || floor(extract(epoch from p_recorded_at at time zone 'UTC') / 604800)::integer as name
              from unnest(p_recipients || case when p_direction = 'in' then p_sender end) p(party)
             where p.party <> '' and lower(p.party) is distinct from lower(p_account)
               and not (p_channel = 'teams' and p.party like '%:%' and p.party not like '%/%')
            union all
            select case when p_channel = 'teams' then substring(p_external_id from '[^/]*$')
                        else trim(both '<>' from p_internet_message_id) end) n
     where n.name <> ''
$$;

create index communication_logs_names on queue.communication_logs using gin (
    queue.message_names(channel, direction, account, sender, recipients, external_id, internet_message_id, recorded_at));

create index job_tracking_limit_key on queue.job_tracking (limit_key, finished_at, id) where limit_key is not null;
create index later_limit_key on queue.later (limit_key) where limit_key is not null;
create index waiting_limit_key on queue.waiting (limit_key) where limit_key is not null;

-- The last failures of a class, in all queues.
create index job_tracking_error on queue.job_tracking (error_class, finished_at, id) where state = 'dead';

create index job_tracking_requests on queue.job_tracking using gin (queue.request_ids(attempts))
    where attempt > 1 or state = 'dead';
create index later_requests on queue.later using gin (queue.request_ids(attempts)) where attempt > 0;

-- Whom a dead job was for, as digests under the key that seals its payload: an address is found, and none can be read.
alter table queue.dead_letter_queue add column names bytea[];
create index dead_letter_names on queue.dead_letter_queue using gin (names);

-- An enqueue that found its job there already is found by its own correlation id.
create index audit_log_again on queue.audit_log ((after ->> 'correlationId')) where action = 'job.again';
