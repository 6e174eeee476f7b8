"""The diagnosis of a job in a list: the same words as on its own page, from what one look at a whole page finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.engine.job import JobState


def label(row: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """`row` is of a list of jobs, `facts` what surrounds it (shared.admin.ports.Reads.job_facts)."""
    state = JobState(row["state"])
    match state:
        case JobState.DEAD:
            return "dead" if row["dead_letter"] in (None, "open") else f"dead, {row['dead_letter']}"
        case JobState.COMPLETED:
            return undelivered(facts["undelivered"], facts["recipients"]) if facts.get("undelivered") else state.value
        case JobState.SCHEDULED if facts.get("parked"):
            return "parked"
        case JobState.WAITING:
            return _waiting(facts)
        case JobState.READY | JobState.SCHEDULED if facts.get("paused"):
            return "paused"
        case JobState.SCHEDULED if row["attempt"] > 0:
            return "retrying"
    return state.value


def undelivered(failed: int, everybody: int | None) -> str:
    return f"not delivered to {failed}" + (f" of {everybody}" if everybody and everybody >= failed else "")


def _waiting(facts: Mapping[str, Any]) -> str:
    if facts.get("waits_at") == "":
        return "waits for jobs"
    if facts.get("blocked"):
        return "blocked"
    return "throttled" if facts.get("closed") else "waits"
