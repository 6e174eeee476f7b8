"""Lists of jobs for the admin API: each state from its own table, by an index in the order of the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from shared.admin.cursor import Place
from shared.engine.job import ENDED, JobState

#: Of a batch so many other jobs are named.
BATCH_SHOWN = 20
#: A chain of redrives is followed so far.
LONGEST_CHAIN = 50
END = Place(datetime(9999, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1))

_COMMON: LiteralString = (
    "id, queue, {state} as state, priority, attempt, {at} as at, enqueued_at, run_at, {started} as started_at,"
    " {finished} as finished_at, correlation_id, idempotency_key, redrive_of, batch_id, {leased_by} as leased_by,"
    " {error} as error_class, {message} as error_message"
)


def _columns(state: LiteralString, *, at: LiteralString, live: bool, hot: bool = False) -> LiteralString:
    return _COMMON.format(
        state=state,
        at=at,
        started="started_at" if hot or not live else "null::timestamptz",
        finished="null::timestamptz" if live else "finished_at",
        leased_by="leased_by" if hot else "null::text",
        error="null::text" if live else "error_class",
        message="null::text" if live else "error_message",
    )


_HOT = _columns("case when lease_token is null then 'ready' else 'active' end", at="enqueued_at", live=True, hot=True)
_ENDED = _columns("state", at="finished_at", live=False)
#: Table, columns, time of the list, further condition.
_SOURCES: dict[JobState, tuple[LiteralString, LiteralString, LiteralString, LiteralString]] = {
    JobState.READY: ("queue.job", _HOT, "enqueued_at", "lease_token is null"),
    JobState.ACTIVE: ("queue.job", _HOT, "enqueued_at", "lease_token is not null"),
    JobState.SCHEDULED: ("queue.later", _columns("'scheduled'", at="enqueued_at", live=True), "enqueued_at", "true"),
    JobState.WAITING: ("queue.waiting", _columns("'waiting'", at="enqueued_at", live=True), "enqueued_at", "true"),
    JobState.COMPLETED: ("queue.job_tracking", _ENDED, "finished_at", "state = 'completed'"),
    JobState.DEAD: ("queue.job_tracking", _ENDED, "finished_at", "state = 'dead'"),
    JobState.CANCELLED: ("queue.job_tracking", _ENDED, "finished_at", "state = 'cancelled'"),
}
_ANY_HOT = ("queue.job", _HOT, "enqueued_at", "true")
_ANY_ENDED = ("queue.job_tracking", _ENDED, "finished_at", "true")
_SEARCH: tuple[LiteralString, ...] = ("id = any(%(ids)s)", "correlation_id = %(search)s")

_RELATED = f"""
with recursive before as (
    select d.job_id as id, 1 as step from queue.dead_letter_queue d where d.redriven_job_id = %(id)s
    union all
    select d.job_id, b.step + 1 from before b join queue.dead_letter_queue d on d.redriven_job_id = b.id
     where b.step < {LONGEST_CHAIN}
),
later as (
    select d.redriven_job_id as id, 1 as step from queue.dead_letter_queue d
     where d.job_id = %(id)s and d.redriven_job_id is not null
    union all
    select d.redriven_job_id, l.step + 1 from later l join queue.dead_letter_queue d on d.job_id = l.id
     where d.redriven_job_id is not null and l.step < {LONGEST_CHAIN}
),
related as (
    select 'redriveOf' as relation, id from before
    union all select 'redrivenAs', id from later
    union all (select 'dependsOn', depends_on from queue.dependency where job_id = %(id)s limit 50)
    union all (select 'dependent', job_id from queue.dependency where depends_on = %(id)s limit 50)
    union all (select 'batch', id from queue.jobs where batch_id = %(batch)s and id <> %(id)s limit {BATCH_SHOWN})
)
select r.relation, r.id, j.queue, j.state
  from related r left join lateral (select queue, state from queue.jobs where id = r.id limit 1) j on true
"""  # noqa: S608 - of constants


def list_jobs(
    conn: psycopg.Connection,
    queue: str | None,
    states: Sequence[JobState],
    search: str | None,
    after: Place | None,
    limit: int,
) -> list[dict[str, Any]]:
    """Newest first: by the time of the end, or of the enqueueing of a job that has not ended. Without a queue there is
    a search, which finds by index in all of them."""
    place = after or END
    values: dict[str, Any] = {"queue": queue, "at": place.at, "id": place.id, "limit": limit + 1, "search": search}
    found: Sequence[LiteralString] = ("true",)
    if search is not None:
        values["ids"] = _ids(conn, queue, search)
        found = _SEARCH
    parts = [_part(source, condition, queue is None) for source in _sources(states) for condition in found]
    # A job of two parts (its id is another's correlation id) is one row; so is one that has just gone from one table
    # to another, as one snapshot shows each once.
    statement = f"select distinct on (at, id) * from ({' union all '.join(parts)}) found order by at desc, id desc limit %(limit)s"  # noqa: S608, E501
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()


def related_jobs(conn: psycopg.Connection, job_id: UUID, batch_id: UUID | None) -> list[Mapping[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return [*cursor.execute(_RELATED.encode(), {"id": job_id, "batch": batch_id}).fetchall()]


def _sources(states: Sequence[JobState]) -> list[tuple[LiteralString, LiteralString, LiteralString, LiteralString]]:
    """One look at a table that holds several of the states."""
    wanted = set(states)
    found = []
    if {JobState.READY, JobState.ACTIVE} <= wanted:
        found.append(_ANY_HOT)
        wanted -= {JobState.READY, JobState.ACTIVE}
    if wanted >= ENDED:
        found.append(_ANY_ENDED)
        wanted -= ENDED
    return found + [_SOURCES[state] for state in JobState if state in wanted]


def _part(
    source: tuple[LiteralString, LiteralString, LiteralString, LiteralString], found: LiteralString, everywhere: bool
) -> str:
    table, columns, at, condition = source
    # The lists' indexes of the live tables are on an expression, so that they are no claim's.
    name = "queue" if table == "queue.job_tracking" else "lower(queue)"
    within = "true" if everywhere else f"{name} = %(queue)s"
    return (
        f"(select {columns} from {table} where {within} and {condition} and {found}"  # noqa: S608 - constants
        f" and {at} <= %(at)s and ({at}, id) < (%(at)s, %(id)s) order by {at} desc, id desc limit %(limit)s)"
    )


def _ids(conn: psycopg.Connection, queue: str | None, search: str) -> list[UUID]:
    """The jobs that the text names: as their id, or by the idempotency key that they were made with."""
    rows = conn.execute(
        "select i.job_id from queue.queue_settings s join queue.idempotency i on i.queue = s.queue"
        " where i.key = %(search)s and (%(queue)s::text is null or s.queue = %(queue)s)",
        {"queue": queue, "search": search},
    )
    ids = [row[0] for row in rows.fetchall()]
    try:
        return [*ids, UUID(search)]
    except ValueError:
        return ids
