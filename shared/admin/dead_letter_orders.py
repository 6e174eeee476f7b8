"""Orders for many dead letters: redrive, discard, review."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from shared.admin.dead_letters import check_open, give_up, locked, note, target
from shared.admin.errors import RefusalError
from shared.admin.jobs import redrive as redrive_job
from shared.admin.models.dead_letters import Discarded, Redriven, RedrivenLetter, Reviewed, SkippedLetter
from shared.admin.ports import Call, Order, Row
from shared.admin.queue_names import check_name
from shared.engine.errors import ControlError, EnqueueError

T = TypeVar("T")


def redrive(call: Call) -> Redriven:
    ids, more = _chosen(call, {"kept": True})
    rate, now = call.body.rate_per_second, call.order(lambda order: order.now())
    start = max(call.body.start_at or now, now)
    done: list[RedrivenLetter] = []
    skipped: list[SkippedLetter] = []

    def due() -> datetime:
        """When the next one is."""
        return start + timedelta(seconds=len(done) / rate) if rate else start

    for letter_id in ids:
        run_at = due() if due() > now else None
        _one(call, letter_id, partial(_redrive, call, letter_id, run_at), done, skipped)
    return Redriven(redriven=done, skipped=skipped, more=more, next_at=due() if rate else None)


def discard(call: Call) -> Discarded:
    done, skipped, more = _with_note(call, {}, give_up)
    return Discarded(discarded=done, skipped=skipped, more=more)


def review(call: Call) -> Reviewed:
    """By a filter those that nobody has reviewed, so that the same order goes on where the one before ended."""
    done, skipped, more = _with_note(call, {"reviewed": False}, note)
    return Reviewed(reviewed=done, skipped=skipped, more=more)


def _with_note(
    call: Call, only: dict[str, Any], act: Callable[[Order, Row, str, str], None]
) -> tuple[list[UUID], list[SkippedLetter], bool]:
    """Each with the order's note, in one transaction."""

    def order(letter_id: UUID, order: Order) -> UUID:
        letter = locked(order, letter_id)
        act(order, letter, call.who.name, call.body.note)
        return UUID(str(letter["id"]))

    ids, more = _chosen(call, only)
    done: list[UUID] = []
    skipped: list[SkippedLetter] = []
    for letter_id in ids:
        _one(call, letter_id, partial(order, letter_id), done, skipped)
    return done, skipped, more


def _chosen(call: Call, only: dict[str, Any]) -> tuple[Sequence[UUID], bool]:
    """The ids, and whether the filter, narrowed by `only`, fits others."""
    body = call.body
    if body.ids is not None:
        return list(body.ids), False
    filters = body.filter.model_dump(exclude_none=True) | only
    found = call.admin.reads.open_letters(filters, body.limit + 1)
    if not found:
        check_name(call, "filter.queue", body.filter.queue)
    return [row["id"] for row in found[: body.limit]], len(found) > body.limit


def _one(call: Call, letter_id: UUID, order: Callable[[Order], T], done: list[T], skipped: list[SkippedLetter]) -> None:
    """In a transaction of its own with its rows in the audit log: what is done stays when the next one fails."""
    try:
        made = call.order(order)
    except (ControlError, EnqueueError, RefusalError) as error:
        skipped.append(SkippedLetter(id=letter_id, reason=str(error)))
    else:
        done.append(made)


def _redrive(call: Call, letter_id: UUID, run_at: datetime | None, order: Order) -> RedrivenLetter:
    letter = locked(order, letter_id)
    check_open(letter)
    if letter["job_id"] is None:
        raise RefusalError(409, "it is a message that is no job: there is nothing to run again")
    made = redrive_job(order, letter["job_id"], call.who.name, run_at)
    if made is None:
        raise RefusalError(409, "its job is no longer kept")
    after = {"state": "redriven", "jobId": str(made.id)}
    order.record("dead_letter.redrive", target(letter["id"]), {"state": "open"}, after)
    return RedrivenLetter(id=letter["id"], job_id=made.id)
