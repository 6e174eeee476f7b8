"""Engines that are broken on purpose, each in one place, and the invariant that must find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

from shared.engine.backoff import RetryPolicy
from shared.engine.cron import parse_cron, parse_zone
from shared.engine.enqueue import Producer
from shared.engine.job import (
    Claimed,
    Completed,
    Enqueued,
    ErrorClass,
    Failure,
    Job,
    JobState,
    NewJob,
    Released,
    Retry,
    Settled,
    Settlement,
)
from shared.engine.memory import MemoryStore
from shared.engine.memory_state import HeldBy, Letter, Row
from shared.engine.rescue import Rescue
from shared.engine.schedules import Held, Scheduler
from tests.simulation.host import Parts
from tests.simulation.world import Mutation


@dataclass(frozen=True, slots=True)
class Mutant:
    mutation: Mutation
    invariant: str


class LosesAtCrash(MemoryStore):
    """Its last enqueue was not on the disk yet when a worker's crash took the server along."""

    def expired(self, limit: int) -> list[Job]:
        jobs = super().expired(limit)
        if jobs:
            for row in self._state.rows(JobState.READY)[-1:]:
                del self._state.live[row.id]
        return jobs


class IgnoresTokens(MemoryStore):
    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        return super().settle([self._with_any_token(one) for one in settlements], only_expired=only_expired)

    def _with_any_token(self, settlement: Settlement) -> Settlement:
        row = self._state.live.get(settlement.job_id)
        return replace(settlement, lease_token=row.token) if row and row.token else settlement


class TakesTheWorst(MemoryStore):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lanes.best = self._worst  # type: ignore[method-assign]

    def _worst(self, queue: str) -> Row | None:
        return max(self._state.rows(JobState.READY, queue), key=self._lanes.line_order, default=None)


class IgnoresAgeing(MemoryStore):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lanes.line_order = self._as_asked  # type: ignore[method-assign]

    def _as_asked(self, row: Row) -> tuple[int, datetime, int]:
        return row.record.priority, row.record.run_at, row.place


class CountsReleases(MemoryStore):
    """What was given back before it started counts as an attempt."""

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        settled = super().settle(settlements, only_expired=only_expired)
        for one in settlements:
            row = self._state.live.get(one.job_id)
            if row is not None and isinstance(one.outcome, Released) and one.job_id not in settled.lost:
                row.record = replace(row.record, attempt=row.record.attempt + 1)
        return settled


class KeepsTheLastFailureOnly(MemoryStore):
    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        settled = super().settle(settlements, only_expired=only_expired)
        for one in settlements:
            row = self._state.live.get(one.job_id)
            if row is not None and isinstance(one.outcome, Retry):
                row.record = replace(row.record, attempts=row.record.attempts[-1:])
        return settled


class StoresFollowUpsFirst(MemoryStore):
    """Follow-ups in a transaction of their own, before the one that settles."""

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        plain = []
        for one in settlements:
            if isinstance(one.outcome, Completed):
                super().enqueue(one.outcome.follow_ups)
                one = replace(one, outcome=replace(one.outcome, follow_ups=()))
            plain.append(one)
        return super().settle(plain, only_expired=only_expired)


class IgnoresRates(MemoryStore):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._queue_limits.may_start = lambda queue, cost, reserve: (True, None)  # type: ignore[method-assign]


