-- Errors are one group by who answered, the status and the operation: what an answer says beside that differs within
-- one outage. Old rows are grouped alike. Runs beside the release before: it asks by the same function.

drop index queue.dead_letter_pattern;

-- What errors of one cause have in common. An answer: who gave it, its status, the peer's own code unless the peer was
-- away or busy (5xx, 429), and the operation. Of a lost answer: the operation, not how the connection broke. Other
-- texts: without ids, addresses, times and numbers; a number within a word stays.
create or replace function queue.error_pattern(p_message text)
returns text
language plpgsql
immutable parallel safe
as $$
declare
    v_at integer := strpos(p_message, ' answered ');
    v_head text := left(p_message, 300);
    v_said text[];
    v_kept text := '';
begin
    if v_at between 1 and 200 then
        v_said := regexp_match(substr(p_message, v_at, 300),
            '^( answered ([0-9]{3}))(?:( [[:alpha:]][[:alnum:]_.-]*)?( to [A-Z]+ (?:workflow )?[^ ]+)?: )?');
        if v_said is not null then
            v_kept := v_said[1] || case when v_said[2] ~ '^(5|429)' then '' else coalesce(v_said[3], '') end
                || coalesce(v_said[4], '');
            v_head := left(p_message, v_at - 1);
        end if;
    elsif v_head like '% (%' then
        v_head := regexp_replace(v_head, '(the answer was lost|cannot be reached) \([[:alnum:]_]+\)', '\1');
    end if;
    if v_head like '%20__-__-__%' then
        v_head := regexp_replace(
            v_head, '20[0-9]{2}-[0-9]{2}-[0-9]{2}([T ][0-9][0-9:.]+(Z|[+-][0-9:]+)?)?', '#', 'g');
    end if;
    if v_head ~ '[0-9@]' then
        v_head := regexp_replace(v_head,
            '[[:alnum:]_=-]{24,}|[^[:space:]<>"''(),;=]+@[[:alnum:]_-]+(\.[[:alnum:]_-]+)+|\m[0-9]+', '#', 'g');
    end if;
    return v_head || v_kept;
end
$$;

create index dead_letter_pattern
    on queue.dead_letter_queue (queue, error_class, queue.error_pattern(error_message), died_at, id)
    where redriven_at is null and discarded_at is null;
