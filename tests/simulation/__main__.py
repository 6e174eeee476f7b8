"""Replays one seed: `./dev python -m tests.simulation --seed 7`. Ends with 1 when an invariant is broken."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.invariants import check
from tests.simulation.world import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.simulation", description="Replay one simulated history.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--trace", action="store_true", help="print every event, not the last 40 only")
    asked = parser.parse_args()
    outcome = simulate(asked.seed)
    broken = [f"{one.invariant}: {one.text}" for one in check(outcome)]
    lines = outcome.history.lines(None if asked.trace else 40)
    verdict = broken or [f"seed {asked.seed}: {len(outcome.history.events)} events, every invariant holds"]
    sys.stdout.write("\n".join([*lines, *verdict, *([outcome.failure] if outcome.failure else [])]) + "\n")
    return 1 if broken or outcome.failure else 0


if __name__ == "__main__":
    sys.exit(main())
