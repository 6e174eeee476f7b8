"""What an operator does to queues and jobs: pause, resume, clear, cancel, reschedule, retry now. Wakes where needed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from shared.engine.ageing import check_ageing
from shared.engine.backoff import RetryPolicy, check_retries
from shared.engine.enqueue import Producer
from shared.engine.errors import ControlError
from shared.engine.job import HIGHEST_PRIORITY, LOWEST_PRIORITY, Cancellation, ErrorClass, JobState, Placed
from shared.engine.ports import Limits, Store
from shared.engine.relay import COUNTED_AT_MOST, PROMOTED_AT_ONCE

log = logging.getLogger(__name__)

#: Rows that one transaction cancels: short locks, and workers and producers go on beside it.
CLEARED_AT_ONCE = 1000
CLEARABLE = (JobState.READY, JobState.SCHEDULED, JobState.WAITING)


class Control:
    """Every verb raises ControlError when the order makes no sense (nothing changed), and StoreUnavailableError."""

    def __init__(self, store: Store, producer: Producer) -> None:
        self._store = store
        self._producer = producer

    def pause(self, queue: str) -> bool:
        """Start no more jobs of the queue, until resume and across restarts; False when it was paused already.

        Running jobs end as they would. Jobs can be enqueued, and none is lost; deadlines go on.
        """
        changed = self._store.pause(queue)
        if changed:
            log.warning("queue.paused", extra={"queue": queue})
        return changed

    def resume(self, queue: str) -> bool:
        """Start jobs again, at once; False when the queue was not paused."""
        changed = self._store.resume(queue)
        if changed:
            log.warning("queue.resumed", extra={"queue": queue})
            self._store.promote_due(PROMOTED_AT_ONCE)
            runnable = self._store.runnable(COUNTED_AT_MOST).get(queue, 0)
            if runnable:
                self._producer.wake(queue, runnable)
        return changed

    def clear(self, queue: str, confirm: str, states: Sequence[JobState] = CLEARABLE) -> int:
        """Cancel all jobs of the queue that have not started; returns how many. Running ones are untouched.

        `confirm` repeats the queue's name. A thousand rows a transaction: when it fails in between, what was
        cancelled stays so, and calling it again goes on.
        """
        cleared = last = self._store.clear(queue, confirm, states, CLEARED_AT_ONCE)
        while last == CLEARED_AT_ONCE:
            last = self._store.clear(queue, confirm, states, CLEARED_AT_ONCE)
            cleared += last
        log.warning("queue.cleared", extra={"queue": queue, "jobs": cleared})
        return cleared

    def cancel(self, job_id: UUID) -> Cancellation | None:
        """Cancel a waiting job, or ask a running one to stop; None when it has ended or is unknown.

        A running job's handler is told at its next checkpoint after the next heartbeat (a third of the lease, 15 s).
        One that never looks completes as ever; one that fails is not retried.
        """
        answer = self._store.cancel(job_id)
        if answer is not None:
            log.warning("job.cancel_asked", extra={"job_id": str(job_id), "answer": answer.value})
        return answer

    def reschedule(self, job_id: UUID, priority: int | None = None, run_at: datetime | None = None) -> Placed | None:
        """Give a job that has not started another priority, another time (aware), or both; None when it runs, has
        ended or is unknown.

        A waiting job goes on waiting, with its new priority among those that wait; put off, it is scheduled, unless it
        waits for other jobs: then it is when they have ended. One that is put off before its first attempt leaves its
        place in its ordering key to the next.
        """
        if priority is None and run_at is None:
            raise ControlError("priority, run_at: give at least one of the two")
        if priority is not None and (isinstance(priority, bool) or not HIGHEST_PRIORITY <= priority <= LOWEST_PRIORITY):
            raise ControlError("priority: it must be 1 (first) to 10 (last)")
        if run_at is not None and run_at.tzinfo is None:
            raise ControlError("run_at: it needs a time zone")
        return self._wake(self._store.reschedule(job_id, priority, run_at))

    def retry_now(self, job_id: UUID) -> Placed | None:
        """Make a scheduled job ready, whether for its first run or a retry; None when it is not scheduled."""
        return self._wake(self._store.retry_now(job_id))

    def set_limits(self, queue: str, limits: Limits) -> None:
        """Give the queue other limits, from now on and for every instance."""
        _check_limits(limits)
        self._store.set_limits(queue, limits)
        log.warning("queue.limits_set", extra={"queue": queue, "limits": str(limits)})
        self._store.open_due(PROMOTED_AT_ONCE)
        self._producer.wake_freed({queue: self._store.runnable(COUNTED_AT_MOST).get(queue, 0)})

    def set_ageing(self, queue: str, every: timedelta | None) -> None:
        """Let a job of the queue gain one priority for each `every` since it was due; None: no longer."""
        check_ageing(every)
        self._store.set_ageing(queue, every)
        log.warning("queue.ageing_set", extra={"queue": queue, "every": str(every)})

    def set_retries(self, queue: str, retries: Mapping[ErrorClass, RetryPolicy]) -> None:
        """Give the queue retry delays of its own, for the classes that are named; the others go by the table."""
        check_retries(retries)
        self._store.set_retries(queue, retries)
        log.warning("queue.retries_set", extra={"queue": queue, "retries": str(dict(retries))})

    def discard(self, job_id: UUID, by: str) -> bool:
        """Give a dead job up: it cannot be redriven any more, and an ordering key that it blocks goes on. False when it
        is no dead letter that is open."""
        discarded = self._store.discard(job_id, by)
        if discarded:
            log.warning("dead_letter.discarded", extra={"job_id": str(job_id), "by": by})
        return discarded

    def _wake(self, placed: Placed | None) -> Placed | None:
        runnable = placed.freed + (placed.state is JobState.READY) if placed is not None else 0
        if placed is not None and runnable:
            self._producer.wake(placed.queue, runnable)
        return placed


def _check_limits(limits: Limits) -> None:
    numbers = {
        "rate": limits.rate.limit if limits.rate else None,
        "concurrency": limits.concurrency,
        "key_rate": limits.key_rate.limit if limits.key_rate else None,
        "key_concurrency": limits.key_concurrency,
        "job_cost": limits.job_cost,
    }
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ControlError(f"{name}: it must be 1 or more; pause the queue to let nothing through")
    for name, rate in (("rate", limits.rate), ("key_rate", limits.key_rate)):
        if rate is not None and rate.window <= timedelta():
            raise ControlError(f"{name}: its window must be longer than nothing")
    if limits.rate is not None and limits.job_cost > limits.rate.limit:
        raise ControlError("job_cost: it is above the rate, so that no job could ever start")
