"""The admin API: who gets in, what is refused and how, and what an enqueue is answered with."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.access import KEY_HEADER, MOST_REFUSALS
from shared.engine.errors import StoreUnavailableError
from shared.engine.job import JobState, NewJob
from shared.engine.memory import MemoryStore
from shared.engine.messages import read_job
from shared.handlers.registry import QUEUES
from shared.postgres.delivery_failures import DeliveryFailureRow
from tests.unit.functions.admin_bench import JSON, KEY, PREVIOUS, Bench, ask
from tests.unit.functions.requests import assert_problem, document

CHAT = {"chatId": "19:dispatch@thread.v2", "content": "on my way"}


@pytest.fixture
def bench(built: dict[str, Any]) -> Bench:
    return Bench(built)


@pytest.fixture
def store(bench: Bench) -> MemoryStore:
    return bench.store


def post(body: Any, queue: str = "teams-outbound", headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask("POST", "{queue}/jobs", body=raw, headers=JSON | (headers or {}), queue=queue)


def get(job_id: str, headers: dict[str, str] | None = None) -> Any:
    return ask("GET", "jobs/{id}", headers=headers or JSON, id=job_id)


def test_a_job_is_stored_and_answered_with_its_id_and_address(store: MemoryStore) -> None:
    response = post({"payload": CHAT, "priority": 1, "correlationId": "c1", "idempotencyKey": "i1"})
    assert response.status_code == 202
    answer = document(response)
    assert answer["created"] is True
    assert response.headers["Location"] == f"/api/queue/jobs/{answer['id']}"
    job = store.get(UUID(answer["id"]))
    assert job is not None
    assert (job.priority, job.correlation_id, job.payload) == (1, "c1", CHAT)


def test_the_same_idempotency_key_again_gives_the_same_job(store: MemoryStore) -> None:
    first, second = (document(post({"payload": CHAT, "idempotencyKey": "i1"})) for _ in range(2))
    assert first["id"] == second["id"]
    assert (first["created"], second["created"]) == (True, False)


def test_a_list_is_stored_whole(store: MemoryStore) -> None:
    response = post([{"payload": CHAT}, {"payload": CHAT, "delaySeconds": 3600}])
    assert response.status_code == 202
    jobs = [store.get(UUID(job["id"])) for job in document(response)["jobs"]]
    assert [job.state for job in jobs if job] == [JobState.READY, JobState.SCHEDULED]


def test_one_wrong_job_of_a_list_refuses_all_and_is_named(store: MemoryStore) -> None:
    response = post(
        [{"payload": CHAT}, {"payload": {"chatId": "x", "pickle": 1}}, 5, {"payload": CHAT, "priority": 11}]
    )
    fields = {error["field"] for error in assert_problem(response, 422)["errors"]}
    assert {"1.payload.pickle", "2", "3.priority"} <= fields
    assert store.runnable(10) == {}


@pytest.mark.parametrize("body", [[], [{"payload": CHAT}] * 1001], ids=["none", "too many"])
def test_a_list_has_one_to_a_thousand_jobs(store: MemoryStore, body: Any) -> None:
    assert_problem(post(body), 422)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "payload"),
        ({"payload": "x"}, "payload"),
        ({"payload": CHAT, "priority": 0}, "priority"),
        ({"payload": CHAT, "priority": True}, "priority"),
        ({"payload": CHAT, "runAt": "tomorrow"}, "runAt"),
        ({"payload": CHAT, "runAt": "2026-11-25T08:00:00"}, "runAt"),
        ({"payload": CHAT, "delaySeconds": 1e300}, "delaySeconds"),
        ({"payload": CHAT, "expiresAt": "2026-11-25T08:00:00"}, "expiresAt"),
        ({"payload": CHAT, "expiresInSeconds": "60"}, "expiresInSeconds"),
        ({"payload": CHAT, "expiresInSeconds": 60, "delaySeconds": 60}, "expiresIn"),
        ({"payload": CHAT, "delaySeconds": 1, "runAt": "2026-11-25T08:00:00Z"}, "runAt"),
        ({"payload": CHAT, "idempotencyKey": "a\x00b"}, "idempotencyKey"),
        ({"payload": CHAT, "correlationId": "x\r\nforged"}, "correlationId"),
        ({"payload": CHAT, "task": "os.system"}, "task"),
        ({"payload": CHAT | {"chatId": None}}, "payload"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_field_is_named_in_a_problem_document(store: MemoryStore, body: Any, field: str) -> None:
    found = assert_problem(post(body), 422)
    assert field in [error["field"] for error in found["errors"]]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"payload": NaN}', b"[" * 100_000, b'{"payload": ' + b"9" * 5000 + b"}", b"5", b"null"],
    ids=lambda body: repr(body[:16]),
)
def test_a_body_that_is_no_json_object_is_refused(store: MemoryStore, body: bytes) -> None:
    assert_problem(post(body), 422)


def test_nul_and_lone_surrogates_in_a_payload_are_no_error(store: MemoryStore) -> None:
    assert post(rb'{"payload": {"chatId": "19:x@thread.v2", "content": "a\u0000b\ud83d"}}').status_code in (202, 422)


def test_an_unknown_queue_is_404_and_a_closed_one_409_with_the_reason(store: MemoryStore) -> None:
    for name in ('x"; DROP TABLE jobs;--', "Foo", "x" * 300, "{a}'--", "%s", "%(x)s"):
        assert_problem(post({"payload": {}}, queue=name), 404)
    assert QUEUES["attachments"].closed in assert_problem(post({"payload": {}}, queue="attachments"), 409)["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": ""}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-type": "Application/JSON; charset=utf-8"}, 202),
    ],
)
def test_only_plain_json_is_taken(store: MemoryStore, headers: dict[str, str], status: int) -> None:
    assert post({"payload": CHAT}, headers=headers).status_code == status


def test_a_body_over_the_limit_is_refused(store: MemoryStore) -> None:
    assert_problem(post(b" " * (16 * 1024 * 1024 + 1)), 413)


@pytest.mark.parametrize("key", [None, "", "wrong", "k" * 39, "k" * 41, "é", "\xe9" * 40, "\ud83d", "K" * 40])
def test_a_wrong_key_gets_the_same_401_and_nothing_happens(store: MemoryStore, key: str | None) -> None:
    headers = {"content-type": "application/json"} | ({KEY_HEADER: key} if key is not None else {})
    response = ask("POST", "{queue}/jobs", body=b"{}", headers=headers, queue="teams-outbound")
    assert response.get_body() == get("x", {KEY_HEADER: "other"}).get_body()
    assert_problem(response, 401)


def test_the_key_is_taken_from_the_header_only(store: MemoryStore) -> None:
    params = {KEY_HEADER: KEY, "code": KEY}
    assert_problem(ask("POST", "{queue}/jobs", body=b"{}", params=params, headers={}, queue="teams-outbound"), 401)


def test_the_previous_key_is_good_during_a_rotation(store: MemoryStore) -> None:
    assert post({"payload": CHAT}, headers={KEY_HEADER: PREVIOUS}).status_code == 202


def test_guessing_is_slowed_and_logged_and_the_right_key_still_works(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    statuses = [get("x", {KEY_HEADER: f"guess-{number}"}).status_code for number in range(MOST_REFUSALS + 5)]
    assert statuses == [401] * MOST_REFUSALS + [429] * 5
    assert sum(record.message == "admin.refused" for record in caplog.records) == MOST_REFUSALS
    assert any(record.message == "admin.guessing" for record in caplog.records)
    assert "guess-1" not in caplog.text
    assert post({"payload": CHAT}).status_code == 202


@pytest.mark.parametrize("value", [None, "", "x" * 31])
def test_without_a_usable_key_in_the_settings_nobody_gets_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("ADMIN_KEY", value)
    for key in ("", value or "", "None"):
        assert_problem(get(str(uuid4()), {KEY_HEADER: key}), 503)
    assert any("ADMIN_KEY" in getattr(r, "error", "") and r.levelno == logging.ERROR for r in caplog.records)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_405_on_every_address(store: MemoryStore, method: str) -> None:
    for path in ("{queue}/jobs", "retry/{id}", "{queue}/pause"):
        assert_problem(ask(method, path, queue="teams-outbound", id="x"), 405)


def test_a_job_is_shown_with_its_state_and_attempts(store: MemoryStore) -> None:
    job_id = document(post({"payload": CHAT}))["id"]
    shown = document(get(job_id))
    assert (shown["id"], shown["state"], shown["queue"]) == (job_id, "ready", "teams-outbound")
    assert (shown["payload"], shown["attempts"], shown["deliveryFailures"]) == (CHAT, [], [])


def test_a_job_shows_whom_its_mail_did_not_reach(bench: Bench) -> None:
    job_id = document(post({"payload": CHAT}))["id"]
    reported = datetime(2026, 3, 1, tzinfo=UTC)
    bench.failures[job_id] = [DeliveryFailureRow("a@x.example", "5.1.10", "550 gone", reported).as_json()]
    assert document(get(job_id))["deliveryFailures"] == [
        {
            "recipient": "a@x.example",
            "status": "5.1.10",
            "diagnostic": "550 gone",
            "reportedAt": "2026-03-01T00:00:00Z",
        }
    ]


def test_every_option_of_a_job_can_be_posted_and_is_shown(store: MemoryStore) -> None:
    first = document(post({"payload": CHAT}))["id"]
    batch_id, _ = store.create_batch([NewJob("teams-outbound", CHAT)], None)
    options = {
        "priority": 2, "runAt": "2026-01-06T08:00:00Z", "expiresInSeconds": 90_000, "idempotencyKey": "i",
        "correlationId": "c", "singletonKey": "s", "orderingKey": "trip-7", "dependsOn": [first],
        "ifDependencyFails": "run", "batchId": str(batch_id),
    }  # fmt: skip
    made = UUID(document(post({"payload": CHAT, **options}))["id"])
    shown = document(get(str(made)))
    assert {name: shown[name] for name in ("priority", "runAt", "expiresAt", "idempotencyKey", "correlationId")} == {
        "priority": 2, "runAt": "2026-01-06T08:00:00Z", "expiresAt": "2026-01-06T09:00:00Z",
        "idempotencyKey": "i", "correlationId": "c",
    }  # fmt: skip
    assert (shown["state"], shown["dependsOn"], shown["batchId"]) == ("waiting", [first], str(batch_id))
    assert (shown["lane"], shown["limitKey"]) == ("teams-outbound:order:trip-7", "chat:19:dispatch@thread.v2")
    assert (shown["progress"], shown["leasedBy"], shown["leaseUntil"]) == (None, None, None)


def test_no_option_of_a_job_is_python_only_but_those_that_the_engine_sets_itself() -> None:
    everything = {
        "payload": CHAT, "priority": 2, "runAt": "2026-01-06T08:00:00Z", "expiresAt": "2026-01-07T08:00:00Z",
        "idempotencyKey": "i", "correlationId": "c", "singletonKey": "s", "fairnessKey": "f",
        "dependsOn": [str(uuid4())], "ifDependencyFails": "run", "batchId": str(uuid4()),
    }  # fmt: skip
    jobs = [read_job("teams-outbound", everything), read_job("teams-outbound", {"payload": CHAT})]
    jobs.append(read_job("teams-outbound", {"payload": CHAT, "delaySeconds": 5, "expiresInSeconds": 10}))
    given = {one.name for one in fields(NewJob) for job in jobs if getattr(job, one.name) != getattr(jobs[1], one.name)}
    always, own = {"queue", "payload"}, {"redrive_of", "effect_since", "limit_key"}
    assert given == {one.name for one in fields(NewJob)} - always - own


def test_a_running_job_shows_its_worker_and_its_progress(store: MemoryStore) -> None:
    job_id = document(post({"payload": CHAT}))["id"]
    [job] = store.claim("teams-outbound", 1, "host-1", timedelta(seconds=45)).jobs
    store.save_progress(job.id, job.lease_token, {"page": 7})
    shown = document(get(job_id))
    assert (shown["state"], shown["leasedBy"], shown["progress"]) == ("active", "host-1", {"page": 7})
    assert shown["leaseUntil"] > shown["runAt"]


def test_a_debounced_job_is_answered_with_the_one_that_it_replaced(store: MemoryStore) -> None:
    body = {"payload": CHAT, "debounceKey": "position-7", "debounceSeconds": 30}
    first, second = document(post(body)), document(post(body))
    assert "replaced" not in first and second["created"] is True
    assert second["replaced"] == first["id"] != second["id"]


@pytest.mark.parametrize("job_id", ["x", "", "1' or '1'='1", "01a2108a-1e28-7df7-80d2-6f458516e508"])
def test_an_unknown_job_is_404(store: MemoryStore, job_id: str) -> None:
    assert_problem(get(job_id), 404)


def test_while_the_database_is_away_the_answer_is_503_without_details(
    store: MemoryStore,
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("postgresql://user:hidden@host")

    store.get = away  # type: ignore[method-assign]
    store.enqueue = away  # type: ignore[method-assign]
    for response in (get(str(uuid4())), post({"payload": CHAT})):
        assert_problem(response, 503)
        assert b"hidden" not in response.get_body()
        assert response.headers["Retry-After"]
