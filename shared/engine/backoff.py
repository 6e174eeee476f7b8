"""The retry table, and the one function that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

from shared.engine.classify import LONGEST_MESSAGE
from shared.engine.errors import ControlError
from shared.engine.job import Dead, ErrorClass, Failure, Job, Retry, lost_answer

#: A delay is stretched by up to this share, at random, so that equal failures spread. It is never shortened.
JITTER = 0.25
#: A peer that asks for more than this is believed only so far (a wrong date must not park a job for years).
LONGEST_RETRY_AFTER = timedelta(hours=6)
#: No queue's own delay is longer.
LONGEST_DELAY = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`delays[n]` in seconds is the wait before retry n + 1; their number is the number of retries."""

    delays: tuple[float, ...]

    @property
    def retries(self) -> int:
        return len(self.delays)


_NETWORK = RetryPolicy((1, 2, 4, 8, 16))

RETRY_POLICIES: Mapping[ErrorClass, RetryPolicy] = {
    ErrorClass.RATE_LIMIT: RetryPolicy((60, 120, 240, 480, 960)),
    ErrorClass.NETWORK: _NETWORK,
    ErrorClass.TIMEOUT: _NETWORK,
    ErrorClass.AUTH: RetryPolicy((0,)),
    ErrorClass.VALIDATION: RetryPolicy(()),
    ErrorClass.UNCERTAIN: _NETWORK,
    ErrorClass.UNKNOWN: _NETWORK,
    ErrorClass.WORKER_LOST: _NETWORK,
    ErrorClass.EXPIRED: RetryPolicy(()),
    ErrorClass.DEPENDENCY: RetryPolicy(()),
}


#: Whoever dies of one of these is filed as uncertain where an earlier answer is lost: that it may have been sent counts
#: for more than what kept the last attempt from looking.
_LESS_THAN_UNCERTAIN = frozenset({ErrorClass.NETWORK, ErrorClass.TIMEOUT, ErrorClass.AUTH, ErrorClass.VALIDATION})
#: Nothing retries these, so no queue can have delays of its own for them.
_NEVER_RETRIED = frozenset({ErrorClass.EXPIRED, ErrorClass.DEPENDENCY})


def check_retries(retries: Mapping[ErrorClass, RetryPolicy]) -> None:
    """Raises ControlError that names the class of which a queue cannot have these delays."""
    for error_class, policy in retries.items():
        if error_class in _NEVER_RETRIED:
            raise ControlError(f"retries.{error_class.value}: what ends this way is not retried, leave it out")
        for place, seconds in enumerate(policy.delays):
            if not 0 <= seconds <= LONGEST_DELAY.total_seconds():
                raise ControlError(
                    f"retries.{error_class.value}[{place}]: a delay is 0 to {LONGEST_DELAY.total_seconds():.0f} seconds"
                )


def asked_pause(outcome: object) -> timedelta | None:
    """For how long a peer that answered "too many requests" wants to be left alone; None: it did not."""
    if not isinstance(outcome, Retry | Dead) or outcome.failure.error_class is not ErrorClass.RATE_LIMIT:
        return None
    asked = outcome.failure.retry_after or (outcome.delay if isinstance(outcome, Retry) else None)
    return min(asked, LONGEST_RETRY_AFTER) if asked else None


def decide(
    job: Job,
    failure: Failure,
    random: Random,
    overrides: Mapping[ErrorClass, RetryPolicy] | None = None,
    *,
    found_nothing: bool = False,
) -> Retry | Dead:
    """Retry or dead letter, from the class of this failure and how often the job has failed with it before. A final
    one is not retried.

    A job that dies while an earlier answer is lost dies as uncertain, unless this attempt looked and `found_nothing`.

    What the peer asked for (`retry_after`) takes the place of the table's delay, but never to come back sooner than
    after a network failure: a peer that asks for nothing at all, or for a time past, must not use up all retries.
    """
    policy = (overrides or {}).get(failure.error_class) or RETRY_POLICIES[failure.error_class]
    failed_before = job.failures(failure.error_class)
    if failure.is_final or failed_before >= policy.retries:
        return Dead(failure if found_nothing else _told_of_lost_answer(job, failure))
    seconds = policy.delays[failed_before]
    if failure.retry_after is not None:
        asked = min(failure.retry_after, LONGEST_RETRY_AFTER).total_seconds()
        seconds = max(asked, _NETWORK.delays[min(failed_before, _NETWORK.retries - 1)])
    return Retry(failure, timedelta(seconds=seconds * (1 + JITTER * random.random())))


def _told_of_lost_answer(job: Job, failure: Failure) -> Failure:
    if failure.error_class not in _LESS_THAN_UNCERTAIN or lost_answer(job.attempts) is None:
        return failure
    text = f"it may have been sent: an earlier answer was lost, and no look since could tell; {failure.message}"
    return replace(failure, error_class=ErrorClass.UNCERTAIN, message=text[:LONGEST_MESSAGE])
