"""What the tests of subscriptions share: hosts that reconcile, a webhook for handshakes, a clock moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from shared.engine.enqueue import Producer
from shared.engine.memory import MemoryTransport
from shared.graph.client import GraphClient
from shared.graph.notifications import ClientStates
from shared.graph.subscriptions import Certificate, SubscriptionClient
from shared.handlers.loading import parse_payload
from shared.handlers.reconciler import Permit, Reconciler, Tally
from shared.handlers.registry import QUEUES
from shared.handlers.watching import Wanted
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore
from shared.postgres.subscription_listing import PostgresSubscriptionRecords
from shared.postgres.watched_resources import WatchedResources
from tests.integration.graph.conftest import CHAT, DISPATCH, KillableSession, Wired

MAIL = f"users/{DISPATCH}/mailFolders('inbox')/messages"
CHATS = f"chats/{CHAT}/messages"
SECRET, NEXT_SECRET = b"1" * 32, b"2" * 32


class Clock:
    """The database's time as the records see it, moved by hand; the fake Graph's moves with it."""

    def __init__(self, wired: Wired) -> None:
        self._wired = wired
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def move(self, by: timedelta) -> None:
        self.ahead += by
        self._wired.graph.control("POST", "clock", {"ahead": self.ahead.total_seconds()})


@dataclass
class Webhook:
    """Answers Graph's handshake, unless told to refuse it."""

    url: str
    shaken: list[str] = field(default_factory=list)
    refuses: bool = False


@contextmanager
def shaking() -> Iterator[Webhook]:
    hook = Webhook("")

    class Shaking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            token = parse_qs(parts.query).get("validationToken", [""])[0].encode()
            hook.shaken.append(parts.path)
            self.send_response(500 if hook.refuses else 200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(token)))
            self.end_headers()
            self.wfile.write(token)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Shaking)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Host:
    """One instance: its own connection to Graph, and its settings."""

    def __init__(
        self,
        wired: Wired,
        database: Database,
        webhook: Webhook,
        clock: Clock | None = None,
        *,
        secrets: tuple[bytes, ...] = (SECRET,),
        certificate: Certificate | None = None,
        path: str = "",
        syncs: bool = True,
    ) -> None:
        self.session = KillableSession(ca_file=str(wired.graph.ca_file), read_seconds=5, total_seconds=10)
        client = SubscriptionClient(GraphClient(self.session, wired.app_tokens, wired.graph.graph_url))
        store = PostgresStore(database)
        self.transport = MemoryTransport()
        specs = dict(QUEUES) | ({} if syncs else {"sync": replace(QUEUES["sync"], closed="it is closed for a while")})
        self.producer = Producer(store, self.transport, specs, parse_payload)
        self.records = PostgresSubscriptionRecords(database, self.producer, clock)
        self.watched = WatchedResources(database, self.producer)
        states = ClientStates(*secrets)
        base = f"{webhook.url}{path}/api"
        self.wanted = Wanted(
            base_url=base,
            notification_url=f"{base}/webhooks/graph",
            lifecycle_url=f"{base}/webhooks/graph/lifecycle",
            new_state=states.new,
            state_id=states.ids[0],
            state_ids=frozenset(states.ids),
            certificate=certificate,
        )
        self.reconciler = Reconciler(client, self.records, self.wanted)

    def run(self, permit: Permit = lambda _: None) -> Tally:
        return self.reconciler.run(permit)

    def close(self) -> None:
        self.session.close()


def rows(sql: psycopg.Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return sql.execute(query.encode(), values or None).fetchall()


def live_ids(sql: psycopg.Connection) -> list[str]:
    return [row[0] for row in rows(sql, "select id from queue.subscriptions where removed_at is null order by 1")]


def reasons(sql: psycopg.Connection) -> list[str]:
    """Why there are gaps, oldest first; each has its one job."""
    found = rows(
        sql,
        "select g.reason, (select count(*) from queue.job j where j.id = g.job_id and j.queue = 'sync'"
        " and j.payload ->> 'fullSync' = 'false') from queue.notification_gaps g order by g.recorded_at, g.reason",
    )
    assert all(jobs == 1 for _, jobs in found)
    assert rows(sql, "select count(*) from queue.job where queue = 'sync'") == [(len(found),)]
    return [reason for reason, _ in found]
