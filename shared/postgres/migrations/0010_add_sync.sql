-- Keeping mailboxes, chats, calendars, contacts and files in step: docs/reference/graph.md, Sync.

-- ---------------------------------------------------------------- where each set of items stands

-- One row a set that has a delta of its own: a mail folder, a calendar window, a drive. `link` is where to go on: a nextLink
-- while a pass runs (state pass), the deltaLink after it (ready); a new set has none. Items that a pass shows are stamped
-- with its number; after a full pass, what is stamped with a lower one than `full_pass` has vanished.
alter table queue.delta_links
    alter column link drop not null,
    add column resource_type text not null default '',
    add column account text not null default '',
    add column parent text,
    add column parent_pass bigint,
    add column state text not null default 'new',
    add column is_full boolean not null default true,
    add column pass bigint not null default 0,
    add column full_pass bigint not null default 0,
    add column stale_pages integer not null default 0,
    add column round_id uuid,
    add column version bigint not null default 0,
    add column details jsonb not null default '{}',
    add column resynced_at timestamptz,
    add constraint delta_links_state check (state in ('new', 'pass', 'ready')) not valid,
    add constraint delta_links_pass check (state <> 'pass' or link is not null) not valid;
alter table queue.delta_links validate constraint delta_links_state;
alter table queue.delta_links validate constraint delta_links_pass;

create index delta_links_account on queue.delta_links (resource_type, account, round_id);
create index delta_links_parent on queue.delta_links (parent) where parent is not null;

-- What is in which set. `gone`: its set has told so; what is still gone when the round ends is marked as deleted there.
create table queue.sync_items (
    resource_type text not null,
    account text not null,
    external_id text not null,
    resource text not null,
    pass bigint not null,
    gone boolean not null default false,
    primary key (resource_type, account, external_id)
) with (fillfactor = 80);

create index sync_items_resource on queue.sync_items (resource, pass);
create index sync_items_gone on queue.sync_items (resource_type, account) where gone;

-- A round brings all sets of one kind and account up to date. One is open at a time; `owner` is the lease of the job that
-- works on it, so that nobody else can.
alter table queue.sync_history
    add column pages integer not null default 0,
    add column resyncs integer not null default 0,
    add column owner uuid,
    add column owner_job_id uuid,
    add constraint sync_history_outcome check (outcome in ('completed', 'failed', 'replaced')) not valid;
alter table queue.sync_history validate constraint sync_history_outcome;

create unique index sync_history_open on queue.sync_history (resource_type, account) where finished_at is null;
create index sync_history_account on queue.sync_history (resource_type, account, started_at);
create index sync_history_job on queue.sync_history (job_id) where job_id is not null;

-- Whether the round is open and its owner's; it stays so until the transaction ends.
create function queue.hold_sync(p_round uuid, p_owner uuid)
returns boolean
language sql
as $$
    select exists (
        select from queue.sync_history h where h.id = p_round and h.owner = p_owner and h.finished_at is null for update)
$$;

-- ---------------------------------------------------------------- what the fleet application reads

create table queue.calendar_events (
    id uuid primary key default queue.new_id(),
    account text not null,
    external_id text not null,
    ical_uid text,
    type text,
    series_master_id text,
    subject text,
    preview text,
    start_at timestamptz,
    start_time_zone text,
    end_at timestamptz,
    end_time_zone text,
    is_all_day boolean,
    is_cancelled boolean,
    is_online_meeting boolean,
    online_meeting_url text,
    show_as text,
    sensitivity text,
    importance text,
    organizer_name text,
    organizer_address text,
    attendees jsonb,
    location text,
    recurrence jsonb,
    categories text[],
    response text,
    web_link text,
    etag text,
    modified_at timestamptz,
    deleted_at timestamptz,
    recorded_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    raw jsonb not null default '{}',
    constraint calendar_events_once unique (account, external_id)
);

create index calendar_events_time on queue.calendar_events (account, start_at, end_at) where deleted_at is null;
create index calendar_events_series on queue.calendar_events (account, series_master_id) where series_master_id is not null;
create index calendar_events_updated on queue.calendar_events (updated_at);

-- What is on at a time. An occurrence often has no more than its times of its own: the rest is its series'.
create view queue.calendar as
select e.account, e.external_id, coalesce(e.ical_uid, m.ical_uid) as ical_uid, e.type, e.series_master_id,
       coalesce(e.subject, m.subject) as subject, coalesce(e.preview, m.preview) as preview,
       e.start_at, coalesce(e.start_time_zone, m.start_time_zone) as start_time_zone,
       e.end_at, coalesce(e.end_time_zone, m.end_time_zone) as end_time_zone,
       coalesce(e.is_all_day, m.is_all_day) as is_all_day, coalesce(e.is_cancelled, m.is_cancelled) as is_cancelled,
       coalesce(e.show_as, m.show_as) as show_as, coalesce(e.organizer_name, m.organizer_name) as organizer_name,
       coalesce(e.organizer_address, m.organizer_address) as organizer_address,
       coalesce(e.attendees, m.attendees) as attendees, coalesce(e.location, m.location) as location,
       coalesce(e.online_meeting_url, m.online_meeting_url) as online_meeting_url,
       coalesce(e.web_link, m.web_link) as web_link, e.updated_at
  from queue.calendar_events e
  left join queue.calendar_events m on m.account = e.account and m.external_id = e.series_master_id
 where e.deleted_at is null and e.type is distinct from 'seriesMaster';

create table queue.contacts (
    id uuid primary key default queue.new_id(),
    account text not null,
    external_id text not null,
    folder_id text,
    display_name text,
    given_name text,
    surname text,
    company_name text,
    job_title text,
    department text,
    email_addresses text[],
    mobile_phone text,
    business_phones text[],
    home_phones text[],
    categories text[],
    notes text,
    etag text,
    modified_at timestamptz,
    deleted_at timestamptz,
    recorded_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    raw jsonb not null default '{}',
    constraint contacts_once unique (account, external_id)
);

create index contacts_name on queue.contacts (account, display_name) where deleted_at is null;
create index contacts_mail on queue.contacts using gin (email_addresses);
create index contacts_updated on queue.contacts (updated_at);

create table queue.files (
    id uuid primary key default queue.new_id(),
    account text not null,
    external_id text not null,
    drive_id text,
    parent_id text,
    name text,
    is_folder boolean,
    size_bytes bigint,
    mime_type text,
    quick_xor_hash text,
    sha1_hash text,
    sha256_hash text,
    web_url text,
    created_by text,
    modified_by text,
    is_malware boolean,
    etag text,
    ctag text,
    modified_at timestamptz,
    deleted_at timestamptz,
    recorded_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    raw jsonb not null default '{}',
    constraint files_once unique (account, external_id)
);

create index files_parent on queue.files (account, parent_id) where deleted_at is null;
create index files_name on queue.files (account, name) where deleted_at is null;
create index files_updated on queue.files (updated_at);

-- Where a file is: the names of the folders above it. Folders are followed by id, because a folder's new name comes without
-- its files.
create function queue.file_path(p_account text, p_external_id text)
returns text
language sql
stable
as $$
    with recursive up as (
        select f.parent_id, '/' || f.name as path, 1 as depth
          from queue.files f where f.account = p_account and f.external_id = p_external_id
        union all
        select f.parent_id, '/' || f.name || up.path, up.depth + 1
          from up join queue.files f on f.account = p_account and f.external_id = up.parent_id
         where f.parent_id is not null and up.depth < 100
    )
    select path from up order by depth desc limit 1
$$;