class IgnoresKeys(MemoryStore):
    """Neither lanes nor limit keys hold anything back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lanes.held_by = self._nothing  # type: ignore[method-assign]

    def _nothing(self, row: Row) -> HeldBy | None:
        return None


class IgnoresBlocks(MemoryStore):
    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        return super().settle([replace(one, block=None) for one in settlements], only_expired=only_expired)


class IgnoresPauses(MemoryStore):
    def claim(self, queue: str, limit: int, worker: str, lease: timedelta) -> Claimed:
        settings = self.queues[queue]
        self.queues[queue] = replace(settings, paused=False)
        try:
            return super().claim(queue, limit, worker, lease)
        finally:
            self.queues[queue] = settings


class IgnoresDependencies(MemoryStore):
    def enqueue(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        return super().enqueue([replace(job, depends_on=()) for job in jobs], conn)


class ForgetsCallbacks(MemoryStore):
    def create_batch(self, jobs: Sequence[NewJob], callback: NewJob | None) -> tuple[UUID, list[Enqueued]]:
        return super().create_batch(jobs, None)


class ForgetsSingletons(MemoryStore):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unique.live_singleton = lambda queue, key: None  # type: ignore[method-assign]


class ForgetsLetters(MemoryStore):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ends.bury = self._forget  # type: ignore[method-assign]

    def _forget(self, letter: Letter) -> None:
        pass


class ForgetsProgress(MemoryStore):
    def save_progress(self, job_id: UUID, lease_token: UUID, progress: dict[str, Any]) -> bool:
        return True


class CallsLostWorkersHarmless(Rescue):
    """Of a class after which nothing can have happened: the next attempt does not look before it sends."""

    def _settlement(self, job: Job, retries: Mapping[ErrorClass, RetryPolicy]) -> Settlement:
        failure = Failure(ErrorClass.RATE_LIMIT, "the worker is gone")
        return Settlement(job.id, job.lease_token, Retry(failure, timedelta(seconds=1)))


class RescuesTheLiving(Rescue):
    """Stands still between its look and its settlement, and takes back also who was renewed meanwhile."""

    def __init__(self, store: Any, producer: Producer, random: Random) -> None:
        super().__init__(store, producer, random)
        settle = store.settle

        def settle_late(settlements: Sequence[Settlement], *, only_expired: bool) -> Settled:
            store._process.sleep(30.0)
            settled: Settled = settle(settlements)
            return settled

        self._store: Any = SimpleNamespace(
            expired=store.expired, settings=store.settings, repair=store.repair, settle=settle_late
        )


class SkipsSlots(Scheduler):
    """Moves a schedule on in one transaction, and would make the job in another."""

    def _take(self, held: Held) -> tuple[list[NewJob], list[Enqueued]]:
        plan = parse_cron(held.schedule.cron, parse_zone("UTC"))
        held.save(replace(held.schedule, next_run_at=plan.next_after(held.now)))
        return [], []


def _store(store: type[MemoryStore], invariant: str) -> Mutant:
    return Mutant(Mutation(store=store), invariant)


def _parts(parts: Parts, invariant: str) -> Mutant:
    return Mutant(Mutation(parts), invariant)


MUTANTS: Mapping[str, Mutant] = MappingProxyType(
    {
        "an enqueue is lost at a crash": _store(LosesAtCrash, "I1"),
        "a stale token settles": _store(IgnoresTokens, "I2"),
        "a live job is rescued": _parts(Parts(rescue=RescuesTheLiving), "I2"),
        "a claim takes the worst": _store(TakesTheWorst, "I3"),
        "a claim ignores ageing": _store(IgnoresAgeing, "I3"),
        "a release counts as an attempt": _store(CountsReleases, "I4"),
        "only the last failure is kept": _store(KeepsTheLastFailureOnly, "I5"),
        "follow-ups are stored before the settlement": _store(StoresFollowUpsFirst, "I6"),
        "a wake-up is deleted before its jobs run": _parts(Parts(deletes_first=True), "I7"),
        "the relay never runs": Mutant(Mutation(without_timers=("relay",)), "I8"),
        "the rescue never runs": Mutant(Mutation(without_timers=("rescue",)), "I8"),
        "a repeated notification is recorded again": _parts(Parts(records_twice=True), "I9"),
        "a claim ignores the queue's rate": _store(IgnoresRates, "I10"),
        "a claim ignores the keys' rates": _store(IgnoresKeys, "I10"),
        "a claim ignores the keys' slots": _store(IgnoresKeys, "caps"),
        "a claim ignores ordering keys": _store(IgnoresKeys, "orders"),
        "a 429 blocks nothing": _store(IgnoresBlocks, "blocks"),
        "a paused queue goes on": _store(IgnoresPauses, "starts"),
        "dependencies are not waited for": _store(IgnoresDependencies, "dependencies"),
        "a batch forgets its callback": _store(ForgetsCallbacks, "batches"),
        "a singleton key is not looked at": _store(ForgetsSingletons, "unique keys"),
        "a lost worker's effect is not looked for": _parts(Parts(rescue=CallsLostWorkersHarmless), "effects"),
        "a dead job makes no dead letter": _store(ForgetsLetters, "dead letters"),
        "a slot is skipped": _parts(Parts(scheduler=SkipsSlots), "schedules"),
        "progress is not kept": _store(ForgetsProgress, "progress"),
    }
)
