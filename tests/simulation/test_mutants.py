"""The simulator finds what is broken: each mutant is caught by the invariant of its name."""

from __future__ import annotations

import pytest

from tests.simulation.invariants import INVARIANTS
from tests.simulation.mutants import MUTANTS
from tests.simulation.seeds import outcomes

#: The shyest mutant needs a worker that stands still until another has its job, and still runs it.
WITHIN = 500


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    broken = INVARIANTS[mutant.invariant]
    assert any(list(broken(outcome)) for outcome in outcomes(range(WITHIN), mutant.mutation)), mutant.invariant


def test_every_invariant_has_a_mutant() -> None:
    assert {mutant.invariant for mutant in MUTANTS.values()} == set(INVARIANTS)
