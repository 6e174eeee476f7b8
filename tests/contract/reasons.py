"""Why a job waits, seen from outside: another job that it depends on, or one that has what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from shared.engine.job import ENDED, JobRecord, JobState
from shared.engine.ports import Limits

#: A job in one of these comes up by itself.
MOVES = (JobState.READY, JobState.ACTIVE)


def why_waiting(job: JobRecord, jobs: Mapping[UUID, JobRecord], limits: Limits) -> str:
    """A word for what holds a waiting job back just after the relay has run; empty when nothing does."""
    others = [other for other in jobs.values() if other.id != job.id and other.state not in ENDED]
    if job.depends_on:
        waits = all(jobs[other].state not in ENDED for other in job.depends_on)
        return "dependency" if waits else ""
    if job.limit_key is not None and _key_is_held(job, others, limits):
        return "limit key"
    if job.lane is not None and _lane_is_held(job, others, jobs):
        return "lane"
    return ""


def _key_is_held(job: JobRecord, others: list[JobRecord], limits: Limits) -> bool:
    """By one that runs or comes first, or by time: a rate, or the block after a retry that is still to come."""
    same = [other for other in others if other.limit_key == job.limit_key]
    by_time = limits.key_rate is not None or any(other.state is JobState.SCHEDULED for other in same)
    return by_time or any(other.state in MOVES for other in same)


def _lane_is_held(job: JobRecord, others: list[JobRecord], jobs: Mapping[UUID, JobRecord]) -> bool:
    """By one that runs or comes first; an ordering key also by one that has started or died, or waits at its limit
    key."""
    same = [other for other in others if other.lane == job.lane]
    if any(other.state in MOVES for other in same):
        return True
    if ":fair:" in str(job.lane):
        return any(other.limit_key is not None and other.state is JobState.WAITING for other in same)
    if ":order:" in str(job.lane):
        dead = any(other.lane == job.lane and other.state is JobState.DEAD for other in jobs.values())
        started = any(other.state is JobState.SCHEDULED for other in same)
        at_limit_key = any(other.limit_key is not None and other.state is JobState.WAITING for other in same)
        return dead or started or at_limit_key
    return False
