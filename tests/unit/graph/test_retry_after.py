"""Retry-After, as Graph and its front ends really send it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.graph.retry_after import LONGEST, retry_after

NOW = datetime(2026, 10, 21, 7, 0, tzinfo=UTC)
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "10"}, 10),
        ({"retry-after": "10"}, 10),
        ({"RETRY-AFTER": " 10 "}, 10),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "0.503"}, 1),
        ({"Retry-After": "1.5"}, 2),
        ({"Retry-After": DATE}, 28 * 60),
        ({"Retry-After": "Wed, 21 Oct 2026 06:00:00 GMT"}, 0),
        ({"Retry-After": DATE, "Date": "Wed, 21 Oct 2026 07:27:50 GMT"}, 10),
        ({"Retry-After": "Wed, 21 Oct 2126 07:28:00 GMT"}, LONGEST.total_seconds()),
        ({"Retry-After": "1e12"}, LONGEST.total_seconds()),
        ({"Retry-After": "inf"}, LONGEST.total_seconds()),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_seconds_fractions_dates_and_nonsense(headers: dict[str, str], seconds: float | None) -> None:
    found = retry_after(headers, NOW)
    assert (None if found is None else found.total_seconds()) == seconds
