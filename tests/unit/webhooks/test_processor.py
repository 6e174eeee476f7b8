"""What becomes of notifications: one job for one change, and no item costs another."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engine.enqueue import Producer
from shared.engine.errors import MessageHeldError, StoreUnavailableError, UnreadableMessageError
from shared.engine.job import Debounce
from shared.engine.memory import MemoryStore, MemoryTransport
from shared.engine.ports import Rate
from shared.graph.validation_tokens import InvalidTokenError, KeysUnavailableError
from shared.handlers.change_keys import change_key, find_target, lifecycle_key
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.handlers.rich_contents import RichContents
from shared.handlers.services import Alert
from shared.handlers.webhooks import Event, EventRefusedError, NotificationProcessor, Recorded
from tests.unit.webhooks.vouching import Vouched, encrypted, no_rich, rich

AT = "2026-11-25T08:00:00.123456+00:00"
TENANT = "11111111-1111-4111-8111-111111111111"
CHAT = "chats('19:dispatch@thread.v2')/messages('1700000000000')"


class Events:
    """Remembers dedupe keys; refuses resources that contain `poison`; is away while `away`."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.away = False
        self.declared: dict[str, str] = {}
        self.asked: list[set[str]] = []

    def declared_users(self, subscription_ids: Collection[str]) -> Mapping[str, str]:
        if self.away:
            raise StoreUnavailableError("away")
        self.asked.append(set(subscription_ids))
        return {one: name for one, name in self.declared.items() if one in subscription_ids}

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
        self.told: list[Alert] = []
        self.producer = producer
        self.use(no_rich())

    def use(self, rich: RichContents) -> None:
        """From now on, with these certificates and this judge of tokens."""
        self.processor = NotificationProcessor(self.events, self.bury, self.producer, rich, self)

    def tell(self, alert: Alert) -> None:
        self.told.append(alert)

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
    assert len(bench.jobs) == 3
    assert len(bench.wakes) == 3
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


def test_the_spelling_of_a_change_does_not_matter(bench: Bench) -> None:
    """Microsoft's own samples have both `created` and `Created`."""
    bench.process(chat(etag=None, change="created"), chat(etag=None, change="Created"))
    assert [payload["changeType"] for _, payload in bench.jobs] == ["created"]
    bench.process(mail(change="Deleted"))
    assert bench.jobs[-1][1]["changeType"] == "deleted"


def test_a_message_of_a_users_chats_is_the_chats_message(bench: Bench) -> None:
    bench.process(chat(), mail(resource=f"users('u1')/{CHAT}"))
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
    bench.process(mail(resource="users/u/photo"), mail(change="renamed"), mail(resource="teams/t/members/m"))
    assert {event.outcome for event in bench.events.events.values()} == {"ignored"}
    assert bench.jobs == []
    assert bench.buried == {}


@pytest.mark.parametrize(
    ("resource", "kind"),
    [
        ("Users/U1/Events/AAMkAD1", "calendar"),
        ("users('u1')/events('AAMkAD1')", "calendar"),
        ("users/u1/contacts/AAMkAD1", "contacts"),
        ("users/u1/contactFolders/f/contacts/AAMkAD1", "contacts"),
        ("users/u1/drive/root", "files"),
    ],
)
def test_a_swarm_of_changes_becomes_one_sync(bench: Bench, resource: str, kind: str) -> None:
    bench.process(*(mail(resource=resource, etag=etag, id=etag) for etag in ("1", "2", "3")))
    found = [event.job for event in bench.events.events.values()]
    assert len(found) == 3 and {event.outcome for event in bench.events.events.values()} == {"enqueued"}
    keys = {job.unique for job in found if job is not None}
    assert keys == {Debounce(f"changed:{kind}:u1", timedelta(seconds=5), timedelta(seconds=30))}
    payloads = [job.payload for job in found if job is not None]
    assert {payload["userId"].lower() for payload in payloads} == {"u1"}
    assert {(payload["resourceType"], payload["subscriptionId"]) for payload in payloads} == {(kind, "s1")}


