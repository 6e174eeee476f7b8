"""What the routes of jobs do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.admin import job_view
from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.diagnosis import Circumstances
from shared.admin.diagnosis.dead import dependency_of
from shared.admin.diagnosis.labels import label
from shared.admin.diagnosis.words import mailbox
from shared.admin.dispatch import Reply
from shared.admin.errors import RefusalError, not_found
from shared.admin.job_filter import JobFilter
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
from shared.engine.job import Enqueued, ErrorClass, JobRecord, JobState
from shared.handlers.job_requests import enqueue as enqueue_document
from shared.handlers.job_requests import read_document
from shared.handlers.registry import internal_queues

UNKNOWN = "job with this id"
#: Of a list so many jobs that were there already are compared with what was given now.
MOST_COMPARED = 50


def list_jobs(call: Call) -> JobPage:
    """Of a queue, or of all where the path names none."""
    return _page(call, list(JobState) if call.query.status is None else [call.query.status])


def list_failed(call: Call) -> JobPage:
    return _page(call, [JobState.DEAD])


def _page(call: Call, states: Sequence[JobState]) -> JobPage:
    query, after = call.query, read_cursor(call.query.cursor)
    search = (query.search or "").strip()
    jobs = JobFilter(
        queue=call.parameters.get("queue"),
        states=states,
        search=search or None,
        error_class=query.error_class,
        since=query.from_,
        until=query.to,
        hidden=internal_queues(),
        digests=call.admin.digests(search) if search else (),
    )
    rows = call.admin.reads.jobs(jobs, after, query.limit)
    page, following = cut(rows, query.limit, lambda row: Place(row["at"], row["id"]))
    facts = call.admin.reads.job_facts(page)
    shown = [JobSummary.model_validate({**row, "label": label(row, facts.get(row["id"], {}))}) for row in page]
    return JobPage(items=shown, next=following)


def enqueue(call: Call) -> Reply:
    document, queue = read_document(call.raw), call.parameters["queue"]
    entries = document if isinstance(document, list) else [document]

    def order(order: Order) -> list[Receipt]:
        made = enqueue_document(order.producer, queue, document)
        ids = [str(one.id) for one in made[:20]]
        created = sum(one.created for one in made)
        order.record("job.enqueue", f"queue:{queue}", None, {"jobs": len(made), "created": created, "ids": ids})
        again = [number for number, one in enumerate(made) if not one.created][:MOST_COMPARED]
        return [
            _again(order, one, entries[number])
            if number in again
            else Receipt(id=one.id, created=one.created, replaced=one.replaced)
            for number, one in enumerate(made)
        ]

    receipts = call.order(order)
    if isinstance(document, list):
        return Reply(202, _json(Receipts(ReceiptList(jobs=receipts))))
    return Reply(202, _json(Receipts(receipts[0])), headers={"Location": f"/api/queue/jobs/{receipts[0].id}"})


def _again(order: Order, made: Enqueued, given: Mapping[str, Any]) -> Receipt:
    """There was a job already: whoever looks at that one, or for this caller's correlation id, finds out."""
    first = order.store.get(made.id)
    differs = first.payload != given["payload"] if first is not None else None
    keys = {name: given[name] for name in ("idempotencyKey", "correlationId") if given.get(name) is not None}
    order.record("job.again", target(made.id), None, keys | {"created": False, "otherPayload": differs})
    return Receipt(id=made.id, created=False, replaced=made.replaced, differs=differs)


def _json(receipts: Receipts) -> bytes:
    return receipts.model_dump_json(by_alias=True, exclude_none=True).encode()


def show(call: Call) -> JobDetail:
    job_id = _id(call)
    job = call.admin.store.get(job_id)
    if job is None:
        raise not_found(UNKNOWN)
    batch = call.admin.store.batch(job.batch_id) if job.batch_id else None
    return job_view.detail(job, _around(call, job), batch)


def _around(call: Call, job: JobRecord) -> Circumstances:
    reads, admin = call.admin.reads, call.admin
    found = reads.circumstances(job, dependency_of(job)[0], mailbox(job)) or {"now": datetime.now(UTC)}
    return Circumstances(
        **{name: value for name, value in found.items() if name not in ("holder_state", "dependency_state", "earlier")},
        holder_state=_state(found.get("holder_state")),
        dependency_state=_state(found.get("dependency_state")),
        earlier=tuple(ErrorClass(one) for one in found.get("earlier", ())),
        accounts=admin.accounts(),
        letter=reads.letter(job.id) if job.state is JobState.DEAD else None,
        orders=reads.audit({"target": target(job.id)}, None, 100),
        related=[*_about(call, job), *reads.related(job.id, job.batch_id)],
        failures=admin.delivery_failures(job.id),
    )


def _state(found: str | None) -> JobState | None:
    return JobState(found) if found is not None else None


def _about(call: Call, job: JobRecord) -> list[Row]:
    """The job that an internal one tells of."""
    letter_id = job.payload.get("deadLetterId") if job.queue in internal_queues() else None
    letter = call.admin.reads.letter(UUID(letter_id)) if isinstance(letter_id, str) else None
    if letter is None or letter["job_id"] is None:
        return []
    told = call.admin.store.get(letter["job_id"])
    state = told.state.value if told is not None else None
    return [{"relation": "about", "id": letter["job_id"], "queue": letter["queue"], "state": state}]


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
            raise RefusalError(409, _why_not_now(JobState(before["state"])))
        order.record("job.retry", target(job_id), _told(before), {"state": placed.state.value})
        return RetryAnswer(id=job_id, created=False)

    return call.order(order)


def _why_not_now(state: JobState) -> str:
    if state is JobState.WAITING:
        return (
            "the job is waiting: it is due, or waits for other jobs, and starts by itself as soon as what holds it back"
            " is gone; with a better priority it goes before others that wait"
        )
    return f"the job is {state.value}: only a scheduled or a dead one can be run now"


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
