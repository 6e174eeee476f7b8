from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from random import Random
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.backoff import JITTER, LONGEST_RETRY_AFTER, RETRY_POLICIES, RetryPolicy, decide
from shared.engine.classify import LONGEST_MESSAGE, classify
from shared.engine.errors import (
    AuthError,
    JobError,
    NetworkError,
    RateLimitedError,
    RejectedError,
    TimedOutError,
    UncertainError,
)
from shared.engine.job import FOUND_NOTHING, Attempt, Dead, ErrorClass, Failure, Job, Retry
from shared.engine.memory import MemoryClock

NOW = MemoryClock().now


def job(*failed: ErrorClass) -> Job:
    attempts = tuple(Attempt(n, NOW, NOW, "w", "retry", error) for n, error in enumerate(failed, 1))
    return Job(uuid4(), "alerts", "{}", len(failed) + 1, 5, uuid4(), attempts=attempts)


class NoJitter(Random):
    def random(self) -> float:
        return 0.0


class FullJitter(Random):
    def random(self) -> float:
        return 1.0


TABLE = {
    ErrorClass.RATE_LIMIT: [60, 120, 240, 480, 960],
    ErrorClass.NETWORK: [1, 2, 4, 8, 16],
    ErrorClass.TIMEOUT: [1, 2, 4, 8, 16],
    ErrorClass.AUTH: [0],
    ErrorClass.VALIDATION: [],
    ErrorClass.UNCERTAIN: [1, 2, 4, 8, 16],
    ErrorClass.UNKNOWN: [1, 2, 4, 8, 16],
    ErrorClass.EXPIRED: [],
    ErrorClass.DEPENDENCY: [],
    ErrorClass.WORKER_LOST: [1, 2, 4, 8, 16],
}


@pytest.mark.parametrize("error_class", list(ErrorClass))
def test_each_entry_of_the_retry_table_has_exactly_these_delays(error_class: ErrorClass) -> None:
    failure = Failure(error_class, "failed")
    for failed_before, seconds in enumerate(TABLE[error_class]):
        outcome = decide(job(*[error_class] * failed_before), failure, NoJitter())
        assert outcome == Retry(failure, timedelta(seconds=seconds))
        stretched = decide(job(*[error_class] * failed_before), failure, FullJitter())
        assert stretched == Retry(failure, timedelta(seconds=seconds * 1.25))
    assert decide(job(*[error_class] * len(TABLE[error_class])), failure, NoJitter()) == Dead(failure)
    assert set(RETRY_POLICIES) == set(ErrorClass)


def lost(*later: Attempt) -> Job:
    first = Attempt(1, NOW, NOW, "w", "retry", ErrorClass.UNCERTAIN)
    return replace(job(), attempts=(first, *later, *job(*[ErrorClass.NETWORK] * 5).attempts))


@pytest.mark.parametrize("kind", [ErrorClass.NETWORK, ErrorClass.TIMEOUT, ErrorClass.AUTH, ErrorClass.VALIDATION])
def test_whoever_dies_while_an_answer_is_lost_dies_as_uncertain(kind: ErrorClass) -> None:
    again = lost(*job(*[kind] * 5).attempts)
    outcome = decide(again, Failure(kind, "Graph said 500"), NoJitter())
    assert isinstance(outcome, Dead) and outcome.failure.error_class is ErrorClass.UNCERTAIN
    assert outcome.failure.message.startswith("it may have been sent") and "Graph said 500" in outcome.failure.message
    known = decide(again, Failure(kind, "Graph said 500"), NoJitter(), found_nothing=True)
    assert known == Dead(Failure(kind, "Graph said 500"))


def test_a_look_that_found_nothing_settles_what_was_lost_before_it() -> None:
    looked = Attempt(2, NOW, NOW, "w", "retry", ErrorClass.RATE_LIMIT, details={FOUND_NOTHING: True})
    failure = Failure(ErrorClass.NETWORK, "no route")
    assert decide(lost(looked), failure, NoJitter()) == Dead(failure)
    sent_again = replace(looked, error_class=ErrorClass.UNCERTAIN)
    outcome = decide(lost(sent_again), failure, NoJitter())
    assert isinstance(outcome, Dead) and outcome.failure.error_class is ErrorClass.UNCERTAIN


@pytest.mark.parametrize("kind", [ErrorClass.WORKER_LOST, ErrorClass.UNKNOWN, ErrorClass.RATE_LIMIT])
def test_a_lost_worker_a_fault_and_a_throttle_keep_their_class(kind: ErrorClass) -> None:
    failure = Failure(kind, "m")
    assert decide(lost(*job(*[kind] * 5).attempts), failure, NoJitter()) == Dead(failure)


