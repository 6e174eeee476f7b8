"""How often the queues are looked at for those who watch them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from shared.engine.errors import StoreUnavailableError
from shared.monitoring.latest import STILL_TOLD_SECONDS
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


def test_while_one_looks_others_are_told_what_was_before_unless_it_is_old_or_the_look_before_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.monitoring.statistics.PATIENCE_SECONDS", 0.01)
    looking, go_on = threading.Event(), threading.Event()

    class Hanging(Counting):
        def overview(self) -> Sequence[QueueNow]:
            super().overview()
            looking.set()
            assert go_on.wait(10)
            if self.looks == 4:
                raise StoreUnavailableError("away")
            return ()

    statistics = Hanging(takes=0.0)
    overview = Overview(cast(Statistics, statistics), lambda: statistics.now)
    later = (0.0, CACHE_SECONDS, CACHE_SECONDS + STILL_TOLD_SECONDS, CACHE_SECONDS, 0.0)
    for seconds, is_told in zip(later, (False, True, False, True, False), strict=True):
        looking.clear()
        go_on.clear()
        statistics.now += seconds
        with ThreadPoolExecutor() as threads:
            looker = threads.submit(overview.queues)
            assert looking.wait(10)
            if is_told:
                assert overview.queues() == ()
            else:
                with pytest.raises(StoreUnavailableError, match="still being counted"):
                    overview.queues()
            go_on.set()
            assert (looker.exception(10) is not None) == (statistics.looks == 4)
    assert statistics.looks == len(later)


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
