"""What a handler sees of the engine while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

from shared.engine.errors import JobCancelledError, LeaseLostError
from shared.engine.job import Completed, Deferred, Job
from shared.engine.json_text import to_json


@dataclass(slots=True)
class Context:
    """One attempt's link to the engine; made by the worker, one for each handler call."""

    details: dict[str, Any] = field(default_factory=dict)
    lease_lost: Event = field(default_factory=Event)
    stop_requested: Event = field(default_factory=Event)

    def note(self, **details: Any) -> None:
        """Keep facts on the attempt for the operator (Graph's request-id and the like); JSON values only."""
        to_json(details)
        self.details.update(details)

    def checkpoint(self) -> None:
        """Call between steps, above all right before an effect; costs nothing.

        Raises LeaseLostError when another has the job, JobCancelledError when it was cancelled while it ran.
        """
        if self.lease_lost.is_set():
            raise LeaseLostError("the lease was taken over")
        if self.stop_requested.is_set():
            raise JobCancelledError("the job was cancelled while it ran")


class Handler(Protocol):
    """Runs one job. Returns None for done, Completed for done with a result or follow-ups, or Deferred;
    raises a JobError (or anything else, which counts as unknown) when the attempt failed."""

    def __call__(self, job: Job, payload: Any, context: Context) -> Completed | Deferred | None: ...
