"""How fast a mailbox comes into step, and in how much memory: `./dev python -m bench.sync`.

The handler of `sync` in this process, PostgreSQL (durable) and the fake Graph on the same cores. Graph itself answers a
page of mails in some tenths of a second: read the figures as what our side costs.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from uuid import uuid4

import psycopg

from local.fake_graph import schemas
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CLIENT, SECRET, TENANT
from local.postgres import PostgresServer
from shared.engine.context import Context
from shared.engine.job import Completed, Job
from shared.graph.client import GraphClient
from shared.graph.credentials import Application, ClientSecret
from shared.graph.delta import DeltaClient
from shared.graph.mail import MailClient
from shared.graph.session import GraphSession
from shared.graph.tokens import AppTokens
from shared.handlers.non_delivery import NonDelivery
from shared.handlers.sync import Sync, SyncRequest
from shared.handlers.sync_kinds import Reader
from shared.postgres.delivery_failures import PostgresDeliveryFailures
from shared.postgres.migrate import migrate
from shared.postgres.pool import Database
from shared.postgres.sync import PostgresSync

USER = "dispatch@fleet.example"
ITEMS = 5000


class CountingDatabase(Database):
    """Counts how often the database is used."""

    uses = 0

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        self.uses += 1
        with super().connection() as conn:
            yield conn


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer(Path(folder) / "data")
        server.start()
        schemas.make(schemas.HOME / "graph-schemas")
        with FakeGraph(Path(folder) / "graph") as graph:
            graph.set_automatic_delivery(False)
            migrate(server.dsn)
            database = CountingDatabase(server.dsn)
            fill(graph)
            print("| what | items/s | database uses for a page |\n|---|---|---|")
            for kind, full in (("emails", False), ("emails", True), ("contacts", False), ("contacts", False)):
                measure(graph, database, kind, full)
            tracemalloc.start()
            measure(graph, database, "emails", full=True)  # slower: every allocation is followed
            print(f"\nMemory at most: {tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB.")
            database.close()
        server.stop("immediate")


def fill(graph: FakeGraph) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"] = "zoe@customer.example", USER
    mail.set_content("<p>" + "The truck is late. " * 200 + "</p>", subtype="html")
    for number in range(ITEMS):
        del mail["Subject"], mail["Message-ID"]
        mail["Subject"], mail["Message-ID"] = f"Trip {number}", f"<{number}@customer.example>"
        graph.arrive_mail(USER, mail.as_bytes())
        graph.put_contact(USER, displayName=f"Contact {number}", businessPhones=["+49 1"])
    graph.control("DELETE", "requests")


def measure(graph: FakeGraph, database: CountingDatabase, kind: str, full: bool) -> None:
    session = GraphSession(ca_file=str(graph.ca_file))
    client = GraphClient(
        session, AppTokens(Application(TENANT, CLIENT, ClientSecret(SECRET), graph.authority), session), graph.graph_url
    )
    delta, mail, store = DeltaClient(client), MailClient(client), PostgresSync(database)
    non_delivery = NonDelivery(mail, PostgresDeliveryFailures(database))
    reader = Reader(delta, mail, non_delivery, store, set)
    handler = Sync(delta, reader, store, monotonic=lambda: 0.0)
    payload = SyncRequest.model_validate({"resourceType": kind, "userId": USER, "fullSync": full})
    database.uses = 0
    started = time.perf_counter()
    done = handler(Job(uuid4(), "sync", "", 1, 5, uuid4()), payload, Context())
    seconds = time.perf_counter() - started
    session.close()
    assert isinstance(done, Completed) and done.result is not None
    created, pages = done.result["created"], done.result["pages"]
    rate = f"{ITEMS / seconds:,.0f}" if pages > 10 else f"{seconds:.2f} s in all"
    label = f"{kind}, {'all anew' if full else 'first time' if created else 'nothing new'}, {pages} pages"
    print(f"| {label} | {rate} | {database.uses / pages:.2f} |")


if __name__ == "__main__":
    main()
