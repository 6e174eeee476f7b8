"""Slots at the edges where clocks are put forward and back, and expressions that are none."""

from __future__ import annotations

import time
from calendar import monthrange
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engine.cron import Cron, CronError, ZoneError, explain, parse_cron, parse_zone

MINUTE = timedelta(minutes=1)
YEARS = (2026, 2027, 2028)
#: The local day of a change, and the next: clocks forward, then back.
CHANGES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"),
    "Africa/Cairo": ("2026-04-24", "2026-10-29"),
    "Asia/Kolkata": ("2026-03-29", "2026-10-25"),
    "UTC": ("2026-03-29", "2026-10-25"),
}


def cron(expression: str, zone: str = "UTC") -> Cron:
    return parse_cron(expression, parse_zone(zone))


def slots(plan: Cron, start: datetime, end: datetime) -> list[datetime]:
    """All slots in (start, end]."""
    found = []
    slot = plan.next_after(start)
    while slot <= end:
        found.append(slot)
        slot = plan.next_after(slot)
    return found


def shown(plan: Cron, day: str) -> str:
    """The slots of a local day, as the clock shows them; + marks those at a doubled reading's second time."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=plan.zone)
    end = (midnight + timedelta(days=1)).astimezone(UTC)
    found = slots(plan, midnight.astimezone(UTC) - timedelta(microseconds=1), end - timedelta(seconds=1))
    local = [slot.astimezone(plan.zone) for slot in found]
    return " ".join(f"{slot:%H:%M}" + "+" * slot.fold for slot in local)


@pytest.mark.parametrize(
    ("expression", "zone", "forward", "back"),
    [
        # fixed: a skipped reading runs at the first instant after the gap, a doubled one once
        ("30 2 * * *", "Europe/Berlin", "03:00", "02:30"),
        ("0 2 * * *", "Europe/Berlin", "03:00", "02:00"),
        ("0 3 * * *", "Europe/Berlin", "03:00", "03:00"),
        ("0,30 2,3 * * *", "Europe/Berlin", "03:00 03:30", "02:00 02:30 03:00 03:30"),
        ("30 2 * * *", "America/New_York", "03:00", "02:30"),
        ("30 1 * * *", "America/New_York", "01:30", "01:30"),
        ("15 2 * * *", "Australia/Lord_Howe", "02:30", "02:15"),
        ("45 1 * * *", "Australia/Lord_Howe", "01:45", "01:45"),
        ("0 0 * * *", "Africa/Cairo", "01:00", "00:00"),
        ("30 2 * * *", "Asia/Kolkata", "02:30", "02:30"),
        ("30 2 * * *", "UTC", "02:30", "02:30"),
        # repeating: by real time
        ("30 * * * *", "Europe/Berlin", "00:30 01:30 03:30 04:30", "00:30 01:30 02:30 02:30+ 03:30 04:30"),
        ("30 0-23 * * *", "Europe/Berlin", "00:30 01:30 03:30 04:30", "00:30 01:30 02:30 02:30+ 03:30 04:30"),
        ("0 */2 * * *", "Europe/Berlin", "00:00 03:00 04:00", "00:00 02:00 02:00+ 04:00"),
        ("*/30 2 * * *", "Europe/Berlin", "03:00", "02:00 02:30 02:00+ 02:30+"),
        ("30 * * * *", "America/New_York", "00:30 01:30 03:30 04:30", "00:30 01:30 01:30+ 02:30 03:30 04:30"),
        ("*/30 1-2 * * *", "Australia/Lord_Howe", "01:00 01:30 02:30", "01:00 01:30 01:30+ 02:00 02:30"),
        ("15 * * * *", "Australia/Lord_Howe", "00:15 01:15 02:30 03:15 04:15", "00:15 01:15 02:15 03:15 04:15"),
        (
            "45 */1 * * *",
            "Australia/Lord_Howe",
            "00:45 01:45 02:45 03:45 04:45",
            "00:45 01:45 01:45+ 02:45 03:45 04:45",
        ),
        ("0 */2 * * *", "Asia/Kolkata", "00:00 02:00 04:00", "00:00 02:00 04:00"),
        ("0 */2 * * *", "UTC", "00:00 02:00 04:00", "00:00 02:00 04:00"),
    ],
)
def test_slots_on_the_days_when_clocks_change(expression: str, zone: str, forward: str, back: str) -> None:
    plan = cron(expression, zone)
    until_five = [" ".join(one for one in shown(plan, day).split() if one < "05:00") for day in CHANGES[zone]]
    assert until_five == [forward, back]


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("reading", ["0 0", "30 1", "15 2", "30 2", "0 3", "59 23"])
def test_a_daily_slot_comes_once_on_every_local_day_of_years(zone: str, reading: str) -> None:
    plan = cron(f"{reading} * * *", zone)
    start = datetime(2023, 12, 31, 12, tzinfo=plan.zone)
    found = slots(plan, start, datetime(2028, 12, 31, 12, tzinfo=plan.zone))
    days = Counter(slot.astimezone(plan.zone).date() for slot in found)
    assert set(days.values()) == {1} and 5 * 365 + 1 <= len(days) <= 5 * 365 + 3


@pytest.mark.parametrize("zone", CHANGES)
def test_an_hourly_slot_comes_every_hour_of_real_time_where_clocks_change_by_hours(zone: str) -> None:
    found = slots(cron("20 * * * *", zone), datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    apart = {after - before for before, after in pairwise(found)}
    if zone == "Australia/Lord_Howe":
        assert max(apart) <= timedelta(minutes=90) and len(found) >= 8760
    else:
        assert apart == {timedelta(hours=1)} and len(found) == 8760


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 29 * *", [(year, month, 29) for year in YEARS for month in range(1, 13) if (year, month) != (2026, 2)
                        and (year, month) != (2027, 2)]),
        ("0 0 30 * *", [(year, month, 30) for year in YEARS for month in range(1, 13) if month != 2]),
        ("0 0 31 * *", [(year, month, 31) for year in YEARS for month in (1, 3, 5, 7, 8, 10, 12)]),
        ("0 0 L * *", [(year, month, monthrange(year, month)[1]) for year in YEARS for month in range(1, 13)]),
        ("0 0 29 2 *", [(2028, 2, 29)]),
        ("0 0 L 2 *", [(2026, 2, 28), (2027, 2, 28), (2028, 2, 29)]),
    ],
)  # fmt: skip
def test_days_at_the_end_of_months_are_kept_to_and_a_month_without_one_is_passed_over(
    expression: str, days: list[tuple[int, int, int]]
) -> None:
    """Nothing runs on another day instead; `L` is the last day, whichever that is."""
    found = slots(cron(expression), datetime(2025, 12, 31, 12, tzinfo=UTC), datetime(2028, 12, 31, 12, tzinfo=UTC))
    assert [(slot.year, slot.month, slot.day) for slot in found] == days


FIELDS = {
    "minute": st.sampled_from(["0", "30", "15,45", "*/20", "*", "59", "*/7"]),
    "hour": st.sampled_from(["*", "*/2", "*/3", "0", "1", "2", "3", "1-2", "0,23", "0-23"]),
}


@settings(max_examples=150)
@given(
    minute=FIELDS["minute"],
    hour=FIELDS["hour"],
    change=st.sampled_from([(zone, day) for zone, days in CHANGES.items() for day in days]),
    back=st.integers(0, 2000),
)
def test_slots_are_those_that_a_clock_watched_minute_by_minute_shows(
    minute: str, hour: str, change: tuple[str, str], back: int
) -> None:
    zone = ZoneInfo(change[0])
    end = (datetime.fromisoformat(change[1]).replace(tzinfo=zone) + timedelta(days=1)).astimezone(UTC)
    start = end - back * MINUTE
    plan = cron(f"{minute} {hour} * * *", change[0])
    assert slots(plan, start, end) == [slot for slot in watched(minute, hour, zone, end) if start < slot <= end]


def watched(minute: str, hour: str, zone: ZoneInfo, end: datetime) -> list[datetime]:
    """The rule again, in another way: walk the two days before `end` by the minute and look at the clock."""
    minutes, hours = numbers(minute, 60), numbers(hour, 24)
    repeats = "*" in minute + hour or hour == "0-23"

    def matches(reading: datetime) -> bool:
        return reading.minute in minutes and reading.hour in hours

    found, seen = [], set()
    at = end - timedelta(days=2)
    last = at.astimezone(zone).replace(tzinfo=None, fold=0)
    while at < end:
        at += MINUTE
        reading = at.astimezone(zone).replace(tzinfo=None, fold=0)
        skipped = [last + n * MINUTE for n in range(1, (reading - last) // MINUTE)]
        forward = len(skipped) * MINUTE
        lost = any(matches(one) and not (repeats and matches(one + forward)) for one in skipped)
        if lost or (matches(reading) and (repeats or reading not in seen)):
            found.append(at)
        seen.add(reading)
        last = reading
    return found


def numbers(field: str, size: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = ("0", "", str(size - 1)) if span == "*" else span.partition("-")
        found.update(range(int(low), int(high or low) + 1, int(step or 1)))
    return found


@settings(max_examples=300)
@given(
    expression=st.builds(
        " ".join,
        st.tuples(
            FIELDS["minute"],
            FIELDS["hour"],
            st.sampled_from(["*", "1", "L", "LW", "31", "29", "*/5"]),
            st.sampled_from(["*", "2", "MAR,OCT", "*/4"]),
            st.sampled_from(["*", "SUN", "7", "FRI#3", "MON-FRI", "5L"]),
        ),
    ),
    zone=st.sampled_from(sorted(CHANGES)),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_slots_rise_and_do_not_depend_on_where_one_starts(expression: str, zone: str, start: datetime) -> None:
    try:
        plan = cron(expression, zone)
        first = plan.next_after(start)
    except CronError:
        return  # 31 February
    second = plan.next_after(first)
    assert start < first < second
    assert first.tzinfo is UTC and first.second == 0 and first.microsecond == 0
    assert plan.next_after(first - timedelta(microseconds=1)) == first
    assert plan.next_after(start + (first - start) / 2) == first
    assert plan.next_after(first + (second - first) / 2) == second


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "it has 0 fields"),
        ("* * * *", "it has 4 fields"),
        ("0 */5 * * * *", "it has 6 fields"),
        ("@daily", "it has 1 fields"),
        ("61 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * 8", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("30-10 * * * *", "bad minute"),
        ("0 0 30 2 *", "none that the months given have"),
        ("0 0 31 4,6,9,11 *", "none that the months given have"),
        (f"{'1,' * 100}1 * * * *", "up to 200 characters"),
        (None, "it must be a text"),
        (5, "it must be a text"),
    ],
)
def test_an_expression_that_is_none_is_refused_with_what_to_do(expression: object, message: str) -> None:
    with pytest.raises(CronError, match=message) as raised:
        parse_cron(expression, ZoneInfo("UTC"))
    assert "minute, hour, day of month, month and day of week" in str(raised.value)


def test_an_expression_without_a_next_date_is_refused_when_it_is_asked_for_one() -> None:
    with pytest.raises(CronError, match="in the next fifty years"):
        cron("0 0 */31 * 6#5").next_after(datetime(2026, 1, 1, tzinfo=UTC))  # the first is no fifth Saturday


@settings(max_examples=500)
@given(st.lists(st.text("0123456789*/-,L#WMONFRIJA?", min_size=1, max_size=6), min_size=5, max_size=5))
def test_whatever_is_written_is_an_expression_or_refused(fields: list[str]) -> None:
    try:
        plan = parse_cron(" ".join(fields), ZoneInfo("Europe/Berlin"))
        assert plan.next_after(datetime(2026, 1, 1, tzinfo=UTC)) > datetime(2026, 1, 1, tzinfo=UTC)
    except CronError:
        return
    assert explain(plan)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Europe",
        "../Europe/Berlin",
        "/etc/localtime",
        "zone.tab",
        "Mars/Phobos",
        "a\0b",
        "x" * 500,
        "localtime",
        None,
        2,
    ],
)
def test_a_zone_that_is_none_is_refused(name: object) -> None:
    with pytest.raises(ZoneError, match="there is no such time zone"):
        parse_zone(name)


def test_a_mistyped_zone_is_told_a_similar_one() -> None:
    with pytest.raises(ZoneError, match="Europe/Berlin"):
        parse_zone("Europe/Berln")


def test_an_expression_is_explained() -> None:
    assert explain(cron("30 6 * * MON-FRI")) == "At 06:30 on Monday through Friday"


@pytest.mark.parametrize("zone_of_host", ["Asia/Kolkata", "Pacific/Auckland", "America/New_York", ":no/such/zone"])
def test_the_zone_of_the_host_changes_nothing(monkeypatch: pytest.MonkeyPatch, zone_of_host: str) -> None:
    start, end = datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)
    expected = slots(cron("30 2 * * *", "Europe/Berlin"), start, end)
    monkeypatch.setenv("TZ", zone_of_host)
    monkeypatch.setenv("WEBSITE_TIME_ZONE", zone_of_host)
    time.tzset()
    try:
        assert slots(cron("30 2 * * *", "Europe/Berlin"), start, end) == expected
        assert f"{expected[2].astimezone(ZoneInfo('Europe/Berlin')):%H:%M}" == "03:00"
    finally:
        monkeypatch.undo()
        time.tzset()
