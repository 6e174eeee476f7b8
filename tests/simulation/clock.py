"""The two clocks that the engine reads: the database's time of day, and each process's monotonic one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.simulation.loop import Loop

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


class DatabaseClock:
    """Follows the simulated time, and may jump ahead of it (never back: PostgreSQL's servers slew)."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ahead = 0.0

    def __call__(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._loop.now + self._ahead

    def jump(self, seconds: float) -> None:
        self._ahead += seconds

    def loop_time(self, moment: datetime) -> float:
        """When the loop's time will be that of a moment of this clock."""
        return (moment - START).total_seconds() - self._ahead
