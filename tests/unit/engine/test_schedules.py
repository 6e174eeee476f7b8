"""Which slots a pass runs, as a function of what was missed. No clock, no database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engine.cron import Cron
from shared.engine.schedules import ON_TIME, SLOTS_A_PASS, CatchUp, due_slots, slot_key, slots_a_pass

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")
EVERY_FIVE = Cron("*/5 * * * *", UTC_ZONE)
EVERY_MINUTE = Cron("* * * * *", UTC_ZONE)


def at(clock: str) -> datetime:
    return datetime.combine(NOON.date(), datetime.strptime(clock, "%H:%M").time(), UTC)


@pytest.mark.parametrize("catch_up", CatchUp)
def test_nothing_is_due_before_its_time(catch_up: CatchUp) -> None:
    assert due_slots(EVERY_FIVE, at("12:05"), at("12:04"), catch_up) == ([], at("12:05"))


@pytest.mark.parametrize("catch_up", CatchUp)
def test_what_is_on_time_runs_under_every_policy(catch_up: CatchUp) -> None:
    assert due_slots(EVERY_FIVE, at("12:00"), at("12:00"), catch_up) == ([at("12:00")], at("12:05"))
    now = at("12:04") + timedelta(seconds=59)
    assert due_slots(EVERY_FIVE, at("12:00"), now, catch_up) == ([at("12:00")], at("12:05"))
    two = [at("12:01"), at("12:02")]
    assert due_slots(EVERY_MINUTE, at("12:01"), at("12:02"), catch_up) == (two, at("12:03"))


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [(CatchUp.SKIP, ["12:00"]), (CatchUp.ONCE, ["12:00"]), (CatchUp.ALL, ["11:45", "11:50", "11:55", "12:00"])],
)
def test_after_an_outage_with_a_slot_on_time(catch_up: CatchUp, expected: list[str]) -> None:
    slots, next_run_at = due_slots(EVERY_FIVE, at("11:45"), at("12:01"), catch_up)
    assert (slots, next_run_at) == ([at(slot) for slot in expected], at("12:05"))


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [(CatchUp.SKIP, []), (CatchUp.ONCE, ["11:30"]), (CatchUp.ALL, ["10:30", "11:00", "11:30"])],
)
def test_after_an_outage_with_no_slot_on_time(catch_up: CatchUp, expected: list[str]) -> None:
    plan = Cron("0,30 * * * *", UTC_ZONE)
    slots, next_run_at = due_slots(plan, at("10:30"), at("11:50"), catch_up)
    assert (slots, next_run_at) == ([at(slot) for slot in expected], at("12:00"))


def test_all_is_bounded_and_goes_on_where_it_stopped() -> None:
    first, now, found = NOON - timedelta(minutes=2499), NOON, []
    for expected in (SLOTS_A_PASS, SLOTS_A_PASS, 500, 0):
        slots, first = due_slots(EVERY_MINUTE, first, now, CatchUp.ALL)
        assert len(slots) == expected
        found += slots
    assert found == [NOON - timedelta(minutes=n) for n in range(2499, -1, -1)] and first == NOON + timedelta(minutes=1)


@pytest.mark.parametrize("catch_up", [CatchUp.SKIP, CatchUp.ONCE])
def test_years_of_missed_minutes_cost_no_walk_through_them(catch_up: CatchUp, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    original = Cron.next_after

    def counted(plan: Cron, instant: datetime) -> datetime:
        nonlocal asked
        asked += 1
        return original(plan, instant)

    monkeypatch.setattr(Cron, "next_after", counted)
    for plan in (EVERY_MINUTE, EVERY_FIVE, Cron("0 0 1 1 *", UTC_ZONE), Cron("*/6 * * * *", UTC_ZONE)):
        due_slots(plan, NOON - timedelta(days=9000), NOON + timedelta(seconds=359), catch_up)
    assert asked < 300


@settings(max_examples=120)
@given(
    expression=st.sampled_from(["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "0 9 * * MON", "0 0 29 2 *"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
    late=st.timedeltas(timedelta(), timedelta(days=3)),
    catch_up=st.sampled_from(CatchUp),
)
def test_every_policy_takes_of_the_due_slots_and_goes_on_in_the_future(
    expression: str, zone: str, start: datetime, late: timedelta, catch_up: CatchUp
) -> None:
    plan = Cron(expression, ZoneInfo(zone))
    first = plan.next_after(start)
    now = first + late
    due, next_run_at = due_slots(plan, first, now, CatchUp.ALL, 100_000)
    assert due[0] == first and due == sorted(set(due)) and due[-1] <= now < next_run_at == plan.next_after(now)
    on_time = [slot for slot in due if slot > now - ON_TIME or (slot == first and slot == now - ON_TIME)]
    expected = {CatchUp.ALL: due, CatchUp.SKIP: on_time, CatchUp.ONCE: on_time or due[-1:]}[catch_up]
    assert due_slots(plan, first, now, catch_up, 100_000) == (expected, next_run_at)


def test_large_payloads_make_a_pass_shorter() -> None:
    assert slots_a_pass({"n": 1}) == SLOTS_A_PASS
    assert slots_a_pass({"text": "x" * 1024 * 1024}) == 15
    assert slots_a_pass({"text": "x" * 20 * 1024 * 1024}) == 1


def test_the_key_of_a_slot_names_it_in_utc() -> None:
    berlin = datetime(2026, 3, 29, 3, tzinfo=ZoneInfo("Europe/Berlin"))
    assert slot_key("daily report", berlin) == "schedule:daily report:2026-03-29T01:00:00Z"
