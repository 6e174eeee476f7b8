"""What the routes of dead letters do, but orders for many (shared/admin/dead_letter_orders.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from shared.admin.cursor import Place, cut, read_cursor
from shared.admin.errors import RefusalError, not_found
from shared.admin.jobs import read_id
from shared.admin.models.dead_letters import DeadLetter, DeadLetterGroup, DeadLetterGroups, DeadLetterPage
from shared.admin.ports import Call, Order, Row
from shared.admin.queue_names import check_name
from shared.engine.job import ErrorClass
from shared.engine.messages import readable_body
from shared.monitoring.error_classes import BY_CLASS, advice

UNKNOWN = "dead letter with this id"
#: So many of the newest open letters are grouped.
GROUPED_AT_MOST = 10_000


def list_letters(call: Call) -> DeadLetterPage:
    query = call.query
    filters = query.model_dump(exclude={"cursor", "limit", "from_", "to"})
    filters |= {"died_after": query.from_, "died_before": query.to}
    rows = call.admin.reads.letters(filters, read_cursor(query.cursor), query.limit)
    if not rows:
        check_name(call, "queue", query.queue)
    page, following = cut(rows, query.limit, lambda row: Place(row["died_at"], row["id"]))
    return DeadLetterPage(items=[_shown(row) for row in page], next=following)


def groups(call: Call) -> DeadLetterGroups:
    found, counted = call.admin.reads.letter_groups(call.query.queue, call.query.reviewed, GROUPED_AT_MOST)
    if not found:
        check_name(call, "queue", call.query.queue)
    shown = [DeadLetterGroup.model_validate({**row, **_advice(row["error_class"], row["foreign"])}) for row in found]
    return DeadLetterGroups(groups=shown, counted=counted, complete=counted < GROUPED_AT_MOST)


def show(call: Call) -> DeadLetter:
    row = call.admin.reads.letter(_id(call))
    if row is None:
        raise not_found(UNKNOWN)
    return _shown(row)


def review(call: Call) -> DeadLetter:
    return _change(call, lambda order, letter: note(order, letter, call.who.name, call.body.note))


def discard(call: Call) -> DeadLetter:
    return _change(call, lambda order, letter: give_up(order, letter, call.who.name))


def note(order: Order, letter: Row, by: str, text: str) -> None:
    """Write what was found out about it."""
    order.review(letter["id"], by, text)
    before = {"reviewedBy": letter["reviewed_by"], "note": letter["review_note"]}
    order.record("dead_letter.review", target(letter["id"]), before, {"reviewedBy": by, "note": text})


def give_up(order: Order, letter: Row, by: str, why: str | None = None) -> None:
    """With a note why, where one is given. Raises RefusalError (409) for one that has ended already."""
    check_open(letter)
    before, after = {"state": "open"}, {"state": "discarded"}
    if why is not None:
        order.review(letter["id"], by, why)
        before, after = before | {"note": letter["review_note"]}, after | {"note": why}
    if letter["job_id"] is None:
        order.discard_message(letter["id"], by)
    else:
        order.control.discard(letter["job_id"], by)
    order.record("dead_letter.discard", target(letter["id"]), before, after)


def check_open(letter: Row) -> None:
    """Raises RefusalError (409)."""
    if letter["state"] != "open":
        raise RefusalError(409, f"the dead letter is {letter['state']} already")


def locked(order: Order, letter_id: UUID) -> Row:
    """Raises RefusalError (404)."""
    letter = order.letter(letter_id)
    if letter is None:
        raise not_found(UNKNOWN)
    return letter


def target(letter_id: UUID) -> str:
    """How the audit log names a dead letter."""
    return f"dead-letter:{letter_id}"


def _change(call: Call, change: Callable[[Order, Row], None]) -> DeadLetter:
    letter_id = _id(call)

    def order(order: Order) -> Row:
        letter = locked(order, letter_id)
        change(order, letter)
        return order.letter(letter_id) or letter

    return _shown(call.order(order))


def _shown(row: Row) -> DeadLetter:
    text = None if row["body"] is None else readable_body(row["body"])
    return DeadLetter.model_validate({**row, "text": text, **_advice(row["error_class"], row["job_id"] is None)})


def _advice(error_class: str, foreign: bool) -> dict[str, Any]:
    known = advice(error_class, foreign=foreign) or BY_CLASS[ErrorClass.UNKNOWN]
    return {"meaning": known.meaning, "remedy": known.remedy, "redrive_helps": known.redrive_helps}


def _id(call: Call) -> UUID:
    return read_id(call.parameters["id"], UNKNOWN)
