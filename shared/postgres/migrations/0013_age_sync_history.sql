-- What retention finds old rows by.
create index sync_history_age on queue.sync_history (finished_at) where finished_at is not null;
create index delivery_failures_age on queue.delivery_failures (recorded_at);
