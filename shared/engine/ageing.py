"""What a priority is worth after waiting, in a queue that ages."""

from __future__ import annotations

from datetime import datetime, timedelta

from shared.engine.errors import ControlError
from shared.engine.job import HIGHEST_PRIORITY

#: Finer steps would say nothing: a priority has ten.
SHORTEST_STEP = timedelta(seconds=1)


def aged(priority: int, since: datetime, every: timedelta | None, now: datetime) -> int:
    """One better for each `every` that has passed since the job was due, 1 at best; None: as it is."""
    if every is None or now <= since:
        return priority
    return max(HIGHEST_PRIORITY, priority - (now - since) // every)


def check_ageing(every: timedelta | None) -> None:
    """Raises ControlError."""
    if every is not None and every < SHORTEST_STEP:
        raise ControlError("ageing: it must be a second or longer; leave it out to age nothing")
