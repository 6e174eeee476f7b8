"""What becomes of notifications: one job for one change, and no item costs another."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from shared.engine.enqueue import Producer
from shared.engine.errors import StoreUnavailableError, UnreadableMessageError
from shared.engine.memory import MemoryStore, MemoryTransport
from shared.handlers.change_keys import change_key, find_target, lifecycle_key
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.handlers.rich_contents import RichContents
from shared.handlers.services import Alert
from shared.handlers.webhooks import Event, EventRefusedError, NotificationProcessor, Recorded
from tests.unit.webhooks.vouching import no_tokens

AT = "2026-11-25T08:00:00.123456+00:00"
TENANT = "11111111-1111-4111-8111-111111111111"
CHAT = "chats('19:dispatch@thread.v2')/messages('1700000000000')"


class Events:
    """Remembers dedupe keys; refuses resources that contain `poison`; is away while `away`."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.away = False

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        if self.away:
            raise StoreUnavailableError("away")
        if any("poison" in (event.resource or "") for event in events):
            raise EventRefusedError("not these values")
        new = [event for event in events if event.dedupe_key not in self.events]
        self.events |= {event.dedupe_key: event for event in new}
        return [Recorded(e.dedupe_key, e.job.queue if e.job else None, uuid4() if e.job else None) for e in new]


class Bench:
    def __init__(self) -> None:
        self.events = Events()
        self.transport = MemoryTransport()
        self.buried: dict[str, tuple[str, str]] = {}
        self.wakes: list[tuple[str, int]] = []
        producer = Producer(MemoryStore(list(QUEUES)), self.transport, QUEUES, parse_payload)
        producer.wake = lambda queue, jobs=1, delay=None: self.wakes.append((queue, jobs))  # type: ignore[method-assign]
        self.processor = NotificationProcessor(self.events, self.bury, producer)

    def bury(self, queue: str, body: str, reason: str, source: str) -> bool:
        assert queue == "webhooks"
        new = source not in self.buried
        self.buried[source] = (body, reason)
        return new

    def process(self, *items: Any, at: str = AT) -> None:
        body = json.loads(json.dumps({"notifications": items, "receivedAt": at}))
        self.processor.process(body, str(uuid4()))

    @property
    def jobs(self) -> list[tuple[str, dict[str, Any]]]:
        return [(event.job.queue, event.job.payload) for event in self.events.events.values() if event.job]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def mail(number: int = 1, *, etag: str | None = 'W/"1"', change: str = "created", **more: Any) -> dict[str, Any]:
    path = f"Users/AAAAAAAA-0000-4000-8000-000000000001/Messages/AAMk{number}="
    data = {"@odata.type": "#Microsoft.Graph.Message", "@odata.id": path, "id": f"AAMk{number}="}
    if etag is not None:
        data["@odata.etag"] = etag
    return {
        "id": str(uuid4()),
        "subscriptionId": "s1",
        "changeType": change,
        "resource": path,
        "tenantId": TENANT,
        "resourceData": data,
    } | more


def chat(**more: Any) -> dict[str, Any]:
    return mail(resource=CHAT, **more)


def test_mails_and_chat_messages_go_to_their_inbound_queues_and_wake_them(bench: Bench) -> None:
    bench.process(mail(1), mail(2), chat())
    assert [queue for queue, _ in bench.jobs] == ["outlook-inbound", "outlook-inbound", "teams-inbound"]
    assert bench.jobs[0][1] == {
        "resource": mail(1)["resource"],
        "changeType": "created",
        "subscriptionId": "s1",
        "tenantId": TENANT,
    }
    assert sorted(bench.wakes) == [("outlook-inbound", 2), ("teams-inbound", 1)]


def test_a_deletion_is_told_to_the_inbound_queue_too(bench: Bench) -> None:
    bench.process(mail(change="created"), mail(change="deleted"))
    assert [payload["changeType"] for _, payload in bench.jobs] == ["created", "deleted"]


def test_I9_the_same_delivery_again_makes_no_second_job_and_no_wake_up(bench: Bench) -> None:
    items = [mail(), chat(), {"subscriptionId": "s1", "lifecycleEvent": "subscriptionRemoved"}]
    bench.process(*items)
    bench.process(*items, at="2026-11-25T09:00:00+00:00")
    assert len(bench.jobs) == 2
    assert len(bench.wakes) == 2
    assert len(bench.events.events) == 3


def test_the_same_item_twice_in_one_message_makes_one_job(bench: Bench) -> None:
    bench.process(mail(), mail())
    assert len(bench.jobs) == 1


def test_one_change_seen_by_two_subscriptions_makes_one_job(bench: Bench) -> None:
    bench.process(mail(), mail(subscriptionId="s2"))
    assert len(bench.jobs) == 1


def test_created_and_updated_for_one_creation_make_one_job(bench: Bench) -> None:
    bench.process(mail(change="created"), mail(change="updated"), mail(change="updated"))
    assert len(bench.jobs) == 1


def test_an_edit_has_another_etag_and_makes_another_job(bench: Bench) -> None:
    bench.process(mail(change="updated"), mail(change="updated", etag='W/"2"'))
    assert len(bench.jobs) == 2


def test_the_same_ids_of_another_tenant_or_resource_are_another_change(bench: Bench) -> None:
    bench.process(mail(), mail(tenantId="other"), mail(2), chat())
    assert len(bench.jobs) == 4


