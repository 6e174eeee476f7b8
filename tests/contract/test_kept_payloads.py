"""Which payload is left when several jobs come with one key, and that each call is told what became of its own."""

from __future__ import annotations

import json
from datetime import timedelta

from shared.engine.job import Debounce, NewJob, Singleton, SingletonPolicy, Throttle, Unique
from tests.contract.bench import QUEUE, Bench

HOUR = timedelta(hours=1)


def fates(bench: Bench, rule: Unique, delay: timedelta | None = None) -> list[str]:
    """Enqueue payloads 0, 1 and 2 in three calls; what each was answered."""
    found = []
    for n in range(3):
        [made] = bench.store.enqueue([NewJob(QUEUE, {"n": n}, delay=delay, unique=rule)])
        found.append("merged" if not made.created else "replaces" if made.replaced else "created")
    return found


def left(bench: Bench) -> list[int]:
    """The payloads that run in the end."""
    bench.pass_time(2 * HOUR)
    bench.store.promote_due(10)
    return [json.loads(job.payload)["n"] for job in bench.store.claim(QUEUE, 10, "w", HOUR).jobs]


def test_of_debounced_jobs_the_last_payload_runs(bench: Bench) -> None:
    assert fates(bench, Debounce("report", HOUR)) == ["created", "replaces", "replaces"]
    assert left(bench) == [2]


def test_of_throttled_jobs_the_first_payload_runs(bench: Bench) -> None:
    assert fates(bench, Throttle("report", HOUR)) == ["created", "merged", "merged"]
    assert left(bench) == [0]


def test_of_a_singleton_the_first_payload_runs(bench: Bench) -> None:
    assert fates(bench, Singleton("report")) == ["created", "merged", "merged"]
    assert left(bench) == [0]


def test_a_singleton_that_is_replaced_runs_with_the_last_payload(bench: Bench) -> None:
    rule = Singleton("report", SingletonPolicy.REPLACE_SCHEDULED)
    assert fates(bench, rule, HOUR) == ["created", "replaces", "replaces"]
    assert left(bench) == [2]
