"""Those who use the engine: the fleet application, foreign producers, Graph's notifications, an operator."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from shared.engine.control import Control
from shared.engine.errors import (
    ControlError,
    EnqueueError,
    FleetQueueError,
    StoreUnavailableError,
    TransportUnavailableError,
)
from shared.engine.job import Enqueued, JobState, NewJob
from tests.simulation.host import Shared, make_producer
from tests.simulation.observer import Observer
from tests.simulation.process import Process, Surroundings
from tests.simulation.scenario import (
    WEBHOOKS,
    WORK_QUEUES,
    ForeignJob,
    Notified,
    Order,
    Planned,
    draw_ageing,
    draw_limits,
)

#: Graph sends again what was not answered 202.
SENT_AGAIN_AFTER = 5.0


class Users:
    """Each act runs in a process of its own, which may die like any other; what it had been told counts."""

    def __init__(self, around: Surroundings, shared: Shared, observer: Observer) -> None:
        self._around = around
        self._shared = shared
        self._observer = observer
        self._accepted: dict[int, list[UUID]] = {}
        self._numbers = iter(range(1, 1_000_000))
        self.at_work = 0

    def act(self, what: Planned | ForeignJob | Notified | Order) -> None:
        """Begin it now."""
        process = Process(self._around, f"user{next(self._numbers)}")

        def work() -> None:
            self.at_work += 1
            try:
                match what:
                    case Planned():
                        self._enqueue(process, what)
                    case ForeignJob():
                        self._put(process, what)
                    case Notified():
                        self._notify(process, what)
                    case Order():
                        self._order(process, what)
            finally:
                self.at_work -= 1

        process.spawn("", work)

    def _enqueue(self, process: Process, planned: Planned) -> None:
        depends_on = tuple(job_id for number in planned.after for job_id in self._accepted.get(number, ())[:1])
        jobs = [replace(job, depends_on=depends_on) for job in planned.jobs]
        for _ in range(planned.tries):
            try:
                self._accept(planned, self._store(process, jobs, planned))
            except StoreUnavailableError:
                process.sleep(self._around.random.choice((0.1, 3.0, 30.0)))
                continue
            except EnqueueError as error:
                self._around.history.add("enqueue.refused", f"plan {planned.number}", error=str(error))
            return

    def _store(self, process: Process, jobs: list[NewJob], planned: Planned) -> list[Enqueued]:
        producer = make_producer(process, self._shared)
        if not planned.is_batch:
            return producer.enqueue_many(jobs)
        return producer.enqueue_batch(jobs, planned.callback)[1]

    def _accept(self, planned: Planned, made: list[Enqueued]) -> None:
        self._accepted[planned.number] = [one.id for one in made]
        for one in made:
            self._around.history.add("enqueue.accepted", one.id, created=one.created, plan=planned.number)

    def _put(self, process: Process, foreign: ForeignJob) -> None:
        body = json.dumps({"payload": {"n": foreign.number, "do": "send", "foreign": foreign.number}})
        message = process.cross("foreign.put", lambda: self._around.account.put(foreign.queue, body))
        self._around.history.add("foreign.accepted", message.id, number=foreign.number)

    def _notify(self, process: Process, notified: Notified) -> None:
        """As shared/handlers/intake.py: 202 when the storage queue has it, else Graph sends it again."""
        body = json.dumps({"notifications": list(notified.changes)})
        try:
            process.transport.send(WEBHOOKS, body)
        except TransportUnavailableError:
            again = replace(notified, at=self._around.loop.now + SENT_AGAIN_AFTER)
            self._around.loop.at(again.at, lambda: self.act(again))
        else:
            for change in notified.changes:
                self._around.history.add("notification.accepted", f"change {change}")

    def _order(self, process: Process, order: Order) -> None:
        try:
            self._carry_out(process, order.verb)
        except ControlError as error:
            self._around.history.add("order.refused", order.verb, error=str(error))
        except FleetQueueError as error:
            self._around.history.add("order.failed", order.verb, error=str(error))

    def _carry_out(self, process: Process, verb: str) -> None:
        random, history = self._around.random, self._around.history
        producer = make_producer(process, self._shared)
        control = Control(process.store, producer)
        queue = random.choice([name for name in self._shared.specs if name in WORK_QUEUES])
        live = self._observer.live()
        job = random.choice(live) if live else None
        history.add(f"order.{verb}", queue)
        match verb:
            case "pause":
                control.pause(queue)
                # Nobody leaves a queue paused for ever: the drain would wait for it.
                self._around.loop.after(random.choice((5.0, 60.0)), lambda: self.act(Order(0, "resume all")))
            case "resume":
                control.resume(queue)
            case "resume all":
                self.resume_all(process)
            case "clear":
                control.clear(queue, queue)
            case "limits":
                control.set_limits(queue, draw_limits(random))
            case "ageing":
                control.set_ageing(queue, random.choice((None, draw_ageing(random))))
            case "repair":
                process.store.repair()
            case "cancel" if job is not None:
                control.cancel(job.id)
            case "reschedule" if job is not None:
                moment = self._observer.clock() + timedelta(seconds=random.choice((-5, 1, 40)))
                control.reschedule(job.id, random.choice((None, 1, 9)), moment)
            case "retry_now" if job is not None:
                control.retry_now(job.id)
            case "redrive":
                dead = [r for r in self._observer.records.values() if r.state is JobState.DEAD]
                if dead:
                    producer.redrive(random.choice(dead).id, "operator")

    def resume_all(self, process: Process) -> None:
        control = Control(process.store, make_producer(process, self._shared))
        for name in self._shared.specs:
            if self._observer.store.settings(name).paused:
                try:
                    control.resume(name)
                except StoreUnavailableError:
                    self._around.loop.after(5.0, lambda: self.act(Order(0, "resume all")))
                    return

    def clean_up(self) -> None:
        """What an operator does in the end: resumes what is paused, and gives up what blocks an ordering key."""
        process = Process(self._around, f"user{next(self._numbers)}")

        def work() -> None:
            self.at_work += 1
            control = Control(process.store, make_producer(process, self._shared))
            try:
                self.resume_all(process)
                for job_id in list(self._observer.holders.values()):
                    if self._observer.records[job_id].state is JobState.DEAD:
                        control.discard(job_id, "operator")
            except StoreUnavailableError as error:
                self._around.history.add("order.failed", "clean up", error=str(error))
            finally:
                self.at_work -= 1

        process.spawn("", work)