def test_a_sync_counts_for_the_limits_of_the_mailbox_by_the_declarations_name(bench: Bench) -> None:
    """Graph writes the user's id, a mail's sender is a name: one mailbox would have two keys."""
    bench.events.declared = {"s1": "ann@fleet.example"}
    paths = ("Users/U1/Events/AAMkAD1", "users/ann@fleet.example/drive/root")
    bench.process(*(mail(resource=path) for path in paths))
    bench.process(mail(resource="Users/U2/Contacts/AAMkAD2", subscriptionId="s2"), mail(2), chat(), 5, {"resource": 5})
    found = [event.job for event in bench.events.events.values()]
    syncs = [(job.limit_key, job.payload["userId"], job.unique) for job in found if job and job.queue == "sync"]
    quiet, reads = (timedelta(seconds=5), timedelta(seconds=30)), "mailbox-reads"
    assert syncs == [
        (f"{reads}:ann@fleet.example", "ann@fleet.example", Debounce("changed:calendar:ann@fleet.example", *quiet)),
        (f"{reads}:ann@fleet.example", "ann@fleet.example", Debounce("changed:files:ann@fleet.example", *quiet)),
        (f"{reads}:u2", "U2", Debounce("changed:contacts:u2", *quiet)),
    ]
    bench.process(chat(subscriptionId="s3"), 5, {"resource": 5})
    assert bench.events.asked == [{"s1"}, {"s1", "s2"}], "once for a batch, and only where a mailbox is read"


def test_what_comes_in_counts_for_the_limits_of_its_mailbox_or_chat(bench: Bench) -> None:
    """A 429 closes that one, and not the queue."""
    bench.events.declared = {"s1": "Ann@fleet.example"}
    channel = "teams('T')/channels('19:C@thread.tacv2')/messages('1')/replies('2')"
    bench.process(
        mail(1),
        mail(2, subscriptionId="s2"),
        chat(),
        mail(resource=f"users('U')/{CHAT}", etag=None, change="updated"),
        mail(resource=channel),
    )
    found = [event.job.limit_key for event in bench.events.events.values() if event.job]
    user = "aaaaaaaa-0000-4000-8000-000000000001"
    assert found == [
        "mailbox-reads:ann@fleet.example",
        f"mailbox-reads:{user}",
        "chat-reads:19:dispatch@thread.v2",
        "chat-reads:19:dispatch@thread.v2",
        "chat-reads:t/19:c@thread.tacv2",
    ]


def test_queues_that_share_keys_have_the_same_limits_for_each_key() -> None:
    """Else one queue's jobs stand in the line of a key behind another's that may not run yet, though there is room."""
    limits: dict[str, set[tuple[Rate | None, int | None]]] = {}
    for spec in QUEUES.values():
        if spec.limit_key is not None:
            limits.setdefault(spec.limit_key.scope, set()).add((spec.limits.key_rate, spec.limits.key_concurrency))
    assert {scope: len(found) for scope, found in limits.items()} == dict.fromkeys(limits, 1)


def test_all_queues_together_keep_to_the_four_requests_at_once_of_a_mailbox() -> None:
    at_once: dict[str, int] = {}
    for spec in QUEUES.values():
        if spec.limit_key is not None and spec.limit_key.scope.startswith("mailbox"):
            assert spec.limits.key_concurrency is not None, spec.name
            at_once[spec.limit_key.scope] = max(at_once.get(spec.limit_key.scope, 0), spec.limits.key_concurrency)
    assert sum(at_once.values()) == 4 and {"outlook-outbound", "outlook-inbound", "sync"} <= set(QUEUES)


