"""The promises of docs/explanation/architecture.md, in thousands of simulated histories."""

from __future__ import annotations

import pytest

from tests.simulation.invariants import INVARIANTS
from tests.simulation.seeds import A_DAY, FIXED, RAISED, Report, todays_seeds

pytestmark = pytest.mark.timeout(900)

NUMBERED = [f"I{number}" for number in range(1, 11)]
#: What the histories must contain, each often, or the invariants say little.
HAPPENS = (
    "answer.lost",
    "batch.made",
    "clock.jumped",
    "effect",
    "host.stopping",
    "job.discard",
    "job.ended cancelled",
    "job.ended completed",
    "job.ended dead",
    "job.made waiting",
    "message.failed",
    "notification.recorded",
    "order.failed",
    "order.pause",
    "permits.taken",
    "process.died",
    "process.stalled",
    "progress.saved",
    "put.refused",
    "redriven",
    "schedule.saved",
    "settled cancelled",
    "settled completed",
    "settled dead",
    "settled deferred",
    "settled released",
    "settled retry",
    "timer.skipped",
    "wake_up.dropped",
)


def holds(batch: Report, invariant: str) -> None:
    found = [finding for finding in batch.findings if finding.invariant == invariant]
    if found:
        of = f"{len({finding.seed for finding in found})} of {batch.seeds} seeds"
        pytest.fail("\n\n".join([f"{invariant} does not hold in {of}", *map(str, found[:2])]), pytrace=False)


def test_I1_every_accepted_job_ends_once(batch: Report) -> None:
    holds(batch, "I1")


def test_I2_a_job_has_one_live_lease_and_a_stale_token_settles_nothing(batch: Report) -> None:
    holds(batch, "I2")


def test_I3_a_claim_takes_the_best_that_is_free(batch: Report) -> None:
    holds(batch, "I3")


def test_I4_an_attempt_is_a_start(batch: Report) -> None:
    holds(batch, "I4")


def test_I5_every_failed_attempt_is_kept(batch: Report) -> None:
    holds(batch, "I5")


def test_I6_follow_ups_come_with_the_settlement_or_not_at_all(batch: Report) -> None:
    holds(batch, "I6")


def test_I7_a_wake_up_outlives_what_was_claimed_for_it(batch: Report) -> None:
    holds(batch, "I7")


def test_I8_after_the_last_fault_everything_is_processed(batch: Report) -> None:
    holds(batch, "I8")


def test_I9_a_notification_answered_202_is_recorded_once(batch: Report) -> None:
    holds(batch, "I9")


def test_I10_no_window_has_more_starts_than_its_limit(batch: Report) -> None:
    holds(batch, "I10")


@pytest.mark.parametrize("invariant", sorted(set(INVARIANTS) - set(NUMBERED)))
def test_more_promises_hold(batch: Report, invariant: str) -> None:
    holds(batch, invariant)


def test_nothing_is_raised_that_nobody_expects(batch: Report) -> None:
    holds(batch, RAISED)


def test_the_histories_contain_what_they_are_for(batch: Report) -> None:
    print(f"seeds {FIXED.start} to {FIXED.stop - 1}, and {A_DAY} of today from {todays_seeds().start}")  # noqa: T201
    assert batch.seeds == len(FIXED) + A_DAY
    assert {kind: batch.events[kind] for kind in HAPPENS if batch.events[kind] < 50} == {}
