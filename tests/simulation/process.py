"""A process that may die, stall or be overtaken at every boundary of a call; how it reaches database and storage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

from shared.engine.errors import StoreUnavailableError, TransportUnavailableError
from shared.engine.ports import Store
from tests.simulation.faults import Faults
from tests.simulation.history import History
from tests.simulation.loop import Killed, Loop
from tests.simulation.queue import StorageAccount

T = TypeVar("T")

#: Seconds: within a lease, about as long, and long enough for another to have the job by then.
STALLS = (5.0, 45.0, 70.0, 100.0)


@dataclass(slots=True)
class Surroundings:
    """What all processes share."""

    loop: Loop
    random: Random
    faults: Faults
    history: History
    store: Store
    account: StorageAccount


class Process:
    """One life of a program. `name` is its own: a restarted one is another process."""

    def __init__(self, around: Surroundings, name: str) -> None:
        self.around = around
        self.name = name
        self.is_dead = False
        self.on_death: Callable[[], None] = lambda: None
        self._frozen_until = 0.0
        self.store: Store = _RemoteStore(self)
        self.transport = RemoteTransport(self)

    def monotonic(self) -> float:
        return self.around.loop.now

    def spawn(self, label: str, work: Callable[[], None]) -> None:
        """Run in a task of this process; the history names it `process:label`."""

        def run() -> None:
            self.around.history.process = f"{self.name}:{label}" if label else self.name
            if not self.is_dead:
                work()

        self.around.loop.spawn(run)

    def boundary(self, where: str) -> None:
        """A place where the process may die, stand still, or let others go first."""
        if self.is_dead:
            raise Killed
        around = self.around
        rates, drawn = around.faults.rates, around.random.random()
        if drawn < rates.crash:
            self.die(where)
        drawn -= rates.crash
        if drawn < rates.stall:
            stall = around.random.choice(STALLS)
            self._frozen_until = around.loop.now + stall
            around.history.add("process.stalled", where, seconds=stall)
        elif drawn - rates.stall < rates.switch:
            self.sleep(around.random.choice((0.0, 0.001, 0.05)))
        if self._frozen_until > around.loop.now:
            self.sleep(0.0)

    def sleep(self, seconds: float) -> None:
        history, loop = self.around.history, self.around.loop
        label, until = history.process, loop.now + seconds
        loop.sleep(seconds)
        while not self.is_dead and self._frozen_until > loop.now:
            loop.sleep(self._frozen_until - loop.now)
        history.process = label
        if self.is_dead:
            raise Killed
        if loop.now < until:
            raise AssertionError("woken too early")

    def die(self, where: str) -> None:
        self.is_dead = True
        self.around.history.add("process.died", self.name, where=where)
        self.on_death()
        raise Killed

    def cross(self, where: str, call: Callable[[], T]) -> T:
        """Carry out a call to the outside, which always answers."""
        self.boundary(f"before {where}")
        result = call()
        self.boundary(f"after {where}")
        return result


#: What a store says of itself without a round trip, or what the simulated caller's transaction does atomically.
IN_TRANSACTION = object()


class _RemoteStore:
    """The store as one process reaches it: each verb may fail before it, or take effect and lose its answer."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._process.around.store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "enqueue" and IN_TRANSACTION in (kwargs.get("conn"), *args[1:]):
                return method(args[0])
            return self._call(name, lambda: method(*args, **kwargs))

        self.__dict__[name] = call
        return call

    def _call(self, name: str, method: Callable[[], T]) -> T:
        process = self._process
        faults, where = process.around.faults, f"store.{name}"
        process.boundary(f"before {where}")
        if faults.is_database_away:
            process.sleep(0.5)
            raise StoreUnavailableError("the database is away")
        result = method()
        process.boundary(f"after {where}")
        if faults.is_database_away or faults.happens(faults.rates.answer_lost):
            process.around.history.add("answer.lost", where)
            raise StoreUnavailableError("the connection broke")
        return result


class RemoteTransport:
    """The storage account as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None:
        process, around = self._process, self._process.around
        faults, rates = around.faults, around.faults.rates
        process.boundary("before transport.send")
        if faults.is_storage_away or faults.happens(rates.put_refused):
            around.history.add("put.refused", queue, body=body)
            raise TransportUnavailableError(f"storage queue {queue}: away")
        seconds = delay.total_seconds()
        if faults.happens(rates.put_late):
            seconds += around.random.uniform(0.0, 20.0)
        if "wake" in json.loads(body) and faults.happens(rates.wake_up_dropped):
            around.history.add("wake_up.dropped", queue, body=body)
        else:
            around.account.put(queue, body, seconds)
            if faults.happens(rates.put_twice):
                around.account.put(queue, body, seconds)
        process.boundary("after transport.send")
        if faults.happens(rates.put_answer_lost):
            around.history.add("answer.lost", "transport.send")
            raise TransportUnavailableError(f"storage queue {queue}: no answer")

    def visible(self, queue: str, cap: int) -> int:
        process, around = self._process, self._process.around
        process.boundary("before transport.visible")
        if around.faults.is_storage_away:
            raise TransportUnavailableError(f"storage queue {queue}: away")
        return around.account.visible(queue, min(cap, 32))
