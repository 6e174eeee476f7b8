"""What a handler sees of the engine while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event
from typing import Any, Protocol

from shared.engine.errors import ControlError, JobCancelledError, LeaseLostError, LimitReachedError
from shared.engine.job import FOUND_NOTHING, Completed, Deferred, Job
from shared.engine.json_text import to_json
from shared.redaction import facts_without_secrets


@dataclass(slots=True)
class Context:
    """One attempt's link to the engine; made by the worker, one for each handler call.

    `saver` and `permits` are Store.save_progress and Store.take_permits of this job; without them nothing is kept, and
    every permit is granted. `paid`: permits that the start took besides the job's cost, not used yet.
    """

    details: dict[str, Any] = field(default_factory=dict)
    lease_lost: Event = field(default_factory=Event)
    stop_requested: Event = field(default_factory=Event)
    saver: Callable[[dict[str, Any]], bool] | None = None
    permits: Callable[[int], timedelta | None] | None = None
    paid: int = 0

    def note(self, **details: Any) -> None:
        """Keep facts on the attempt for the operator (Graph's request-id and the like); JSON values only."""
        to_json(details)
        self.details.update(facts_without_secrets(details))

    def note_nothing_found(self) -> None:
        """Say that this attempt has looked for what earlier ones may have done outside, and that there is nothing."""
        self.note(**{FOUND_NOTHING: True})

    def checkpoint(self) -> None:
        """Call between steps, above all right before an effect; costs nothing.

        Raises LeaseLostError when another has the job, JobCancelledError when it was cancelled while it ran.
        """
        if self.lease_lost.is_set():
            raise LeaseLostError("the lease was taken over")
        if self.stop_requested.is_set():
            raise JobCancelledError("the job was cancelled while it ran")

    def save(self, **progress: Any) -> None:
        """Keep how far the job is, in place of what was saved before; JSON values only.

        The next attempt finds it in `Job.progress`, and an operator sees it at once. A round trip to the database: call
        it after a page or a part, not after a row. A checkpoint too: raises what `checkpoint` raises.
        """
        to_json(progress)
        self.checkpoint()
        if self.saver is not None and not self.saver(progress):
            raise LeaseLostError("the lease was taken over")

    def take_permits(self, n: int = 1) -> None:
        """Count `n` requests against the queue's rate, for handlers that make more than a job's declared cost.

        Raises LimitReachedError when there are none now: let it through, and the job is deferred, its attempt not
        counted, and starts again with these `n` in hand. Save progress before. Raises ControlError when no start could
        ever have them: they and the cost are above the rate.
        """
        if n < 1:
            raise ControlError("permits: at least 1")
        self.checkpoint()
        beyond = max(0, n - self.paid)
        wait = self.permits(beyond) if beyond and self.permits is not None else None
        if wait is not None:
            raise LimitReachedError("the queue's rate is used up", wait, n)
        self.paid -= n - beyond


class Handler(Protocol):
    """Runs one job. Returns None for done, Completed for done with a result or follow-ups, or Deferred;
    raises a JobError (or anything else, which counts as unknown) when the attempt failed."""

    def __call__(self, job: Job, payload: Any, context: Context) -> Completed | Deferred | None: ...
