"""Enqueueing: check, store, wake. What a caller of the Python API uses."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from shared import tracing
from shared.engine.errors import (
    PayloadError,
    Problem,
    QueueClosedError,
    StoreUnavailableError,
    TransportUnavailableError,
    UnknownQueueError,
)
from shared.engine.job import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    BatchRecord,
    Completed,
    ConcurrencyKey,
    Dead,
    Debounce,
    Deferred,
    Enqueued,
    FairnessKey,
    IfDependencyFails,
    Lane,
    NewJob,
    OrderingKey,
    Outcome,
    Released,
    Retry,
    Singleton,
    Throttle,
    Unique,
)
from shared.engine.json_text import to_json
from shared.engine.limit_key import LimitKey
from shared.engine.messages import wake_up_body
from shared.engine.ports import Store, Transport
from shared.engine.spelling import unknown_queue

log = logging.getLogger(__name__)

#: Where the end of every dead job is told.
DEAD_LETTERS = "dead-letter"
#: No wake-up stays invisible for longer: the queue's length is what Azure scales on.
LONGEST_WAKE_DELAY = timedelta(seconds=30)
#: From so many on, wake-ups are sent by several threads at once: a put takes milliseconds, a bulk hundreds of puts.
FEW_WAKE_UPS = 8
SENDERS = 8
LONGEST_KEY = 200
LARGEST_PAYLOAD_BYTES = 8 * 1024 * 1024
LONGEST_DELAY = timedelta(days=3660)
MOST_DEPENDENCIES = 1000
#: What marks sealed and compressed payloads in the database; no payload of a caller has them.
SEALED_FIELD = "$sealed"
ZIP_FIELD = "$zip"

PayloadParser = Callable[[str, str], Any]


class Spec(Protocol):
    """What the engine needs to know of a queue's declaration."""

    @property
    def name(self) -> str: ...

    @property
    def closed(self) -> str: ...

    @property
    def limit_key(self) -> LimitKey | None: ...


