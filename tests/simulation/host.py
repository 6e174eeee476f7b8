"""A function host: takes messages, calls the engine with them, deletes or returns them; and runs the timers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from shared.engine.context import Context
from shared.engine.enqueue import DEAD_LETTERS, Producer
from shared.engine.errors import FleetQueueError, PayloadError, Problem, StoreUnavailableError
from shared.engine.heartbeat import Heartbeat
from shared.engine.job import Completed, Deferred, Job, NewJob
from shared.engine.receive import Receiver
from shared.engine.relay import Relay
from shared.engine.rescue import Rescue
from shared.engine.schedules import Scheduler
from shared.engine.timers import turn
from shared.engine.worker import Worker
from shared.handlers.inbox import MOST_DELIVERIES, Inbox, PoisonSweep
from shared.handlers.registry import QueueSpec
from tests.simulation.graph import Graph, GraphClient
from tests.simulation.process import IN_TRANSACTION, Process, Surroundings
from tests.simulation.queue import Message
from tests.simulation.scenario import WEBHOOKS
from tests.simulation.schedules import ScheduleTable

#: host.json's visibilityTimeout: a message whose function failed comes back after this.
FAILED_COMES_BACK = 10.0
#: The host hides a message for so long while its function runs; that of a host that died comes back then.
HIDDEN_FOR = 600.0
BEAT = 10.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the engine that a host is made of; a mutant takes one's place."""

    worker: type[Worker] = Worker
    relay: type[Relay] = Relay
    rescue: type[Rescue] = Rescue
    receiver: type[Receiver] = Receiver
    producer: type[Producer] = Producer
    scheduler: type[Scheduler] = Scheduler
    deletes_first: bool = False
    records_twice: bool = False


@dataclass(slots=True)
class Shared:
    """What outlives every host: beside the surroundings, the far ends that its handlers reach."""

    graph: Graph
    schedules: ScheduleTable
    specs: dict[str, QueueSpec]
    deferrals: Counter[UUID]
    recorded: set[int]
    parts: Parts


def make_producer(process: Process, shared: Shared) -> Producer:
    return shared.parts.producer(process.store, process.transport, shared.specs, lambda queue, text: json.loads(text))


def parse_stored(queue: str, text: str) -> Any:
    """A worker's model may be stricter than the one that the producer had: another release."""
    payload = json.loads(text)
    if "bad" in payload:
        raise PayloadError("bad: it does not validate", [Problem("bad", "remove it")])
    return payload


