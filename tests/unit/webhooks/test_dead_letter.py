"""The dead-letter handler: one alert, one notice a way, and no loop."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.engine.context import Context
from shared.engine.job import Completed, Job
from shared.handlers.dead_letter import DeadLetterHandler, DeadLetterReference, notices
from shared.handlers.loading import parse_payload
from shared.handlers.operator_notices import NOTICE
from shared.handlers.services import DeadLetter, Operator

LETTER = DeadLetter(uuid4(), uuid4(), "teams-outbound", "validation", "Graph said 400")
EVERYONE = Operator("19:ops@thread.v2", "dispatch@fleet.example", "ops@fleet.example")


class FakeAlerts:
    def __init__(self, letter: DeadLetter | None, opened: bool = True) -> None:
        self.letter, self.opened = letter, opened
        self.raised: list[UUID] = []

    def dead_letter(self, dead_letter_id: UUID) -> DeadLetter | None:
        return self.letter if self.letter and self.letter.id == dead_letter_id else None

    def raise_alert(self, dead_letter: DeadLetter) -> bool:
        self.raised.append(dead_letter.id)
        return self.opened


class NoNames:
    def keep(self, letter: DeadLetter) -> None:
        assert letter == LETTER


def run(alerts: FakeAlerts, operator: Operator = EVERYONE, correlation_id: str | None = None) -> Completed | None:
    payload: Any = parse_payload("dead-letter", json.dumps({"deadLetterId": str(LETTER.id)}))
    assert isinstance(payload, DeadLetterReference)
    job = Job(uuid4(), "dead-letter", "{}", 1, 5, uuid4(), correlation_id)
    return DeadLetterHandler(alerts, NoNames(), operator)(job, payload, Context())


def test_a_new_alert_is_told_to_the_operator_on_every_way_that_is_set() -> None:
    done = run(FakeAlerts(LETTER))
    assert done is not None
    assert [job.queue for job in done.follow_ups] == ["teams-outbound", "outlook-outbound"]
    for job in done.follow_ups:
        parse_payload(job.queue, json.dumps(job.payload))
        text = job.payload.get("content") or job.payload["body"]
        for word in ("teams-outbound", "validation", "Graph said 400", str(LETTER.job_id), "redrive"):
            assert word in text


@pytest.mark.parametrize("operator", [Operator(), Operator(mail_from="a@b.example"), Operator(mail_to="a@b.example")])
def test_without_an_operator_nobody_is_told(operator: Operator) -> None:
    assert notices(LETTER, operator) == []


def test_more_dead_letters_of_an_open_alert_are_counted_and_not_told() -> None:
    alerts = FakeAlerts(LETTER, opened=False)
    assert run(alerts) is None
    assert alerts.raised == [LETTER.id]


def test_a_notice_that_died_itself_raises_the_alert_and_makes_no_notice() -> None:
    alerts = FakeAlerts(LETTER)
    assert run(alerts, correlation_id=f"{NOTICE}:{uuid4()}") is None
    assert alerts.raised == [LETTER.id]


def test_running_again_asks_for_the_same_notices() -> None:
    first, second = run(FakeAlerts(LETTER)), run(FakeAlerts(LETTER))
    assert first is not None
    assert first == second
    assert all(job.idempotency_key for job in first.follow_ups)


def test_notices_carry_the_mark_that_stops_the_loop() -> None:
    assert all((job.correlation_id or "").startswith(NOTICE) for job in notices(LETTER, EVERYONE))


def test_a_dead_letter_that_is_no_longer_kept_ends_well() -> None:
    alerts = FakeAlerts(None)
    assert run(alerts) is None
    assert alerts.raised == []


def test_a_notice_links_to_the_dead_letter_itself() -> None:
    told = notices(LETTER, replace(EVERYONE, dashboard="https://fleet.example/d", endpoint="ops"))
    link = f"https://fleet.example/d#/dead-letters/{LETTER.id}"
    assert [job.queue for job in told] == ["teams-outbound", "outlook-outbound", "notifications"]
    assert link in told[0].payload["content"] and link in told[1].payload["body"]
    webhook = told[2].payload
    parse_payload("notifications", json.dumps(webhook))
    assert (webhook["url"], webhook["type"], webhook["data"]["jobId"]) == (
        link,
        "dead-letter.raised",
        str(LETTER.job_id),
    )
    assert f"./dev q show {LETTER.id}" in notices(LETTER, replace(EVERYONE, dashboard=None))[0].payload["content"]


def test_a_message_that_was_no_job_is_told_too() -> None:
    letter = DeadLetter(uuid4(), None, "webhooks", "validation", "not JSON")
    job = notices(letter, EVERYONE)[0]
    assert "None" not in job.payload["content"]
    assert str(letter.id) in job.payload["content"]
