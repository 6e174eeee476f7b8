"""Times as a person types them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from local.q.errors import usage

_AGO = re.compile(r"(\d{1,6})\s*(s|min|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
HOW = "2h (ago), 30min, 1d, 14:30 (today, here), or 2026-12-01T08:00:00Z"


def read_time(option: str, text: str | None) -> str | None:
    """As the API takes it. What has no time zone is meant in this machine's. Raises CommandError."""
    if text is None:
        return None
    text = text.strip()
    try:
        if (ago := _AGO.fullmatch(text)) is not None:
            return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
        if (clock := _CLOCK.fullmatch(text)) is not None:
            today = datetime.now().astimezone()
            return today.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0).isoformat()
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise usage(f"{option} {text}: it is no time; write {HOW}") from None
    except OverflowError:
        raise usage(f"{option} {text}: it is too far away") from None
