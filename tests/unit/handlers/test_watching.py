"""What a watched resource needs next: every combination has one answer, and time is always left to try again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.graph.subscriptions import LIFETIMES
from shared.handlers.watching import (
    RENEWAL_PAUSE,
    Held,
    Step,
    Wanted,
    Watch,
    expiry,
    look_at,
    next_step,
    renew_at,
    retry_at,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WANTED = Wanted(
    "https://a/api", "https://a/api/n", "https://a/api/l", lambda: "state", "new", frozenset({"new", "old"})
)
HELD = Held(
    id="s1",
    resource="chats/c/messages",
    change_type="updated,created",
    notification_url=WANTED.notification_url,
    expires_at=NOW + timedelta(days=3),
    lifecycle_url=WANTED.lifecycle_url,
    state_id="new",
    renewed_at=NOW,
)


class Certificate:
    id = "certificate"
    base64 = "AAAA"


def watch(held: Held | None = HELD, **more: Any) -> Watch:
    fields: dict[str, Any] = {
        "id": UUID(int=1),
        "resource": "chats/c/messages",
        "kind": "chat",
        "change_types": "created,updated",
        "include_resource_data": False,
        "is_ended": False,
        "tries": 0,
        "renew_asked_at": None,
        "now": NOW,
        "held": held,
    }
    return Watch(**fields | more)


@pytest.mark.parametrize(
    ("given_watch", "wanted", "step"),
    [
        (watch(None, is_ended=True), WANTED, Step.FORGET),
        (watch(is_ended=True), WANTED, Step.DELETE),
        (watch(None), WANTED, Step.CREATE),
        (watch(now=HELD.expires_at), WANTED, Step.CREATE),
        (watch(), WANTED, Step.WAIT),
        (watch(change_types="created"), WANTED, Step.REPLACE),
        (watch(include_resource_data=True), WANTED, Step.REPLACE),
        (watch(), replace(WANTED, notification_url="https://b/n"), Step.REPLACE),
        (watch(), replace(WANTED, lifecycle_url="https://b/l"), Step.REPLACE),
        (watch(replace(HELD, lifecycle_url=None)), WANTED, Step.REPLACE),
        (watch(replace(HELD, state_id=None)), WANTED, Step.REPLACE),
        (watch(replace(HELD, state_id="forgotten")), WANTED, Step.REPLACE),
        (watch(replace(HELD, state_id="old")), WANTED, Step.WAIT),
        (watch(replace(HELD, state_id="old"), now=NOW + timedelta(days=2)), WANTED, Step.REPLACE),
        (watch(now=NOW + timedelta(days=2)), WANTED, Step.RENEW),
        (watch(now=NOW + timedelta(days=1)), WANTED, Step.WAIT),
        (watch(renew_asked_at=NOW + timedelta(seconds=1), now=NOW + timedelta(minutes=9)), WANTED, Step.WAIT),
        (watch(renew_asked_at=NOW + timedelta(seconds=1), now=NOW + timedelta(minutes=10)), WANTED, Step.RENEW),
        (watch(renew_asked_at=NOW - timedelta(hours=1), now=NOW + timedelta(hours=1)), WANTED, Step.WAIT),
        (
            watch(replace(HELD, include_resource_data=True, certificate_id="before"), include_resource_data=True),
            replace(WANTED, certificate=Certificate()),
            Step.RENEW,
        ),
        (
            watch(replace(HELD, include_resource_data=True, certificate_id="certificate"), include_resource_data=True),
            replace(WANTED, certificate=Certificate()),
            Step.WAIT,
        ),
    ],
)
def test_the_next_step(given_watch: Watch, wanted: Wanted, step: Step) -> None:
    assert next_step(given_watch, wanted) is step


@given(st.uuids(), st.sampled_from(sorted(LIFETIMES)), st.booleans())
def test_renewal_begins_in_the_second_half_and_leaves_a_third(watch_id: UUID, kind: str, has_data: bool) -> None:
    one = watch(None, id=watch_id, kind=kind, include_resource_data=has_data)
    ends = expiry(one)
    assert ends - NOW < LIFETIMES[kind][has_data]
    begins = renew_at(watch_id, replace(HELD, expires_at=ends, renewed_at=NOW))
    assert (ends - NOW) / 2 <= begins - NOW
    assert ends - begins >= (ends - NOW) / 3 - timedelta(seconds=1)


def test_a_thousand_renewals_are_spread_evenly() -> None:
    ends = NOW + timedelta(hours=72)
    held = replace(HELD, expires_at=ends)
    hours = [int((renew_at(uuid4(), held) - NOW) / timedelta(hours=1)) for _ in range(5000)]
    assert set(hours) == set(range(36, 48))
    assert max(hours.count(hour) for hour in set(hours)) < 5000 / 12 * 1.25


@given(st.integers(0, 1000), st.booleans(), st.timedeltas(timedelta(minutes=30), timedelta(days=30)))
def test_a_failure_is_tried_again_soon_enough_to_matter(tries: int, refused: bool, left: timedelta) -> None:
    one = watch(replace(HELD, expires_at=NOW + left), tries=tries)
    pause = retry_at(one, refused=refused) - NOW
    assert timedelta(minutes=1) <= pause <= max(left / 4 * 1.25, timedelta(minutes=1) * 1.25)
    assert pause <= timedelta(hours=6) * 1.25


def test_pauses_grow_to_their_longest_and_refusals_are_rarer() -> None:
    def pauses(refused: bool) -> list[float]:
        ends = [retry_at(watch(None, tries=tries), refused=refused) - NOW for tries in range(7)]
        return [round(end / ends[0], 2) for end in ends]

    assert pauses(False) == [1, 2, 4, 8, 16, 30, 30]
    assert pauses(True) == [1, 2, 4, 8, 16, 24, 24]
    assert retry_at(watch(None), refused=True) - NOW >= timedelta(minutes=15)


def test_a_row_is_looked_at_again_for_what_graph_asked() -> None:
    asked = watch(renew_asked_at=NOW + timedelta(seconds=1))
    assert look_at(asked, HELD) == NOW + RENEWAL_PAUSE
    assert look_at(watch(), HELD) == renew_at(UUID(int=1), HELD)
