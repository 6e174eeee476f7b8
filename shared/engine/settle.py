"""Ends attempts in the store, also where it is away for a moment or refuses what a handler asked for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from uuid import UUID

from shared.engine.backoff import RetryPolicy, decide
from shared.engine.classify import classify
from shared.engine.errors import EnqueueError, JobError, StoreUnavailableError
from shared.engine.job import ErrorClass, Job, Settled, Settlement
from shared.engine.ports import Store

log = logging.getLogger(__name__)

#: A settlement that meets a failing database is tried again this often before the lease decides.
SETTLE_TRIES = 3


class Settler:
    """What a worker settles with when it claims nothing in the same call."""

    def __init__(self, store: Store, random: Random) -> None:
        self._store = store
        self._random = random

    def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """All or none. Raises EnqueueError for a follow-up that cannot be stored, StoreUnavailableError."""
        for tries_left in reversed(range(SETTLE_TRIES)):
            try:
                return self._store.settle(settlements)
            except StoreUnavailableError:
                if tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    def settle_each(
        self,
        settlements: Sequence[Settlement],
        jobs: Mapping[UUID, Job],
        retries: Mapping[ErrorClass, RetryPolicy],
    ) -> tuple[list[Settlement], Settled]:
        """One by one, after a refusal; returns what was settled in the end.

        Only the store knows some follow-ups to be wrong (a singleton key that is taken, a job that is not known): the
        attempt that asked for one has failed.
        """
        done: list[Settlement] = []
        lost: list[UUID] = []
        freed: Counter[str] = Counter()
        for settlement in settlements:
            try:
                settled = self.settle([settlement])
            except EnqueueError as error:
                job = jobs[settlement.job_id]
                log.error("follow_up.refused", extra={"job_id": str(job.id), "queue": job.queue, "error": str(error)})
                failed = decide(job, classify(not_stored(error)), self._random, retries)
                settlement = replace(settlement, outcome=failed)
                settled = self.settle([settlement])
            done.append(settlement)
            lost += settled.lost
            freed.update(settled.freed)
        return done, Settled(tuple(lost), freed)


def not_stored(error: EnqueueError) -> JobError:
    """A follow-up that cannot be stored is the handler's mistake, not its job's payload's."""
    return JobError(f"the handler asked for a follow-up that cannot be stored: {error}")
