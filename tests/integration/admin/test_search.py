"""A job is found by whatever a caller may have of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared import bootstrap
from shared.bootstrap.services import letter_names
from shared.engine.job import Completed, Dead, ErrorClass, Failure, Retry
from shared.handlers.services import Communication, DeadLetter
from shared.postgres.communications import PostgresCommunications
from tests.integration.admin.conftest import CHAT, Api
from tests.integration.admin.test_routes import die, end

MAIL = {"from": "dispatch@fleet.example", "subject": "Invoice", "body": "Attached."}
REQUEST = "6C0A3B4E-8a31-4d7b-9a52-0a6c1f2d3e4f"
MESSAGE = Communication(
    direction="out",
    channel="outlook",
    external_id="AAMkAGI1AAA=",
    thread_id="AAQkAGI1",
    sender="dispatch@fleet.example",
    recipients=["Alex.Driver@fleet.example", "gate/7@fleet.example"],
    subject="Invoice",
    body="Attached.",
    body_type="text",
    text="Attached.",
    occurred_at=None,
    internet_message_id="<m1@fleet.example>",
    account="dispatch@fleet.example",
)


def found(api: Api, search: str, **query: str) -> list[str]:
    return [job["id"] for job in api.get("jobs", {"search": search, **query})["items"]]


def sent(api: Api, queue: str, payload: dict[str, Any], message: Communication) -> str:
    job_id = api.enqueue(queue, payload=payload)
    PostgresCommunications(bootstrap.database()).record(replace(message, job_id=UUID(job_id)))
    assert str(end(Completed({"outcome": "sent"}), queue)) == job_id
    return job_id


def test_a_sent_mail_is_found_by_whom_it_went_to_its_ids_and_its_mailbox(api: Api) -> None:
    mail = sent(api, "outlook-outbound", MAIL | {"to": ["alex.driver@fleet.example"]}, MESSAGE)
    for search in ("alex.driver@FLEET.example", " gate/7@fleet.example ", "<m1@fleet.example>", "m1@fleet.example",
                   "AAMkAGI1AAA=", "dispatch@fleet.example", "mailbox:Dispatch@fleet.example",
                   mail[:8], f"{mail[:8]}…{mail[-4:]}", f"{mail[:8]}...{mail[-4:]}", mail[:23].upper()):  # fmt: skip
        assert found(api, search) == [mail], search
    for search in ("alex", "driver@fleet.example", "m2@fleet.example", mail[:7], f"{mail[:8]}…{'0000'}", "%", "'"):
        assert found(api, search) == [], search


def test_a_teams_message_is_found_by_its_chat_or_channel_and_its_own_id(api: Api) -> None:
    teams = replace(MESSAGE, channel="teams", internet_message_id=None, account="queue@fleet.example")
    to_chat = replace(teams, external_id="19:gate@thread.v2/1700000000001", recipients=["19:gate@thread.v2"])
    chat = sent(api, "teams-outbound", {"chatId": "19:Gate@thread.v2", "content": "x"}, to_chat)
    place = {"teamId": "0d3b0e4c-1111-4222-8333-944455556666", "channelId": "19:ops@thread.tacv2"}
    target = f"{place['teamId']}/{place['channelId']}"
    to_channel = replace(teams, external_id=f"{target}/1700000000002", recipients=[target])
    channel = sent(api, "teams-outbound", place | {"content": "x"}, to_channel)
    came = replace(to_chat, direction="in", external_id="19:gate@thread.v2/1700000000003", sender="0000-ann",
                   thread_id="19:gate@thread.v2", occurred_at=datetime.now(UTC))  # fmt: skip
    reference = {"resource": "chats('19:gate@thread.v2')/messages('1700000000003')"}
    received = sent(api, "teams-inbound", reference, came)
    assert found(api, "1700000000001") == [chat] and found(api, "1700000000002") == [channel]
    assert found(api, target) == [channel] == found(api, "19:ops@thread.tacv2")
    assert found(api, "19:gate@thread.v2") == [received, chat]
    assert found(api, "0000-ANN") == [received]


def test_a_dead_job_is_found_by_whom_it_was_for_and_no_address_is_kept(api: Api, sql: psycopg.Connection) -> None:
    payload = MAIL | {"to": [{"address": "ghost@fleet.example", "name": "Ghost"}], "cc": ["Ann@fleet.example"]}
    job_id = api.enqueue("outlook-outbound", payload=payload)
    details = {"failed_call": {"method": "POST", "request_id": REQUEST, "status": 503}, "code": "x"}
    failure = Failure(ErrorClass.NETWORK, "Graph answered 503", details=details)
    end(Retry(failure, timedelta(hours=1)), "outlook-outbound")
    assert found(api, REQUEST) == [job_id]
    [listed] = api.get("{queue}/jobs", {"status": "scheduled"}, queue="outlook-outbound")["items"]
    assert (listed["errorClass"], listed["errorMessage"]) == ("network", "Graph answered 503")
    assert api.ask("POST", "retry/{id}", id=job_id)[0] == 200
    end(Dead(failure), "outlook-outbound")
    assert found(api, REQUEST) == [job_id] == found(api, REQUEST.lower())
    assert found(api, api.get("jobs/{id}", id=job_id)["deadLetterId"]) == [job_id]
    assert found(api, "ghost@fleet.example") == []
    row = sql.execute("select id, job_id, queue, error_class, error_message from queue.dead_letter_queue").fetchone()
    assert row is not None
    for _ in range(2):
        letter_names().keep(DeadLetter(*row))
    for search in ("ghost@fleet.example", "GHOST@fleet.example", "ann@fleet.example"):
        assert found(api, search) == [job_id], search
    kept = sql.execute("select array_to_string(names, ',') from queue.dead_letter_queue").fetchone()
    assert kept is not None and "ghost" not in kept[0] and len(kept[0].split(",")) == 2


def test_names_that_an_earlier_key_made_digests_of_are_found(
    api: Api, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = api.enqueue("outlook-outbound", payload=MAIL | {"to": ["ghost@fleet.example"]})
    end(Dead(Failure(ErrorClass.NETWORK, "x")), "outlook-outbound")
    row = sql.execute("select id, job_id, queue, error_class, error_message from queue.dead_letter_queue").fetchone()
    assert row is not None
    letter_names().keep(DeadLetter(*row))
    monkeypatch.setenv("ENCRYPTION_KEY", "MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    monkeypatch.setenv("ENCRYPTION_KEYS_PREVIOUS", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    bootstrap.stop()
    bootstrap.built["queues"] = api.transport
    assert found(api, "ghost@fleet.example") == [job_id]


def test_the_last_failures_everywhere_by_class_and_time(api: Api) -> None:
    api.enqueue()
    first = str(die())
    api.enqueue("sync", payload={"resourceType": "emails", "userId": "ann"})
    second = str(end(Dead(Failure(ErrorClass.NETWORK, "Graph is away")), "sync"))
    api.enqueue()
    assert [job["id"] for job in api.get("jobs", {"status": "dead"})["items"]] == [second, first]
    assert [job["id"] for job in api.get("jobs", {"errorClass": "network"})["items"]] == [second]
    assert api.get("jobs", {"errorClass": "network", "status": "ready"})["items"] == []
    assert api.get("{queue}/jobs", {"errorClass": "network"}, queue="teams-outbound")["items"] == []
    assert len(api.get("jobs")["items"]) == 3
    middle = api.get("jobs/{id}", id=second)["finishedAt"]
    assert [job["id"] for job in api.get("jobs", {"status": "dead", "from": middle})["items"]] == [second]
    assert [job["id"] for job in api.get("jobs", {"status": "dead", "to": middle})["items"]] == [first]
    assert found(api, first, to=middle) == [first] and found(api, second, to=middle) == []
    assert [one["jobId"] for one in api.get("dead-letter", {"from": middle})["items"]] == [second]
    assert [one["jobId"] for one in api.get("dead-letter", {"to": middle, "errorClass": "validation"})["items"]] == [
        first
    ]
    page = api.get("jobs", {"status": "dead", "limit": "1"})
    [rest] = api.get("jobs", {"status": "dead", "limit": "1", "cursor": page["next"]})["items"]
    assert rest["id"] == first
    status, answer = api.ask("GET", "jobs", query={"from": "yesterday"})
    assert (status, [one["field"] for one in answer["errors"]]) == (422, ["from"])


def test_an_enqueue_that_found_its_job_there_says_so_and_leads_to_it(api: Api) -> None:
    first = api.enqueue(idempotencyKey="late-7", correlationId="trip-1")
    again = {"payload": {"chatId": "19:dispatch@thread.v2", "content": "another text"}, "idempotencyKey": "late-7"}
    status, answer = api.ask("POST", "{queue}/jobs", again | {"correlationId": "trip-2"}, queue="teams-outbound")
    assert (status, answer) == (202, {"id": first, "created": False, "differs": True})
    assert found(api, "trip-2") == [first] == found(api, "late-7")
    [told] = [one for one in api.get("jobs/{id}", id=first)["timeline"] if one["event"] == "job.again"]
    assert "trip-2" in told["text"] and "otherPayload: True" in told["text"] and told["by"] == "key 1"
    same = [{"payload": CHAT, "idempotencyKey": "late-7"}]
    assert api.ask("POST", "{queue}/jobs", same, queue="teams-outbound")[1]["jobs"] == [
        {"id": first, "created": False, "differs": False}
    ]
