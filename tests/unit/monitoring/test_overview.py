"""How often the queues are looked at for those who watch them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from shared.monitoring.statistics import CACHE_SECONDS, REST, Overview, QueueNow, Statistics


class Counting:
    """Statistics whose look takes `takes` seconds of a clock that stands still otherwise."""

    def __init__(self, takes: float) -> None:
        self.takes = takes
        self.looks = 0
        self.now = 100.0

    def overview(self) -> Sequence[QueueNow]:
        self.looks += 1
        self.now += self.takes
        return ()


def test_many_watchers_cause_one_look_a_second() -> None:
    statistics = Counting(takes=0.01)
    overview = Overview(cast(Statistics, statistics), lambda: statistics.now)
    for _ in range(3):
        overview.queues()
    assert statistics.looks == 1
    statistics.now = 100.0 + CACHE_SECONDS
    overview.queues()
    assert statistics.looks == 2


def test_a_look_that_takes_long_is_good_for_longer() -> None:
    """With a backlog of millions: watchers may not keep the database busy with counting."""
    statistics = Counting(takes=2.0)
    overview = Overview(cast(Statistics, statistics), lambda: statistics.now)
    overview.queues()
    statistics.now = 100.0 + 2.0 * REST - 0.1
    overview.queues()
    assert statistics.looks == 1
    statistics.now = 100.0 + 2.0 * REST
    overview.queues()
    assert statistics.looks == 2
