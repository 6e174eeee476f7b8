"""Two function hosts on one database and one storage account, as Azure scales out."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import requests

from local.demo import samples
from local.stack import Stack
from tests.acceptance.system import System, wait_for
from tests.pooler import running_stack

JOBS = 40


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Stack]:
    through_pooler = pytestconfig.option.through is not None
    with ExitStack() as steps:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DEV_HOST", "stand-in")
            folder = tmp_path_factory.mktemp("pair")
            stack = steps.enter_context(
                running_stack(folder, through_pooler=through_pooler, fast=True, host_processes=2)
            )
        System(stack).prepare()
        yield stack


@pytest.fixture
def two(pair: Stack) -> Iterator[System]:
    system = System(pair)
    yield system
    system.settle_down()


def notification(system: System, resource: str) -> dict[str, Any]:
    """As Graph posts it, with one of this app's client states."""
    return {
        "id": str(uuid.uuid4()),
        "subscriptionId": system.graph.subscriptions()[0]["id"],
        "subscriptionExpirationDateTime": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        "clientState": system.client_states.new(),
        "changeType": "created",
        "resource": resource,
        "tenantId": "11111111-1111-4111-8111-111111111111",
        "resourceData": {"@odata.type": "#microsoft.graph.message", "@odata.id": resource, "id": resource[-20:]},
    }


def test_one_delivery_to_both_at_the_same_moment_makes_one_job_each(two: System) -> None:
    two.graph.set_automatic_delivery(False)
    subject = f"Once only {two.tag}"
    for number in range(3):
        mail = samples.plain_mail(number).replace(b"<depot-", f"<{two.tag}-".encode())
        two.graph.arrive_mail(samples.DISPATCH, mail.replace(b"Subject: ", f"Subject: {subject} ".encode()))
    names = [one["id"] for one in two.graph.mailbox(samples.DISPATCH, "inbox") if subject in one["subject"]]
    body = {"value": [notification(two, f"users/{samples.DISPATCH_ID}/messages/{name}") for name in names]}
    gate = threading.Barrier(2)

    def deliver(base: str) -> int:
        gate.wait(10)
        return requests.post(f"{base}/webhooks/graph", json=body, timeout=10).status_code

    kept = "select count(*) from queue.communication_logs where direction = 'in' and subject like %s"
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(deliver, two.stack.host_urls)) == [202, 202]
        wait_for(lambda: two.count(kept, f"{subject}%"), 3)
        wait_for(two.unfinished, 0)
        assert list(threads.map(deliver, two.stack.host_urls)) == [202, 202]
    wait_for(lambda: len([one for one in processed(two) if one["received"] == 3]), 4)
    assert sum(one["recorded"] for one in processed(two) if one["received"] == 3) == 3
    resources = [job.payload["resource"] for job in two.jobs("outlook-inbound")]
    assert (len(resources), len(set(resources))) == (3, 3)
    assert two.count(kept, f"{subject}%") == 3


def processed(system: System) -> list[dict[str, Any]]:
    """What both hosts said of the notifications that they have processed, oldest first."""
    lines = [line for name in ("host", "host-1") for line in system.log_lines(name)]
    return sorted((one for one in lines if one["event"] == "notifications.processed"), key=lambda one: str(one["time"]))


def test_both_work_and_no_job_is_done_twice(two: System) -> None:
    two.fault(JOBS, path="/chats/", kind="delay", seconds=1.5)
    contents = [f"alert {number:02}" for number in range(JOBS)]
    two.sql("update queue.queue_settings set wake_size = 1 where queue = 'teams-outbound'")
    assert two.ask("teams-outbound", [{"payload": two.message(content)} for content in contents]).status_code == 202
    wait_for(lambda: len(two.texts()), JOBS)
    wait_for(two.unfinished, 0)
    assert sorted(two.texts()) == contents
    mine = [job for job in two.jobs("teams-outbound") if job.payload["chatId"] == two.chat]
    workers = [attempt.worker for job in mine for attempt in job.attempts]
    assert len(workers) == JOBS and len(set(workers)) == 2


def test_a_timer_runs_on_one_host_at_a_time(two: System) -> None:
    def runs() -> list[str]:
        lines = [line for name in ("host", "host-1") for line in two.log_lines(name)]
        ended = [line for line in lines if line["event"] == "function.ended" and line["function"] == "relay_jobs"]
        return sorted(str(line["time"]) for line in ended)

    wait_for(lambda: len(runs()) >= 2, True)
    times = [datetime.fromisoformat(text) for text in runs()]
    assert all(later - earlier > timedelta(seconds=5) for earlier, later in pairwise(times))
    [(free, ended)] = two.sql(
        "select taken_until is null, last_finished_at >= last_started_at from queue.timer_turn where timer = 'relay'"
    )
    assert (free, ended) == (True, True)
    # Whoever has the turn in the database keeps everybody else out, whatever lock its host has.
    [(token,)] = two.sql("select queue.take_turn('relay', '1 minute')")
    assert two.sql("select queue.take_turn('relay', '1 minute')") == [(None,)]
    two.sql("update queue.timer_turn set taken_until = null where timer = 'relay' and token = %s", token)
