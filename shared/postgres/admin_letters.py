"""Dead letters for the admin API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from shared.admin.cursor import Place
from shared.engine.job import JobState
from shared.postgres.admin_jobs import END
from shared.postgres.admin_lists import rows

_STATE: LiteralString = (
    "case when d.redriven_at is not null then 'redriven' when d.discarded_at is not null then 'discarded'"
    " else 'open' end as state"
)
COLUMNS: LiteralString = (
    f"d.id, d.job_id, d.queue, {_STATE}, d.error_class, d.error_message, d.body, d.died_at, d.reviewed_at,"
    " d.reviewed_by, d.review_note, d.redriven_at, d.redriven_by, d.redriven_job_id, d.discarded_at, d.discarded_by"
)
OPEN: LiteralString = "d.redriven_at is null and d.discarded_at is null"
_STATES: dict[str, LiteralString] = {
    "open": OPEN,
    "redriven": "d.redriven_at is not null",
    "discarded": "d.discarded_at is not null",
}
_REVIEWED: dict[bool, LiteralString] = {True: "d.reviewed_at is not null", False: "d.reviewed_at is null"}
_FOREIGN: dict[bool, LiteralString] = {True: "d.job_id is null", False: "d.job_id is not null"}
_FILTERS: dict[str, LiteralString] = {
    "queue": "d.queue = %(queue)s",
    "error_class": "d.error_class = %(error_class)s",
    "pattern": "queue.error_pattern(d.error_message) = %(pattern)s",
    "died_after": "d.died_at >= %(died_after)s",
    "died_before": "d.died_at < %(died_before)s",
    # A subquery with a limit is no join: each letter's job is looked up by its id, whatever the history holds.
    "kept": "d.job_id is not null and (select true from queue.jobs j where j.id = d.job_id limit 1) is not null",
}

_GROUPS = """
with newest as (
    select d.id, d.queue, d.job_id is null as "foreign", d.error_class, d.error_message, d.died_at, d.reviewed_at
      from queue.dead_letter_queue d where {where} order by d.died_at desc, d.id desc limit %(most)s
),
grouped as (
    select n.queue, n."foreign", n.error_class, queue.error_pattern(n.error_message) as pattern, count(*) as count,
           count(*) filter (where n.reviewed_at is null) as unreviewed, min(n.died_at) as first_at,
           max(n.died_at) as last_at, (array_agg(n.id order by n.died_at desc, n.id desc))[1] as example_id
      from newest n group by 1, 2, 3, 4 order by count(*) desc, max(n.died_at) desc limit 200
)
select g.*, (select left(e.error_message, 1000) from queue.dead_letter_queue e where e.id = g.example_id)
           as example_message, (select count(*) from newest) as counted
  from grouped g order by g.count desc, g.last_at desc
"""


def list_letters(
    conn: psycopg.Connection, filters: Mapping[str, Any], after: Place | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first; `filters`: queue, error_class, pattern, status, reviewed, foreign, died_after, died_before."""
    place = after or END
    where = f"{_where(filters)} and (d.died_at, d.id) < (%(at)s, %(id)s)"
    values = {**filters, "at": place.at, "id": place.id, "limit": limit + 1}
    statement = (
        f"select {COLUMNS} from queue.dead_letter_queue d where {where}"  # noqa: S608 - of constants
        " order by d.died_at desc, d.id desc limit %(limit)s"
    )
    return rows(conn, statement, values)


def letter(conn: psycopg.Connection, letter_id: UUID, *, lock: bool = False) -> dict[str, Any] | None:
    """By its own id or by its job's."""
    statement = f"select {COLUMNS} from queue.dead_letter_queue d where d.id = %(id)s or d.job_id = %(id)s"  # noqa: S608
    found = rows(conn, statement + (" for update" if lock else ""), {"id": letter_id})
    return found[0] if found else None


def with_letters(conn: psycopg.Connection, jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of jobs, each with the state of its dead letter as `dead_letter`."""
    dead = [job["id"] for job in jobs if job["state"] == JobState.DEAD]
    statement = f"select d.job_id, {_STATE} from queue.dead_letter_queue d where d.job_id = any(%(dead)s)"  # noqa: S608
    states = {row["job_id"]: row["state"] for row in rows(conn, statement, {"dead": dead})} if dead else {}
    return [{**job, "dead_letter": states.get(job["id"])} for job in jobs]


def groups(
    conn: psycopg.Connection, queue: str | None, reviewed: bool | None, most: int
) -> tuple[list[dict[str, Any]], int]:
    filters = {"queue": queue, "reviewed": reviewed, "status": "open"}
    found = rows(conn, _GROUPS.format(where=_where(filters)), {**filters, "most": most})
    counted = int(found[0]["counted"]) if found else 0
    return [{name: value for name, value in row.items() if name != "counted"} for row in found], counted


def open_letters(conn: psycopg.Connection, filters: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    """Their ids, oldest first. `filters` as of a list, and `kept`: those of jobs that can run again."""
    where = _where({**filters, "status": "open"})
    statement = (
        f"select d.id from queue.dead_letter_queue d where {where}"  # noqa: S608 - of constants
        " order by d.died_at, d.id limit %(limit)s"
    )
    return rows(conn, statement, {**filters, "limit": limit})


def _where(filters: Mapping[str, Any]) -> str:
    found = [text for name, text in _FILTERS.items() if filters.get(name) is not None]
    if (status := filters.get("status")) is not None:
        found.append(_STATES[status])
    if (reviewed := filters.get("reviewed")) is not None:
        found.append(_REVIEWED[reviewed])
    if (foreign := filters.get("foreign")) is not None:
        found.append(_FOREIGN[foreign])
    return " and ".join(found) or "true"
