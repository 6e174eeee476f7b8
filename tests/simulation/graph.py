"""A simulated Graph: it keeps every effect with the mark that its sender gave it, and can be read back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from shared.engine.errors import (
    AuthError,
    NetworkError,
    RateLimitedError,
    RejectedError,
    TimedOutError,
    UncertainError,
)
from shared.engine.job import Job
from tests.simulation.history import History
from tests.simulation.process import Process

RETRY_AFTERS = (None, timedelta(), timedelta(seconds=2), timedelta(seconds=20), timedelta(seconds=90))


class Graph:
    """`is_current(job)` says whether the sender still has the job's lease, for the history."""

    def __init__(self, history: History, is_current: Callable[[Job], bool]) -> None:
        self._history = history
        self._is_current = is_current
        self._effects: dict[UUID, int] = defaultdict(int)

    def take(self, job: Job) -> None:
        self._effects[job.effect_id] += 1
        self._history.add(
            "effect", job.id, effect=job.effect_id, token=job.lease_token, stale=not self._is_current(job)
        )

    def has(self, effect_id: UUID) -> bool:
        return self._effects[effect_id] > 0


class GraphClient:
    """Graph as one process reaches it."""

    def __init__(self, graph: Graph, process: Process) -> None:
        self._graph = graph
        self._process = process

    def send(self, job: Job) -> None:
        """Make the effect. Raises the errors that the real handlers raise."""
        self._reach("graph.send")
        rates, faults = self._process.around.faults.rates, self._process.around.faults
        if faults.happens(rates.throttled):
            raise RateLimitedError("429", retry_after=self._process.around.random.choice(RETRY_AFTERS))
        if faults.happens(rates.refused):
            raise RejectedError("400")
        if faults.happens(rates.unauthorized):
            raise AuthError("401")
        self._graph.take(job)
        self._process.boundary("after graph.send")
        if faults.happens(rates.effect_answer_lost):
            raise UncertainError("the answer was lost")

    def find(self, effect_id: UUID) -> bool:
        """Whether the effect is there."""
        self._reach("graph.find")
        return self._graph.has(effect_id)

    def _reach(self, where: str) -> None:
        faults = self._process.around.faults
        self._process.boundary(f"before {where}")
        self._process.sleep(self._process.around.random.choice((0.05, 0.3, 2.0)))
        if faults.happens(faults.rates.failed):
            raise NetworkError("503")
        if faults.happens(faults.rates.timed_out):
            raise TimedOutError("no connection")
