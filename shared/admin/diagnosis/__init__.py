"""What a job's state comes from, what one may tell of it and what to do now: one source for each job in each state."""

from __future__ import annotations

from shared.admin.diagnosis.circumstances import Circumstances
from shared.admin.diagnosis.dead import dead
from shared.admin.diagnosis.ended import cancelled, completed
from shared.admin.diagnosis.live import live
from shared.admin.models.diagnosis import Diagnosis
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
    return found.model_copy(update={"why": [text for text in found.why if text]})


__all__ = ["Circumstances", "diagnose"]
