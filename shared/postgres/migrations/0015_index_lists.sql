-- What filters of dead letters find few of among many.
create index dead_letter_class on queue.dead_letter_queue (error_class, died_at, id);
create index dead_letter_reviewed on queue.dead_letter_queue (died_at, id) where reviewed_at is not null;
create index dead_letter_redriven_time on queue.dead_letter_queue (died_at, id) where redriven_at is not null;
create index dead_letter_discarded_time on queue.dead_letter_queue (died_at, id) where discarded_at is not null;

-- The same for lists of jobs, in a form that no claim can take for its own: without statistics the planner would.
drop index queue.job_list;
drop index queue.later_list;
drop index queue.waiting_list;
create index job_list on queue.job ((lower(queue)), enqueued_at, id);
create index later_list on queue.later ((lower(queue)), enqueued_at, id);
create index waiting_list on queue.waiting ((lower(queue)), enqueued_at, id);
