"""What a job's state comes from, what one may tell of it and what to do now: one source for each job in each state."""

from __future__ import annotations

from shared.admin.diagnosis.circumstances import Circumstances
from shared.admin.diagnosis.dead import dead
from shared.admin.diagnosis.ended import cancelled, completed
from shared.admin.diagnosis.live import live
from shared.admin.diagnosis.words import clock, step
from shared.admin.models.diagnosis import Action, Diagnosis
from shared.engine.job import JobRecord, JobState


def diagnose(job: JobRecord, around: Circumstances) -> Diagnosis:
    """Pure: by what is stored of the job and of what surrounds it."""
    match job.state:
        case JobState.COMPLETED:
            found = completed(job, around)
        case JobState.CANCELLED:
            found = cancelled(job, around)
        case JobState.DEAD:
            found = dead(job, around)
        case _:
            found = live(job, around)
    return _with_others(found.model_copy(update={"why": [text for text in found.why if text]}), job, around)


def _with_others(found: Diagnosis, job: JobRecord, around: Circumstances) -> Diagnosis:
    """With those who asked for something else under the same key: that was not stored, whatever became of this."""
    others = [row for row in around.orders if row["action"] == "job.again" and (row["after"] or {}).get("otherPayload")]
    if not others:
        return found
    whose = [(row["after"].get("correlationId") or "another caller", clock(row["at"])) for row in others[:3]]
    names = ", ".join(f"{name} (at {at})" for name, at in whose)
    key = job.idempotency_key or "the same key"
    told = f"Not sent: what {names} asked for. The key {key} was this job's already, and the payload was another."
    anew = step("Still wanted: enqueue that with a key of its own.", Action.ENQUEUE_ANEW, job.queue)
    return found.model_copy(
        update={
            "headline": f"{found.headline}; not what {whose[0][0]} asked for with the same key",
            "why": [told, *found.why],
            "next": [*found.next, anew],
            "tell": f"{found.tell}; what {', '.join(name for name, _ in whose)} asked for was not sent",
        }
    )


__all__ = ["Circumstances", "diagnose"]
