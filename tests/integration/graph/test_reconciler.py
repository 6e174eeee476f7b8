"""Declared resources and what Graph has are brought together, whatever gets lost or dies on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

import psycopg
import pytest

from shared.engine.context import Context
from shared.engine.errors import LimitReachedError
from shared.engine.job import Completed, Job
from shared.graph.subscriptions import NewSubscription
from shared.handlers.subscriptions import SubscriptionHandler, SubscriptionUpkeep, UpkeepTimer
from shared.postgres.pool import Database
from tests.integration.graph.conftest import DISPATCH, DRIVER, Killed, Wired
from tests.integration.graph.watching import (
    CHATS,
    MAIL,
    NEXT_SECRET,
    SECRET,
    Clock,
    Host,
    Webhook,
    live_ids,
    reasons,
    rows,
    shaking,
)

Start = Callable[..., Host]
DRIVER_MAIL = f"users/{DRIVER}/messages"


@pytest.fixture(scope="module")
def hook() -> Iterator[Webhook]:
    with shaking() as webhook:
        yield webhook


@pytest.fixture
def webhook(hook: Webhook) -> Webhook:
    hook.refuses = False
    hook.shaken.clear()
    return hook


@pytest.fixture
def clock(wired: Wired) -> Clock:
    return Clock(wired)


@pytest.fixture
def start(wired: Wired, database: Database, webhook: Webhook, clock: Clock) -> Iterator[Start]:
    wired.graph.set_automatic_delivery(False)
    hosts: list[Host] = []

    def begin(**settings: Any) -> Host:
        hosts.append(Host(wired, database, webhook, clock, **settings))
        return hosts[-1]

    yield begin
    for host in hosts:
        host.close()


@pytest.fixture
def host(start: Start) -> Host:
    """Watches a mailbox and a chat; nothing is subscribed to yet."""
    host = start()
    host.watched.watch(MAIL)
    host.watched.watch(CHATS, "created", sync_user=DISPATCH)
    return host


def is_settled(wired: Wired, sql: psycopg.Connection) -> bool:
    """Exactly one live subscription of each declared resource, at Graph and here, and the same ones."""
    at_graph = {one["id"]: one["resource"] for one in wired.graph.subscriptions()}
    declared = rows(sql, "select resource from queue.watched_resources where ended_at is null")
    return sorted(at_graph.values()) == sorted(row[0] for row in declared) and sorted(at_graph) == live_ids(sql)


def posts(wired: Wired) -> int:
    return len(wired.sent("POST", "/subscriptions"))


def lists(wired: Wired) -> int:
    return len(wired.sent("GET", "/subscriptions"))


def of(wired: Wired, resource: str) -> dict[str, Any]:
    [found] = [one for one in wired.graph.subscriptions() if one["resource"] == resource]
    return found


# Creating


def test_what_is_declared_is_subscribed_to_once_and_ends_in_a_sync(
    host: Host, wired: Wired, sql: psycopg.Connection, webhook: Webhook
) -> None:
    host.run()
    assert is_settled(wired, sql)
    mail, chat = of(wired, MAIL), of(wired, CHATS)
    assert (mail["changeType"], chat["changeType"]) == ("created,deleted,updated", "created")
    assert sorted(webhook.shaken) == ["/api/webhooks/graph"] * 2 + ["/api/webhooks/graph/lifecycle"] * 2
    assert mail["clientState"] != chat["clientState"]
    assert [request["headers"]["prefer"] for request in wired.sent("POST", "/subscriptions")] == [
        'IdType="ImmutableId"'
    ] * 2
    assert reasons(sql) == ["new", "new"]
    payloads = rows(sql, "select payload from queue.job where queue = 'sync' order by payload ->> 'resourceType'")
    assert [(one[0]["resourceType"], one[0]["userId"]) for one in payloads] == [
        ("emails", DISPATCH),
        ("messages", DISPATCH),
    ]
    host.run()
    assert posts(wired) == 2


@pytest.mark.parametrize(
    ("resource", "days"),
    [(MAIL, 7), (f"users/{DISPATCH}/events", 7), (f"users/{DISPATCH}/drive/root", 29.375), (CHATS, 3)],
)
def test_each_kind_lives_for_nearly_the_longest_that_graph_allows(
    start: Start, wired: Wired, resource: str, days: float
) -> None:
    host = start()
    host.watched.watch(resource, sync_user=DISPATCH if resource == CHATS else None)
    host.run()
    left = datetime.fromisoformat(of(wired, resource)["expirationDateTime"]) - datetime.now(UTC)
    assert timedelta(days=days) - timedelta(minutes=7) < left < timedelta(days=days)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_host_that_dies_at_a_creation_leaves_one_subscription_and_one_sync(
    host: Host,
    start: Start,
    wired: Wired,
    sql: psycopg.Connection,
    clock: Clock,
    number: int,
    when: Literal["before", "after"],
) -> None:
    host.session.kill_at = (number, when)
    with pytest.raises(Killed):
        host.run()
    other = start()
    other.run()
    assert posts(wired) <= 2, "what the dead host has claimed is left alone as long as its claim lives"
    clock.move(timedelta(minutes=11))
    other.run()
    assert is_settled(wired, sql)
    assert len(reasons(sql)) == 2
    assert rows(sql, "select count(*) from queue.subscriptions") == [(2,)]


def test_a_lost_answer_is_found_again_and_not_asked_twice(host: Host, wired: Wired, sql: psycopg.Connection) -> None:
    wired.graph.add_fault("lose-answer", method="POST", path="/subscriptions$", times=2)
    host.run()
    assert is_settled(wired, sql)
    assert (posts(wired), lists(wired)) == (2, 1)
    assert reasons(sql) == ["adopted", "adopted"]
    known = rows(sql, "select count(*) from queue.subscriptions where client_state_id = %s", host.wanted.state_id)
    assert known == [(2,)]
    host.run()
    assert (posts(wired), len(wired.sent("DELETE", ""))) == (2, 0)


def test_an_answer_that_was_lost_before_its_effect_is_asked_again(
    host: Host, wired: Wired, sql: psycopg.Connection
) -> None:
    wired.graph.add_fault("reset", method="POST", path="/subscriptions$", times=1)
    host.run()
    assert is_settled(wired, sql)
    assert reasons(sql) == ["new", "new"]


def test_a_stranger_in_the_place_is_adopted_and_replaced_since_its_secret_is_not_known(
    host: Host, start: Start, wired: Wired, sql: psycopg.Connection
) -> None:
    """After a restored backup, for one: Graph has what we do not remember."""
    host.run()
    sql.execute("delete from queue.subscriptions")
    sql.execute("delete from queue.notification_gaps")
    sql.execute("update queue.watched_resources set due_at = clock_timestamp()")
    sql.execute("delete from queue.job")
    before = {one["id"] for one in wired.graph.subscriptions()}
    start().run()
    assert is_settled(wired, sql)
    assert before.isdisjoint(one["id"] for one in wired.graph.subscriptions())
    assert sorted(reasons(sql)) == ["adopted", "adopted", "replaced", "replaced"]


def test_a_double_that_graph_allowed_and_strays_are_removed(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    host.run()
    ours = of(wired, MAIL)
    elsewhere = ours["notificationUrl"].replace("/api/", "/other/")
    for changes, url in (("updated", None), ("deleted", None), ("created", elsewhere)):
        wired.subscriptions.create(
            NewSubscription(
                MAIL,
                changes,
                url or ours["notificationUrl"],
                ours["lifecycleNotificationUrl"],
                ours["clientState"],
                datetime.now(UTC) + timedelta(days=1),
            )
        )
    clock.move(timedelta(hours=7))
    host.run()
    left = sorted((one["resource"], one["notificationUrl"] == elsewhere) for one in wired.graph.subscriptions())
    assert left == [(CHATS, False), (MAIL, False), (MAIL, True)], "another application's stays"


def test_another_deployments_subscription_in_the_way_is_met_less_and_less_often(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    """With the same app registration, Graph takes one subscription of a resource (409), and the other's is not ours."""
    host.run()
    ours = of(wired, MAIL)
    wired.subscriptions.delete(ours["id"])
    elsewhere = ours["notificationUrl"].replace("/api/", "/other/")
    later = datetime.now(UTC) + timedelta(days=1)
    other = wired.subscriptions.create(
        NewSubscription(MAIL, ours["changeType"], elsewhere, elsewhere, "of the other", later)
    )
    assert host.records.note_removed(ours["id"])
    before = posts(wired), lists(wired)
    for _ in range(5):
        host.run()
    assert (posts(wired) - before[0], lists(wired) - before[1]) == (1, 1)
    assert host.records.due() == (0, False)
    wired.subscriptions.delete(other.id)
    clock.move(timedelta(minutes=2))
    host.run()
    assert is_settled(wired, sql)


