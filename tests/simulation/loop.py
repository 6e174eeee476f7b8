"""Simulated time, and tasks that run one at a time.

The engine is written with ordinary blocking calls, so each task has a thread to keep its stack. But only the one that
holds the baton runs, and it hands the baton back only in `sleep`: the order is the seed's alone.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

Work = Callable[[], None]


class Killed(BaseException):
    """The process of this task has died. No `except Exception` and no engine code may stop it."""


class _Runner:
    """A thread that runs one piece of work after another, each step of it on demand."""

    def __init__(self) -> None:
        self._go = threading.Lock()
        self._back = threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self.work: Work | None = None
        self.error: BaseException | None = None
        threading.Thread(target=self._run, name="simulated", daemon=True).start()

    def resume(self) -> None:
        """Called by the loop: run until the next `park` or the end."""
        self._go.release()
        self._back.acquire()

    def park(self) -> None:
        """Called by the work itself."""
        self._back.release()
        self._go.acquire()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            try:
                if self.work is not None:
                    self.work()
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001 - the loop raises it
                self.error = error
            self.work = None
            self._back.release()


_idle: list[_Runner] = []


class Loop:
    """`now` is in seconds since the start. Events at the same time happen in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._closing = False
        self._events: list[tuple[float, int, Work]] = []
        self._order = itertools.count()
        self._running: _Runner | None = None
        self._parked: dict[_Runner, None] = {}

    def at(self, when: float, work: Work) -> None:
        """Call `work`, which must not sleep."""
        heapq.heappush(self._events, (max(when, self.now), next(self._order), work))

    def after(self, seconds: float, work: Work) -> None:
        self.at(self.now + seconds, work)

    def spawn(self, work: Work) -> None:
        """Start a task, which may sleep."""
        runner = _idle.pop() if _idle else _Runner()
        runner.work = work
        self.at(self.now, lambda: self._resume(runner))

    def sleep(self, seconds: float) -> None:
        """Let others run for so long. When nobody has anything to do before, only the clock moves."""
        runner, until = self._running, self.now + seconds
        if runner is None:
            raise AssertionError("only a task sleeps")
        if not self._events or self._events[0][0] > until:
            self.now = until
            return
        self.at(until, lambda: self._resume(runner))
        self._parked[runner] = None
        runner.park()
        if self._closing:
            raise Killed

    def next_at(self) -> float | None:
        """When the next event is."""
        return self._events[0][0] if self._events else None

    def step(self) -> bool:
        """Carry out the next event; False when there is none."""
        if not self._events:
            return False
        when, _, work = heapq.heappop(self._events)
        self.now = max(self.now, when)
        self.steps += 1
        work()
        return True

    def close(self) -> None:
        """End the tasks that still sleep."""
        self._closing = True
        while self._parked:
            self._resume(next(iter(self._parked)))

    def _resume(self, runner: _Runner) -> None:
        self._parked.pop(runner, None)
        self._running = runner
        try:
            runner.resume()
        finally:
            self._running = None
        if runner.work is None:
            error, runner.error = runner.error, None
            _idle.append(runner)
            if error is not None and not self._closing:
                raise error
