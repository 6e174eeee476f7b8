"""One job as the admin API shows it: what is stored, what happened when, and which others it has to do with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.admin.diagnosis import Circumstances, diagnose
from shared.admin.diagnosis.dead import dependency_of
from shared.admin.models.jobs import BatchCounts, JobDetail, Moments, RelatedJob
from shared.admin.ports import Row
from shared.engine.job import ENDED, BatchRecord, JobRecord, JobState
from shared.handlers.job_requests import describe
from shared.handlers.registry import internal_queues


def detail(job: JobRecord, around: Circumstances, batch: BatchRecord | None) -> JobDetail:
    shown, letter = describe(job, [dict(one) for one in around.failures]), around.letter
    return JobDetail.model_validate(
        shown
        | {
            "payloadMasked": False,
            "internal": job.queue in internal_queues(),
            "deadLetterId": letter["id"] if letter else None,
            "diagnosis": diagnose(job, around),
            "timeline": timeline(job, around),
            "related": [RelatedJob.model_validate(row) for row in around.related],
            "batch": _batch(batch) if batch is not None else None,
        }
    )


def timeline(job: JobRecord, around: Circumstances) -> list[Moments]:
    """What happened to the job, oldest first. Error texts stand at the attempts."""
    found = [Moments(at=job.enqueued_at, event="enqueued", text=f"into {job.queue} with priority {job.priority}")]
    for attempt in job.attempts:
        found.append(
            Moments(at=attempt.started_at, event="started", text=f"attempt {attempt.number}", by=attempt.worker)
        )
        why = f": {attempt.error_class.value}" if attempt.error_class else ""
        text = f"attempt {attempt.number} {attempt.outcome}{why}"
        found.append(Moments(at=attempt.finished_at, event="attempt", text=text, by=attempt.worker))
    if job.stop_requested_at is not None:
        found.append(Moments(at=job.stop_requested_at, event="stop requested", text="it stops at its next checkpoint"))
    if job.finished_at is not None:
        other, state = dependency_of(job)
        why = f": job {other} ended {state}" if other else f": {job.error_class.value}" if job.error_class else ""
        found.append(Moments(at=job.finished_at, event="finished", text=f"{job.state.value}{why}"))
    if job.state is JobState.SCHEDULED:
        found.append(Moments(at=job.run_at, event="due", text="it runs then"))
    found += _in_the_way(job, around)
    found += [
        Moments(
            at=datetime.fromisoformat(one["reportedAt"]), event="not delivered", text=f"a report came: {one['status']}"
        )
        for one in around.failures
    ]
    found += _of_letter(around.letter) if around.letter is not None else []
    found += [
        Moments(at=row["at"], event=row["action"], text=_change(row["before"], row["after"]), by=row["who"])
        for row in around.orders
    ]
    return sorted(found, key=lambda moment: moment.at)


def _in_the_way(job: JobRecord, around: Circumstances) -> list[Moments]:
    """What runs or holds the job back now: of that the past is not kept."""
    found = []
    if around.started_at is not None:
        text = f"attempt {job.attempt}, which runs now"
        found.append(Moments(at=around.started_at, event="started", text=text, by=job.leased_by))
    if job.state is JobState.SCHEDULED and around.identity is not None and around.identity_since is not None:
        text = "there is no token for what it sends as: it is called back when there is"
        found.append(Moments(at=around.identity_since, event="parked", text=text))
    if job.state not in ENDED and around.is_paused and around.paused_at is not None:
        found.append(Moments(at=around.paused_at, event="queue paused", text=job.queue, by=around.paused_by))
    if job.lane is not None and around.waits_at == job.lane and around.holder_since is not None:
        at = max(around.holder_since, job.enqueued_at)
        found.append(Moments(at=at, event="blocked", text=f"by dead job {around.holder}, of the same ordering key"))
    return found


def _of_letter(letter: Row) -> list[Moments]:
    found = []
    for event, text in (
        ("reviewed", letter["review_note"] or ""),
        ("redriven", f"as job {letter['redriven_job_id']}"),
        ("discarded", "it cannot be redriven any more"),
    ):
        if letter[f"{event}_at"] is not None:
            found.append(Moments(at=letter[f"{event}_at"], event=event, text=text, by=letter[f"{event}_by"]))
    return found


def _change(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """`state: scheduled → ready, jobId: …` of what the order changed."""
    old = before or {}
    parts = [f"{name}: {old[name]} → {new}" if name in old else f"{name}: {new}" for name, new in (after or {}).items()]
    return ", ".join(parts)


def _batch(batch: BatchRecord) -> BatchCounts:
    return BatchCounts(
        id=batch.id,
        total=batch.total,
        pending=batch.pending,
        completed=batch.completed,
        dead=batch.dead,
        cancelled=batch.cancelled,
        created_at=batch.created_at,
        finished_at=batch.finished_at,
        callback_id=batch.callback_id,
    )