@pytest.mark.parametrize("resource", ["drives/d/root", "drives('d')/root", "2b8c1b8e-0000-4000-8000-000000000001"])
def test_a_drive_by_its_id_is_synced_by_its_declaration(bench: Bench, resource: str) -> None:
    """By Graph's id of the drive, or by SharePoint's of the library."""
    bench.process(mail(resource=resource, resourceData={"@odata.type": "#Microsoft.Graph.DriveItem"}))
    [job] = [event.job for event in bench.events.events.values()]
    assert job is not None and job.queue == "subscriptions" and job.payload["lifecycleEvent"] == "missed"


def test_lifecycle_items_are_recorded_by_their_field_and_have_no_resource(bench: Bench) -> None:
    names = ("missed", "reauthorizationRequired", "somethingNew")
    bench.process(*({"subscriptionId": "s1", "lifecycleEvent": name} for name in names))
    found = list(bench.events.events.values())
    assert [(event.kind, event.change_type, event.outcome) for event in found] == [
        ("lifecycle", "missed", "enqueued"),
        ("lifecycle", "reauthorizationRequired", "enqueued"),
        ("lifecycle", "somethingNew", "recorded"),
    ]
    payload = {"subscriptionId": "s1", "lifecycleEvent": "missed"}
    assert bench.jobs[0] == ("subscriptions", payload)


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


