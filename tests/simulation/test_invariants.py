"""The invariants of DESIGN hold in simulated histories: hosts die at every step, messages are lost, doubled and late,
the database is away, Graph loses answers. A failing seed prints the command that replays it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from shared.engine.job import Completed, Settled, Settlement
from shared.engine.memory import MemoryStore
from tests.simulation.invariants import INVARIANTS, check
from tests.simulation.world import Mutation, simulate

#: Looked at invariant by invariant, and besides in shards that the test workers share: 2,000 seeds in all.
NAMED_SEEDS = range(1, 101)
SHARDS = [range(start, start + 100) for start in range(101, 2001, 100)]


def broken_by(seed: int, mutation: Mutation | None = None) -> list[tuple[str, str]]:
    """(invariant, what is wrong and how to replay it) of one seed."""
    outcome = simulate(seed, mutation)
    replay = f"replay it: ./dev python -m tests.simulation --seed {seed} --trace"
    last = "\n".join(outcome.history.lines(40))
    found = [(one.invariant, f"{one.invariant}: {one.text}\n{replay}\n{last}") for one in check(outcome)]
    return found + ([("run", f"{outcome.failure}\n{replay}\n{last}")] if outcome.failure else [])


@cache
def broken_in_named_seeds() -> list[tuple[str, str]]:
    return [one for seed in NAMED_SEEDS for one in broken_by(seed)]


def holds(invariant: str) -> None:
    found = [text for name, text in broken_in_named_seeds() if name in (invariant, "run")]
    assert not found, found[0]


def test_I1_every_accepted_job_ends_once() -> None:
    holds("I1")


def test_I2_there_is_one_live_lease_of_a_job() -> None:
    holds("I2")


def test_I3_the_best_runnable_job_goes_first() -> None:
    holds("I3")


def test_I4_attempts_are_starts() -> None:
    holds("I4")


def test_I5_failed_attempts_are_kept() -> None:
    holds("I5")


def test_I6_follow_ups_come_with_the_settlement() -> None:
    holds("I6")


def test_I7_a_wake_up_outlives_its_jobs() -> None:
    holds("I7")


def test_I8_everything_is_processed_after_an_outage() -> None:
    holds("I8")


def test_I9_a_notification_is_processed_once() -> None:
    holds("I9")


def test_I10_no_window_lets_more_through_than_its_limit() -> None:
    holds("I10")


@pytest.mark.parametrize("name", [name for name in INVARIANTS if not name.startswith("I")])
def test_what_else_must_hold(name: str) -> None:
    holds(name)


@pytest.mark.parametrize("seeds", SHARDS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_invariant_holds_in_a_hundred_more(seeds: range) -> None:
    found = [text for seed in seeds for _, text in broken_by(seed)]
    assert not found, found[0]


class LosesFollowUps(MemoryStore):
    """Completes jobs without what they asked to follow."""

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        bare = [
            replace(s, outcome=replace(s.outcome, follow_ups=())) if isinstance(s.outcome, Completed) else s
            for s in settlements
        ]
        return super().settle(bare, only_expired=only_expired)


@pytest.mark.parametrize(
    ("mutation", "invariants"),
    [
        pytest.param(Mutation(without_timers=("relay",)), {"I1", "I8"}, id="a relay that never runs"),
        pytest.param(Mutation(without_timers=("rescue",)), {"I1", "I8"}, id="a rescue that never runs"),
        pytest.param(Mutation(store=LosesFollowUps), {"I6"}, id="a store that loses follow-ups"),
    ],
)
def test_what_is_broken_on_purpose_is_found(mutation: Mutation, invariants: set[str]) -> None:
    for seed in range(1, 60):
        if invariants & {name for name, _ in broken_by(seed, mutation)}:
            return
    pytest.fail("no seed found it")
