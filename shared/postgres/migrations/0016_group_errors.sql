-- Errors that differ by a mail address or a chat's id are one, and a group's text names nobody.
-- Runs beside the release before: it asks by the same function.

drop index queue.dead_letter_pattern;

-- An error's text without what differs from case to case: ids, addresses and numbers.
create or replace function queue.error_pattern(p_message text)
returns text
language sql
immutable parallel safe
as $$
    select regexp_replace(
        left(p_message, 300),
        '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[^[:space:]<>"''(),;=]+@[[:alnum:]_-]+(\.[[:alnum:]_-]+)+|[0-9]+', '#', 'g')
$$;

create index dead_letter_pattern
    on queue.dead_letter_queue (queue, error_class, queue.error_pattern(error_message), died_at, id)
    where redriven_at is null and discarded_at is null;
