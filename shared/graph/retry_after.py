"""Reads Retry-After as Graph and its front ends really send it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

#: A peer is believed this far; a wrong date must not park work for years.
LONGEST = timedelta(hours=6)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> timedelta | None:
    """How long the peer asks to wait, at least zero; None when it does not say (or says nonsense).

    Seconds may have a fraction (rounded up). A date counts from the answer's own Date where there is one, since
    the two clocks differ.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    value = lowered.get("retry-after", "").strip()
    if not value:
        return None
    seconds = _seconds(value)
    if seconds is None:
        until = _date(value)
        if until is None:
            return None
        seconds = (until - (_date(lowered.get("date", "")) or now or datetime.now(UTC))).total_seconds()
    return timedelta(seconds=math.ceil(min(max(seconds, 0), LONGEST.total_seconds())))


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return None if math.isnan(seconds) else seconds


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
