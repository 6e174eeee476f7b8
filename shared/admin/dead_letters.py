"""What the routes of dead letters do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.errors import RefusalError, not_found
from shared.admin.jobs import read_id
from shared.admin.jobs import redrive as redrive_job
from shared.admin.models.dead_letters import (
    DeadLetter,
    DeadLetterGroup,
    DeadLetterGroups,
    DeadLetterPage,
    Redriven,
    RedrivenLetter,
    SkippedLetter,
)
from shared.admin.ports import Call, Order, Row
from shared.engine.errors import ControlError, EnqueueError

UNKNOWN = "dead letter with this id"
#: So many of the newest open letters are grouped.
GROUPED_AT_MOST = 10_000


def list_letters(call: Call) -> DeadLetterPage:
    query = call.query
    filters = query.model_dump(exclude={"cursor", "limit", "from_", "to"})
    filters |= {"died_after": query.from_, "died_before": query.to}
    rows = call.admin.reads.letters(filters, read_cursor(query.cursor), query.limit)
    page, following = cut(rows, query.limit, lambda row: Place(row["died_at"], row["id"]))
    return DeadLetterPage(items=[DeadLetter.model_validate(row) for row in page], next=following)


def groups(call: Call) -> DeadLetterGroups:
    found, counted = call.admin.reads.letter_groups(call.query.queue, call.query.reviewed, GROUPED_AT_MOST)
    shown = [DeadLetterGroup.model_validate(row) for row in found]
    return DeadLetterGroups(groups=shown, counted=counted, complete=counted < GROUPED_AT_MOST)


def show(call: Call) -> DeadLetter:
    row = call.admin.reads.letter(_id(call))
    if row is None:
        raise not_found(UNKNOWN)
    return DeadLetter.model_validate(row)


def review(call: Call) -> DeadLetter:
    def order(order: Order, letter: Row) -> None:
        order.review(letter["id"], call.who.name, call.body.note)
        before = {"reviewedBy": letter["reviewed_by"], "note": letter["review_note"]}
        after = {"reviewedBy": call.who.name, "note": call.body.note}
        order.record("dead_letter.review", target(letter["id"]), before, after)

    return _change(call, order)


def discard(call: Call) -> DeadLetter:
    def order(order: Order, letter: Row) -> None:
        if letter["state"] != "open":
            raise RefusalError(409, f"the dead letter is {letter['state']} already")
        if letter["job_id"] is None:
            order.discard_message(letter["id"], call.who.name)
        else:
            order.control.discard(letter["job_id"], call.who.name)
        order.record("dead_letter.discard", target(letter["id"]), {"state": "open"}, {"state": "discarded"})

    return _change(call, order)


def redrive(call: Call) -> Redriven:
    """Each in a transaction of its own with its row in the audit log: what is done stays when the next one fails."""
    body = call.body
    if body.ids is not None:
        ids, more = list(body.ids), False
    else:
        filters = body.filter.model_dump(exclude_none=True)
        found = call.admin.reads.open_letters(filters, body.limit + 1)
        ids, more = [row["id"] for row in found[: body.limit]], len(found) > body.limit
    done: list[RedrivenLetter] = []
    skipped: list[SkippedLetter] = []
    start = call.order(lambda order: order.now())
    for letter_id in ids:
        gap = timedelta(seconds=len(done) / body.rate_per_second) if body.rate_per_second else timedelta()
        try:
            made = call.order(partial(_redrive, call, letter_id, start + gap if gap else None))
        except (ControlError, EnqueueError, RefusalError) as error:
            skipped.append(SkippedLetter(id=letter_id, reason=str(error)))
        else:
            done.append(made)
    return Redriven(redriven=done, skipped=skipped, more=more)


def _redrive(call: Call, letter_id: UUID, run_at: datetime | None, order: Order) -> RedrivenLetter:
    letter = order.letter(letter_id)
    if letter is None:
        raise not_found(UNKNOWN)
    if letter["state"] != "open":
        raise RefusalError(409, f"the dead letter is {letter['state']} already")
    if letter["job_id"] is None:
        raise RefusalError(409, "it is a message that is no job: there is nothing to run again")
    made = redrive_job(order, letter["job_id"], call.who.name, run_at)
    if made is None:
        raise RefusalError(409, "its job is no longer kept")
    after = {"state": "redriven", "jobId": str(made.id)}
    order.record("dead_letter.redrive", target(letter["id"]), {"state": "open"}, after)
    return RedrivenLetter(id=letter["id"], job_id=made.id)


def target(letter_id: UUID) -> str:
    """How the audit log names a dead letter."""
    return f"dead-letter:{letter_id}"


def _change(call: Call, change: Callable[[Order, Row], None]) -> DeadLetter:
    letter_id = _id(call)

    def order(order: Order) -> Row:
        letter = order.letter(letter_id)
        if letter is None:
            raise not_found(UNKNOWN)
        change(order, letter)
        return order.letter(letter_id) or letter

    return DeadLetter.model_validate(call.order(order))


def _id(call: Call) -> UUID:
    return read_id(call.parameters["id"], UNKNOWN)
