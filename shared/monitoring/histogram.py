"""Percentiles from kept counts: 56 cells that grow by the square root of two, from a millisecond to three days."""

from __future__ import annotations

from collections.abc import Sequence

CELLS = 56


def upper_seconds(cell: int) -> float:
    """Where the cell (0 is the first) ends."""
    return float(2 ** ((cell + 1) / 2)) / 1000


def percentile(counts: Sequence[int] | None, share: float) -> float | None:
    """The seconds that `share` (0 to 1) of the counted jobs did not exceed, within a fifth; None without any."""
    total = sum(counts or ())
    if not counts or total == 0:
        return None
    wanted, below = share * total, 0
    for cell, jobs in enumerate(counts):
        if jobs and below + jobs >= wanted:
            lower = upper_seconds(cell - 1) if cell else 0.0
            return lower + (upper_seconds(cell) - lower) * max(0.0, wanted - below) / jobs
        below += jobs
    raise AssertionError("the shares of all cells add up to the total")
