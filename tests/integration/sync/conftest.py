"""The sync handler on a real PostgreSQL and the fake Graph, and a small engine that runs a job to its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, Literal
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CLIENT, SECRET, TENANT
from shared.engine.classify import classify
from shared.engine.context import Context
from shared.engine.errors import LimitReachedError
from shared.engine.job import Attempt, Completed, Deferred, ErrorClass, Job
from shared.graph.client import GraphClient
from shared.graph.credentials import Application, ClientSecret
from shared.graph.delta import DeltaClient
from shared.graph.mail import MailClient
from shared.graph.teams import TeamsClient
from shared.graph.tokens import AppTokens
from shared.handlers.non_delivery import NonDelivery
from shared.handlers.sync import Sync, SyncRequest
from shared.handlers.sync_kinds import Reader
from shared.postgres.communications import PostgresCommunications
from shared.postgres.delivery_failures import PostgresDeliveryFailures
from shared.postgres.pool import Database
from shared.postgres.sync import PostgresSync
from tests.integration.graph.conftest import DISPATCH, KillableSession, Killed, graph, server

__all__ = ["graph", "server"]


class KillableDatabase(Database):
    """Dies before or after the n-th use of the database; the first is number 1."""

    number = 0
    kill_at: tuple[int, Literal["before", "after"]] | None = None

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        self.number += 1
        number = self.number
        if self.kill_at == (number, "before"):
            raise Killed
        with super().connection() as conn:
            yield conn
        if self.kill_at == (number, "after"):
            raise Killed


@dataclass
class Run:
    """How a job went: its result or what it died of, and how often it was deferred and killed."""

    result: dict[str, Any] | None = None
    error: Exception | None = None
    deferred: list[Deferred] = field(default_factory=list)
    kills: int = 0


class Bench:
    """Everything for one account."""

    def __init__(self, graph: FakeGraph, database: KillableDatabase, sql: psycopg.Connection) -> None:
        self.graph = graph
        self.database = database
        self.sql = sql
        self.session = KillableSession(ca_file=str(graph.ca_file), read_seconds=5, total_seconds=8)
        tokens = AppTokens(Application(TENANT, CLIENT, ClientSecret(SECRET), graph.authority), self.session)
        client = GraphClient(self.session, tokens, graph.graph_url)
        self.mail = MailClient(client)
        self.teams = TeamsClient(client, client, lambda: None)
        self.delta = DeltaClient(client)
        self.store = PostgresSync(database)
        self.log = PostgresCommunications(database)
        self.non_delivery = NonDelivery(self.mail, PostgresDeliveryFailures(database))
        self.clock: Callable[[], float] = lambda: 0.0
        self.own_accounts: set[str] = set()

    @property
    def handler(self) -> Sync:
        reader = Reader(self.delta, self.mail, self.non_delivery, self.store, lambda: self.own_accounts)
        return Sync(self.delta, reader, self.store, self.clock)

    def sync(
        self, resource_type: str, user: str | None = DISPATCH, *, full: bool = False, team: str | None = None,
        job_id: UUID | None = None, permits: Callable[[int], timedelta | None] | None = None,
        subscription: str | None = None,
    ) -> Run:  # fmt: skip
        """Run a job as the engine does, without its waits, until it ends."""
        owner = {"teamId": team} if team else {"userId": user}
        asked = {"resourceType": resource_type, "fullSync": full, "subscriptionId": subscription}
        payload = SyncRequest.model_validate(asked | owner)
        job = Job(job_id or uuid4(), "sync", "", 1, 5, uuid4())
        run = Run()
        for _ in range(200):
            job = replace(job, lease_token=uuid4())
            try:
                outcome = self.handler(job, payload, Context(permits=permits))
            except Killed:
                run.kills += 1
                self.session.kill_at = self.database.kill_at = None
            except LimitReachedError as error:
                run.deferred.append(Deferred(error.wait, str(error)))
            except Exception as error:  # noqa: BLE001 - as the worker does
                failure = classify(error)
                now = datetime.now(UTC)
                attempt = Attempt(job.attempt, now, now, "w", "failed", failure.error_class, failure.message, {})
                job = replace(job, attempt=job.attempt + 1, attempts=(*job.attempts, attempt))
                if failure.error_class in (ErrorClass.VALIDATION, ErrorClass.AUTH) or job.attempt > 5:
                    run.error = error
                    return run
            else:
                if isinstance(outcome, Deferred):
                    run.deferred.append(outcome)
                    if outcome.delay > timedelta(minutes=1):
                        return run
                    continue
                assert isinstance(outcome, Completed)
                run.result = outcome.result
                return run
        raise AssertionError("the job does not end")

    def rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        with self.sql.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement.encode(), arguments or None).fetchall()

    def history(self) -> list[dict[str, Any]]:
        return self.rows("select * from queue.sync_history order by started_at")

    def alive(self, table: str) -> set[str]:
        return {
            row["external_id"] for row in self.rows(f"select external_id from queue.{table} where deleted_at is null")
        }

    def requests(self, part: str) -> list[dict[str, Any]]:
        """Recorded requests whose path has this in it."""
        return [one for one in self.graph.requests() if part in one["path"] and "/v1.0/" in one["path"]]


@pytest.fixture
def bench(graph: FakeGraph, database_url: str, sql: psycopg.Connection) -> Iterator[Bench]:
    """Afterwards, no request may have broken Graph's contract."""
    database = KillableDatabase(database_url, pooler=os.environ.get("DATABASE_POOLER") == "true")
    bench = Bench(graph, database, sql)
    graph.set_automatic_delivery(False)
    yield bench
    bench.session.close()
    database.close()
    assert graph.violations() == []


def mime(subject: str = "s", message_id: str | None = None, attachment: bool = False, to: str = DISPATCH) -> bytes:
    mail = EmailMessage()
    mail["From"] = "Zoë <zoe@customer.example>"
    mail["To"] = to
    mail["Subject"] = subject
    mail["Message-ID"] = message_id or f"<{uuid4().hex}@customer.example>"
    mail.set_content("Hello")
    if attachment:
        mail.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="a.pdf")
    return mail.as_bytes()
