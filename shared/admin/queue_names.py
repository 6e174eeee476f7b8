"""Queues that are named in a filter."""

from __future__ import annotations

from shared.admin.errors import wrong_field
from shared.admin.ports import Call
from shared.engine.spelling import unknown_queue
from shared.handlers.registry import QUEUES


def check_name(call: Call, field: str, queue: str | None) -> None:
    """Of a filter that found nothing: a slip of the pen is no answer of nothing. Queues that are no longer declared
    have their history, and are known to the database. Raises RefusalError (422)."""
    if queue is not None and queue not in QUEUES and queue not in call.admin.reads.queues():
        raise wrong_field(field, unknown_queue(queue, QUEUES))
