"""The product as bootstrap builds it, on a real database, real queues and the fake Graph over HTTPS."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from local.azurite import Azurite
from local.fake_graph import schemas
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CLIENT, SECRET, TENANT
from local.process import wait_until
from shared import bootstrap
from shared.engine.job import NewJob
from shared.graph_settings import CREDENTIALS
from shared.storage.queues import StorageQueues

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = schemas.HOME / "graph-schemas"
SERVICE = "queue@fleet.example"
DISPATCH = "dispatch@fleet.example"
CHAT = "19:dispatch@thread.v2"
KEY = base64.b64encode(bytes(range(32))).decode()


@dataclass
class Product:
    """One process of the product; `environment` is what another one would start with."""

    graph: FakeGraph
    sql: psycopg.Connection
    environment: dict[str, str]
    shown: list[str] = field(default_factory=list)

    def sign_in(self, account: str = SERVICE, user: str | None = None) -> str:
        """A person enters the code as soon as it shows."""

        def enter(text: str) -> None:
            self.shown.append(text)
            self.graph.approve(text.split("enter the code ")[1].split()[0], user or account)

        return bootstrap.sign_in(enter, account)

    def post(self, n: int, queue: str = "teams-outbound") -> list[UUID]:
        jobs = [NewJob(queue, self.payload(queue, number)) for number in range(n)]
        return [job.id for job in bootstrap.producer().enqueue_many(jobs)]

    @staticmethod
    def payload(queue: str, number: int) -> dict[str, Any]:
        if queue == "teams-outbound":
            return {"chatId": CHAT, "content": f"message {number};"}
        return {"from": DISPATCH, "to": ["x@other.example"], "subject": f"mail {number};", "body": "b"}

    def work(self, queue: str = "teams-outbound", jobs: int = 1000) -> int:
        """Run what may run now; how many attempts there were."""
        bootstrap.relay().run()
        return bootstrap.worker().run(queue, jobs).ran

    def work_until_empty(self, queue: str = "teams-outbound") -> None:
        def is_empty() -> bool:
            self.work(queue)
            left = self.value("select count(*) from queue.jobs where queue = %s and finished_at is null", queue)
            return bool(left == 0)

        assert wait_until(is_empty, 30)

    def value(self, statement: str, *arguments: object) -> Any:
        row = self.sql.execute(statement.encode(), arguments or None).fetchone()
        assert row is not None
        return row[0]

    def states(self) -> dict[str, int]:
        return dict(self.sql.execute("select state, count(*) from queue.jobs group by state").fetchall())

    def alerts(self) -> list[tuple[Any, ...]]:
        """Key, level and whether it is open, oldest first."""
        return self.sql.execute(
            "select alert_key, level, resolved_at is null from queue.queue_alerts order by opened_at"
        ).fetchall()

    def texts(self) -> list[str]:
        """Of each message in the chat what was asked for, sorted."""
        bodies = [message["body"]["content"] for message in self.graph.chat_messages(CHAT)]
        return sorted(body.rpartition(">")[2] for body in bodies)

    def token_requests(self) -> int:
        return sum(one["path"].endswith("/token") for one in self.graph.requests())

    def spawn(self, code: str) -> subprocess.Popen[str]:
        """Another process of the product that runs this code."""
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT, env=self.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGraph]:
    schemas.make(SCHEMAS)
    with FakeGraph(tmp_path_factory.mktemp("graph"), SCHEMAS) as graph:
        yield graph


@pytest.fixture
def graph(server: FakeGraph) -> FakeGraph:
    server.reset()
    return server


@pytest.fixture
def product(
    graph: FakeGraph,
    database_url: str,
    sql: psycopg.Connection,
    azurite: Azurite,
    storage: StorageQueues,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Product]:
    """Nobody is signed in. What is held back or put off for seconds is so for tenths of them."""
    settings = {
        "DATABASE_URL": database_url,
        "QueueStorage": azurite.connection_string,
        "GRAPH_BASE_URL": graph.graph_url,
        "GRAPH_AUTHORITY": graph.authority,
        "GRAPH_TENANT_ID": TENANT,
        "GRAPH_CLIENT_ID": CLIENT,
        "GRAPH_CLIENT_SECRET": SECRET,
        "GRAPH_CA_FILE": str(graph.ca_file),
        "GRAPH_SERVICE_ACCOUNT": f"{SERVICE}, {DISPATCH}",
        "ENCRYPTION_KEY": KEY,
    }
    for name in ("GRAPH_CERTIFICATE_PASSWORD", *CREDENTIALS):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("shared.graph.tokens.HOLD_BACK_SECONDS", 0.2)
    monkeypatch.setattr("shared.postgres.identity_waits.GRACE", timedelta(seconds=0.5))
    bootstrap.stop()
    yield Product(graph, sql, os.environ | settings)
    bootstrap.stop()