class Host(Process):
    """One life of a function host, with `slots` messages of a queue at once."""

    def __init__(self, around: Surroundings, shared: Shared, name: str, slots: int) -> None:
        super().__init__(around, name)
        self._shared = shared
        self._slots = slots
        self._running: Counter[str] = Counter()
        self.is_stopping = False
        parts, store, transport, random = shared.parts, self.store, self.transport, around.random
        producer = make_producer(self, shared)
        self._heartbeat = Heartbeat(store, monotonic=self.monotonic)
        self._heartbeat.stop()  # no thread: the simulation beats
        self.worker = parts.worker(
            store,
            producer,
            lambda queue: self._handle,
            parse_stored,
            random,
            name,
            self._heartbeat,
            monotonic=self.monotonic,
        )
        receiver = parts.receiver(store, transport, producer, self.worker, random)
        self._inbox = Inbox(receiver, self._record)
        self._relay = parts.relay(store, transport)
        self._rescue = parts.rescue(store, producer, random)
        self._scheduler = parts.scheduler(shared.schedules.reached_by(self), producer)
        self._sweep = PoisonSweep(_Sweepings(self), self._inbox, shared.specs.values())
        self._graph = GraphClient(shared.graph, self)
        self._is_beating = False

    # Messages

    def has_room(self, queue: str) -> bool:
        return not (self.is_dead or self.is_stopping) and self._running[queue] < self._slots

    @property
    def is_busy(self) -> bool:
        return self._running.total() > 0

    def deliver(self, message: Message, when_done: Callable[[str], None]) -> None:
        """Run the queue's function on a received message, in a task."""
        self._running[message.queue] += 1
        self._beat()
        self.around.history.add("message.received", message.delivery, by=self.name, queue=message.queue)

        def work() -> None:
            try:
                self._run_function(message)
            finally:
                self._running[message.queue] -= 1
                if self.is_stopping and not self.is_busy and not self.is_dead:
                    self.is_dead = True
                    self.on_death()
                when_done(message.queue)

        self.spawn(message.delivery, work)

    def _run_function(self, message: Message) -> None:
        self.boundary("message received")
        if message.deliveries > MOST_DELIVERIES:
            self._give_up(message)
            return
        if self._shared.parts.deletes_first:
            self._delete(message)
        try:
            self._call_function(message)
        except FleetQueueError as error:
            self.around.history.add("message.failed", message.id, error=f"{type(error).__name__}: {error}")
            self._return(message)
        else:
            self._delete(message)

    def _call_function(self, message: Message) -> None:
        spec = self._shared.specs[message.queue.removesuffix("-poison")]
        if message.queue == spec.poison:
            self._inbox.receive_poison(spec, message.body, message.id, message.deliveries)
        else:
            self._inbox.receive(spec, message.body, message.id)

    def _delete(self, message: Message) -> None:
        faults = self.around.faults
        if faults.is_storage_away or faults.happens(faults.rates.delete_failed):
            return  # it comes back
        self.cross("message.delete", lambda: self.around.account.delete(message))

    def _return(self, message: Message) -> None:
        """What the host does after a function has failed: again, or after five times into the poison queue."""
        if message.deliveries < MOST_DELIVERIES:
            self.around.account.show(message, FAILED_COMES_BACK)
        elif not message.queue.endswith("-poison"):
            self._give_up(message)

    def _give_up(self, message: Message) -> None:
        account = self.around.account
        self.cross("poison.put", lambda: account.put(f"{message.queue}-poison", message.body.decode()))
        self.cross("message.delete", lambda: account.delete(message))

    # Timers

    def run_relay(self) -> None:
        self._take_turn("relay", timedelta(minutes=1), self._relay.run)

    def run_rescue(self) -> None:
        self._take_turn("rescue", timedelta(minutes=2), self._rescue.run)

    def run_schedules(self) -> None:
        self._take_turn("schedules", timedelta(minutes=5), self._scheduler.run)

    def run_sweep(self) -> None:
        self._take_turn("poison-sweep", timedelta(minutes=10), self._sweep.run)

    def _take_turn(self, timer: str, at_most: timedelta, work: Callable[[], object]) -> None:
        """As functions/timers.py does."""

        def run() -> None:
            try:
                with turn(self.store, timer, at_most) as mine:
                    if mine:
                        work()
            except StoreUnavailableError as error:
                self.around.history.add("timer.skipped", timer, error=str(error))

        self.spawn(timer, run)

    def stop(self) -> None:
        """As the platform stops a host: it starts nothing more, and ends when what runs has ended."""
        self.is_stopping = True
        self.worker.stop()
        self.around.history.add("host.stopping", self.name)
        if not self.is_busy:
            self.is_dead = True
            self.on_death()

    def _beat(self) -> None:
        """The heartbeat's thread: renews while something runs."""
        if self._is_beating:
            return
        self._is_beating = True

        def beat() -> None:
            self._is_beating = False
            if self.is_busy and not self.is_dead:
                self.spawn("heartbeat", self._heartbeat.beat)
                self._beat()

        self.around.loop.after(BEAT, beat)

    # Handlers

    def _handle(self, job: Job, payload: dict[str, Any], context: Context) -> Completed | Deferred | None:
        self.around.history.add("started", job.id, token=job.lease_token, attempt=job.attempt)
        if job.queue == DEAD_LETTERS:
            self.boundary("in handler")
            return None
        self._work(payload.get("work", 0.0), context)
        requests = payload.get("permits", 0)
        self._save_parts(payload.get("parts", 0), requests, job, context)
        if requests:
            context.take_permits(requests)
        if self._shared.deferrals[job.id] < payload.get("defer", 0):
            self._shared.deferrals[job.id] += 1
            return Deferred(timedelta(seconds=self.around.random.choice((1, 20, 120))), "later")
        if len(job.attempts) < payload.get("raise", 0):
            raise RuntimeError("a fault in the handler")
        read_back = job.effect_since is not None and self._graph.find(job.effect_id)
        if not read_back:
            context.checkpoint()
            self._graph.send(job)
        return Completed({"read_back": read_back}, self._follow_ups(job, payload))

    def _save_parts(self, parts: int, requests: int, job: Job, context: Context) -> None:
        """Work that saves how far it is, and goes on there; `requests` of each part count against the queue's rate."""
        done = (job.progress or {}).get("done", 0)
        self.around.history.add("progress.found", job.id, done=done, token=job.lease_token)
        while done < parts:
            if requests:
                context.take_permits(requests)
            self.sleep(0.5)
            done += 1
            context.save(done=done)
            self.around.history.add("progress.saved", job.id, done=done)

    def _work(self, seconds: float, context: Context) -> None:
        """So much of it between two checkpoints."""
        while seconds > 0:
            self.boundary("in handler")
            self.sleep(min(seconds, 20.0))
            seconds -= 20.0
            context.checkpoint()

    def _follow_ups(self, job: Job, payload: dict[str, Any]) -> tuple[NewJob, ...]:
        mark = {"n": payload.get("n"), "do": "send", "parent": str(job.id), "token": str(job.lease_token)}
        return tuple(NewJob(queue, mark | {"index": index}) for index, queue in enumerate(payload.get("follow", ())))

    def _record(self, body: dict[str, Any], message_id: str) -> None:
        """The processor of notifications: each change is recorded once, with its job, in one transaction."""
        for change in body["notifications"]:
            self.boundary("before record")
            if self.around.faults.is_database_away:
                raise StoreUnavailableError("the database is away")
            self._record_once(change)
            self.boundary("after record")
            if self.around.faults.happens(self.around.faults.rates.answer_lost):
                raise StoreUnavailableError("the connection broke")

    def _record_once(self, change: int) -> None:
        if change in self._shared.recorded and not self._shared.parts.records_twice:
            return
        self._shared.recorded.add(change)
        queue = next(iter(self._shared.specs))
        job = NewJob(queue, {"n": 2000 + change, "do": "send", "change": change})
        [made] = self.store.enqueue([job], IN_TRANSACTION)
        self.around.history.add("notification.recorded", f"change {change}", job=made.id)


class _Sweepings:
    """What the poison sweep receives with."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def receive(self, queue: str, limit: int, visibility: timedelta) -> Iterator[_Swept]:
        account = self._host.around.account
        for _ in range(limit):
            message = self._host.cross(
                "account.receive", lambda: account.receive(queue, visibility.total_seconds(), most_deliveries=None)
            )
            if message is None:
                return
            yield _Swept(self._host, message)


class _Swept:
    def __init__(self, host: Host, message: Message) -> None:
        self._host = host
        self._message = message

    @property
    def id(self) -> str:
        return self._message.id

    @property
    def body(self) -> bytes:
        return self._message.body

    def delete(self) -> None:
        self._host.cross("message.delete", lambda: self._host.around.account.delete(self._message))


def make_specs(queues: tuple[str, ...]) -> dict[str, QueueSpec]:
    """As the registry declares them, the queue of notifications among them."""
    return {
        name: QueueSpec(
            name,
            "high",
            payload="",
            carries="notifications" if name == WEBHOOKS else "jobs",
            closed="it carries notifications" if name == WEBHOOKS else "",
        )
        for name in queues
    }
