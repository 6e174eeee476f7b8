"""What goes wrong, how often, and until when: drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

from tests.simulation.loop import Loop


@dataclass(frozen=True, slots=True)
class Rates:
    """Probabilities, each at every step where the thing can happen."""

    # of processes, at every boundary of a call
    crash: float = 0.0
    stall: float = 0.0
    switch: float = 0.0
    # of the database
    answer_lost: float = 0.0
    # of the storage account
    put_refused: float = 0.0
    put_answer_lost: float = 0.0
    wake_up_dropped: float = 0.0
    put_twice: float = 0.0
    put_late: float = 0.0
    received_twice: float = 0.0
    received_out_of_order: float = 0.0
    delete_failed: float = 0.0
    # of Graph
    throttled: float = 0.0
    failed: float = 0.0
    timed_out: float = 0.0
    refused: float = 0.0
    unauthorized: float = 0.0
    effect_answer_lost: float = 0.0


#: The most of each that a seed draws.
WORST = Rates(
    crash=0.012,
    stall=0.008,
    switch=0.3,
    answer_lost=0.03,
    put_refused=0.1,
    put_answer_lost=0.1,
    wake_up_dropped=0.2,
    put_twice=0.1,
    put_late=0.2,
    received_twice=0.1,
    received_out_of_order=0.5,
    delete_failed=0.05,
    throttled=0.12,
    failed=0.15,
    timed_out=0.05,
    refused=0.04,
    unauthorized=0.03,
    effect_answer_lost=0.15,
)
#: Afterwards: nothing fails, and tasks still run in turns.
QUIET = Rates(switch=0.05, received_out_of_order=0.2)


#: In so many seeds the database is away for an hour (I8).
LONG_OUTAGE = 0.01


@dataclass(frozen=True, slots=True)
class Span:
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Rates until `end`, and outages before it."""

    rates: Rates
    end: float
    database_outages: tuple[Span, ...] = ()
    storage_outages: tuple[Span, ...] = ()
    clock_jumps: tuple[tuple[float, float], ...] = ()


def draw_plan(random: Random, end: float) -> FaultPlan:
    """Of each kind of fault, a seed has none, a little or much."""
    drawn = {one.name: random.choice((0.0, 0.3, 1.0)) * getattr(WORST, one.name) for one in fields(Rates)}
    database = _outages(random, end)
    if random.random() < LONG_OUTAGE:
        database = (*database, Span(random.uniform(0, end), end := end + 3600.0))
        # Each message is put back hundreds of times: some of them doubled each time would bury the hosts.
        drawn |= dict.fromkeys(("put_twice", "put_answer_lost", "received_twice", "delete_failed"), 0.0)
    jumps = [(random.uniform(0, end), random.choice((1.0, 10.0, 50.0, 300.0))) for _ in range(random.choice((0, 0, 1)))]
    return FaultPlan(
        Rates(**drawn),
        end,
        database_outages=database,
        storage_outages=_outages(random, end),
        clock_jumps=tuple(jumps),
    )


def _outages(random: Random, end: float) -> tuple[Span, ...]:
    spans = []
    for _ in range(random.choice((0, 0, 1, 2))):
        start = random.uniform(0, end)
        spans.append(Span(start, min(end, start + random.choice((2.0, 20.0, 120.0)))))
    return tuple(spans)


class Faults:
    """Says at a step whether something happens."""

    def __init__(self, plan: FaultPlan, loop: Loop, random: Random) -> None:
        self._plan = plan
        self._loop = loop
        self._random = random

    @property
    def rates(self) -> Rates:
        return self._plan.rates if self._loop.now < self._plan.end else QUIET

    def happens(self, rate: float) -> bool:
        return rate > 0.0 and self._random.random() < rate

    @property
    def is_database_away(self) -> bool:
        return _is_in(self._plan.database_outages, self._loop.now)

    @property
    def is_storage_away(self) -> bool:
        return _is_in(self._plan.storage_outages, self._loop.now)


def _is_in(spans: tuple[Span, ...], now: float) -> bool:
    return any(span.start <= now < span.end for span in spans)
