"""Jobs as the HTTP API takes them: one object or a list of them, checked whole before any is stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shared.engine.enqueue import Producer
from shared.engine.errors import PayloadError, Problem
from shared.engine.job import Enqueued, JobRecord, NewJob
from shared.engine.messages import read_job

MOST_JOBS = 1000


def read_document(body: bytes) -> Any:
    """The JSON value in a request body. Raises PayloadError."""
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _refused([Problem("", f"the body is not JSON in UTF-8: {reason}")]) from error


def enqueue(producer: Producer, queue: str, document: Any) -> list[Enqueued]:
    """Store all jobs of the document or none. Raises EnqueueError; in a list, fields are named as `3.payload.to`."""
    if isinstance(document, list):
        if not 0 < len(document) <= MOST_JOBS:
            raise _refused([Problem("", f"a list has 1 to {MOST_JOBS} jobs")])
        return producer.enqueue_many(_read_all(producer, queue, document))
    return producer.enqueue_many([_read(producer, queue, document)])


def receipt(made: Enqueued) -> dict[str, Any]:
    """What an enqueue is answered with."""
    replaced = {"replaced": str(made.replaced)} if made.replaced else {}
    return {"id": str(made.id), "created": made.created, **replaced}


def describe(job: JobRecord, delivery_failures: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A job as the API shows it, with whom its mail did not reach."""
    return {
        "id": str(job.id),
        "queue": job.queue,
        "state": job.state.value,
        "priority": job.priority,
        "attempt": job.attempt,
        "enqueuedAt": job.enqueued_at.isoformat(),
        "runAt": job.run_at.isoformat(),
        "expiresAt": job.expires_at.isoformat() if job.expires_at else None,
        "stopRequestedAt": job.stop_requested_at.isoformat() if job.stop_requested_at else None,
        "finishedAt": job.finished_at.isoformat() if job.finished_at else None,
        "correlationId": job.correlation_id,
        "idempotencyKey": job.idempotency_key,
        "redriveOf": str(job.redrive_of) if job.redrive_of else None,
        "lane": job.lane,
        "limitKey": job.limit_key,
        "batchId": str(job.batch_id) if job.batch_id else None,
        "dependsOn": [str(job_id) for job_id in job.depends_on],
        "leasedBy": job.leased_by,
        "leaseUntil": job.lease_until.isoformat() if job.lease_until else None,
        "progress": job.progress,
        "errorClass": job.error_class.value if job.error_class else None,
        "errorMessage": job.error_message,
        "payload": job.payload,
        "result": job.result,
        "deliveryFailures": list(delivery_failures),
        "attempts": [
            {
                "number": attempt.number,
                "startedAt": attempt.started_at.isoformat(),
                "finishedAt": attempt.finished_at.isoformat(),
                "worker": attempt.worker,
                "outcome": attempt.outcome,
                "errorClass": attempt.error_class.value if attempt.error_class else None,
                "message": attempt.message,
                "details": attempt.details,
            }
            for attempt in job.attempts
        ],
    }


def _read_all(producer: Producer, queue: str, document: list[Any]) -> list[NewJob]:
    jobs, problems = [], []
    for index, entry in enumerate(document):
        try:
            jobs.append(_read(producer, queue, entry))
        except PayloadError as error:
            problems += [Problem(f"{index}.{p.field}".rstrip("."), p.message) for p in error.problems]
    if problems:
        raise _refused(problems)
    return jobs


def _read(producer: Producer, queue: str, entry: Any) -> NewJob:
    if not isinstance(entry, dict):
        raise _refused([Problem("", "a job must be a JSON object with a payload")])
    return producer.validate(read_job(queue, entry))


def _refused(problems: list[Problem]) -> PayloadError:
    return PayloadError("; ".join(f"{p.field}: {p.message}".removeprefix(": ") for p in problems), problems)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
