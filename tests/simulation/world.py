"""One simulation: everything around the engine put together from a seed, and run until it is quiet."""

from __future__ import annotations

import logging
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

from shared.engine import enqueue
from shared.engine.job import JobState
from shared.engine.memory import MemoryStore
from shared.handlers.inbox import MOST_DELIVERIES
from tests.simulation.actors import Users
from tests.simulation.clock import DatabaseClock
from tests.simulation.faults import Faults
from tests.simulation.graph import Graph
from tests.simulation.history import History
from tests.simulation.host import HIDDEN_FOR, Host, Parts, Shared, make_specs
from tests.simulation.loop import Loop
from tests.simulation.observer import Observer
from tests.simulation.process import Surroundings
from tests.simulation.queue import StorageAccount
from tests.simulation.scenario import Scenario, draw
from tests.simulation.schedules import ScheduleTable

#: After the last fault everything has ended within this time: two waits of an hour at most (a delay that an operator
#: or Graph asked for), hidden messages (ten minutes) and poison sweeps.
DRAINED_WITHIN = 4 * 3600.0
TIMERS: tuple[tuple[str, float], ...] = (("relay", 10.0), ("rescue", 30.0), ("schedules", 60.0), ("sweep", 300.0))
HOST_COMES_BACK = (1.0, 10.0, 60.0)
MOST_STEPS = 60_000


