"""Replays one seed, or runs many: see docs/how-to/replay-a-simulation.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.simulation.seeds import findings_in, outcomes, replay_command
from tests.simulation.world import simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """1 when an invariant does not hold."""
    parser = argparse.ArgumentParser("python -m tests.simulation", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="replay this one")
    which.add_argument("--seeds", type=int, nargs=2, metavar=("FROM", "TO"), help="run all of these, TO excluded")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--steps", type=int, help="stop after so many steps of the simulation")
    given = parser.parse_args(arguments)
    if given.seed is None:
        return _run_many(range(*given.seeds))
    return _replay(given.seed, given.steps, given.trace)


def _replay(seed: int, steps: int | None, trace: bool) -> int:
    outcome = simulate(seed, steps=steps)
    found = findings_in(outcome) if steps is None else []
    _print(outcome.scenario.describe())
    if trace:
        _print("\n".join(outcome.history.lines()))
    last = outcome.history.events[-1]
    ended = "stopped" if steps is not None else "quiet" if outcome.is_drained else "not quiet"
    _print(f"seed {seed}: {len(outcome.history.events)} events in {last.at:.0f} simulated seconds, {ended}")
    for finding in found:
        _print(f"{finding.invariant}: {finding.text}")
    return 1 if found else 0


def _run_many(seeds: range) -> int:
    failed = 0
    for outcome in outcomes(seeds):
        found = findings_in(outcome)
        failed += bool(found)
        for finding in found[:3]:
            _print(f"seed {finding.seed}, {finding.invariant}: {finding.text}\n    {replay_command(finding.seed)}")
    _print(f"{len(seeds)} seeds, {failed} of them with a violation")
    return 1 if failed else 0


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
