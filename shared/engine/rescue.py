"""Takes back the jobs of workers that gave no sign of life for the length of their lease, and checks the counts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from random import Random

from shared.engine.backoff import RetryPolicy, decide
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
            retries = {queue: self._store.settings(queue).retries for queue in {job.queue for job in expired}}
            settlements = [self._settlement(job, retries[job.queue]) for job in expired]
            settled = self._store.settle(settlements, only_expired=True)
            kept = set(settled.lost)
            self._producer.wake_freed(settled.freed)
            for job, settlement in zip(expired, settlements, strict=True):
                if job.id not in kept:
                    taken += 1
                    log.warning(
                        "job.rescued", extra={"job_id": str(job.id), "queue": job.queue, "attempt": job.attempt}
                    )
                    self._producer.wake_after(job.queue, settlement.outcome)
            if len(expired) < BATCH or len(kept) == len(expired):
                break
        wrong = self._store.repair()
        if wrong:
            log.error("counts.repaired", extra={"wrong": wrong})
        return taken

    def _settlement(self, job: Job, retries: Mapping[ErrorClass, RetryPolicy]) -> Settlement:
        failure = Failure(
            ErrorClass.WORKER_LOST,
            "the worker gave no sign of life until its lease ended; the effect is not known",
        )
        return Settlement(job.id, job.lease_token, decide(job, failure, self._random, retries))