def test_the_spelling_of_a_path_does_not_matter(bench: Bench) -> None:
    bench.process(
        mail(),
        mail(resource="users('aaaaaaaa-0000-4000-8000-000000000001')/messages('AAMk1=')"),
        mail(resource="/users/aaaaaaaa-0000-4000-8000-000000000001/mailFolders('inbox')/messages/AAMk1="),
    )
    assert len(bench.jobs) == 1


def test_message_ids_that_differ_only_in_case_are_different_messages() -> None:
    assert find_target("users/u/messages/AAMk") != find_target("users/u/messages/aamk")
    assert find_target("Users/U/Messages/AAMk") == find_target("users/u/messages/AAMk")


def test_without_an_etag_updates_are_told_by_id_and_never_swallowed(bench: Bench) -> None:
    first, second = mail(etag=None, change="updated"), mail(etag=None, change="updated")
    bench.process(first, second)
    bench.process(first)
    assert len(bench.jobs) == 2
    for at in ("2026-11-25T08:00:00+00:00", "2026-11-25T09:00:00+00:00"):
        bench.process(mail(3, etag=None, change="updated", id=None), at=at)
    assert len(bench.jobs) == 4


def test_without_an_etag_a_creation_is_one_for_its_resource() -> None:
    keys = {change_key(mail(etag=None, id=some), find_target("users/u/messages/1"), "") for some in ("a", "b", None)}
    assert len(keys) == 1


def test_other_resources_are_recorded_as_ignored_and_make_no_job(bench: Bench) -> None:
    bench.process(mail(resource="users/u/events/1"), mail(change="renamed"), mail(resource="drives/d/root"))
    assert {event.outcome for event in bench.events.events.values()} == {"ignored"}
    assert bench.jobs == []
    assert bench.buried == {}


def test_lifecycle_items_are_recorded_by_their_field_and_have_no_resource(bench: Bench) -> None:
    bench.process(*({"subscriptionId": "s1", "lifecycleEvent": name} for name in ("missed", "reauthorizationRequired")))
    found = list(bench.events.events.values())
    assert [(event.kind, event.change_type, event.outcome) for event in found] == [
        ("lifecycle", "missed", "recorded"),
        ("lifecycle", "reauthorizationRequired", "recorded"),
    ]


def test_a_removal_counts_once_and_the_other_lifecycle_events_may_come_again() -> None:
    early, late = datetime.fromisoformat(AT), datetime.fromisoformat("2026-11-25T09:00:00+00:00")

    def keys(event: str) -> set[str]:
        return {lifecycle_key({"subscriptionId": "s", "lifecycleEvent": event}, at) for at in (early, early, late)}

    assert len(keys("subscriptionRemoved")) == 1
    assert len(keys("missed")) == len(keys("reauthorizationRequired")) == 2


@pytest.mark.parametrize(
    "bad",
    [
        None,
        5,
        "text",
        [],
        {},
        {"subscriptionId": 7, "changeType": "created", "resource": "users/u/messages/1"},
        {"subscriptionId": "s1"},
        {"subscriptionId": "s1", "changeType": "created"},
        {"subscriptionId": "s1", "changeType": ["created"], "resource": "users/u/messages/1"},
        {"subscriptionId": "s1", "changeType": "created", "resource": "x" * 2001},
        mail(resource="users/u/messages/poison", id="n1"),
    ],
    ids=lambda bad: repr(bad)[:40],
)
def test_a_bad_item_is_buried_alone_and_the_others_become_jobs(bench: Bench, bad: Any) -> None:
    bench.process(mail(1), bad, mail(2))
    bench.process(mail(1), bad, mail(2))
    assert len(bench.jobs) == 2
    (body, reason), *more = bench.buried.values()
    assert json.loads(body) == bad
    assert reason
    assert more == [], "a repeated delivery buries it once"
    assert [queue for queue, _ in bench.wakes].count("dead-letter") == 1


def test_nul_and_lone_surrogates_neither_stop_nor_lose_an_item(bench: Bench) -> None:
    bench.process(mail(subscriptionId="s\x00", subject="a\x00b\ud83d"))
    assert bench.jobs[0][1]["subscriptionId"] == "s\ufffd"
    assert bench.buried == {}


def test_a_date_that_cannot_be_read_does_not_lose_the_item(bench: Bench) -> None:
    bench.process(mail(subscriptionExpirationDateTime="0001-13-99"))
    assert len(bench.jobs) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"payload": {}},
        {"notifications": None},
        {"notifications": {}},
        {"notifications": [], "receivedAt": "x"},
        {"wake": "webhooks"},
    ],
    ids=repr,
)
def test_a_message_that_is_no_batch_is_unreadable(bench: Bench, body: dict[str, Any]) -> None:
    with pytest.raises(UnreadableMessageError):
        bench.processor.process(body, "m1")


def test_while_the_database_is_away_nothing_is_buried(bench: Bench) -> None:
    bench.events.away = True
    with pytest.raises(StoreUnavailableError):
        bench.process(mail(), None)
    assert bench.buried == {}


def test_a_client_state_is_neither_recorded_nor_buried_nor_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bench.process(mail(clientState="hidden-state"))
    assert "clientState" not in next(iter(bench.events.events.values())).raw
    assert "hidden-state" not in " ".join(str(vars(record)) for record in caplog.records)
