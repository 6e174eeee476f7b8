"""One trigger for each queue of the registry, also for the closed ones: what lands there is kept, with the reason."""

from __future__ import annotations

import azure.functions as func

from shared.handlers.registry import QUEUES, QueueSpec

bp = func.Blueprint()  # type: ignore[no-untyped-call]


def _add(spec: QueueSpec) -> None:
    def run(message: func.QueueMessage) -> None:
        from shared import bootstrap

        bootstrap.inbox().receive(spec, message.get_body(), message.id or "")

    trigger = bp.queue_trigger(arg_name="message", queue_name=spec.name, connection="QueueStorage")
    bp.function_name(f"run_{spec.function}")(trigger(run))


for _spec in QUEUES.values():
    _add(_spec)
