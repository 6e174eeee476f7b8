"""For tests of handlers and of code that enqueues: the whole engine in memory, on a clock that moves when told to.

    engine = MemoryEngine(services=FakeServices())
    job = engine.run_job("tyre-alerts", {"truck": "T7", "bar": 2.1})
    engine.assert_enqueued("teams-outbound", {"chatId": "19:dispatch@thread.v2"})
    engine.drain()

Worker, retries, limits and queues are the real ones; only the store, which passes the same contract suite as
PostgreSQL's (tests/contract), and the Storage Queue are stood in for. Nothing of the product imports this module.
How to use it: docs/how-to/add-a-message-type.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from shared.engine.context import Context, Handler
from shared.engine.control import Control
from shared.engine.enqueue import DEAD_LETTERS, Producer
from shared.engine.heartbeat import Heartbeat
from shared.engine.job import ENDED, Job, JobRecord, JobState
from shared.engine.memory import MemoryClock, MemoryStore, MemoryTransport
from shared.engine.relay import Relay
from shared.engine.worker import Worker
from shared.handlers import loading, registry

#: So far ahead a run moves the clock at most.
A_MONTH = timedelta(days=30)
#: More attempts than this in one call are taken for jobs that enqueue each other for ever.
MOST_ATTEMPTS = 10_000
MOST_SHOWN = 20
LONGEST_SHOWN = 300


class MemoryEngine:
    """The engine with every queue of the registry, and no job yet.

    `services` is handed to the handlers' `build`: whatever of shared.handlers.services.Services they use. `handlers`
    stand in for those of the queues they name. Dead letters are kept, and by default nobody is told of them.
    """

    def __init__(
        self, services: Any = None, *, handlers: Mapping[str, Handler] | None = None, clock: MemoryClock | None = None
    ) -> None:
        self.clock = clock or MemoryClock()
        self._specs = registry.QUEUES
        self._services = services if services is not None else _NoServices()
        self._handlers: dict[str, Handler] = {DEAD_LETTERS: _keep_quiet, **(handlers or {})}
        closed = {spec.name: spec.closed for spec in self._specs.values() if spec.closed}
        self.store = MemoryStore(list(self._specs), closed, self.clock)
        for spec in self._specs.values():
            self.store.set_limits(spec.name, spec.limits)
        self._transport = MemoryTransport()
        self.producer = Producer(self.store, self._transport, self._specs, loading.parse_payload)
        self.control = Control(self.store, self.producer)
        self._started_at = self.clock()
        #: Call `beat()` where a handler is to see that its job was cancelled; no thread does it here.
        self.heartbeat = Heartbeat(self.store, monotonic=self._seconds)
        self.heartbeat.stop()
        self._relay = Relay(self.store, self._transport)
        self._worker = Worker(
            self.store,
            self.producer,
            self._handler_for,
            loading.parse_payload,
            Random(1),  # noqa: S311 - the same delays in every run
            "memory",
            self.heartbeat,
            monotonic=self._seconds,
        )

    def run_job(self, queue: str, payload: dict[str, Any]) -> JobRecord:
        """Enqueue one job and run it, retries included, until it has ended; returns it with its attempts and result.

        Its follow-ups are enqueued and not run. What the worker keeps on an attempt in place of raising is in
        `attempts`. Raises EnqueueError, and AssertionError when nothing would ever end the job.
        """
        job_id = self.producer.enqueue(queue, payload).id
        self._run([queue], lambda: self._record(job_id).state in ENDED, A_MONTH, MOST_ATTEMPTS)
        record = self._record(job_id)
        if record.state not in ENDED:
            raise AssertionError(f"the job does not end: {_line(record)}")
        return record

    def drain(self, within: timedelta = A_MONTH, most_attempts: int = MOST_ATTEMPTS) -> list[JobRecord]:
        """Run all jobs, follow-ups and retries too, the clock moved on to what is due later, until none is left.

        Returns those that ended in this call, in the order in which they were enqueued. Jobs of paused queues stay.
        Raises AssertionError that names what is left: what nothing lets go, what is due later than `within`, or what
        goes on after `most_attempts`.
        """
        before = {record.id for record in self.store.jobs() if record.state in ENDED}
        self._run(list(self._specs), lambda: False, within, most_attempts)
        left = [r for r in self.store.jobs() if r.state not in ENDED and not self.store.settings(r.queue).paused]
        if left:
            raise AssertionError(f"after {self.clock() - self._started_at} these jobs are left:{_lines(left)}")
        return [record for record in self.store.jobs() if record.state in ENDED and record.id not in before]

    def assert_enqueued(
        self,
        queue: str,
        payload: Mapping[str, Any] | None = None,
        *,
        priority: int | None = None,
        run_at: datetime | None = None,
        correlation_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> JobRecord:
        """The first job that was enqueued into the queue with all of this, whatever became of it since.

        `payload` is a part of the job's: fields left out may hold anything, in objects inside it too. Raises
        AssertionError that names what was enqueued.
        """
        options = {
            "priority": priority,
            "run_at": run_at,
            "correlation_id": correlation_id,
            "idempotency_key": idempotency_key,
        }
        wanted = {name: value for name, value in options.items() if value is not None}
        found = self._found(queue, payload, wanted)
        if found:
            return found[0]
        asked = [json.dumps(payload, ensure_ascii=False)] if payload is not None else []
        asked += [f"{name}={value}" for name, value in wanted.items()]
        what = f" with {', '.join(asked)}" if asked else ""
        enqueued = _lines(self.store.jobs()) or " nothing"
        raise AssertionError(f"no job was enqueued in {queue}{what}; enqueued:{enqueued}")

    def assert_not_enqueued(self, queue: str, payload: Mapping[str, Any] | None = None) -> None:
        """The opposite. Raises AssertionError that names the jobs."""
        found = self._found(queue, payload, {})
        if found:
            raise AssertionError(f"{len(found)} enqueued in {queue}:{_lines(found)}")

    def _found(self, queue: str, payload: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[JobRecord]:
        if queue not in self._specs:
            raise AssertionError(f'queue "{queue}" does not exist; the queues are: {", ".join(sorted(self._specs))}')
        return [
            record
            for record in self.store.jobs(queue)
            if _is_part(payload or {}, record.payload)
            and all(getattr(record, name) == value for name, value in wanted.items())
        ]

    def _run(self, queues: list[str], done: Callable[[], bool], within: timedelta, most_attempts: int) -> None:
        """Pass after pass of one job of each queue, until `done`, or nothing is left that time would let go."""
        until, attempts = self.clock() + within, 0
        while not done():
            self._relay.run()
            reports = [self._worker.run(queue, 1, timedelta()) for queue in queues]
            self._transport.sent.clear()
            ran = sum(report.ran for report in reports)
            attempts += ran
            if attempts > most_attempts:
                left = [record for record in self.store.jobs() if record.state not in ENDED]
                raise AssertionError(f"more than {most_attempts} attempts, and these jobs are left:{_lines(left)}")
            if ran:
                continue
            now = self.clock()
            times = [self._started_at + timedelta(seconds=r.back_at) for r in reports if r.back_at is not None]
            times += self._due(queues)
            soonest = min((at for at in times if at > now), default=None)
            if soonest is None or soonest > until:
                return
            self.clock.advance(soonest - now)

    def _due(self, queues: list[str]) -> list[datetime]:
        """When time alone changes something about a job."""
        live = [record for queue in queues for record in self.store.jobs(queue) if record.state not in ENDED]
        due = [record.run_at for record in live if record.state is JobState.SCHEDULED]
        return due + [record.expires_at for record in live if record.expires_at is not None]

    def _handler_for(self, queue: str) -> Handler:
        if queue not in self._handlers:
            self._handlers[queue] = loading.build_handler(queue, self._services)
        return self._handlers[queue]

    def _record(self, job_id: UUID) -> JobRecord:
        record = self.store.get(job_id)
        if record is None:
            raise AssertionError("the store in memory keeps every job")
        return record

    def _seconds(self) -> float:
        return (self.clock() - self._started_at).total_seconds()


class _NoServices:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the handler uses services.{name}: give MemoryEngine(services=…), or handlers={{…}}")


def _keep_quiet(job: Job, payload: Any, context: Context) -> None:  # noqa: ARG001
    return None


def _is_part(part: Any, whole: Any) -> bool:
    """An object is part of one that has its fields and perhaps more; anything else must be equal."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            name in whole and _is_part(value, whole[name]) for name, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and len(part) == len(whole)
            and all(_is_part(*pair) for pair in zip(part, whole, strict=True))
        )
    return bool(part == whole)


def _lines(records: Iterable[JobRecord]) -> str:
    lines = [f"\n  {_line(record)}" for record in records]
    more = [f"\n  and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    return "".join(lines[:MOST_SHOWN] + more)


def _line(record: JobRecord) -> str:
    payload = json.dumps(record.payload, ensure_ascii=False)
    text = payload if len(payload) <= LONGEST_SHOWN else f"{payload[:LONGEST_SHOWN]}…"
    held = [f"run_at {record.run_at.isoformat()}"] if record.state is JobState.SCHEDULED else []
    held += [f"key {record.lane}"] if record.lane else []
    held += [f"waits for {len(record.depends_on)} jobs"] if record.depends_on else []
    return f"{record.queue} {record.state}: {text}{''.join(f' ({each})' for each in held)}"