class Producer:
    """Makes jobs. `parse(queue, json_text)` checks a payload and raises PayloadError naming the fields."""

    def __init__(self, store: Store, transport: Transport, specs: Mapping[str, Spec], parse: PayloadParser) -> None:
        self._store = store
        self._transport = transport
        self._specs = specs
        self._parse = parse

    def enqueue(
        self,
        queue: str,
        payload: dict[str, Any],
        *,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        expires_at: datetime | None = None,
        expires_in: timedelta | None = None,
        unique: Unique | None = None,
        lane: Lane | None = None,
        depends_on: Sequence[UUID] = (),
        if_dependency_fails: IfDependencyFails = IfDependencyFails.DIE,
        batch_id: UUID | None = None,
        conn: Any = None,
    ) -> Enqueued:
        """Store one job and wake a worker.

        `priority` 1 (first) to 10 (last), the queue's own when left out; `run_at` aware, or `delay`, not both.
        A job that has not started by `expires_at` (aware), or `expires_in` from now, becomes a dead letter.
        `unique`: a Singleton, Debounce or Throttle; `lane`: an OrderingKey, ConcurrencyKey or FairnessKey. It waits for
        the jobs of `depends_on`, and joins the batch `batch_id` while that has not finished.
        With `conn` (a psycopg connection) the job is part of the caller's transaction, and a worker is woken by
        `wake()` after the commit, or by the relay within seconds. Raises EnqueueError, StoreUnavailableError.
        """
        job = NewJob(
            queue,
            payload,
            priority,
            run_at,
            delay,
            idempotency_key,
            correlation_id,
            expires_at=expires_at,
            expires_in=expires_in,
            unique=unique,
            lane=lane,
            depends_on=tuple(depends_on),
            if_dependency_fails=if_dependency_fails,
            batch_id=batch_id,
        )
        return self.enqueue_many([job], conn=conn)[0]

    def enqueue_many(self, jobs: Sequence[NewJob], conn: Any = None) -> list[Enqueued]:
        """Store all or none, in order, in one statement; see `enqueue`."""
        with tracing.span("enqueue", "producer"):
            checked = [self.validate(job) for job in jobs]
            if not checked:
                return []
            enqueued = self._store.enqueue(checked, conn)
            if conn is None:
                self.wake_for(checked, enqueued)
            return enqueued

    def enqueue_batch(self, jobs: Sequence[NewJob], callback: NewJob | None = None) -> tuple[UUID, list[Enqueued]]:
        """Store jobs as one batch, all or none; returns the batch's id and an answer for each job.

        `callback` is enqueued once, in the transaction that ends the last of them, however they end; its correlation id
        is the batch's id unless it has one. See `batch`.
        """
        checked = [self.validate(job) for job in jobs]
        batch_id, enqueued = self._store.create_batch(checked, self.validate(callback) if callback else None)
        self.wake_for(checked, enqueued)
        if callback is not None and not any(made.created for made in enqueued):
            self.wake(callback.queue)
        return batch_id, enqueued

    def batch(self, batch_id: UUID) -> BatchRecord | None:
        """How far a batch is; None when it is not known."""
        return self._store.batch(batch_id)

    def wake_for(self, jobs: Sequence[NewJob], enqueued: Sequence[Enqueued]) -> None:
        """Send the wake-ups of jobs just stored: for the due ones now, for those due within 30 s delayed."""
        due: Counter[str] = Counter()
        for job, made in zip(jobs, enqueued, strict=True):
            if not made.created:
                continue
            if made.due:
                due[job.queue] += 1
                continue
            delay = job.unique.window if isinstance(job.unique, Debounce) else job.delay
            if delay is not None and delay <= LONGEST_WAKE_DELAY:
                self.wake(job.queue, 1, delay)
        for queue, count in due.items():
            self.wake(queue, count)

    def wake(self, queue: str, jobs: int = 1, delay: timedelta = timedelta()) -> None:
        """Tell the workers of a queue that `jobs` jobs may run. Never fails: the relay sends what is missing."""
        try:
            size = self._store.settings(queue).wake_size if jobs > 1 else 1
            bodies = [wake_up_body(queue, min(size, jobs - done)) for done in range(0, jobs, size)]
            if len(bodies) < FEW_WAKE_UPS:
                for body in bodies:
                    self._transport.send(queue, body, delay)
            else:
                with ThreadPoolExecutor(SENDERS) as pool:
                    list(pool.map(lambda body: self._transport.send(queue, body, delay), bodies))
        except (TransportUnavailableError, StoreUnavailableError) as error:
            log.warning("wake_up.not_sent", extra={"queue": queue, "jobs": jobs, "error": str(error)})

    def wake_freed(self, freed: Mapping[str, int], but: tuple[str, int] = ("", 0)) -> None:
        """Wake for jobs that became runnable, less those of a queue that the caller has claimed already."""
        for queue, count in freed.items():
            left = count - (but[1] if queue == but[0] else 0)
            if left > 0:
                self.wake(queue, left)

    def wake_after(self, queue: str, outcome: Outcome) -> None:
        """Wake for what the end of an attempt made runnable; what is due after the longest delay is the relay's."""
        match outcome:
            case Retry(delay=delay) | Deferred(delay=delay) if delay <= LONGEST_WAKE_DELAY:
                self.wake(queue, 1, delay)
            case Released():
                self.wake(queue)
            case Dead() if queue != DEAD_LETTERS:
                self.wake(DEAD_LETTERS)
            case Completed(follow_ups=follow_ups):
                for name, count in Counter(job.queue for job in follow_ups).items():
                    self.wake(name, count)

    def validate(self, job: NewJob) -> NewJob:
        """The job as it may be stored. Raises UnknownQueueError, QueueClosedError, PayloadError."""
        spec = self._specs.get(job.queue)
        if spec is None:
            raise UnknownQueueError(unknown_queue(job.queue, self._specs))
        if spec.closed:
            raise QueueClosedError(f'queue "{job.queue}" takes no jobs: {spec.closed}')
        problems = list(_option_problems(job))
        if problems:
            raise PayloadError("; ".join(f"{p.field}: {p.message}" for p in problems), problems)
        self._parse(job.queue, _payload_text(job.payload))
        if job.limit_key is None and spec.limit_key is not None and (key := spec.limit_key.of(job.payload)) is not None:
            job = replace(job, limit_key=key)
        if job.correlation_id is None and (correlation_id := tracing.correlation_id()) is not None:
            job = replace(job, correlation_id=correlation_id)
        return job

    def redrive(self, job_id: UUID, by: str) -> Enqueued | None:
        """Run a dead job again as a new one; None when there is no dead letter of it left to redrive."""
        made = self._store.redrive(job_id, by)
        if made is not None:
            record = self._store.get(made.id)
            if record is not None:
                self.wake(record.queue)
        return made


