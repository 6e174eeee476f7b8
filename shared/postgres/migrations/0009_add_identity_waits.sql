-- Jobs that wait until an identity gives tokens again (somebody signs in, a credential is replaced): they are deferred for
-- long, and called back when it does. A row may outlive its job; the call back removes it.
create table queue.identity_wait (
    job_id uuid primary key,
    identity text not null,
    since timestamptz not null default clock_timestamp()
);

create index identity_wait_identity on queue.identity_wait (identity, job_id);

-- "Was it resolved just now?" is asked for each job that waits.
create index queue_alerts_resolved on queue.queue_alerts (alert_key, resolved_at) where resolved_at is not null;
