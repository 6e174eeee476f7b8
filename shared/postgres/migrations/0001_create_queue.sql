-- The whole layout. Hot jobs, future jobs and history are separate tables on purpose: see docs/explanation/architecture.md.

create schema if not exists queue;

-- ---------------------------------------------------------------- ids

-- uuidv7() is built in from PostgreSQL 18; before that, the same layout: milliseconds, then the fraction of the
-- millisecond in the 12 bits after the version, so that ids of one statement sort as they were made.
do $do$
begin
    if exists (select from pg_catalog.pg_proc where proname = 'uuidv7' and pronamespace = 'pg_catalog'::regnamespace) then
        create function queue.new_id() returns uuid language sql volatile parallel safe as 'select uuidv7()';
    else
        create function queue.new_id() returns uuid language plpgsql volatile parallel safe as $fn$
        declare
            micros bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
            millis bytea := substring(int8send(micros / 1000) from 3);
            fraction int := ((micros % 1000) * 4096 / 1000)::int;
            bytes bytea := uuid_send(gen_random_uuid());
        begin
            bytes := overlay(bytes placing millis from 1 for 6);
            bytes := set_byte(bytes, 6, 112 | (fraction >> 8));
            bytes := set_byte(bytes, 7, fraction & 255);
            return encode(bytes, 'hex')::uuid;
        end
        $fn$;
    end if;
end
$do$;

-- ---------------------------------------------------------------- the engine's own tables

create table queue.queue_settings (
    queue text primary key,
    class text not null,
    carries text not null,
    priority smallint not null,
    closed text not null default '',
    paused boolean not null default false,
    lease_seconds integer not null default 45,
    wake_size integer not null default 16,
    claim_batch integer not null default 1,
    updated_at timestamptz not null default clock_timestamp(),
    constraint queue_settings_priority check (priority between 1 and 10),
    constraint queue_settings_lease check (lease_seconds between 1 and 3600),
    constraint queue_settings_wake_size check (wake_size between 1 and 1000),
    constraint queue_settings_claim_batch check (claim_batch between 1 and 1000)
);

-- Ready and active jobs only. A claim must stay a HOT update, so no index names the lease, in columns or predicate,
-- and pages are kept half empty (engine measurements: docs/decisions/0002-one-hot-table.md).
create table queue.job (
    id uuid primary key,
    queue text not null,
    priority smallint not null,
    run_at timestamptz not null,
    enqueued_at timestamptz not null,
    attempt smallint not null default 0,
    lease_token uuid,
    lease_until timestamptz,
    leased_by text,
    started_at timestamptz,
    correlation_id text,
    idempotency_key text,
    redrive_of uuid,
    effect_since timestamptz,
    payload jsonb not null,
    attempts jsonb,
    constraint job_priority check (priority between 1 and 10),
    constraint job_lease check (
        (lease_token is null) = (lease_until is null)
        and (lease_token is null) = (leased_by is null)
        and (lease_token is null) = (started_at is null)
    ),
    constraint job_times check (isfinite(run_at) and isfinite(enqueued_at))
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);

create index job_order on queue.job (queue, priority, run_at, id);

create table queue.later (
    id uuid primary key,
    queue text not null,
    priority smallint not null,
    run_at timestamptz not null,
    enqueued_at timestamptz not null,
    attempt smallint not null default 0,
    correlation_id text,
    idempotency_key text,
    redrive_of uuid,
    effect_since timestamptz,
    payload jsonb not null,
    attempts jsonb,
    constraint later_priority check (priority between 1 and 10),
    constraint later_times check (isfinite(run_at) and isfinite(enqueued_at))
)
with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);

create index later_due on queue.later (queue, run_at);

-- Jobs whose key is taken or blocked, or whose dependencies have not ended.
create table queue.waiting (
    id uuid primary key,
    queue text not null,
    key text not null,
    priority smallint not null,
    run_at timestamptz not null,
    enqueued_at timestamptz not null,
    attempt smallint not null default 0,
    correlation_id text,
    idempotency_key text,
    redrive_of uuid,
    effect_since timestamptz,
    payload jsonb not null,
    attempts jsonb,
    constraint waiting_priority check (priority between 1 and 10),
    constraint waiting_times check (isfinite(run_at) and isfinite(enqueued_at))
);

create index waiting_order on queue.waiting (queue, key, priority, run_at, id);

-- The history: a job moves here in the statement that ends it. Dropped by the day.
create table queue.job_tracking (
    id uuid not null,
    queue text not null,
    state text not null,
    priority smallint not null,
    run_at timestamptz not null,
    enqueued_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz not null,
    attempt smallint not null,
    correlation_id text,
    idempotency_key text,
    redrive_of uuid,
    effect_since timestamptz,
    payload jsonb not null,
    attempts jsonb,
    result jsonb,
    error_class text,
    error_message text,
    primary key (id, finished_at),
    constraint job_tracking_state check (state in ('completed', 'dead', 'cancelled')),
    constraint job_tracking_error check ((state = 'dead') = (error_class is not null))
)
partition by range (finished_at);

create table queue.idempotency (
    queue text not null,
    key text not null,
    job_id uuid not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (queue, key)
);

create index idempotency_age on queue.idempotency (created_at);

