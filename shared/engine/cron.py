"""When a schedule runs: a cron expression of five fields in an IANA time zone. Pure: no clock is read here.

What happens when clocks are put forward (readings are skipped) and back (readings come twice):

    fixed          neither minute nor hour has a `*`: a skipped reading runs at the first instant after the gap, a
                   doubled one at its first time only
    repeating      any other: runs by real time, so at both times of a doubled reading; a skipped one that does not
                   come up anyway when the time has passed (the 02:00 of `0 */2`) runs at the first instant after
                   the gap. So no gap makes a pause longer; a doubled hour does, inside a step of several hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

LONGEST_EXPRESSION = 200
HOW_TO_WRITE = 'write minute, hour, day of month, month and day of week, for example "30 6 * * MON-FRI"'
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


class CronError(ValueError):
    """The expression cannot be read, or has no next date. The text says what to do."""


class ZoneError(ValueError):
    """There is no such time zone. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A checked expression in its zone; make it with `parse_cron` and `parse_zone`."""

    expression: str
    zone: ZoneInfo

    def next_after(self, instant: datetime) -> datetime:
        """The first slot after an aware instant, in UTC. Raises CronError when there is none in fifty years."""
        return self._next_by_time(instant) if self._repeats else self._next_by_clock(instant)

    @property
    def _repeats(self) -> bool:
        minute, hour = self.expression.split()[:2]
        return "*" in minute or "*" in hour or hour == "0-23"

    def _next_by_clock(self, instant: datetime) -> datetime:
        reading = instant.astimezone(self.zone).replace(tzinfo=None, fold=0)
        while True:
            reading = self._next_reading(reading)
            slot = self._first_instant_of(reading)
            if slot > instant:  # not so while the clock shows a doubled hour for the second time
                return slot

    def _next_by_time(self, instant: datetime) -> datetime:
        start, reading = instant, instant.astimezone(self.zone).replace(tzinfo=None, fold=0)
        while True:
            before = self._offset(start)
            slot = (self._next_reading(reading) - before).replace(tzinfo=UTC)
            change = self._next_change(start, slot)
            if change is None or slot < change:
                return slot
            after = self._offset(change)
            if self._skips_a_run(change, before, after):
                return change
            start, reading = change, change.replace(tzinfo=None) + after - _SECOND

    def _skips_a_run(self, change: datetime, before: timedelta, after: timedelta) -> bool:
        """Whether putting the clock forward skips a reading that does not come up when its time has passed."""
        end = change.replace(tzinfo=None) + after
        reading = self._next_reading(change.replace(tzinfo=None) + before - _SECOND)
        while reading < end:
            shown = reading + after - before
            if self._next_reading(shown - _SECOND) != shown:
                return True
            reading = self._next_reading(reading)
        return False

    def _next_reading(self, reading: datetime) -> datetime:
        """The first matching reading of the wall clock after `reading`, whatever the zone."""
        from cronsim import CronSim

        try:
            found: datetime = next(CronSim(self.expression, reading))
        except (StopIteration, OverflowError):
            raise CronError("no date matches in the next fifty years; check day of month against month") from None
        return found

    def _first_instant_of(self, reading: datetime) -> datetime:
        first = reading.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if first.astimezone(self.zone).replace(tzinfo=None, fold=0) == reading:
            return first
        change = self._next_change(reading.replace(tzinfo=self.zone, fold=1).astimezone(UTC), first)
        return change or first

    def _next_change(self, start: datetime, end: datetime) -> datetime | None:
        """The first instant in (start, end] whose offset from UTC is not that of `start`; in whole seconds."""
        offset, low = self._offset(start), start.astimezone(UTC).replace(microsecond=0)
        while low < end:
            high = min(low + _DAY, end)
            if self._offset(high) != offset:
                while high - low > _SECOND:
                    middle = low + (high - low) // _SECOND // 2 * _SECOND
                    low, high = (middle, high) if self._offset(middle) == offset else (low, middle)
                return high
            low = high
        return None

    def _offset(self, instant: datetime) -> timedelta:
        return instant.astimezone(self.zone).utcoffset() or timedelta()


def parse_cron(expression: object, time_zone: ZoneInfo) -> Cron:
    """Check an expression. Raises CronError; that it has a next date shows only `next_after`."""
    from cronsim import CronSim, CronSimError

    if not isinstance(expression, str) or len(expression) > LONGEST_EXPRESSION:
        raise CronError(f"it must be a text of up to {LONGEST_EXPRESSION} characters: {HOW_TO_WRITE}")
    fields = expression.split()
    if len(fields) != 5:
        raise CronError(f"it has {len(fields)} fields and must have five: {HOW_TO_WRITE}")
    try:
        CronSim(expression, datetime(2000, 1, 1))  # noqa: DTZ001 - only parses
    except CronSimError as error:
        what = str(error).replace("Bad day-of-month", "bad day-of-month, or none that the months given have")
        raise CronError(f"{what[:1].lower()}{what[1:]}: {HOW_TO_WRITE}") from None
    return Cron(" ".join(fields), time_zone)


def explain(cron: Cron) -> str:
    """The expression in words, for people."""
    from cronsim import CronSim

    words: str = CronSim(cron.expression, datetime(2000, 1, 1)).explain()  # noqa: DTZ001 - only parses
    return words


def parse_zone(name: object) -> ZoneInfo:
    """The zone with this IANA name. Raises ZoneError naming similar ones."""
    if isinstance(name, str) and name != "localtime":  # which is the machine's, so another one elsewhere
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            similar = get_close_matches(name, available_timezones(), 3, 0.6)
            if similar:
                raise ZoneError(f"there is no such time zone; similar: {', '.join(similar)}") from None
    raise ZoneError('there is no such time zone; give an IANA name such as "Europe/Berlin", or "UTC"')
