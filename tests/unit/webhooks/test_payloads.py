"""Payloads of the queues that are closed: good ones are read, wrong ones name the field."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from shared.engine.errors import NewerPayloadError, PayloadError
from shared.handlers.loading import parse_payload

GOOD: list[tuple[str, dict[str, Any]]] = [
    (
        "attachments",
        {"operation": "scan", "source": {"kind": "mail", "resource": "users/u"}, "file": {"name": "a.pdf", "size": 0}},
    ),
    ("sync", {"resourceType": "emails", "userId": "u1", "fullSync": True}),
]


@pytest.mark.parametrize(("queue", "payload"), GOOD, ids=[queue for queue, _ in GOOD])
def test_a_good_payload_is_read(queue: str, payload: dict[str, Any]) -> None:
    read = parse_payload(queue, json.dumps(payload)).model_dump(by_alias=True, exclude_unset=True)
    assert read == payload


@pytest.mark.parametrize(("queue", "payload"), GOOD, ids=[queue for queue, _ in GOOD])
def test_an_unknown_field_is_refused_by_name(queue: str, payload: dict[str, Any]) -> None:
    with pytest.raises(PayloadError) as caught:
        parse_payload(queue, json.dumps(payload | {"pickle": "x"}))
    assert [problem.field for problem in caught.value.problems] == ["payload.pickle"]


@pytest.mark.parametrize(
    ("queue", "payload"),
    [
        ("sync", GOOD[1][1]),
        ("subscriptions", {}),
        ("outlook-inbound", {"resource": "users/u/messages/m"}),
        ("teams-inbound", {"resource": "chats('c')/messages('m')"}),
        ("dead-letter", {"deadLetterId": str(uuid4())}),
    ],
)
def test_an_unknown_field_is_a_newer_releases_where_the_system_makes_the_jobs(
    queue: str, payload: dict[str, Any]
) -> None:
    parse_payload(queue, json.dumps(payload))
    with pytest.raises(NewerPayloadError):
        parse_payload(queue, json.dumps(payload | {"fieldOfTomorrow": 1}))
    with pytest.raises(PayloadError) as caught:
        parse_payload(queue, json.dumps({"fieldOfTomorrow": 1, "resource": 5, "userId": 5, "subscriptionId": 5}))
    assert not isinstance(caught.value, NewerPayloadError), "it would be wrong for a newer release too"


def test_an_unknown_field_is_the_callers_mistake_where_callers_make_the_jobs() -> None:
    with pytest.raises(PayloadError) as caught:
        parse_payload("teams-outbound", json.dumps({"chatId": "c", "content": "x", "chatID": "c"}))
    assert not isinstance(caught.value, NewerPayloadError)


@pytest.mark.parametrize(
    ("queue", "change", "field"),
    [
        ("attachments", {"operation": "os.system"}, "payload.operation"),
        ("attachments", {"file": {"name": "", "size": 1}}, "payload.file.name"),
        ("attachments", {"file": {"name": "a", "size": -1}}, "payload.file.size"),
        ("sync", {"resourceType": "tasks"}, "payload.resourceType"),
        ("sync", {"teamId": "t1"}, "payload"),
    ],
)
def test_a_wrong_field_is_named(queue: str, change: dict[str, Any], field: str) -> None:
    payload = next(payload for name, payload in GOOD if name == queue)
    with pytest.raises(PayloadError) as caught:
        parse_payload(queue, json.dumps(payload | change))
    assert field in [problem.field for problem in caught.value.problems]
