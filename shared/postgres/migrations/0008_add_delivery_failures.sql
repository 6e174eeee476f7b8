-- What non-delivery reports say. Named by the mail's Message-ID and joined when it is read: a report may come before
-- the job that sent the mail has recorded it.
create table queue.delivery_failures (
    id uuid primary key default queue.new_id(),
    internet_message_id text not null,
    recipient text not null,
    status text not null,
    diagnostic text not null,
    report_id text not null,
    account text not null,
    reported_at timestamptz not null,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint delivery_failures_once unique (internet_message_id, recipient, report_id)
);

create view queue.undelivered as
select sent.job_id, sent.id as communication_id, sent.account, failure.recipient, failure.status, failure.diagnostic,
       failure.reported_at, failure.report_id
from queue.communication_logs as sent
join queue.delivery_failures as failure on failure.internet_message_id = sent.internet_message_id
where sent.direction = 'out' and sent.channel = 'outlook';
