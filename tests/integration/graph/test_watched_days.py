"""Days in the life of 300 watched resources, kept by two hosts: whatever is thrown at them, none is ever unwatched."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import psycopg

from shared.postgres.pool import Database
from tests.integration.graph.conftest import DISPATCH, Wired
from tests.integration.graph.watching import Clock, Host, live_ids, rows, shaking

EACH = 150
STEP = timedelta(hours=4)
STEPS = 21


def declare(wired: Wired, host: Host) -> None:
    for number in range(EACH):
        user, name = str(UUID(int=number, version=4)), f"driver{number}@fleet.example"
        wired.graph.control("POST", "users", {"id": user, "userPrincipalName": name, "displayName": name})
        wired.graph.control("POST", "chats", {"id": f"19:{number}@thread.v2", "topic": name, "members": [user]})
        host.watched.watch(f"users/{user}/messages", "created")
        host.watched.watch(f"chats/19:{number}@thread.v2/messages", "created", sync_user=DISPATCH)


def throw(wired: Wired, random: Random) -> None:
    """Some of what Graph and networks do; each ends by itself."""
    wired.graph.clear_faults()
    number = random.randint(1, 6)
    match random.choice(["lost", "error", "throttled", "cut", "nothing"]):
        case "lost":
            wired.graph.add_fault("lose-answer", method="PATCH", times=number)
            wired.graph.add_fault("lose-answer", method="POST", path="/subscriptions$", times=number)
        case "error":
            wired.graph.add_fault("status", path="/subscriptions", status=502, times=number)
        case "throttled":
            wired.graph.add_fault("status", path="/subscriptions", status=429, headers={"Retry-After": "60"})
        case "cut":
            wired.graph.add_fault("reset", path="/subscriptions", times=number)
        case _:
            pass


def run_both(hosts: list[Host]) -> None:
    threads = [threading.Thread(target=host.run) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


def test_300_resources_are_watched_without_a_break_for_days(
    wired: Wired, database: Database, sql: psycopg.Connection
) -> None:
    wired.graph.set_automatic_delivery(False)
    clock, random = Clock(wired), Random(5)
    with shaking() as webhook:
        hosts = [Host(wired, database, webhook, clock) for _ in range(2)]
        declare(wired, hosts[0])
        run_both(hosts)
        made = {one["id"] for one in wired.graph.subscriptions()}
        assert len(made) == 2 * EACH
        renewals: list[int] = []
        for _ in range(STEPS):
            clock.move(STEP)
            throw(wired, random)
            before = len(wired.sent("PATCH", ""))
            for _ in range(3):
                run_both(hosts)
                clock.move(timedelta(minutes=2))
            renewals.append(len(wired.sent("PATCH", "")) - before)
            ends = [datetime.fromisoformat(one["expirationDateTime"]) for one in wired.graph.subscriptions()]
            assert len(ends) == 2 * EACH
            assert min(ends) > clock() + 2 * STEP, "the next pass and the one after it come in time"
        for host in hosts:
            host.close()
    assert {one["id"] for one in wired.graph.subscriptions()} == made, "each was renewed, and none made anew"
    assert sorted(made) == live_ids(sql)
    assert sum(renewals) >= EACH, "the chats' at least once"
    assert max(renewals) < EACH, "and never all at a time"
    assert rows(sql, "select count(*) from queue.notification_gaps") == [(2 * EACH,)]