# Keeping


def test_renewal_begins_when_a_half_of_the_life_is_over_and_has_many_tries(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    host.run()
    before = of(wired, CHATS)["expirationDateTime"]
    clock.move(timedelta(hours=35))
    host.run()
    assert of(wired, CHATS)["expirationDateTime"] == before
    wired.graph.add_fault("status", method="PATCH", status=500, times=6)
    clock.move(timedelta(hours=14))
    tries = 0
    while of(wired, CHATS)["expirationDateTime"] == before:
        host.run()
        clock.move(timedelta(minutes=38))
        tries += 1
    assert tries == 7
    assert of(wired, CHATS)["id"] in live_ids(sql)
    assert datetime.fromisoformat(before) > clock(), "long before it ran out"
    assert (posts(wired), len(wired.sent("POST", "/reauthorize"))) == (2, 0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_host_that_dies_at_a_renewal_loses_nothing(
    host: Host, start: Start, wired: Wired, sql: psycopg.Connection, clock: Clock, when: Literal["before", "after"]
) -> None:
    host.run()
    clock.move(timedelta(hours=50))
    dying = start()
    dying.session.kill_at = (1, when)
    with pytest.raises(Killed):
        dying.run()
    clock.move(timedelta(minutes=11))
    host.run()
    assert is_settled(wired, sql)
    assert datetime.fromisoformat(of(wired, CHATS)["expirationDateTime"]) > clock() + timedelta(hours=71)
    assert len(reasons(sql)) == 2


def test_what_graph_has_forgotten_is_made_anew_when_it_is_renewed(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    host.run()
    wired.subscriptions.delete(of(wired, CHATS)["id"])
    clock.move(timedelta(hours=50))
    host.run()
    assert is_settled(wired, sql)
    assert reasons(sql) == ["new", "new", "gone"]


def test_what_ran_out_during_an_outage_is_made_anew_with_a_sync(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    host.run()
    ran_out = of(wired, CHATS)["expirationDateTime"]
    clock.move(timedelta(days=5))
    host.run()
    assert is_settled(wired, sql)
    assert reasons(sql) == ["new", "new", "expired"]
    [(since,)] = rows(sql, "select from_at from queue.notification_gaps where reason = 'expired'")
    assert since == datetime.fromisoformat(ran_out)


def test_two_hosts_at_once_make_one_subscription_of_each(start: Start, wired: Wired, sql: psycopg.Connection) -> None:
    hosts = [start() for _ in range(3)]
    for user in range(30):
        wired.graph.control(
            "POST", "users", {"id": str(uuid4()), "userPrincipalName": f"u{user}@x.example", "displayName": "U"}
        )
        hosts[0].watched.watch(f"users/u{user}@x.example/messages")
    threads = [threading.Thread(target=host.run) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert is_settled(wired, sql)
    assert posts(wired) == 30
    assert reasons(sql) == ["new"] * 30


def test_renewals_of_what_was_made_together_are_spread(start: Start, wired: Wired, sql: psycopg.Connection) -> None:
    host = start()
    for user in range(30):
        wired.graph.control(
            "POST", "users", {"id": str(uuid4()), "userPrincipalName": f"u{user}@x.example", "displayName": "U"}
        )
        host.watched.watch(f"users/u{user}@x.example/messages")
    host.run()
    [(spread,)] = rows(sql, "select max(due_at) - min(due_at) from queue.watched_resources")
    assert spread > timedelta(hours=12)


# Changing


def test_what_is_no_longer_declared_ends_at_both_sides(host: Host, wired: Wired, sql: psycopg.Connection) -> None:
    host.run()
    assert host.watched.unwatch("/" + CHATS)
    assert not host.watched.unwatch(CHATS)
    host.run()
    assert is_settled(wired, sql)
    assert [one.resource for one in host.watched.list()] == [MAIL]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_host_that_dies_at_a_deletion_is_followed_by_one_that_ends_it(
    host: Host, start: Start, wired: Wired, sql: psycopg.Connection, clock: Clock, when: Literal["before", "after"]
) -> None:
    host.run()
    host.watched.unwatch(CHATS)
    dying = start()
    dying.session.kill_at = (1, when)
    with pytest.raises(Killed):
        dying.run()
    clock.move(timedelta(minutes=11))
    host.run()
    assert is_settled(wired, sql)
    assert [one.resource for one in host.watched.list()] == [MAIL]


def test_other_change_types_replace_the_subscription_and_sync(
    host: Host, wired: Wired, sql: psycopg.Connection
) -> None:
    host.run()
    host.watched.watch(CHATS, "created,updated", sync_user=DISPATCH)
    host.run()
    assert is_settled(wired, sql)
    assert of(wired, CHATS)["changeType"] == "created,updated"
    assert reasons(sql) == ["new", "new", "replaced"]


def test_a_changed_address_moves_all(host: Host, start: Start, wired: Wired, sql: psycopg.Connection) -> None:
    host.run()
    start(path="/moved").run()
    assert is_settled(wired, sql)
    for one in wired.graph.subscriptions():
        assert "/moved/api/webhooks/graph" in one["notificationUrl"]
        assert one["lifecycleNotificationUrl"].endswith("/moved/api/webhooks/graph/lifecycle")
    assert sorted(reasons(sql)) == ["new", "new", "replaced", "replaced"]


def test_an_address_where_nobody_answers_ends_no_subscription(
    host: Host, start: Start, wired: Wired, sql: psycopg.Connection, webhook: Webhook, clock: Clock
) -> None:
    """A cold start beyond Graph's ten seconds looks the same: tried again later, and told when it goes on."""
    host.run()
    before = live_ids(sql)
    webhook.refuses = True
    moved = start(path="/moved")
    for _ in range(4):
        moved.run()
        clock.move(timedelta(minutes=31))
    assert sorted(one["id"] for one in wired.graph.subscriptions()) == before == live_ids(sql)
    moved.records.tell()
    [(alert,)] = rows(sql, "select details ->> 'problem' from queue.queue_alerts where alert_key like '%:failing:chat'")
    assert "validation" in alert
    webhook.refuses = False
    moved.run()
    assert is_settled(wired, sql)
    moved.records.tell()
    assert rows(sql, "select count(*) from queue.queue_alerts where resolved_at is null") == [(0,)]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_host_that_dies_while_it_moves_one_leaves_one(
    start: Start, wired: Wired, sql: psycopg.Connection, clock: Clock, number: int, when: Literal["before", "after"]
) -> None:
    host = start()
    host.watched.watch(MAIL)
    host.run()
    moved = start(path="/moved")
    moved.session.kill_at = (number, when)
    with pytest.raises(Killed):
        moved.run()
    clock.move(timedelta(minutes=11))
    moved.session.kill_at = None
    moved.run()
    assert is_settled(wired, sql)
    assert "/moved/" in of(wired, MAIL)["notificationUrl"]
    assert len(reasons(sql)) == 2


def test_a_new_secret_comes_with_the_renewals_and_both_are_valid_meanwhile(
    host: Host, start: Start, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    host.run()
    rotated = start(secrets=(NEXT_SECRET, SECRET))
    rotated.run()
    assert posts(wired) == 2
    clock.move(timedelta(days=5))
    rotated.run()
    assert is_settled(wired, sql)
    assert posts(wired) == 4
    left = rows(
        sql,
        "select count(*) from queue.subscriptions where removed_at is null and client_state_id <> %s",
        rotated.wanted.state_id,
    )
    assert left == [(0,)]


def test_a_subscription_whose_secret_is_gone_is_replaced_at_once(
    host: Host, start: Start, wired: Wired, sql: psycopg.Connection
) -> None:
    host.run()
    start(secrets=(NEXT_SECRET,)).run()
    assert is_settled(wired, sql)
    assert sorted(reasons(sql)) == ["new", "new", "replaced", "replaced"]


def test_a_subscription_without_a_secret_on_record_is_replaced(
    host: Host, wired: Wired, sql: psycopg.Connection
) -> None:
    """As one that an earlier release made."""
    host.run()
    sql.execute("update queue.subscriptions set client_state_id = null")
    host.run()
    assert is_settled(wired, sql)
    assert posts(wired) == 4


@dataclass(frozen=True)
class Public:
    id: str
    base64: str


def certificate(name: str) -> Public:
    from local.certificate import as_setting, self_signed
    from shared.graph.rich import read_certificate

    public = read_certificate(as_setting(self_signed())).public
    return Public(f"{name}-{public.id[:8]}", public.base64)


def test_resource_data_needs_a_certificate_and_a_new_one_goes_into_a_patch(
    start: Start, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    host = start()
    host.watched.watch(CHATS, include_resource_data=True, sync_user=DISPATCH)
    host.run()
    [watched] = host.watched.list()
    assert watched.problem is not None and "certificate" in watched.problem
    assert posts(wired) == 0
    first, second = certificate("first"), certificate("second")
    clock.move(timedelta(minutes=20))
    start(certificate=first).run()
    made = of(wired, CHATS)
    assert (made["includeResourceData"], made["encryptionCertificateId"]) == (True, first.id)
    start(certificate=second).run()
    assert of(wired, CHATS)["encryptionCertificate"] == second.base64
    assert of(wired, CHATS)["id"] == made["id"]
    assert is_settled(wired, sql)


# Limits and refusals


def test_a_429_stops_every_host_until_its_time(
    host: Host, start: Start, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    wired.graph.add_fault("status", method="POST", path="/subscriptions$", status=429, headers={"Retry-After": "120"})
    host.run()
    start().run()
    host.run()
    assert posts(wired) == 1
    clock.move(timedelta(seconds=121))
    start().run()
    assert is_settled(wired, sql)


def test_a_quota_is_no_storm_and_opens_one_alert(
    start: Start, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    wired.graph.control("POST", "subscription-quotas", {"organization": 2})
    host = start()
    for chat in range(40):
        wired.graph.control("POST", "chats", {"id": f"19:c{chat}@thread.v2", "topic": "c", "members": [DISPATCH]})
        host.watched.watch(f"chats/19:c{chat}@thread.v2/messages", sync_user=DISPATCH)
    for _ in range(3):
        host.run()
        host.records.tell()
    assert posts(wired) <= 27, "a batch at most"
    alerts = rows(sql, "select alert_key, occurrences, details ->> 'problem' from queue.queue_alerts")
    assert [(key, count) for key, count, _ in alerts] == [("subscriptions:failing:chat", 1)]
    assert "limit of 2" in alerts[0][2]
    wired.graph.control("POST", "subscription-quotas", {"organization": 100})
    for _ in range(4):
        clock.move(timedelta(minutes=30))
        host.run()
    host.records.tell()
    assert is_settled(wired, sql)
    assert rows(sql, "select count(*) from queue.queue_alerts where resolved_at is null") == [(0,)]


def test_permits_are_taken_before_each_request_and_nothing_is_lost_when_they_end(
    host: Host, wired: Wired, sql: psycopg.Connection
) -> None:
    left = [1]

    def permit(n: int) -> None:
        if left[0] < n:
            raise LimitReachedError("none is left", timedelta(seconds=5))
        left[0] -= n

    with pytest.raises(LimitReachedError):
        host.run(permit)
    assert posts(wired) == 1
    host.run()
    assert is_settled(wired, sql)
    assert posts(wired) == 2


def test_while_graph_is_away_everything_waits_and_goes_on_by_itself(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    wired.graph.add_fault("status", path="/subscriptions", status=503, headers={"Retry-After": "30"}, times=1)
    host.run()
    clock.move(timedelta(seconds=31))
    host.run()
    assert is_settled(wired, sql)


def test_renewals_list_nothing(host: Host, wired: Wired, clock: Clock) -> None:
    host.run()
    before = lists(wired)
    wired.graph.add_fault("status", method="GET", path="/subscriptions$", status=429, times=5)
    for _ in range(3):
        clock.move(timedelta(hours=1))
        host.run()
    assert lists(wired) == before


# Lifecycle


def tell(host: Host, wired: Wired, event: str, resource: str, job_id: Any = None) -> Completed:
    """What the job of a lifecycle notification does."""
    payload = SubscriptionUpkeep(subscriptionId=of(wired, resource)["id"], lifecycleEvent=event)
    return handle(host, payload, job_id)


def handle(host: Host, payload: SubscriptionUpkeep, job_id: Any = None) -> Completed:
    handler = SubscriptionHandler(host.reconciler, host.records)
    first = done = handler(Job(job_id or uuid4(), "subscriptions", "", 1, 5, uuid4()), payload, Context())
    while done.follow_ups:
        done = handler(Job(uuid4(), "subscriptions", "", 1, 5, uuid4()), SubscriptionUpkeep(), Context())
    return first


def test_a_reauthorization_is_a_renewal_and_not_twice_in_ten_minutes(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    host.run()
    clock.move(timedelta(minutes=45))
    tell(host, wired, "reauthorizationRequired", MAIL)
    tell(host, wired, "reauthorizationRequired", MAIL)
    assert len(wired.sent("PATCH", "")) == 1
    clock.move(timedelta(minutes=11))
    host.run()
    assert len(wired.sent("PATCH", "")) == 2
    assert len(wired.sent("POST", "/reauthorize")) == 0
    host.run()
    assert len(wired.sent("PATCH", "")) == 2


def test_a_removal_is_made_up_for_once_however_often_and_by_how_many_it_is_told(
    host: Host, start: Start, wired: Wired, sql: psycopg.Connection
) -> None:
    host.run()
    removed = of(wired, MAIL)["id"]
    wired.subscriptions.delete(removed)
    payload = SubscriptionUpkeep(subscriptionId=removed, lifecycleEvent="subscriptionRemoved")
    threads = [threading.Thread(target=handle, args=(one, payload)) for one in (host, start(), start())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert is_settled(wired, sql)
    assert posts(wired) == 3
    assert handle(host, payload).result == {"noted": False}
    assert posts(wired) == 3
    assert reasons(sql) == ["new", "new", "removed"]


def test_missed_notifications_are_one_gap_and_one_sync(host: Host, wired: Wired, sql: psycopg.Connection) -> None:
    host.run()
    job_id = uuid4()
    tell(host, wired, "missed", MAIL, job_id)
    tell(host, wired, "missed", MAIL, job_id)
    assert reasons(sql) == ["new", "new", "missed"]
    assert posts(wired) == 2


def test_a_subscription_that_nobody_knows_changes_nothing(host: Host, wired: Wired) -> None:
    for event in ("reauthorizationRequired", "subscriptionRemoved", "missed"):
        payload = SubscriptionUpkeep(subscriptionId="unknown", lifecycleEvent=event)
        done = handle(host, payload)
        assert (done.result, done.follow_ups) == ({"noted": False}, ())


def test_an_event_that_comes_while_the_row_is_claimed_is_not_put_off(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    """A removal before the renewal is settled: the outcome must not hide it until the next renewal."""
    host.run()
    subscription = of(wired, CHATS)["id"]
    clock.move(timedelta(hours=50))
    noted: list[bool] = []
    host.run(lambda _: noted.append(host.records.note_removed(subscription)))
    assert noted[0]
    host.run()
    assert is_settled(wired, sql)
    assert "removed" in {row[0] for row in rows(sql, "select removed_reason from queue.subscriptions")}


# Gaps, timer, monitoring


def test_while_the_sync_queue_is_closed_gaps_wait_and_lose_nothing(
    start: Start, wired: Wired, sql: psycopg.Connection
) -> None:
    closed = start(syncs=False)
    closed.watched.watch(MAIL)
    closed.run()
    assert rows(sql, "select job_id from queue.notification_gaps") == [(None,)]
    assert rows(sql, "select gaps_not_synced from queue.subscription_status") == [(1,)]
    start().records.tell()
    assert reasons(sql) == ["new"]


def test_the_timer_enqueues_a_pass_only_when_there_is_something_to_do(
    host: Host, sql: psycopg.Connection, clock: Clock
) -> None:
    timer = UpkeepTimer(host.records, host.producer)
    sql.execute("delete from queue.job")
    sql.execute("delete from queue.uniqueness")
    assert timer.run() == 1
    assert timer.run() == 1
    assert rows(sql, "select count(*) from queue.job where queue = 'subscriptions'") == [(1,)]
    host.run()
    assert timer.run() == 0
    clock.move(timedelta(hours=7))
    assert timer.run() == 1, "a listing is due"


def test_what_runs_out_without_being_renewed_is_shown_and_told(
    host: Host, wired: Wired, sql: psycopg.Connection, clock: Clock
) -> None:
    host.run()
    shown = rows(sql, "select declared, covered, uncovered, failing, expiring, strays from queue.subscription_status")
    assert shown == [(2, 2, 0, 0, 0, 0)]
    host.records.tell()
    assert rows(sql, "select count(*) from queue.queue_alerts") == [(0,)]
    clock.move(timedelta(hours=61))
    host.records.tell()
    alerts = "select alert_key, level from queue.queue_alerts where resolved_at is null order by 1"
    assert rows(sql, alerts) == [("subscriptions:expiring", "critical")]
    clock.move(timedelta(hours=12))
    host.records.tell()
    assert rows(sql, alerts) == [("subscriptions:uncovered", "critical")]
    host.run()
    host.records.tell()
    assert rows(sql, alerts) == []