def test_a_message_of_a_newer_release_is_held_for_as_long_as_a_deployment_takes(bench: Bench) -> None:
    body: dict[str, Any] = {"notifications": [mail()], "fieldOfTomorrow": 1}
    ago = {minutes: (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat() for minutes in (1, 61)}
    with pytest.raises(MessageHeldError, match="fieldOfTomorrow"):
        bench.processor.process(body | {"receivedAt": ago[1]}, "m1")
    for old in (body | {"receivedAt": ago[61]}, body, body | {"receivedAt": ago[1], "validationTokens": 5}):
        with pytest.raises(UnreadableMessageError):
            bench.processor.process(old, "m1")


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


def brought(number: int = 1, *, certificate: str = "current", change: str = "created", **more: Any) -> dict[str, Any]:
    """A chat message that travels with its notification."""
    message = {"id": "1700000000000", "etag": str(number), "body": {"content": f"secret text {number}"}}
    return chat(etag=None, change=change, encryptedContent=encrypted(message, certificate), **more)


def process_rich(bench: Bench, *items: Any, tokens: list[str] | None = None) -> None:
    body = {"notifications": items, "receivedAt": AT, "validationTokens": ["token"] if tokens is None else tokens}
    bench.processor.process(json.loads(json.dumps(body)), str(uuid4()))


def test_resource_data_goes_into_the_job_and_nowhere_else(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    vouched = Vouched()
    bench.use(rich(vouched, "current"))
    process_rich(bench, brought())
    assert vouched.checked == [["token"]]
    ((queue, payload),) = bench.jobs
    assert (queue, payload["message"]["body"]) == ("teams-inbound", {"content": "secret text 1"})
    (event,) = bench.events.events.values()
    assert event.job is not None and event.job.limit_key is None, "nothing is read from the chat"
    assert "encryptedContent" not in event.raw
    assert "secret text" not in json.dumps(event.raw) + " ".join(str(vars(record)) for record in caplog.records)
    assert bench.told == []


def test_the_old_certificate_opens_too_and_an_unknown_one_costs_a_look_and_an_alert(bench: Bench) -> None:
    bench.use(rich(Vouched(), "current", "previous"))
    items = [brought(1), brought(2, certificate="previous", change="updated"), brought(3, certificate="lost", id="n3")]
    process_rich(bench, *items, chat(etag='W/"9"'))
    assert ["message" in payload for _, payload in bench.jobs] == [True, True, False, False]
    (alert,) = bench.told
    assert (alert.key, alert.level, alert.times) == ("resource-data:certificate", "warning", 1)


def test_a_wrong_signature_and_data_that_does_not_open_cost_a_look_and_an_alert_each(bench: Bench) -> None:
    bench.use(rich(Vouched(), "current"))
    touched, broken = (
        brought(1) | {"resource": CHAT.replace("17", "18")},
        brought(2) | {"resource": CHAT.replace("17", "19")},
    )
    touched["encryptedContent"]["data"] = "AAAA"
    broken["encryptedContent"]["dataKey"] = "AAAA"
    process_rich(bench, touched, broken, brought(3))
    assert ["message" in payload for _, payload in bench.jobs] == [False, False, True]
    assert {(alert.key, alert.level) for alert in bench.told} == {
        ("resource-data:signature", "critical"),
        ("resource-data:unreadable", "warning"),
    }


def test_a_suspicious_batch_is_dropped_whole_counted_and_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.use(rich(Vouched(InvalidTokenError("its audience is another application")), "current"))
    process_rich(bench, brought(), mail())
    assert (bench.jobs, bench.events.events, bench.buried) == ([], {}, {})
    (alert,) = bench.told
    assert (alert.key, alert.level, alert.details["items"]) == ("resource-data:suspicious", "critical", 2)
    assert "audience" in alert.details["reason"]
    assert [record.message for record in caplog.records] == ["notifications.suspicious"]
    bench.use(rich(Vouched(), "current"))
    process_rich(bench, brought(), mail())
    assert len(bench.jobs) == 2, "what was dropped does not take the place of the genuine one"


def test_resource_data_without_a_token_is_checked_and_basic_notifications_are_not(bench: Bench) -> None:
    vouched = Vouched()
    bench.use(rich(vouched, "current"))
    process_rich(bench, brought(), tokens=[])
    assert vouched.checked == [[]]
    process_rich(bench, mail(), chat(encryptedContent=None), tokens=[])
    assert vouched.checked == [[]]


def test_while_the_keys_are_away_nothing_is_recorded_and_the_message_waits(bench: Bench) -> None:
    bench.use(rich(Vouched(KeysUnavailableError("away")), "current"))
    with pytest.raises(MessageHeldError):
        process_rich(bench, brought())
    assert (bench.events.events, bench.told, bench.buried) == ({}, [], {})


def test_resource_data_of_a_mail_is_not_even_opened(bench: Bench) -> None:
    bench.use(rich(Vouched()))
    process_rich(bench, mail(encryptedContent=encrypted({"id": "AAMk1="}, "lost")))
    assert bench.jobs[0][1].keys() == {"resource", "changeType", "subscriptionId", "tenantId"}
    assert bench.told == []


def test_one_change_that_is_brought_twice_makes_one_job_and_an_edit_another(bench: Bench) -> None:
    bench.use(rich(Vouched(), "current"))
    process_rich(bench, brought(1), brought(1, subscriptionId="s2"), brought(1, change="updated"))
    process_rich(bench, brought(2, change="updated"))
    assert len(bench.jobs) == 2


segments = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)


@settings(max_examples=300)
@given(
    st.one_of(
        st.text(max_size=80),
        st.builds("users/{}/messages/{}".format, segments, segments),
        st.builds("chats('{}')/messages('{}')".format, segments, segments),
        st.builds("teams/{}/channels/{}/messages/{}/replies/{}".format, segments, segments, segments, segments),
    )
)
def test_any_path_names_a_message_or_none_and_never_an_id_that_leaves_its_place(resource: str) -> None:
    target = find_target(resource)
    if target is None:
        return
    assert target.queue in ("outlook-inbound", "teams-inbound")
    for part in target.identity:
        assert part not in ("", ".", "..")


@given(st.sampled_from(["users", "Users"]), st.from_regex(r"[A-Za-z0-9=_@.\-]{1,20}[A-Za-z0-9=]", fullmatch=True))
def test_both_spellings_of_a_path_name_the_same_message(root: str, message: str) -> None:
    plain = find_target(f"{root}/u1/messages/{message}")
    assert plain == find_target(f"{root}('u1')/messages('{message}')") is not None
