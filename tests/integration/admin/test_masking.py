"""A Reader reads the content of no message, by whatever route."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared import bootstrap
from shared.admin.routes import ROUTES
from shared.engine.classify import classify
from shared.engine.errors import RejectedError
from shared.engine.job import Completed, Dead, Outcome, Settlement
from shared.handlers.registry import QUEUES
from shared.postgres.alerts import PostgresAlerts
from tests.integration.admin.conftest import Api
from tests.unit.functions.admin_bench import signed_in

QUEUE = "teams-outbound"
MARKER = "zq7-the-gate-code"
ADDRESS = f"{MARKER}@fleet.example"
REQUEST_ID = "6c0a3b4e-8a31-4d7b-9a52-0a6c1f2d3e4f"


def run(api: Api, outcome: Outcome, details: dict[str, Any] | None = None) -> UUID:
    """A job whose payload, progress and attempt hold the marker, until its end."""
    payload = {"chatId": "19:dispatch@thread.v2", "content": f"It is {MARKER}"}
    api.enqueue(payload=payload)
    store = bootstrap.store()
    [job] = store.claim(QUEUE, 1, "worker-1", timedelta(seconds=45)).jobs
    store.save_progress(job.id, job.lease_token, {"draft": MARKER, "pages": 3})
    assert not store.settle([Settlement(job.id, job.lease_token, outcome, details=details or {})]).lost
    return job.id


@pytest.fixture
def places(api: Api, sql: psycopg.Connection) -> dict[str, list[str]]:
    """What addresses can name, everywhere with the marker in it."""
    call = {"status": 404, "request_id": REQUEST_ID, "to": ADDRESS}
    done = run(api, Completed({"outcome": "sent", "web_url": MARKER}), {"graph_calls": [call], "note": MARKER})
    unknown = run(api, Dead(classify(ValueError(f"cannot read {MARKER!r}"))))
    refused = run(api, Dead(classify(RejectedError(f"{ADDRESS} does not exist"))))
    bootstrap.store().bury(QUEUE, f"<xml>{MARKER}</xml>", "it is no JSON", "m1")
    running = UUID(api.enqueue(payload={"chatId": "19:x@thread.v2", "content": MARKER}))
    store = bootstrap.store()
    [job] = store.claim(QUEUE, 1, "worker-1", timedelta(seconds=45)).jobs
    assert job.id == running and store.save_progress(job.id, job.lease_token, {"draft": MARKER}) is not None
    schedule = {"name": "daily", "queue": QUEUE, "cron": "0 6 * * *"}
    status, _ = api.ask("POST", "schedules", schedule | {"payload": {"chatId": "19:x@thread.v2", "content": MARKER}})
    assert status == 201
    sql.execute(
        "insert into queue.sync_history (resource_type, account, kind, error_message)"
        " values ('emails', 'u1', 'delta', %s)",
        (f"Graph answered 404: {ADDRESS}",),
    )
    sql.execute("insert into queue.daily_report (day, figures, subject, html) values ('2026-03-01', '{}', 's', '')")
    letters = [row[0] for row in sql.execute("select id from queue.dead_letter_queue").fetchall()]
    alerts = PostgresAlerts(bootstrap.database())
    for letter in letters:
        found = alerts.dead_letter(letter)
        assert found is not None and alerts.raise_alert(found) in (True, False)
    alert_ids = [str(row[0]) for row in sql.execute("select id from queue.queue_alerts").fetchall()]
    return {
        "jobs": [str(done), str(unknown), str(refused), str(running)],
        "dead-letter": [str(one) for one in letters],
        "alerts": alert_ids,
    }


def asked(places: dict[str, list[str]]) -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """Every GET route: path, query, parameters."""
    found = []
    for route in ROUTES:
        if route.method != "GET" or route.role is None:
            continue
        query = {"search": places["jobs"][0]} if route.operation == "findJobs" else {}
        if route.operation == "planSchedule":
            query = {"cron": "0 6 * * *"}
        if "{queue}" in route.path:
            found += [(route.path, query, {"queue": queue}) for queue in QUEUES]
        elif "{id}" in route.path:
            found += [(route.path, query, {"id": one}) for one in places[route.path.split("/")[0]]]
        elif "{day}" in route.path:
            found.append((route.path, query, {"day": "2026-03-01"}))
        else:
            assert not route.parameters
            found.append((route.path, query, {}))
    return found


def test_a_reader_finds_no_content_in_any_answer(api: Api, places: dict[str, list[str]]) -> None:
    seen = 0
    for path, query, parameters in asked(places):
        status, answer = api.ask("GET", path, query=query, headers=signed_in("Reader"), **parameters)
        assert status == 200, (path, answer)
        assert MARKER not in (answer if isinstance(answer, str) else json.dumps(answer)), path
        seen += 1
    assert seen > 30
    for job in places["jobs"]:
        assert MARKER in json.dumps(api.get("jobs/{id}", id=job)), "an Admin sees it"


def test_what_a_reader_needs_to_find_out_what_happened_is_there(api: Api, places: dict[str, list[str]]) -> None:
    done, unknown, refused, _ = places["jobs"]
    shown = [api.ask("GET", "jobs/{id}", headers=signed_in("Reader"), id=one)[1] for one in (done, unknown, refused)]
    [call] = shown[0]["attempts"][0]["details"]["graph_calls"]
    assert (call["status"], call["request_id"]) == (404, REQUEST_ID)
    assert (shown[0]["result"]["outcome"], shown[0]["payloadMasked"]) == ("sent", True)
    assert [one["errorClass"] for one in shown] == [None, "unknown", "validation"]
    assert (shown[1]["errorMessage"], shown[2]["errorMessage"]) == ("ValueError: •••", "••• does not exist")


def test_a_group_of_errors_names_no_address_and_is_found_by_its_text(api: Api, places: dict[str, list[str]]) -> None:
    """Also by an Operator, to whom texts are shown without addresses."""
    headers = signed_in("Operator")
    groups = api.ask("GET", "dead-letter/groups", headers=headers)[1]["groups"]
    [group] = [one for one in groups if one["errorClass"] == "validation" and "exist" in one["pattern"]]
    assert group["pattern"] == "# does not exist"
    found = api.ask("GET", "dead-letter", query={"pattern": group["pattern"]}, headers=headers)[1]["items"]
    assert [one["jobId"] for one in found] == [places["jobs"][2]]
