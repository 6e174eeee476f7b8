"""One trigger for each poison queue: the host puts there what failed five times, and nobody else would look."""

from __future__ import annotations

import azure.functions as func

from shared.handlers.registry import QUEUES, QueueSpec

bp = func.Blueprint()  # type: ignore[no-untyped-call]


def _add(spec: QueueSpec) -> None:
    def run(message: func.QueueMessage) -> None:
        from shared import bootstrap

        bootstrap.inbox().receive_poison(spec, message.get_body(), message.id or "", message.dequeue_count)

    trigger = bp.queue_trigger(arg_name="message", queue_name=spec.poison, connection="QueueStorage")
    bp.function_name(f"poison_{spec.function}")(trigger(run))


for _spec in QUEUES.values():
    _add(_spec)
