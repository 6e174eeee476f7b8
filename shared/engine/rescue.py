"""Takes back the jobs of workers that gave no sign of life for the length of their lease."""

from __future__ import annotations

import logging
from random import Random

from shared.engine.backoff import decide
from shared.engine.enqueue import Producer
from shared.engine.job import ErrorClass, Failure, Job, Settlement
from shared.engine.ports import Store

log = logging.getLogger(__name__)

BATCH = 500


class Rescue:
    """Runs every thirty seconds.

    A job that kills its worker every time uses up its attempts and ends as a dead letter (worker-lost). Goes by the
    lease alone: no list of workers that could be wrong.
    """

    def __init__(self, store: Store, producer: Producer, random: Random) -> None:
        self._store = store
        self._producer = producer
        self._random = random

    def run(self) -> int:
        """One pass; returns how many jobs were taken back. Raises StoreUnavailableError."""
        taken = 0
        while expired := self._store.expired(BATCH):
            settlements = [self._settlement(job) for job in expired]
            kept = set(self._store.settle(settlements, only_expired=True))
            for job, settlement in zip(expired, settlements, strict=True):
                if job.id not in kept:
                    taken += 1
                    log.warning(
                        "job.rescued", extra={"job_id": str(job.id), "queue": job.queue, "attempt": job.attempt}
                    )
                    self._producer.wake_after(job.queue, settlement.outcome)
            if len(expired) < BATCH or len(kept) == len(expired):
                break
        return taken

    def _settlement(self, job: Job) -> Settlement:
        failure = Failure(
            ErrorClass.WORKER_LOST,
            "the worker gave no sign of life until its lease ended; the effect is not known",
        )
        return Settlement(job.id, job.lease_token, decide(job, failure, self._random))
