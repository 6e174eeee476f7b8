"""Jobs between Python and SQL: elements for the functions that take JSON, and rows that come back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString

from shared.engine.backoff import RetryPolicy
from shared.engine.job import (
    Attempt,
    Cancelled,
    Completed,
    ConcurrencyKey,
    Dead,
    Debounce,
    Deferred,
    ErrorClass,
    FairnessKey,
    IfDependencyFails,
    Job,
    JobRecord,
    JobState,
    Lane,
    NewJob,
    OnDead,
    OrderingKey,
    Outcome,
    Released,
    Retry,
    Settlement,
    Singleton,
    Throttle,
    Unique,
    Unreadable,
)
from shared.engine.ports import Limits
from shared.postgres.sealer import Sealer, of_job

#: What a claim gives of a job, in the order that `read_job` reads.
CLAIMED = (
    "id, priority, run_at, attempt, lease_token, correlation_id, enqueued_at, redrive_of, effect_since, attempts::text,"
    " payload::text, progress::text, batch_id, permits"
)
#: What `read_record` reads.
RECORD: LiteralString = (
    "select j.*, array(select d.depends_on from queue.dependency d where d.job_id = j.id order by 1) as depends_on"
    " from queue.jobs j"
)


def read_job(queue: str, row: Sequence[Any], sealer: Sealer | None = None) -> Job:
    """Without a sealer the payload stays as stored: who only settles does not read it."""
    (
        job_id,
        priority,
        _run_at,
        attempt,
        token,
        correlation_id,
        enqueued_at,
        redrive_of,
        since,
        attempts,
        payload,
        progress,
        batch_id,
        permits,
    ) = row
    opened = sealer.open_text(of_job(queue, redrive_of or job_id), payload) if sealer is not None else payload
    return Job(
        id=job_id,
        queue=queue,
        payload=payload if isinstance(opened, Unreadable) else opened,
        attempt=attempt,
        priority=priority,
        lease_token=token,
        correlation_id=correlation_id,
        enqueued_at=enqueued_at,
        redrive_of=redrive_of,
        inherited_effect_since=since,
        attempts=_attempts(json.loads(attempts)) if attempts else (),
        unreadable=opened if isinstance(opened, Unreadable) else None,
        progress=json.loads(progress) if progress else None,
        batch_id=batch_id,
        permits=permits or 0,
    )


def _attempts(entries: list[dict[str, Any]] | None) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(
            number=entry["number"],
            started_at=datetime.fromisoformat(entry["started_at"]),
            finished_at=datetime.fromisoformat(entry["finished_at"]),
            worker=entry["worker"],
            outcome=entry["outcome"],
            error_class=ErrorClass(entry["error_class"]) if "error_class" in entry else None,
            message=entry.get("message"),
            details=entry.get("details", {}),
        )
        for entry in entries or ()
    )


def read_record(row: Any, sealer: Sealer) -> JobRecord:
    return JobRecord(
        id=row.id,
        queue=row.queue,
        state=JobState(row.state),
        priority=row.priority,
        attempt=row.attempt,
        payload=sealer.show(of_job(row.queue, row.redrive_of or row.id), row.payload),
        enqueued_at=row.enqueued_at,
        run_at=row.run_at,
        attempts=_attempts(row.attempts),
        correlation_id=row.correlation_id,
        idempotency_key=row.idempotency_key,
        result=row.result,
        error_class=ErrorClass(row.error_class) if row.error_class else None,
        error_message=row.error_message,
        finished_at=row.finished_at,
        lease_until=row.lease_until,
        leased_by=row.leased_by,
        redrive_of=row.redrive_of,
        expires_at=row.expires_at,
        stop_requested_at=row.stop_requested_at,
        lane=row.lane,
        limit_key=row.limit_key,
        batch_id=row.batch_id,
        progress=row.progress,
        depends_on=tuple(row.depends_on),
    )


def new_job_json(job: NewJob, sealer: Sealer) -> dict[str, Any]:
    """Without what is not given: for a bulk of bare jobs that is a third of the text and of the time."""
    given: dict[str, Any] = {"queue": job.queue} | sealer.new_row(job)
    if job.priority is not None:
        given["priority"] = job.priority
    if job.run_at is not None:
        given["run_at"] = job.run_at.isoformat()
    if job.delay is not None:
        given["delay_seconds"] = job.delay.total_seconds()
    if job.idempotency_key is not None:
        given["idempotency_key"] = job.idempotency_key
    if job.correlation_id is not None:
        given["correlation_id"] = job.correlation_id
    if job.redrive_of is not None:
        given["redrive_of"] = str(job.redrive_of)
    if job.effect_since is not None:
        given["effect_since"] = job.effect_since.isoformat()
    if job.expires_at is not None:
        given["expires_at"] = job.expires_at.isoformat()
    if job.expires_in is not None:
        given["expires_in_seconds"] = job.expires_in.total_seconds()
    if job.unique is not None:
        given["unique"] = _unique_json(job.unique)
    if job.lane is not None:
        given["lane"] = _lane_json(job.lane)
    if job.depends_on:
        given["depends_on"] = [str(job_id) for job_id in job.depends_on]
    if job.if_dependency_fails is not IfDependencyFails.DIE:
        given["if_dependency_fails"] = job.if_dependency_fails.value
    if job.batch_id is not None:
        given["batch_id"] = str(job.batch_id)
    if job.limit_key is not None:
        given["limit_key"] = job.limit_key
    return given


def _unique_json(unique: Unique) -> dict[str, Any]:
    match unique:
        case Singleton(key=key, policy=policy):
            return {"kind": "singleton", "key": key, "policy": policy.value}
        case Debounce(key=key, window=window, at_most=at_most):
            given: dict[str, Any] = {"kind": "debounce", "key": key, "seconds": window.total_seconds()}
            return given | ({"at_most_seconds": at_most.total_seconds()} if at_most is not None else {})
        case Throttle(key=key, window=window):
            return {"kind": "throttle", "key": key, "seconds": window.total_seconds()}


def _lane_json(lane: Lane) -> dict[str, Any]:
    match lane:
        case OrderingKey(key=key, on_dead=on_dead):
            return {"rule": "order" if on_dead is OnDead.RELEASE else "order-block", "key": key}
        case ConcurrencyKey(key=key, limit=limit):
            return {"rule": "concurrency", "key": key, "limit": limit}
        case FairnessKey(key=key):
            return {"rule": "fair", "key": key}


def settlement_json(settlement: Settlement, sealer: Sealer) -> dict[str, Any]:
    head: dict[str, Any] = {"id": str(settlement.job_id), "token": str(settlement.lease_token)}
    if settlement.details:
        head["details"] = settlement.details
    if settlement.block is not None:
        head["block_seconds"] = settlement.block.total_seconds()
    return head | _outcome_json(settlement.outcome, settlement.details, sealer)


def _outcome_json(outcome: Outcome, details: dict[str, Any], sealer: Sealer) -> dict[str, Any]:
    match outcome:
        case Completed():
            done: dict[str, Any] = {"outcome": "completed"}
            if outcome.result is not None:
                done["result"] = outcome.result
            if outcome.follow_ups:
                done["follow_ups"] = [new_job_json(job, sealer) for job in outcome.follow_ups]
            return done
        case Retry() | Dead():
            failure = outcome.failure
            head = {
                "outcome": "dead" if isinstance(outcome, Dead) else "retry",
                "error_class": failure.error_class.value,
                "message": failure.message,
                "details": details | failure.details or None,
            }
            return head | ({"delay_seconds": outcome.delay.total_seconds()} if isinstance(outcome, Retry) else {})
        case Deferred():
            permits = {"permits": outcome.permits} if outcome.permits is not None else {}
            return {"outcome": "deferred", "delay_seconds": outcome.delay.total_seconds()} | permits
        case Released():
            return {"outcome": "released"}
        case Cancelled():
            return {"outcome": "cancelled", "message": outcome.reason}


def retries_json(retries: Mapping[ErrorClass, RetryPolicy]) -> dict[str, list[float]]:
    """What queue.set_retry_delays takes, and queue_settings.retry_delays holds."""
    return {error_class.value: list(policy.delays) for error_class, policy in retries.items()}


def limits_json(limits: Limits) -> dict[str, Any]:
    """What queue.set_limits takes, and the columns of queue_settings."""
    return {
        "rate_limit": limits.rate.limit if limits.rate else None,
        "rate_seconds": limits.rate.window.total_seconds() if limits.rate else None,
        "concurrency": limits.concurrency,
        "key_rate_limit": limits.key_rate.limit if limits.key_rate else None,
        "key_rate_seconds": limits.key_rate.window.total_seconds() if limits.key_rate else None,
        "key_concurrency": limits.key_concurrency,
        "job_cost": limits.job_cost,
    }
