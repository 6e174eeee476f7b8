"""What the routes of jobs do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.admin import job_view
from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.dispatch import Reply
from shared.admin.errors import RefusalError, not_found
from shared.admin.models.jobs import (
    CancelAnswer,
    JobDetail,
    JobPage,
    JobSummary,
    Placement,
    Receipt,
    ReceiptList,
    Receipts,
    RetryAnswer,
)
from shared.admin.ports import Call, Order, Row
from shared.engine.job import Enqueued, JobState
from shared.handlers.job_requests import enqueue as enqueue_document
from shared.handlers.job_requests import read_document

UNKNOWN = "job with this id"


def list_jobs(call: Call) -> JobPage:
    states = list(JobState) if call.query.status is None else [call.query.status]
    return _page(call, states)


def list_failed(call: Call) -> JobPage:
    return _page(call, [JobState.DEAD])


def find(call: Call) -> JobPage:
    return _page(call, list(JobState))


def _page(call: Call, states: Sequence[JobState]) -> JobPage:
    query, after = call.query, read_cursor(call.query.cursor)
    rows = call.admin.reads.jobs(call.parameters.get("queue"), states, query.search, after, query.limit)
    page, following = cut(rows, query.limit, lambda row: Place(row["at"], row["id"]))
    return JobPage(items=[JobSummary.model_validate(row) for row in page], next=following)


def enqueue(call: Call) -> Reply:
    document, queue = read_document(call.raw), call.parameters["queue"]

    def order(order: Order) -> list[Enqueued]:
        made = enqueue_document(order.producer, queue, document)
        ids = [str(one.id) for one in made[:20]]
        created = sum(one.created for one in made)
        order.record("job.enqueue", f"queue:{queue}", None, {"jobs": len(made), "created": created, "ids": ids})
        return made

    made = call.order(order)
    receipts = [Receipt(id=one.id, created=one.created, replaced=one.replaced) for one in made]
    if isinstance(document, list):
        return Reply(202, _json(Receipts(ReceiptList(jobs=receipts))))
    return Reply(202, _json(Receipts(receipts[0])), headers={"Location": f"/api/queue/jobs/{receipts[0].id}"})


def _json(receipts: Receipts) -> bytes:
    return receipts.model_dump_json(by_alias=True, exclude_none=True).encode()


def show(call: Call) -> JobDetail:
    job_id = _id(call)
    job = call.admin.store.get(job_id)
    if job is None:
        raise not_found(UNKNOWN)
    reads = call.admin.reads
    return job_view.detail(
        job,
        letter=reads.letter(job_id) if job.state is JobState.DEAD else None,
        orders=reads.audit({"target": target(job_id)}, None, 100),
        related=reads.related(job_id, job.batch_id),
        batch=call.admin.store.batch(job.batch_id) if job.batch_id else None,
        failures=call.admin.delivery_failures(job_id),
    )


def change(call: Call) -> Placement:
    job_id, body = _id(call), call.body

    def order(order: Order) -> Placement:
        before = _before(order, job_id)
        placed = order.control.reschedule(job_id, body.priority, body.run_at)
        if placed is None:
            raise RefusalError(409, f"the job is {before['state']}: only one that has not started can be changed")
        after = body.model_dump(mode="json", by_alias=True, exclude_none=True) | {"state": placed.state.value}
        order.record("job.change", target(job_id), _told(before), after)
        return Placement(id=job_id, queue=placed.queue, state=placed.state)

    return call.order(order)


def cancel(call: Call) -> CancelAnswer:
    job_id = _id(call)

    def order(order: Order) -> CancelAnswer:
        before = _before(order, job_id)
        outcome = order.control.cancel(job_id)
        if outcome is None:
            raise RefusalError(409, f"the job is {before['state']}: it has ended, and cannot be cancelled")
        order.record("job.cancel", target(job_id), _told(before), {"outcome": outcome.value})
        return CancelAnswer(id=job_id, outcome=outcome)

    return call.order(order)


def retry(call: Call) -> RetryAnswer:
    job_id = _id(call)

    def order(order: Order) -> RetryAnswer:
        before = _before(order, job_id)
        if before["state"] == JobState.DEAD:
            made = redrive(order, job_id, call.who.name)
            if made is None:
                raise RefusalError(409, "the dead job was redriven or discarded before")
            order.record("job.redrive", target(job_id), _told(before), {"jobId": str(made.id)})
            return RetryAnswer(id=made.id, created=True)
        placed = order.control.retry_now(job_id)
        if placed is None:
            raise RefusalError(409, f"the job is {before['state']}: only a scheduled or a dead one can be run now")
        order.record("job.retry", target(job_id), _told(before), {"state": placed.state.value})
        return RetryAnswer(id=job_id, created=False)

    return call.order(order)


def redrive(order: Order, job_id: UUID, by: str, run_at: datetime | None = None) -> Enqueued | None:
    """A new job from a dead one, due at `run_at` where its key lets it, and a worker woken for it after the commit."""
    made = order.store.redrive(job_id, by)
    if made is None:
        return None
    if run_at is not None:
        order.control.reschedule(made.id, run_at=run_at)
    placed = order.job_before(made.id)
    if placed is not None and placed["state"] == JobState.READY:
        order.producer.wake(placed["queue"])
    return made


def target(job_id: UUID) -> str:
    """How the audit log names a job."""
    return f"job:{job_id}"


def _before(order: Order, job_id: UUID) -> Row:
    before = order.job_before(job_id)
    if before is None:
        raise not_found(UNKNOWN)
    return before


def _told(before: Row) -> dict[str, Any]:
    told = {"state": str(before["state"]), "priority": before["priority"], "runAt": before["run_at"].isoformat()}
    return {"queue": before["queue"]} | told


def _id(call: Call) -> UUID:
    return read_id(call.parameters["id"], UNKNOWN)


def read_id(text: str, what: str) -> UUID:
    """What is no id names nothing. Raises RefusalError (404)."""
    try:
        return UUID(text)
    except ValueError:
        raise not_found(what) from None
