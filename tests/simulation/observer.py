"""Stands around a store and writes into the history what each verb did to the jobs, as far as it can be seen from
outside: the answers, and every job's record before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared.engine.job import (
    ENDED,
    ConcurrencyKey,
    Deferred,
    Enqueued,
    ErrorClass,
    FairnessKey,
    Job,
    JobRecord,
    JobState,
    NewJob,
    OnDead,
    OrderingKey,
    Retry,
    Settlement,
)
from shared.engine.memory import MemoryStore
from tests.simulation.history import History

#: Verbs that change jobs, besides those with a method here.
OTHER_VERBS = (
    "expire_due",
    "promote_due",
    "open_due",
    "cancel",
    "reschedule",
    "retry_now",
    "clear",
    "discard",
    "bury",
    "bury_job",
    "repair",
)
DUE = (JobState.READY, JobState.SCHEDULED, JobState.WAITING)


@dataclass(slots=True)
class Seen:
    """One job as it stood before a verb; `order` is that of enqueueing, `gained` what its priority has by ageing."""

    record: JobRecord
    order: int
    gained: int = 0

    @property
    def rank(self) -> tuple[int, datetime, int]:
        return max(1, self.record.priority - self.gained), self.record.run_at, self.order


@dataclass(slots=True)
class Observer:
    store: MemoryStore
    clock: Callable[[], datetime]
    history: History
    records: dict[UUID, JobRecord] = field(default_factory=dict)
    asked: dict[UUID, NewJob] = field(default_factory=dict)
    tokens: dict[UUID, UUID] = field(default_factory=dict)
    holders: dict[str, UUID] = field(default_factory=dict)
    blocked_keys: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name in ("enqueue", "create_batch", "claim", "settle", "redrive", "take_permits"):
            if hasattr(self.store, name):
                self._wrap(name, getattr(self, name))
        for name in OTHER_VERBS:
            if hasattr(self.store, name):
                self._wrap(name, self._noting(name))

    def is_current(self, job: Job) -> bool:
        return self.tokens.get(job.id) == job.lease_token

    def live(self) -> list[JobRecord]:
        return [record for record in self.records.values() if record.state not in ENDED]

    # The verbs

    def enqueue(self, verb: Callable[..., list[Enqueued]], jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        made = verb(jobs, conn)
        self._remember(jobs, made)
        self.note("enqueue")
        return made

    def create_batch(
        self, verb: Callable[..., tuple[UUID, list[Enqueued]]], jobs: Sequence[NewJob], callback: NewJob | None
    ) -> tuple[UUID, list[Enqueued]]:
        batch_id, made = verb(jobs, callback)
        self._remember(jobs, made)
        members = [one.id for one in made if one.created]
        self.history.add("batch.made", batch_id, members=members, callback=callback is not None)
        self.note("create_batch")
        return batch_id, made

    def redrive(self, verb: Callable[..., Enqueued | None], job_id: UUID, by: str) -> Enqueued | None:
        made = verb(job_id, by)
        if made is not None:
            if job_id in self.asked:
                self.asked[made.id] = self.asked[job_id]
            lane = self.records[job_id].lane
            if lane is not None and self.holders.get(lane) == job_id:
                self.holders[lane] = made.id
            self.history.add("redriven", job_id, made=made.id)
        self.note("redrive")
        return made

    def take_permits(self, verb: Callable[..., timedelta | None], queue: str, n: int) -> timedelta | None:
        wait = verb(queue, n)
        rate = self.store.settings(queue).limits.rate
        if wait is None and rate is not None:
            self.history.add("permits.taken", queue, queue=queue, cost=n, rate=rate)
        return wait

    def claim(self, verb: Callable[..., Any], queue: str, limit: int, worker: str, lease: timedelta) -> Any:
        due = [(i, r) for i, r in enumerate(self.store.jobs()) if r.queue == queue and r.state in DUE]
        before = {record.id: Seen(record, i, self._gained(record)) for i, record in due}
        active = [r for r in self.records.values() if r.state is JobState.ACTIVE]
        claimed = verb(queue, limit, worker, lease)
        jobs: Sequence[Job] = claimed if isinstance(claimed, list) else claimed.jobs
        now = self.clock()
        made_meanwhile = {job.id for job in jobs if job.id not in self.records}
        self.note("claim")
        for job in jobs:
            record = self.records[job.id]
            self.tokens[job.id] = job.lease_token
            seen = before.get(job.id)
            was = "made" if job.id in made_meanwhile else seen.record.state.value if seen else None
            self._claimed(job, record, seen, was, active)
            active.append(record)
        passed = self._passed_over(queue, jobs, limit, before, now)
        if jobs:
            self.history.add("claim.judged", queue, jobs=[job.id for job in jobs], passed_over=passed)
        elif passed:
            self.history.add("claim.judged", queue, jobs=[], passed_over=passed)
        return claimed

    def settle(self, verb: Callable[..., Any], settlements: Sequence[Settlement], *, only_expired: bool = False) -> Any:
        now = self.clock()
        before = {s.job_id: self.records.get(s.job_id) for s in settlements}
        settled = verb(settlements, only_expired=only_expired)
        lost = settled if isinstance(settled, list) else settled.lost
        for settlement in settlements:
            self._settled(settlement, before[settlement.job_id], settlement.job_id in lost, now, only_expired)
        self.note("settle")
        return settled

    def note(self, verb: str) -> None:
        """Write down which jobs are new and which have moved."""
        for record in self.store.jobs():
            known = self.records.get(record.id)
            if known is record:
                continue
            self.records[record.id] = record
            if known is None:
                self._made(record, verb)
            elif known.state is not record.state:
                self.history.add("job.moved", record.id, was=known.state.value, to=record.state.value, by=verb)
            if record.state in ENDED and (known is None or known.state not in ENDED):
                self._ended(record, verb)

    # Inside

    def _wrap(self, name: str, method: Callable[..., Any]) -> None:
        verb = getattr(self.store, name)
        setattr(self.store, name, lambda *args, **kwargs: method(verb, *args, **kwargs))

    def _noting(self, name: str) -> Callable[..., Any]:
        def method(verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            answer = verb(*args, **kwargs)
            if name in ("cancel", "discard", "reschedule", "retry_now") and answer:
                self.history.add(f"job.{name}", args[0])
            if name == "discard" and answer:
                self._let_go(args[0])
            if name == "reschedule" and answer and args[2] is not None and args[2] > self.clock():
                self._put_off(args[0])
            self.note(name)
            return answer

        return method

    def _remember(self, jobs: Sequence[NewJob], made: Sequence[Enqueued]) -> None:
        for job, one in zip(jobs, made, strict=True):
            if one.created:
                self.asked[one.id] = job

    def _made(self, record: JobRecord, verb: str) -> None:
        job = self.asked.get(record.id)
        self.history.add(
            "job.made",
            record.id,
            queue=record.queue,
            state=record.state.value,
            by=verb,
            priority=record.priority,
            payload=record.payload,
            lane=record.lane,
            limit_key=record.limit_key,
            key=record.idempotency_key,
            unique=job.unique if job else None,
            waits_for=record.depends_on or None,
            batch=record.batch_id,
        )

    def _ended(self, record: JobRecord, verb: str) -> None:
        self.tokens.pop(record.id, None)
        job = self.asked.get(record.id)
        lane = job.lane if job else None
        is_dead = record.state is JobState.DEAD and record.attempt > 0
        blocks = is_dead and isinstance(lane, OrderingKey) and lane.on_dead is OnDead.BLOCK
        self.history.add(
            "job.ended",
            record.id,
            queue=record.queue,
            state=record.state.value,
            by=verb,
            error=record.error_class.value if record.error_class else None,
            attempt=record.attempt,
            blocks=blocks or None,
        )
        if not blocks:
            self._let_go(record.id)

    def _put_off(self, job_id: UUID) -> None:
        """Before its first attempt it leaves its ordering key, unless it stands for a dead job that blocks it."""
        record, asked = self.records[job_id], self.asked.get(job_id)
        blocks = asked is not None and isinstance(asked.lane, OrderingKey) and asked.lane.on_dead is OnDead.BLOCK
        if record.attempt == 0 and not (blocks and record.redrive_of):
            self._let_go(job_id)

    def _let_go(self, job_id: UUID) -> None:
        lane = self.records[job_id].lane
        if lane is not None and self.holders.get(lane) == job_id:
            del self.holders[lane]

    def _claimed(
        self,
        job: Job,
        record: JobRecord,
        seen: Seen | None,
        was: str | None,
        active: Sequence[JobRecord],
    ) -> None:
        asked = self.asked.get(job.id)
        lane = asked.lane if asked else None
        facts: dict[str, Any] = {}
        if isinstance(lane, OrderingKey) and record.lane is not None:
            holder = self.holders.get(record.lane)
            facts["lane_held_by"] = holder if holder != job.id else None
            facts["not_first_to"] = self._earlier_of_lane(record, seen) if holder is None else None
            self.holders[record.lane] = job.id
        if isinstance(lane, ConcurrencyKey):
            beside = sum(r.lane == record.lane and r.id != job.id for r in active)
            facts["lane_beside"], facts["lane_limit"] = beside, lane.limit
        settings = self.store.settings(record.queue)
        limits = settings.limits
        if limits.concurrency is not None:
            facts["beside"] = sum(r.queue == record.queue and r.id != job.id for r in active)
            facts["limit"] = limits.concurrency
        if record.limit_key is not None and limits.key_concurrency is not None:
            facts["key_beside"] = sum(r.limit_key == record.limit_key and r.id != job.id for r in active)
            facts["key_limit"] = limits.key_concurrency
        self.history.add(
            "claimed",
            job.id,
            queue=job.queue,
            token=job.lease_token,
            attempt=job.attempt,
            was=was,
            lane=record.lane,
            limit_key=record.limit_key,
            cost=limits.job_cost + job.permits,
            gained=(seen.gained if seen else 0) or None,
            rate=limits.rate,
            key_rate=limits.key_rate if record.limit_key is not None else None,
            paused=settings.paused or None,
            late=(record.expires_at is not None and record.expires_at <= self.clock()) or None,
            **facts,
        )

    def _gained(self, record: JobRecord) -> int:
        every = self.store.settings(record.queue).ageing
        return max(0, int((self.clock() - record.run_at) / every)) if every is not None else 0

    def _earlier_of_lane(self, record: JobRecord, seen: Seen | None) -> UUID | None:
        """A job of the lane that was due before the one that was taken."""
        if seen is None:
            return None
        now, order = self.clock(), list(self.records)
        mine = (seen.record.run_at, order.index(record.id))
        for other in self.records.values():
            is_due = other.state is JobState.READY or (other.state is JobState.WAITING and not other.depends_on)
            is_beside = other.lane == record.lane and other.id != record.id
            if is_beside and is_due and other.run_at <= now and (other.run_at, order.index(other.id)) < mine:
                return other.id
        return None

    def _passed_over(
        self, queue: str, jobs: Sequence[Job], limit: int, before: dict[UUID, Seen], now: datetime
    ) -> list[dict[str, Any]]:
        """Jobs that should have been taken before the worst of those taken, or, when fewer were taken than asked
        for, at all; with what held them back."""
        worst = max((self._effective_rank(job, before) for job in jobs), default=None)
        taken_lanes = {self.records[job.id].lane for job in jobs} - {None}
        found = []
        for job_id, seen in before.items():
            record = self.records[job_id]
            was_due = seen.record.run_at <= now and not seen.record.depends_on
            if record.state is JobState.ACTIVE or record.state in ENDED or not was_due:
                continue
            if seen.record.state is JobState.WAITING and record.state is JobState.WAITING:
                continue  # the key that holds it back is judged when it is let go, and by the drain
            if len(jobs) == limit and (worst is None or not seen.rank < worst):
                continue
            reason = self._held_by(record, jobs, before, taken_lanes)
            found.append({"job": job_id, "state": record.state.value, "held_by": reason})
        return found

    def _effective_rank(self, job: Job, before: dict[UUID, Seen]) -> tuple[int, datetime, int]:
        """Of the job, or of the best of its ordering key: in whose place it went."""
        record = self.records[job.id]
        lane, own = record.lane, before.get(job.id) or Seen(record, list(self.records).index(job.id))
        ranks = [own.rank]
        asked = self.asked.get(job.id)
        if lane is not None and asked is not None and isinstance(asked.lane, OrderingKey):
            ranks += [seen.rank for seen in before.values() if seen.record.lane == lane]
        return min(ranks)

    def _held_by(
        self, record: JobRecord, jobs: Sequence[Job], before: dict[UUID, Seen], taken_lanes: set[str | None]
    ) -> str | None:
        """What may hold a due job back; None: nothing that was promised."""
        settings = self.store.settings(record.queue)
        limits = settings.limits
        if settings.paused:
            return "paused"
        if limits.concurrency is not None:
            running = sum(r.queue == record.queue and r.state is JobState.ACTIVE for r in self.records.values())
            if running >= limits.concurrency:
                return "concurrency"
        if limits.rate is not None and not jobs:
            return "rate"
        if record.queue in self.blocked_keys:
            return "block"
        asked = self.asked.get(record.id)
        if record.lane is not None and asked is not None:
            held = self._lane_holds(record, asked, taken_lanes)
            if held is not None:
                return held
        if record.limit_key is not None:
            if limits.key_rate is not None or limits.key_concurrency is not None:
                return "limit key"
            if record.limit_key in self.blocked_keys:
                return "blocked key"
        if limits.rate is not None and len(jobs) > 0:
            return "rate"
        return None

    def _lane_holds(self, record: JobRecord, asked: NewJob, taken_lanes: set[str | None]) -> str | None:
        if isinstance(asked.lane, OrderingKey):
            holder = self.holders.get(record.lane or "")
            if holder is not None:
                return "ordering key" if holder != record.id else None
            order = list(self.records).index(record.id)
            return "earlier of its key" if self._earlier_of_lane(record, Seen(record, order)) else None
        if isinstance(asked.lane, ConcurrencyKey):
            running = sum(r.lane == record.lane and r.state is JobState.ACTIVE for r in self.records.values())
            return "concurrency key" if running >= asked.lane.limit else None
        if isinstance(asked.lane, FairnessKey):
            ready = any(r.lane == record.lane and r.state is JobState.READY for r in self.records.values())
            return "fairness key" if record.lane in taken_lanes or ready else None
        return None

    def _settled(
        self, settlement: Settlement, before: JobRecord | None, was_lost: bool, now: datetime, only_expired: bool
    ) -> None:
        job_id, outcome = settlement.job_id, settlement.outcome
        is_current = self.tokens.get(job_id) == settlement.lease_token
        failure = getattr(outcome, "failure", None)
        is_rescue = only_expired or (failure is not None and failure.error_class is ErrorClass.WORKER_LOST)
        record = self.store.get(job_id)
        if settlement.block is not None and not was_lost and before is not None:
            self.blocked_keys.add(before.limit_key or before.queue)
        self.history.add(
            "settled",
            job_id,
            outcome=type(outcome).__name__.lower(),
            token=settlement.lease_token,
            accepted=not was_lost,
            was_current=is_current,
            expired=before is not None and before.lease_until is not None and before.lease_until < now
            if is_rescue
            else None,
            attempts_before=len(before.attempts) if before else 0,
            attempts_after=[a.number for a in record.attempts] if record else None,
            last=_attempt_text(record),
            failure=f"{failure.error_class.value}: {failure.message}" if failure else None,
            follow_ups=len(getattr(outcome, "follow_ups", ())) or None,
            delay=outcome.delay.total_seconds() if isinstance(outcome, Deferred | Retry) else None,
            block=settlement.block.total_seconds() if settlement.block is not None else None,
            limit_key=before.limit_key if before else None,
            queue=before.queue if before else None,
        )
        if not was_lost and is_current:
            self.tokens.pop(job_id, None)


def _attempt_text(record: JobRecord | None) -> str | None:
    if record is None or not record.attempts:
        return None
    last = record.attempts[-1]
    return f"{last.error_class.value}: {last.message}" if last.error_class is not None else last.outcome
