"""Lists of jobs for the admin API: each state from its own table, by an index in the order of the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from shared.admin.cursor import Place
from shared.admin.job_filter import JobFilter
from shared.engine.job import ENDED, JobState
from shared.postgres import admin_search
from shared.postgres.admin_search import Found

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


#: Why the last attempt of a job that goes on has failed.
_LAST: LiteralString = "attempts -> -1 ->> '{}'"


def _columns(state: LiteralString, *, at: LiteralString, live: bool, hot: bool = False) -> LiteralString:
    return _COMMON.format(
        state=state,
        at=at,
        started="started_at" if hot or not live else "null::timestamptz",
        finished="null::timestamptz" if live else "finished_at",
        leased_by="leased_by" if hot else "null::text",
        error=_LAST.format("error_class") if live else "error_class",
        message=_LAST.format("message") if live else "error_message",
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
#: Of attempts that failed, as the index has them.
_FAILED: dict[LiteralString, LiteralString] = {
    "queue.job_tracking": "(attempt > 1 or state = 'dead')",
    "queue.later": "attempt > 0",
}


#: By an array, so that no planner walks the list's index in search of them.
_BEGINS: LiteralString = (
    "id = any(array(select b.id from {table} b where b.id between %(low)s and %(high)s"
    " and right(b.id::text, length(%(tail)s)) = %(tail)s order by b.id desc limit 500))"
)


@dataclass(frozen=True, slots=True)
class _Look:
    """One way to jobs, by one index: `of` gives names (n.name) that the condition is asked for, one after the other.
    `shows_internal`: it names jobs themselves, so that internal ones are meant too. `only`: in these tables."""

    condition: LiteralString
    of: LiteralString = ""
    shows_internal: bool = False
    only: frozenset[LiteralString] | None = None


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


def list_jobs(conn: psycopg.Connection, jobs: JobFilter, after: Place | None, limit: int) -> list[dict[str, Any]]:
    """Newest first: by the time of the end, or of the enqueueing of a job that has not ended."""
    if jobs.error_class is not None:
        if JobState.DEAD not in jobs.states:
            return []
        jobs = replace(jobs, states=[JobState.DEAD])
    place = after or END
    values: dict[str, Any] = {
        "queue": jobs.queue, "hidden": list(jobs.hidden), "error_class": jobs.error_class, "since": jobs.since,
        "until": jobs.until, "at": place.at, "id": place.id, "limit": limit + 1,
    }  # fmt: skip
    if jobs.search is None:
        looks = [_all_of(conn, jobs, values)]
    else:
        until = min(one for one in (jobs.until, place.at) if one is not None)
        found = admin_search.find(conn, jobs.search, jobs.queue, until=until, digests=jobs.digests)
        values |= {one.name: getattr(found, one.name) for one in fields(found)}
        looks = _searched(found)
    parts = [
        _part(source, look, jobs)
        for source in _sources(jobs.states)
        for look in looks
        if look.only is None or source[0] in look.only
    ]
    # A job of two parts (its id is another's correlation id) is one row; so is one that has just gone from one table
    # to another, as one snapshot shows each once.
    statement = f"select distinct on (at, id) * from ({' union all '.join(parts)}) found order by at desc, id desc limit %(limit)s"  # noqa: S608, E501
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()


def _all_of(conn: psycopg.Connection, jobs: JobFilter, values: dict[str, Any]) -> _Look:
    """Of one queue; or of all, queue by queue, since each list is in the order of one queue's index."""
    if jobs.queue is not None or jobs.error_class is not None:
        return _Look("true")
    rows = conn.execute("select queue from queue.queue_settings where queue <> all(%s)", (list(jobs.hidden),))
    values["queues"] = [row[0] for row in rows.fetchall()]
    return _Look("{queue} = n.name", of="unnest(%(queues)s::text[]) n(name)", shows_internal=True)


def _searched(found: Found) -> list[_Look]:
    looks = [_Look("correlation_id = any(%(texts)s)")]
    if found.ids:
        looks.append(_Look("id = any(%(ids)s)", shows_internal=True))
    if found.keys:
        looks.append(_Look("limit_key = n.name", of="unnest(%(keys)s::text[]) n(name)"))
    if found.low is not None:
        looks.append(_Look(_BEGINS, shows_internal=True))
    if found.request is not None:
        for table, failed in _FAILED.items():
            condition: LiteralString = f"{failed} and queue.request_ids(attempts) @> array[%(request)s]"
            looks.append(_Look(condition, only=frozenset((table,))))
    return looks


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
    source: tuple[LiteralString, LiteralString, LiteralString, LiteralString], look: _Look, jobs: JobFilter
) -> str:
    table, columns, at, condition = source
    # The lists' indexes of the live tables are on an expression, so that they are no claim's.
    name: LiteralString = "queue" if table == "queue.job_tracking" else "lower(queue)"
    where: list[str] = [condition, look.condition.replace("{queue}", name).replace("{table}", table)]
    if jobs.queue is not None:
        where.append(f"{name} = %(queue)s")
    elif not look.shows_internal:
        where.append("queue <> all(%(hidden)s)")
    if jobs.error_class is not None:
        where.append("error_class = %(error_class)s")
    if jobs.since is not None:
        where.append(f"{at} >= %(since)s")
    if jobs.until is not None:
        where.append(f"{at} < %(until)s")
    where.append(f"{at} <= %(at)s and ({at}, id) < (%(at)s, %(id)s)")
    page = (
        f"select {columns} from {table} where {' and '.join(where)}"  # noqa: S608 - constants
        f" order by {at} desc, id desc limit %(limit)s"
    )
    if not look.of:
        return f"({page})"
    return f"(select page.* from {look.of} cross join lateral ({page}) page)"  # noqa: S608 - constants
