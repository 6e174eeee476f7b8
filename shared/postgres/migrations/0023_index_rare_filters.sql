-- Filters that find few rows among many. Runs beside the release before: nothing that it uses changes.

-- An error's pattern alone, whatever became of the dead letters: without it every letter's text is looked at.
create index dead_letter_same_error on queue.dead_letter_queue (queue.error_pattern(error_message), died_at, id);
-- An account's rounds of all kinds; before PostgreSQL 18 an index that begins with the kind is of no use for them.
create index sync_history_of_account on queue.sync_history (account, started_at, id);
