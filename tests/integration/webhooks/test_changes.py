"""From a change in Microsoft 365 to the row: Graph's notification, the webhook, its queue, the job, the sync."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import azure.functions as func
import psycopg
import pytest
from psycopg.rows import dict_row

from functions.webhooks import take_lifecycle_notifications, take_notifications
from local.demo import samples
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CLIENT, SECRET, TENANT
from shared import bootstrap
from shared.storage.queues import StorageQueues
from tests.integration.graph.conftest import DISPATCH, DRIVER, graph, server
from tests.integration.webhooks.test_intake import drain, item, post

__all__ = ["graph", "server"]

SUBSCRIPTIONS, SYNC = "subscriptions", "sync"


@dataclass
class System:
    """The product in this process, Graph and its webhook between them."""

    graph: FakeGraph
    queues: StorageQueues
    sql: psycopg.Connection
    statuses: list[int] = field(default_factory=list)

    def watch(self, resource: str, sync_user: str | None) -> None:
        """Declare it and have its subscription; what is there already is synced."""
        bootstrap.watched_resources().watch(resource, sync_user=sync_user)
        bootstrap.upkeep_timer().run()
        self.work()
        assert len(self.graph.subscriptions()) == 1

    def deliver(self) -> list[tuple[str, str]]:
        """Graph tells what has changed: change type and resource of each."""
        reports = self.graph.deliver()
        assert [report["status"] for report in reports] == [202]
        return [(item["changeType"], item["resource"]) for item in reports[0]["items"]]

    def work(self) -> None:
        """All that there is to do, what is put off included."""
        for _ in range(10):
            handled = drain(self.queues)
            self.sql.execute("update queue.later set run_at = clock_timestamp()")
            bootstrap.relay().run()
            ran = [bootstrap.worker().run(queue, 10).ran for queue in (SUBSCRIPTIONS, SYNC)]
            if handled == sum(ran) == 0:
                return
        raise AssertionError("the work does not end")

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        with self.sql.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(f"select * from queue.{table}".encode()).fetchall()
        return {row["external_id"]: row for row in found}

    def dead(self) -> list[tuple[Any, ...]]:
        return self.sql.execute("select queue, error_message from queue.dead_letter_queue").fetchall()


@pytest.fixture
def webhook_url() -> Iterator[str]:
    """The product's two webhooks behind HTTP; their base address."""
    paths = {
        "/api/webhooks/graph": take_notifications,
        "/api/webhooks/graph/lifecycle": take_lifecycle_notifications,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = func.HttpRequest(
                "POST", self.path, headers=dict(self.headers), params=dict(parse_qsl(parts.query)), body=body
            )
            answer = asyncio.run(paths[parts.path](request))
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.mimetype)
            self.send_header("Content-Length", str(len(answer.get_body())))
            self.end_headers()
            self.wfile.write(answer.get_body())

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}/api"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def system(
    product: StorageQueues, webhook_url: str, graph: FakeGraph, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[System]:
    """Afterwards, no request may have broken Graph's contract, and nothing may be dead."""
    settings = {
        "WEBHOOK_BASE_URL": webhook_url,
        "GRAPH_BASE_URL": graph.graph_url,
        "GRAPH_AUTHORITY": graph.authority,
        "GRAPH_TENANT_ID": TENANT,
        "GRAPH_CLIENT_ID": CLIENT,
        "GRAPH_CLIENT_SECRET": SECRET,
        "GRAPH_CA_FILE": str(graph.ca_file),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    graph.set_automatic_delivery(False)
    system = System(graph, product, sql)
    yield system
    assert graph.violations() == []
    assert system.dead() == []


def put_event(graph: FakeGraph, name: str, **known: str) -> str:
    hours = {name: {"dateTime": f"2026-12-01T{hour}:00:00", "timeZone": "UTC"} for name, hour in HOURS}
    return graph.put_event(DISPATCH, subject=name, **hours, **known)


def put_contact(graph: FakeGraph, name: str, **known: str) -> str:
    return graph.put_contact(DISPATCH, displayName=name, **known)


def put_file(graph: FakeGraph, name: str, **known: str) -> str:
    return graph.put_drive_item(DISPATCH, name=name, **known)


HOURS = (("start", "08"), ("end", "09"))
OF_USER = f"users/{DISPATCH}"
#: What is watched, and for whom it is synced; the table and the column of the name; how it is made; what Graph calls
#: its removal; who owns it there.
WATCHED = [
    (f"{OF_USER}/events", None, "calendar_events", "subject", put_event, "events", "user"),
    (f"{OF_USER}/contacts", None, "contacts", "display_name", put_contact, "contacts", "user"),
    (f"{OF_USER}/drive/root", None, "files", "name", put_file, "drive-items", "owner"),
    ("drives/{drive}/root", DISPATCH, "files", "name", put_file, "drive-items", "owner"),
]


@pytest.mark.parametrize(
    ("resource", "sync_user", "table", "column", "put", "kind", "owner"), WATCHED, ids=[case[0] for case in WATCHED]
)
def test_a_change_comes_by_notification_into_the_row_and_a_deletion_marks_it(
    system: System, resource: str, sync_user: str | None, table: str, column: str,
    put: Callable[..., str], kind: str, owner: str,
) -> None:  # fmt: skip
    graph = system.graph
    [root] = graph.control("GET", f"drive-items/{DISPATCH}")
    system.watch(resource.replace("{drive}", root["parentReference"]["driveId"]), sync_user)
    made = put(graph, "Tour 7")
    [(change, told)] = system.deliver()
    assert change == ("updated" if "drive" in resource else "created") and ("drive" in told or made in told)
    system.work()
    row = system.rows(table)[made]
    assert (row[column], row["account"], row["deleted_at"]) == ("Tour 7", DISPATCH, None)
    put(graph, "Tour 8", id=made)
    assert [change for change, _ in system.deliver()] == ["updated"]
    system.work()
    assert system.rows(table)[made][column] == "Tour 8"
    graph.control("POST", f"{kind}/delete", {owner: DISPATCH, "id": made})
    assert [change for change, _ in system.deliver()] == ["updated" if "drive" in resource else "deleted"]
    system.work()
    row = system.rows(table)[made]
    assert row["deleted_at"] is not None and row[column] == "Tour 8"
    keys = system.sql.execute("select distinct limit_key from queue.job_tracking where queue = 'sync'").fetchall()
    assert keys == [(f"mailbox-reads:{DISPATCH}",)]
    kinds = [row[0] for row in system.sql.execute("select kind from queue.sync_history order by started_at")]
    assert kinds == ["full", "delta", "delta", "delta"]


def test_a_429_to_a_mail_that_came_in_closes_its_mailbox_for_reading_and_nothing_else(system: System) -> None:
    """Graph counts by mailbox: the others are read on, and mails are sent."""
    system.watch(f"{OF_USER}/mailFolders('inbox')/messages", None)
    for number in range(2):
        system.graph.arrive_mail(DISPATCH, samples.plain_mail(number))
    assert len(system.deliver()) == 2
    drain(system.queues)
    system.graph.add_fault("status", method="GET", path="/messages/", status=429, headers={"Retry-After": "300"})
    assert bootstrap.worker().run("outlook-inbound", 1).ran == 1
    other = system.graph.arrive_mail(DRIVER, samples.plain_mail(3))
    assert post(item(3, resource=f"users/{DRIVER}/messages/{other}", subscriptionId="s9")) == 202
    drain(system.queues)
    assert bootstrap.worker().run("outlook-inbound", 10).ran == 1
    kept = system.sql.execute("select account from queue.communication_logs").fetchall()
    assert kept == [(DRIVER,)]
    blocked = "select key from queue.rate_limit_tracking where blocked_until > clock_timestamp() + interval '4 minutes'"
    assert system.sql.execute(blocked).fetchall() == [(f"mailbox-reads:{DISPATCH}",)]
    jobs = "select state, count(*) from queue.jobs where queue = 'outlook-inbound' group by 1 order by 1"
    assert system.sql.execute(jobs).fetchall() == [("completed", 1), ("scheduled", 1), ("waiting", 1)]
