"""Minutes and days of the engine on a clock that the test moves: what comes when, how often, and how spread."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.engine.context import Context
from shared.engine.enqueue import LONGEST_WAKE_DELAY
from shared.engine.errors import NetworkError
from shared.engine.job import Job, JobState, NewJob
from shared.engine.memory import MemoryClock, MemoryStore
from shared.engine.ports import Limits, Rate
from tests.unit.engine.bench import QUEUE, Bench

SECOND = timedelta(seconds=1)
RELAY_SECONDS, RESCUE_SECONDS, LEASE_SECONDS = 10, 30, 45


class System:
    """A bench with its timers and with messages that become visible in their time. `pass_time` is one step of them."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.started_at = self.bench.clock()
        self.delays: list[timedelta] = []
        self.invisible: list[tuple[datetime, str, str]] = []

    def pass_time(self, step: timedelta, works: bool = True) -> None:
        bench = self.bench
        bench.clock.advance(step)
        seconds = round((bench.clock() - self.started_at).total_seconds())
        if seconds % RELAY_SECONDS == 0:
            bench.relay.run()
        if seconds % RESCUE_SECONDS == 0:
            bench.rescue.run()
        while works and self.deliver():
            pass

    def deliver(self) -> bool:
        """Hand every visible message to a worker; False when there was none."""
        now = self.bench.clock()
        for queue, body, delay in self.bench.transport.sent:
            self.delays.append(delay)
            self.invisible.append((now + delay, queue, body))
        self.bench.transport.sent.clear()
        visible = [one for one in self.invisible if one[0] <= now]
        self.invisible = [one for one in self.invisible if one[0] > now]
        for number, (_, queue, body) in enumerate(visible):
            self.bench.receiver.receive(queue, body.encode(), f"m-{number}")
        return bool(visible)


@pytest.mark.parametrize("delay", [timedelta(days=7), timedelta(days=9, seconds=1)])
def test_a_job_delayed_beyond_any_visibility_timeout_runs_once_and_not_before_its_time(delay: timedelta) -> None:
    system = System()
    started: list[datetime] = []
    system.bench.handler = lambda job, payload, context: started.append(system.bench.clock())
    system.bench.enqueue(delay=delay)
    while system.bench.clock() < system.started_at + delay + timedelta(hours=1):
        system.pass_time(timedelta(minutes=1))
    assert len(started) == 1 and timedelta() <= started[0] - system.started_at - delay <= timedelta(minutes=1)
    assert max(system.delays) <= LONGEST_WAKE_DELAY, "what is far off is no message"


@pytest.mark.parametrize("second", range(0, RESCUE_SECONDS, 7))
def test_a_dead_worker_is_noticed_within_its_lease_and_a_pass_of_the_rescue(second: int) -> None:
    system = System()
    for _ in range(second):
        system.pass_time(SECOND)
    system.bench.enqueue()
    assert system.bench.store.claim(QUEUE, 1, "dies now", LEASE_SECONDS * SECOND).jobs
    died_at = system.bench.clock()
    while system.bench.states() != ["completed"]:
        system.pass_time(SECOND)
        assert system.bench.clock() - died_at <= (LEASE_SECONDS + RESCUE_SECONDS + 3) * SECOND
    assert [attempt.worker for attempt in system.bench.store.jobs(QUEUE)[0].attempts] == ["dies now", "host-1"]


def test_jobs_that_fail_together_come_back_spread() -> None:
    """The fifth retries of 200 jobs that failed in one second: no second has more than twice its share."""
    system = System()
    starts: list[int] = []

    def handler(job: Job, payload: Any, context: Context) -> None:
        if job.attempt == 6:
            starts.append(round((system.bench.clock() - system.started_at) / SECOND))
        raise NetworkError("connection reset")

    system.bench.handler = handler
    system.bench.enqueue(200)
    while len(starts) < 200:
        system.pass_time(SECOND / 4)
        assert system.bench.clock() - system.started_at < timedelta(minutes=2)
    seconds = Counter(starts)
    assert max(seconds.values()) <= 2 * 200 / (max(starts) - min(starts) + 1)
    assert max(starts) - min(starts) >= 5
    assert {job.state for job in system.bench.store.jobs(QUEUE)} == {JobState.DEAD}


def test_of_a_rate_nearly_all_is_used_and_never_more() -> None:
    """A window is counted in 21 slots of a twentieth, so a rate that is always asked for loses a twentieth at most."""
    clock = MemoryClock()
    store = MemoryStore([QUEUE], clock=clock)
    limit, windows = 40, 10
    store.set_limits(QUEUE, Limits(rate=Rate(limit, SECOND)))
    end = clock() + windows * SECOND
    starts: list[datetime] = []
    while clock() < end:
        fill_up(store, limit)
        starts += [clock()] * len(store.claim(QUEUE, limit, "w", LEASE_SECONDS * SECOND).jobs)
        clock.advance(timedelta(milliseconds=5))
    assert all(sum(start <= other < start + SECOND for other in starts) <= limit for start in set(starts))
    assert len(starts) >= 0.95 * limit * windows


def fill_up(store: MemoryStore, count: int) -> None:
    """Leave so many jobs ready, and no more: the store in memory looks at all of them."""
    ready = sum(job.state is JobState.READY for job in store.jobs(QUEUE))
    store.enqueue([NewJob(QUEUE, {}) for _ in range(count - ready)])
