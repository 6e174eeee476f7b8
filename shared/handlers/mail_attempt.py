"""What one attempt at a mail spends and keeps: permits for its further requests, its time, and how far it got."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from shared.engine.context import Context
from shared.engine.job import Job

#: With one more chunk and one more look below the longest run of a handler (three minutes).
UPLOAD_SECONDS = 90.0
#: What it takes to go on with an upload: list what is attached, ask the session, send a chunk, and one to spare. An
#: attempt that goes on takes them at once and ends no sooner, so that each one gets further than the one before.
TO_GO_ON = 4


class PausedError(Exception):
    """The attempt has used up its time in the middle of an upload: the job is deferred, and goes on at once."""


class MailAttempt:
    """One attempt. Whatever it keeps, the next one finds in `Job.progress`, also after its worker was killed.

    `draft`: the draft's id, which must be kept before anything can end the attempt without counting it.
    """

    def __init__(self, job: Job, context: Context, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.job = job
        self.context = context
        self.progress: dict[str, Any] = dict(job.progress or {})
        #: Of the payload's files, once they have been looked at.
        self.sizes: list[int] = []
        #: Whether it turned out that an earlier attempt had sent it.
        self.read_back = False
        self._monotonic = monotonic
        self._until = monotonic() + UPLOAD_SECONDS
        self._requests = 0
        self._paid = 0

    @property
    def may_have_begun(self) -> bool:
        """Whether an earlier attempt may have left a draft, or a mail."""
        return bool(self.job.attempts or self.job.progress is not None or self.job.may_have_taken_effect)

    def keep(self, **progress: Any) -> None:
        """Keep facts beside those that are kept already; nothing happens when all are."""
        if any(self.progress.get(name) != value for name, value in progress.items()):
            self.progress |= progress
            self.context.save(**self.progress)

    def further(self, draft: str | None = None) -> None:
        """Before a request beyond the common path (draft, send, confirm), which the job's cost covers.

        Raises LimitReachedError when the queue's rate has no permit for it, PausedError when the time is up.
        """
        if draft is not None:
            self.keep(draft=draft)
            if self._requests >= TO_GO_ON and self._monotonic() > self._until:
                self.context.checkpoint()
                raise PausedError("the upload goes on in the next run")
        if self._requests == self._paid:
            permits = TO_GO_ON if self._paid == 0 and self.job.progress is not None else 1
            self.context.take_permits(permits)
            self._paid += permits
        else:
            self.context.checkpoint()
        self._requests += 1