@dataclass(frozen=True, slots=True)
class Mutation:
    """What is broken on purpose: parts of the host, the store, or a timer that never runs."""

    parts: Parts = field(default_factory=Parts)
    store: type[MemoryStore] = MemoryStore
    without_timers: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What the invariants are checked on."""

    scenario: Scenario
    history: History
    observer: Observer
    is_drained: bool
    left: list[str]
    failure: str | None = None


class World:
    def __init__(self, scenario: Scenario, mutation: Mutation) -> None:
        self.scenario = scenario
        self._mutation = mutation
        self.random = Random(scenario.seed ^ 0x5EED)
        self.loop = Loop()
        self.clock = DatabaseClock(self.loop)
        self.history = History(lambda: (self.loop.now, self.clock.seconds))
        self.account = StorageAccount(self.loop, self.random, self.history)
        self.account.on_visible = self._expect
        store = mutation.store(list(scenario.queues), clock=self.clock)
        store.queues = {one.queue: one for one in scenario.settings}
        self.observer = Observer(store, self.clock, self.history)
        self.around = Surroundings(
            self.loop,
            self.random,
            Faults(scenario.faults, self.loop, self.random),
            self.history,
            store,
            self.account,
        )
        self.shared = Shared(
            Graph(self.history, self.observer.is_current),
            ScheduleTable(self.clock, self.history),
            make_specs(scenario.queues),
            Counter(),
            set(),
            mutation.parts,
        )
        self.users = Users(self.around, self.shared, self.observer)
        self._hosts: list[Host] = []
        self._lives: Counter[int] = Counter()
        self._is_draining = False
        self._expected: set[tuple[str, float]] = set()

    def run(self, steps: int = MOST_STEPS) -> Outcome:
        """Until everything has ended, or should have."""
        self._plan()
        deadline = self.scenario.faults.end + DRAINED_WITHIN
        failure = None
        try:
            while self.loop.now < deadline and self.loop.steps < steps and not self._is_quiet():
                if not self.loop.step():
                    break
        except Exception:  # noqa: BLE001 - told with the seed that replays it
            failure = traceback.format_exc()
        finally:
            self.loop.close()
        left = self._left()
        return Outcome(self.scenario, self.history, self.observer, not left, left, failure)

    # What happens when

    def _plan(self) -> None:
        scenario = self.scenario
        for number in range(scenario.hosts):
            self._start_host(number)
        for wanted in scenario.schedules:
            self.shared.schedules.add(wanted)
        acts: list[Any] = [*scenario.planned, *scenario.foreign, *scenario.notified, *scenario.orders]
        for act in acts:
            self.loop.at(act.at, partial(self.users.act, act))
        for at, seconds in scenario.faults.clock_jumps:
            self.loop.at(at, partial(self._jump, seconds))
        for name, every in TIMERS:
            if name not in self._mutation.without_timers:
                self._tick(name, every)
        end = max(scenario.faults.end, *(act.at for act in acts)) + 1.0
        self.loop.at(end, self._end_faults)
        for _ in range(self.random.choice((0, 1, 4))):
            self.loop.at(self.random.uniform(0, end), self._stop_gracefully)

    def _jump(self, seconds: float) -> None:
        self.history.process = "world"
        self.history.add("clock.jumped", "database", seconds=seconds)
        self.clock.jump(seconds)

    def _end_faults(self) -> None:
        """From here on it drains; an operator looks every five minutes for what waits for one."""
        self.history.process = "world"
        self.history.add("faults.ended", "world")
        self._is_draining = True
        self.shared.schedules.pause()

        def look() -> None:
            self.users.clean_up()
            self.loop.after(300.0, look)

        look()

    def _stop_gracefully(self) -> None:
        host = self.random.choice(self._hosts)
        if host.is_dead or host.is_stopping:
            return
        self.history.process = "world"
        host.stop()

    def _start_host(self, number: int) -> None:
        self._lives[number] += 1
        host = Host(self.around, self.shared, f"host{number + 1}.{self._lives[number]}", self.scenario.slots)
        self._hosts[number : number + 1] = [host]
        self.history.process = "world"
        self.history.add("host.started", host.name)
        for queue in self.scenario.queues:
            self._pump_soon(queue)
            self._pump_soon(f"{queue}-poison")

        host.on_death = lambda: self._replace_host(number)

    def _replace_host(self, number: int) -> None:
        self.loop.after(self.random.choice(HOST_COMES_BACK), lambda: self._start_host(number))

    def _tick(self, name: str, every: float) -> None:
        """Each timer ticks on all hosts; mostly one of them is first. While nothing is due it is not worth a tick."""

        def tick() -> None:
            alive = [host for host in self._hosts if not host.is_dead and not host.is_stopping]
            ticking = 2 if self.random.random() < 0.05 else 1
            for host in self.random.sample(alive, min(ticking, len(alive))):
                getattr(host, f"run_{name}")()
            wait = max(every, self._idle_seconds() // every * every)
            self.loop.after(wait, tick)

        self.loop.after(self.random.uniform(0, every), tick)

    def _idle_seconds(self) -> float:
        """For how long nothing can become due: all that is left waits for a time."""
        if not self._is_draining or self.users.at_work:
            return 0.0
        now, times = self.loop.now, []
        for record in self.observer.live():
            if record.state is JobState.ACTIVE and record.lease_until is not None:
                times.append(self.clock.loop_time(record.lease_until))
            elif record.state is JobState.SCHEDULED:
                times.append(self.clock.loop_time(record.run_at))
            else:
                return 0.0
        times += [message.visible_at for message in self.account.messages()]
        return max(0.0, min(times, default=now) - now)

    # Messages

    def _expect(self, queue: str, when: float) -> None:
        """A message can be received from then on; a host looks within a second or so."""
        at = max(when, self.loop.now) + self.random.choice((0.01, 0.1, 1.0))
        self.loop.at(at, lambda: self._pump(queue))

    def _pump_soon(self, queue: str) -> None:
        self.loop.at(self.loop.now, lambda: self._pump(queue))

    def _pump(self, queue: str) -> None:
        """Give visible messages to hosts that have room."""
        faults = self.around.faults
        # Of a poison queue the host runs a message so often and then never again.
        most = MOST_DELIVERIES if queue.endswith("-poison") else None
        while True:
            ready = [host for host in self._hosts if host.has_room(queue)]
            if not ready or faults.is_storage_away:
                if faults.is_storage_away:
                    self.loop.after(1.0, lambda: self._pump(queue))
                return
            host = self.random.choice(ready)
            hidden = 0.0 if faults.happens(faults.rates.received_twice) else HIDDEN_FOR
            out_of_order = faults.happens(faults.rates.received_out_of_order)
            message = self.account.receive(queue, hidden, out_of_order=out_of_order, most_deliveries=most)
            if message is None:
                return
            self.history.process = host.name
            host.deliver(message, self._pump_soon)

    # The end

    def _is_quiet(self) -> bool:
        return (
            self._is_draining
            and not self.users.at_work
            and not any(host.is_busy for host in self._hosts)
            and not self._left()
        )

    def _left(self) -> list[str]:
        """What has not ended: jobs, and messages that carry something."""
        left = [f"{self.history.name(r.id)} of {r.queue} is {r.state.value}" for r in self.observer.live()]
        left += [f"message {m.id} is in {m.queue}" for m in self.account.messages() if b'"wake"' not in m.body]
        return left


def simulate(seed: int, mutation: Mutation | None = None, steps: int | None = None) -> Outcome:
    """Run one seed; `steps` stops it early."""
    with seeded_modules(seed):
        return World(draw(seed), mutation or Mutation()).run(MOST_STEPS if steps is None else steps)


@contextmanager
def seeded_modules(seed: int) -> Iterator[None]:
    """The engine without its log, without threads of its own, and with ids from the seed."""
    ids = Random(seed + 1)
    patched: list[tuple[Any, str, Any]] = []

    def patch(module: Any, name: str, value: Any) -> None:
        patched.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def new_id() -> UUID:
        return UUID(int=ids.getrandbits(128), version=4)

    for name, module in list(sys.modules.items()):
        if name.startswith("shared.engine.memory") and hasattr(module, "uuid4"):
            patch(module, "uuid4", new_id)
    patch(enqueue, "FEW_WAKE_UPS", sys.maxsize)
    log = logging.getLogger("shared")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)
        for module, name, value in reversed(patched):
            setattr(module, name, value)