def test_each_class_counts_its_own_failures() -> None:
    failed = job(ErrorClass.NETWORK, ErrorClass.NETWORK, ErrorClass.NETWORK)
    auth = Failure(ErrorClass.AUTH, "401")
    assert decide(failed, auth, NoJitter()) == Retry(auth, timedelta())


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (timedelta(seconds=2), timedelta(seconds=2)),
        (timedelta(seconds=300), timedelta(seconds=300)),
        (timedelta(), timedelta(seconds=1)),
        (timedelta(seconds=-5), timedelta(seconds=1)),
        (timedelta(days=3650), LONGEST_RETRY_AFTER),
    ],
)
def test_what_the_peer_asked_for_takes_the_place_of_the_table(asked: timedelta, waited: timedelta) -> None:
    failure = Failure(ErrorClass.RATE_LIMIT, "429", retry_after=asked)
    assert decide(job(), failure, NoJitter()) == Retry(failure, waited)


def test_a_peer_that_asks_for_no_wait_does_not_use_up_all_retries_at_once() -> None:
    failure = Failure(ErrorClass.RATE_LIMIT, "429", retry_after=timedelta())
    outcomes = [decide(job(*[ErrorClass.RATE_LIMIT] * failed), failure, NoJitter()) for failed in range(6)]
    assert outcomes == [*(Retry(failure, timedelta(seconds=2**n)) for n in range(5)), Dead(failure)]


def test_a_queue_may_override_its_policy() -> None:
    failure = Failure(ErrorClass.NETWORK, "reset")
    overrides = {ErrorClass.NETWORK: RetryPolicy((7,))}
    assert decide(job(), failure, NoJitter(), overrides) == Retry(failure, timedelta(seconds=7))
    assert decide(job(ErrorClass.NETWORK), failure, NoJitter(), overrides) == Dead(failure)


@given(seed=st.integers(), asked=st.floats(0, 3600), failed=st.integers(0, 4))
def test_a_retry_is_never_early_and_at_most_a_quarter_late(seed: int, asked: float, failed: int) -> None:
    failure = Failure(ErrorClass.RATE_LIMIT, "429", retry_after=timedelta(seconds=asked))
    outcome = decide(job(*[ErrorClass.RATE_LIMIT] * failed), failure, Random(seed))
    assert isinstance(outcome, Retry)
    least = max(asked, 2**failed)
    assert least - 1e-6 <= outcome.delay.total_seconds() <= least * (1 + JITTER) + 1e-6


def test_equal_failures_spread() -> None:
    failure = Failure(ErrorClass.NETWORK, "reset")
    random = Random(1)
    failed = job(*[ErrorClass.NETWORK] * 4)
    outcomes = [decide(failed, failure, random) for _ in range(1000)]
    seconds = Counter(int(o.delay.total_seconds()) for o in outcomes if isinstance(o, Retry))
    assert sum(seconds.values()) == 1000
    assert max(seconds.values()) <= 2 * 1000 / len(seconds) and len(seconds) == 4


@pytest.mark.parametrize("error_class", [ErrorClass.NETWORK, ErrorClass.RATE_LIMIT])
@pytest.mark.parametrize("failed_before", range(5))
def test_each_retry_of_equal_failures_is_spread_evenly_over_a_quarter_of_its_delay(
    error_class: ErrorClass, failed_before: int
) -> None:
    """Of a first network retry that is a quarter of a second only: the later ones take a herd apart."""
    least = TABLE[error_class][failed_before]
    random, parts = Random(2), Counter[int]()
    for _ in range(1000):
        outcome = decide(job(*[error_class] * failed_before), Failure(error_class, "reset"), random)
        assert isinstance(outcome, Retry)
        parts[int((outcome.delay.total_seconds() - least) / (least * JITTER) * 10)] += 1
    assert set(parts) <= {*range(10)} and all(70 <= parts[part] <= 130 for part in range(10))


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (RateLimitedError("x"), ErrorClass.RATE_LIMIT),
        (NetworkError("x"), ErrorClass.NETWORK),
        (TimedOutError("x"), ErrorClass.TIMEOUT),
        (AuthError("x"), ErrorClass.AUTH),
        (RejectedError("x"), ErrorClass.VALIDATION),
        (UncertainError("x"), ErrorClass.UNCERTAIN),
        (JobError("x"), ErrorClass.UNKNOWN),
        (ValueError("x"), ErrorClass.UNKNOWN),
        (RecursionError(), ErrorClass.UNKNOWN),
    ],
)
def test_errors_are_classed_by_type(error: Exception, error_class: ErrorClass) -> None:
    failure = classify(error)
    assert failure.error_class is error_class and failure.message


def test_a_failure_keeps_what_the_peer_said_within_bounds() -> None:
    failure = classify(RateLimitedError("y" * 10_000, retry_after=timedelta(seconds=3), details={"status": 429}))
    assert len(failure.message) == LONGEST_MESSAGE
    assert failure.retry_after == timedelta(seconds=3) and failure.details == {"status": 429}
