"""Requests to sync, and the recurring ones."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from shared.engine.cron import parse_cron
from shared.graph.delta import Change, DeltaPage
from shared.handlers.sync import KINDS, SyncRequest
from shared.handlers.sync_kinds import last_of_each
from shared.handlers.sync_schedules import RESOURCE_TYPES, keep_in_step, schedule_name, stop_keeping

TEAM = "bbbbbbbb-0000-4000-8000-000000000001"


class Schedules:
    """Keeps what is put."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, dict[str, Any], str]] = {}

    def put(self, name: str, queue: str, payload: dict[str, Any], cron: str) -> str:
        self.kept[name] = (queue, payload, cron)
        return name

    def delete(self, name: str) -> bool:
        return self.kept.pop(name, None) is not None


@pytest.mark.parametrize("kind", ["emails", "calendar", "contacts"])
def test_a_team_has_no_mailbox(kind: str) -> None:
    with pytest.raises(ValidationError, match=f"a team has no {kind} of its own: give userId"):
        SyncRequest.model_validate({"resourceType": kind, "teamId": TEAM})


def test_an_account_is_written_in_one_way() -> None:
    request = SyncRequest.model_validate({"resourceType": "emails", "userId": "Dispatch@Fleet.example"})
    assert request.account == "dispatch@fleet.example"
    assert SyncRequest.model_validate({"resourceType": "files", "teamId": TEAM}).account == f"team:{TEAM}"


def test_every_resource_type_has_a_kind() -> None:
    assert set(KINDS) == set(RESOURCE_TYPES)


def test_the_last_state_of_an_item_on_a_page_counts() -> None:
    changes = [Change("a", {"n": 1}), Change("b", {}), Change("a", {"n": 2}), Change("b", {}, removed=True)]
    assert last_of_each(DeltaPage(changes, None, "d")) == [changes[2], changes[3]]


def test_recurring_syncs_are_spread_and_can_be_ended() -> None:
    schedules: Any = Schedules()
    keep_in_step(schedules, user_id="dispatch@fleet.example", every_minutes=30)
    keep_in_step(schedules, team_id=TEAM)
    assert len(schedules.kept) == len(RESOURCE_TYPES) + 2
    queue, payload, cron = schedules.kept["sync emails dispatch@fleet.example"]
    assert (queue, payload) == ("sync", {"resourceType": "emails", "userId": "dispatch@fleet.example"})
    minutes = [int(minute) for minute in cron.split()[0].split(",")]
    assert len(minutes) == 2 and minutes[1] - minutes[0] == 30
    for _, payload, cron in schedules.kept.values():
        parse_cron(cron, ZoneInfo("UTC"))
        SyncRequest.model_validate(payload)
    assert len({cron for _, _, cron in schedules.kept.values()}) > 2
    assert stop_keeping(schedules, "Dispatch@fleet.example") == len(RESOURCE_TYPES)
    assert len(schedules.kept) == 2


@pytest.mark.parametrize("minutes", [0, -5, 7, 61, 120])
def test_an_interval_that_does_not_divide_an_hour_is_refused(minutes: int) -> None:
    with pytest.raises(ValueError, match="must divide 60"):
        keep_in_step(Schedules(), user_id="u", every_minutes=minutes)  # type: ignore[arg-type]


def test_a_name_fits_however_long_an_id_is() -> None:
    first, second = (schedule_name("emails", "u" * 300 + end) for end in ("1", "2"))
    assert len(first) <= 100 and first != second
