"""Timers: one host at a time, and an outage is a line in the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from azure.functions.timer import TimerRequest

from functions import timers
from shared.engine.errors import StoreUnavailableError
from shared.engine.memory import MemoryStore

TIMERS = [
    (timers.relay_jobs, "relay", "run", "relay"),
    (timers.rescue_jobs, "rescue", "run", "rescue"),
    (timers.run_schedules, "scheduler", "run", "schedules"),
    (timers.watch_identities, "identity_watch", "run", "identities"),
    (timers.maintain_partitions, "partitions", "maintain", "partitions"),
    (timers.keep_statistics, "statistics", "keep", "statistics"),
    (timers.evaluate_alerts, "alert_watch", "run", "alerts"),
    (timers.make_reports, "report_timer", "run", "reports"),
    (timers.clean_statistics, "statistics", "forget", "clean-up"),
    (timers.sweep_poison_queues, "poison_sweep", "run", "poison-sweep"),
    (timers.keep_subscriptions, "upkeep_timer", "run", "subscriptions"),
]


@contextmanager
def held(store: MemoryStore, name: str) -> Iterator[None]:
    from datetime import timedelta

    token = store.take_turn(name, timedelta(minutes=5))
    assert token is not None
    yield
    store.end_turn(name, token)


@pytest.mark.parametrize(("trigger", "part", "verb", "turn"), TIMERS, ids=[timer[3] for timer in TIMERS])
def test_a_timer_works_when_it_has_the_turn_and_not_otherwise(
    built: dict[str, Any], trigger: Any, part: str, verb: str, turn: str
) -> None:
    calls: list[str] = []
    built["store"] = store = MemoryStore([])
    built[part] = SimpleNamespace(**{verb: lambda: calls.append(part)})
    tick = TimerRequest(past_due=True, schedule_status=None, schedule=None)
    trigger(tick)
    with held(store, turn):
        trigger(tick)
    trigger(tick)
    assert len(calls) == 2


@pytest.mark.parametrize(("trigger", "part", "verb", "turn"), TIMERS, ids=[timer[3] for timer in TIMERS])
def test_while_the_database_is_away_a_timer_ends_well(
    built: dict[str, Any], caplog: pytest.LogCaptureFixture, trigger: Any, part: str, verb: str, turn: str
) -> None:
    def away() -> None:
        raise StoreUnavailableError("away")

    built["store"] = MemoryStore([])
    built[part] = SimpleNamespace(**{verb: away})
    trigger(TimerRequest(past_due=False, schedule_status=None, schedule=None))
    assert "timer.skipped" in caplog.text