def _option_problems(job: NewJob) -> list[Problem]:
    problems = []
    if job.priority is not None and (
        isinstance(job.priority, bool) or not HIGHEST_PRIORITY <= job.priority <= LOWEST_PRIORITY
    ):
        problems.append(Problem("priority", "it must be a whole number from 1 (first) to 10 (last)"))
    if job.run_at is not None and job.delay is not None:
        problems.append(Problem("runAt", "give a time or a delay, not both"))
    if job.run_at is not None and job.run_at.tzinfo is None:
        problems.append(Problem("runAt", "it needs a time zone"))
    if job.delay is not None and not timedelta() <= job.delay <= LONGEST_DELAY:
        problems.append(Problem("delay", "it must be between nothing and ten years"))
    problems += _deadline_problems(job)
    keys = [("idempotencyKey", job.idempotency_key), ("correlationId", job.correlation_id)]
    if job.unique is not None:
        keys.append((_UNIQUE_FIELDS[type(job.unique)], job.unique.key))
    if job.lane is not None:
        keys.append((_LANE_FIELDS[type(job.lane)], job.lane.key))
    for field, value in keys:
        if value is not None and not (0 < len(value) <= LONGEST_KEY and value.isprintable()):
            problems.append(Problem(field, f"it must be 1 to {LONGEST_KEY} printable characters"))
    return problems + _key_problems(job)


_UNIQUE_FIELDS = {Singleton: "singletonKey", Debounce: "debounceKey", Throttle: "throttleKey"}
_LANE_FIELDS = {OrderingKey: "orderingKey", ConcurrencyKey: "concurrencyKey", FairnessKey: "fairnessKey"}


def _key_problems(job: NewJob) -> list[Problem]:
    problems = []
    match job.unique:
        case Debounce(window=window) if job.run_at is not None or job.delay is not None:
            problems.append(Problem("debounceKey", "a debounced job runs after its window: give no runAt and no delay"))
        case Debounce(window=window) | Throttle(window=window) if not timedelta() < window <= LONGEST_DELAY:
            problems.append(Problem("window", "it must be longer than nothing, and at most ten years"))
        case Debounce(window=window, at_most=at_most) if at_most is not None and at_most < window:
            problems.append(Problem("debounceAtMostSeconds", "it must be at least the window"))
    if isinstance(job.lane, ConcurrencyKey) and (isinstance(job.lane.limit, bool) or job.lane.limit < 1):
        problems.append(Problem("concurrencyLimit", "it must be a whole number from 1 on"))
    if len(job.depends_on) > MOST_DEPENDENCIES:
        problems.append(Problem("dependsOn", f"it names {len(job.depends_on)} jobs, {MOST_DEPENDENCIES} are the most"))
    return problems


def _deadline_problems(job: NewJob) -> list[Problem]:
    problems = []
    if job.expires_at is not None and job.expires_in is not None:
        problems.append(Problem("expiresAt", "give a time or a duration, not both"))
    if job.expires_at is not None and job.expires_at.tzinfo is None:
        problems.append(Problem("expiresAt", "it needs a time zone"))
    elif job.expires_at is not None and job.run_at is not None and job.run_at.tzinfo and job.expires_at <= job.run_at:
        problems.append(Problem("expiresAt", "it must be later than the time that the job may run from"))
    if job.expires_in is not None and not (job.delay or timedelta()) < job.expires_in <= 2 * LONGEST_DELAY:
        problems.append(Problem("expiresIn", "it must be longer than the delay, and at most twenty years"))
    return problems


def _payload_text(payload: dict[str, Any]) -> str:
    problems = [
        Problem(f"payload.{name}", "this name is taken: it marks sealed and compressed payloads in the database")
        for name in (SEALED_FIELD, ZIP_FIELD)
        if isinstance(payload, dict) and name in payload
    ]
    if problems:
        raise PayloadError("; ".join(f"{p.field}: {p.message}" for p in problems), problems)
    try:
        text = to_json(payload)
    except (TypeError, ValueError, RecursionError) as error:
        problem = Problem("payload", f"it is not JSON: {error}")
        raise PayloadError(f"payload: {problem.message}", [problem]) from error
    size = len(text.encode())
    if size > LARGEST_PAYLOAD_BYTES:
        problem = Problem("payload", f"it has {size:,} bytes of JSON, the limit is {LARGEST_PAYLOAD_BYTES:,}")
        raise PayloadError(f"payload: {problem.message}", [problem])
    return text
