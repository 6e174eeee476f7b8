"""Percentiles from cells: as near to the true ones as the cells are wide."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from shared.monitoring.histogram import CELLS, percentile, upper_seconds


def cell_of(seconds: float) -> int:
    """As queue.activity finds it (0 is the first)."""
    return min(CELLS - 1, math.floor(2 * math.log2(max(seconds * 1000, 1))))


@given(
    st.lists(st.floats(0.001, 200_000), min_size=1, max_size=200),
    st.sampled_from([0.5, 0.95, 0.99, 1.0]),
)
def test_a_percentile_is_within_its_cell(seconds: list[float], share: float) -> None:
    counts = [0] * CELLS
    for one in seconds:
        counts[cell_of(one)] += 1
    true = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    found = percentile(counts, share)
    assert found is not None
    assert true / math.sqrt(2) * 0.999 <= found <= true * math.sqrt(2) * 1.001


def test_without_jobs_there_is_no_percentile() -> None:
    assert percentile(None, 0.5) is None
    assert percentile([0] * CELLS, 0.5) is None


def test_the_cells_reach_from_a_millisecond_to_three_days() -> None:
    assert upper_seconds(1) == 0.002
    assert 3 * 86_400 < upper_seconds(CELLS - 1) < 4 * 86_400
