"""What others put into the storage queues, and into the poison queues: run, adopted, or kept with the reason."""

from __future__ import annotations

import base64
import json
import re
from functools import partial

import pytest

from shared.handlers.registry import QUEUES
from tests.acceptance.system import System, closed_queues, wait_for

OPEN_ALERTS = "select count(*) from queue.queue_alerts where alert_key = %s and resolved_at is null"


def letter_count(system: System, queue: str) -> int:
    return len(system.dead_letters(queue))


def test_what_cannot_be_read_is_kept_with_an_alert_in_every_queue(system: System) -> None:
    texts = {
        queue: f"<{number}> not JSON in {queue} ({system.tag})"
        for number, queue in enumerate(name for spec in QUEUES.values() for name in (spec.name, spec.poison))
    }
    for queue, text in texts.items():
        system.put(queue, text)
    for spec in QUEUES.values():
        wait_for(partial(letter_count, system, spec.name), 2)
        letters = system.dead_letters(spec.name)
        assert {body for body, _, _ in letters} == {texts[spec.name], texts[spec.poison]}
        assert {kind for _, kind, _ in letters} == {"validation"}
        assert all("neither a JSON object nor base64 of one" in reason for _, _, reason in letters)
        wait_for(partial(system.count, OPEN_ALERTS, f"dead-letter:{spec.name}:validation"), 1)
    for queue in texts:
        wait_for(partial(system.storage.visible, queue, 1), 0)


def test_a_foreign_producers_job_runs_once_plain_or_in_base64(system: System) -> None:
    plain = json.dumps({"payload": system.message("plain"), "priority": 2, "correlationId": system.tag})
    coded = base64.b64encode(json.dumps({"payload": system.message("in base64 – ü")}).encode()).decode()
    for body in (plain, coded):
        system.put("teams-outbound", body)
    wait_for(lambda: sorted(system.texts()), ["in base64 – ü", "plain"])
    [(priority, key)] = system.sql(
        "select priority, idempotency_key from queue.jobs where correlation_id = %s and queue = 'teams-outbound'",
        system.tag,
    )
    assert priority == 2 and re.fullmatch(r"message:[\w-]+", key)


def test_a_message_that_was_put_twice_with_a_key_is_one_job(system: System) -> None:
    body = {"payload": system.message("once"), "idempotencyKey": system.tag}
    for _ in range(2):
        system.put("teams-outbound", body)
    system.send("after it")
    adopted = "select count(*) from queue.idempotency where key = %s"
    wait_for(lambda: system.count(adopted, system.tag), 1)
    wait_for(lambda: (system.storage.visible("teams-outbound", 1), system.unfinished()), (0, 0))
    assert sorted(system.texts()) == ["after it", "once"]


def test_a_message_whose_job_does_not_validate_is_kept_with_the_fields(system: System) -> None:
    system.put("teams-outbound", {"payload": system.message(f"({system.tag})", chatID="x"), "priority": 3})
    system.put("teams-outbound", {"payload": system.message(f"({system.tag})"), "urgent": True})
    wait_for(lambda: len(system.dead_letters("teams-outbound")), 2)
    reasons = "\n".join(reason for _, _, reason in system.dead_letters("teams-outbound"))
    assert "chatID" in reasons and "urgent: this field is not known" in reasons
    assert system.texts() == []


@pytest.mark.parametrize("queue", closed_queues())
def test_a_closed_queue_says_why(system: System, queue: str) -> None:
    system.put(queue, {"payload": {"about": f"({system.tag})"}})
    answer = system.ask(queue, {"payload": {}})
    assert answer.status_code == 409
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json()
    assert problem["status"] == 409 and QUEUES[queue].closed in problem["detail"]
    wait_for(lambda: len(system.dead_letters(queue)), 1)
    [(body, kind, reason)] = system.dead_letters(queue)
    assert body is not None and f"({system.tag})" in body
    assert kind == "validation" and QUEUES[queue].closed in reason


def test_a_job_from_a_poison_queue_is_a_dead_job_that_can_be_redriven(system: System) -> None:
    payload = system.message(f"given up by the host ({system.tag})")
    system.put("teams-outbound-poison", {"payload": payload, "correlationId": f"({system.tag})"})
    wait_for(lambda: len(system.dead_letters("teams-outbound")), 1)
    [(body, kind, reason)] = system.dead_letters("teams-outbound")
    assert (body, kind) == (None, "worker-lost") and "the host gave the message up" in reason
    known = "select id, state from queue.jobs where queue = 'teams-outbound' and correlation_id = %s"
    [(job, state)] = system.sql(known, f"({system.tag})")
    assert state == "dead" and system.texts() == []
    system.sql("select queue.redrive(%s, 'a test')", job)
    system.put("teams-outbound", {"wake": "teams-outbound", "jobs": 1})
    wait_for(system.texts, [payload["content"]])


def test_a_wake_up_from_a_poison_queue_is_sent_again(system: System) -> None:
    system.sql("update queue.queue_settings set paused = true where queue = 'teams-outbound'")
    wait_for(lambda: system.storage.visible("teams-outbound", 1), 0)
    job = system.send("its wake-up was given up")
    wait_for(lambda: system.storage.visible("teams-outbound", 1), 0)
    system.put("teams-outbound-poison", {"wake": "teams-outbound", "jobs": 1})
    wait_for(lambda: system.storage.count("teams-outbound-poison"), 0)
    assert system.storage.count("teams-outbound") >= 1, "it is not visible for half a minute"
    told = [line["queue"] for line in system.log_lines() if line["event"] == "wake_up.sent_again"]
    assert told[-1:] == ["teams-outbound"]
    assert system.state(job) == "ready"
    system.sql("update queue.queue_settings set paused = false where queue = 'teams-outbound'")
    wait_for(system.texts, ["its wake-up was given up"])


def test_notifications_from_a_poison_queue_are_recorded(system: System) -> None:
    item = {
        "subscriptionId": system.tag,
        "changeType": "created",
        "resource": f"users/nobody/events/{system.tag}",
        "tenantId": "11111111-1111-4111-8111-111111111111",
    }
    system.put("webhooks-poison", {"notifications": [item], "receivedAt": "2026-11-25T08:00:00+00:00"})
    recorded = "select count(*) from queue.webhook_events where subscription_id = %s"
    wait_for(lambda: system.count(recorded, system.tag), 1)