create table queue.dead_letter_queue (
    id uuid primary key default queue.new_id(),
    job_id uuid unique,
    source text unique,
    queue text not null,
    error_class text not null,
    error_message text not null,
    body text,
    died_at timestamptz not null default clock_timestamp(),
    reviewed_at timestamptz,
    reviewed_by text,
    review_note text,
    redriven_at timestamptz,
    redriven_by text,
    redriven_job_id uuid,
    alerted_at timestamptz,
    constraint dead_letter_origin check ((job_id is null) <> (source is null)),
    constraint dead_letter_redriven check ((redriven_at is null) = (redriven_by is null)),
    constraint dead_letter_reviewed check ((reviewed_at is null) = (reviewed_by is null))
);

create index dead_letter_open on queue.dead_letter_queue (queue, died_at) where redriven_at is null;

-- A timer's turn: one host at a time, freed when the run ends or when the turn has lasted too long.
create table queue.timer_turn (
    timer text primary key,
    token uuid,
    taken_until timestamptz,
    last_started_at timestamptz,
    last_finished_at timestamptz
);

-- ---------------------------------------------------------------- the fleet system's other tables

create table queue.queue_statistics (
    queue text not null,
    bucket_at timestamptz not null,
    enqueued bigint not null default 0,
    completed bigint not null default 0,
    failed bigint not null default 0,
    dead bigint not null default 0,
    ready bigint not null default 0,
    active bigint not null default 0,
    scheduled bigint not null default 0,
    oldest_ready_seconds double precision,
    processing_seconds double precision not null default 0,
    primary key (queue, bucket_at)
);

create table queue.rate_limit_tracking (
    scope text not null,
    key text not null,
    next_at timestamptz not null,
    blocked_until timestamptz,
    updated_at timestamptz not null default clock_timestamp(),
    primary key (scope, key)
)
with (fillfactor = 50);

create table queue.scheduled_jobs (
    name text primary key,
    queue text not null references queue.queue_settings (queue),
    payload jsonb not null,
    priority smallint,
    cron text not null,
    time_zone text not null default 'UTC',
    paused boolean not null default false,
    next_run_at timestamptz not null,
    last_run_at timestamptz,
    last_job_id uuid,
    constraint scheduled_jobs_priority check (priority between 1 and 10),
    constraint scheduled_jobs_times check (isfinite(next_run_at))
);

create table queue.queue_alerts (
    id uuid primary key default queue.new_id(),
    alert_key text not null,
    level text not null,
    title text not null,
    details jsonb not null default '{}',
    occurrences integer not null default 1,
    opened_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    acknowledged_at timestamptz,
    acknowledged_by text,
    resolved_at timestamptz,
    constraint queue_alerts_level check (level in ('info', 'warning', 'critical'))
);

create unique index queue_alerts_open on queue.queue_alerts (alert_key) where resolved_at is null;

create table queue.webhook_events (
    dedupe_key text primary key,
    subscription_id text not null,
    kind text not null,
    change_type text,
    resource text,
    tenant_id text,
    received_at timestamptz not null,
    recorded_at timestamptz not null default clock_timestamp(),
    outcome text not null,
    job_id uuid,
    raw jsonb not null,
    constraint webhook_events_kind check (kind in ('change', 'lifecycle')),
    constraint webhook_events_outcome check (outcome in ('enqueued', 'recorded', 'ignored'))
);

create index webhook_events_age on queue.webhook_events (recorded_at);

create table queue.sync_history (
    id uuid primary key default queue.new_id(),
    resource_type text not null,
    account text not null,
    kind text not null,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    outcome text,
    created_count integer not null default 0,
    updated_count integer not null default 0,
    deleted_count integer not null default 0,
    job_id uuid,
    error_message text,
    constraint sync_history_kind check (kind in ('delta', 'full')),
    constraint sync_history_ended check ((finished_at is null) = (outcome is null))
);

-- ---------------------------------------------------------------- what the messages are about

create table queue.communication_logs (
    id uuid primary key default queue.new_id(),
    direction text not null,
    channel text not null,
    external_id text not null,
    account text,
    thread_id text,
    sender text,
    recipients text[] not null default '{}',
    subject text,
    body text not null,
    body_type text not null,
    text text not null,
    internet_message_id text,
    occurred_at timestamptz,
    recorded_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    job_id uuid,
    correlation_id text,
    raw jsonb not null default '{}',
    constraint communication_logs_direction check (direction in ('in', 'out')),
    constraint communication_logs_channel check (channel in ('teams', 'outlook')),
    constraint communication_logs_body_type check (body_type in ('text', 'html')),
    constraint communication_logs_once unique (channel, direction, external_id)
);

create unique index communication_logs_mail
    on queue.communication_logs (account, internet_message_id, direction) where internet_message_id is not null;
create index communication_logs_thread on queue.communication_logs (thread_id, occurred_at);
create index communication_logs_job on queue.communication_logs (job_id) where job_id is not null;

create table queue.attachments (
    id uuid primary key default queue.new_id(),
    communication_id uuid not null references queue.communication_logs (id) on delete cascade,
    external_id text not null,
    name text not null,
    content_type text,
    size_bytes bigint,
    is_inline boolean not null default false,
    kind text not null,
    state text not null default 'recorded',
    recorded_at timestamptz not null default clock_timestamp(),
    unique (communication_id, external_id)
);

create table queue.subscriptions (
    id text primary key,
    resource text not null,
    change_type text not null,
    notification_url text not null,
    expires_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    removed_at timestamptz
);

create unique index subscriptions_live on queue.subscriptions (resource, change_type) where removed_at is null;

create table queue.delta_links (
    resource text primary key,
    link text not null,
    updated_at timestamptz not null default clock_timestamp()
);

create table queue.token_cache (
    account text primary key,
    key_id text not null,
    ciphertext bytea not null,
    version bigint not null default 1,
    updated_at timestamptz not null default clock_timestamp()
);
