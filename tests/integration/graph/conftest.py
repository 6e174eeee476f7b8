"""The handlers wired to the fake Graph over HTTPS, and a small engine that runs a job to its end."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal
from uuid import UUID, uuid4

import psycopg
import pytest

from local.fake_graph import schemas
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CLIENT, SECRET, TENANT
from local.postgres import PostgresServer
from shared.engine.backoff import decide
from shared.engine.classify import classify
from shared.engine.context import Context, Handler
from shared.engine.errors import LimitReachedError, NetworkError, ParkedError, RejectedError
from shared.engine.job import FOUND_NOTHING, Attempt, Completed, Dead, Deferred, ErrorClass, Job
from shared.graph.activity import ActivityClient
from shared.graph.bot import BOT_SCOPES, BotClient
from shared.graph.client import GraphClient
from shared.graph.credentials import Application, ClientSecret
from shared.graph.delegated_tokens import DelegatedTokens
from shared.graph.mail import MailClient
from shared.graph.session import GraphSession
from shared.graph.sign_in import sign_in
from shared.graph.subscriptions import SubscriptionClient
from shared.graph.teams import TeamsClient
from shared.graph.token_cache import CacheCipher, StoredCache
from shared.graph.tokens import AppTokens
from shared.graph.uploads import UploadClient, UploadUrls
from shared.handlers import outlook_inbound, outlook_outbound, teams_inbound, teams_outbound
from shared.handlers.inbound import Told
from shared.handlers.mail_attachments import MailAttachments
from shared.handlers.non_delivery import NonDelivery
from shared.handlers.services import BlobFacts, Communication, DeliveryReport, Recorded
from shared.handlers.teams_routes import Routes
from shared.outgoing.workflows import WorkflowClient
from shared.sealing import KeyRing, Sealed

DISPATCH = "dispatch@fleet.example"
DRIVER = "alex.driver@fleet.example"
SERVICE = "queue@fleet.example"
DRIVER_ID = "aaaaaaaa-0000-4000-8000-000000000002"
CHAT = "19:dispatch@thread.v2"
TEAM = "bbbbbbbb-0000-4000-8000-000000000001"
CHANNEL = "19:alerts@thread.tacv2"
KEY = bytes(range(32))
SCHEMAS = schemas.HOME / "graph-schemas"


class Killed(BaseException):
    """The worker's process ends here, as by SIGKILL: no handler of exceptions sees it."""


class KillableSession(GraphSession):
    """Dies before or after the n-th request to Graph or a peer of it (not to the authority); the first is number 1."""

    number = 0
    kill_at: tuple[int, Literal["before", "after"]] | None = None

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        if f"/{TENANT}/" in str(url):
            return super().request(method, url, *args, **kwargs)
        self.number += 1
        if self.kill_at == (self.number, "before"):
            raise Killed
        answer = super().request(method, url, *args, **kwargs)
        if self.kill_at == (self.number, "after"):
            raise Killed
        return answer


class MemoryStore:
    """A TokenCacheStore in memory."""

    def __init__(self) -> None:
        self.caches: dict[str, StoredCache] = {}
        self.loads = 0

    def load(self, account: str) -> StoredCache | None:
        self.loads += 1
        return self.caches.get(account)

    def save(self, account: str, sealed: Sealed, expected_version: int | None) -> bool:
        known = self.caches.get(account)
        if (known.version if known else None) != expected_version:
            return False
        self.caches[account] = StoredCache(sealed, (expected_version or 0) + 1)
        return True


class MemoryLog:
    """A CommunicationLog in memory; may die before or after it records."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Communication] = {}
        self.deleted: list[str] = []
        self.kill: Literal["before", "after"] | None = None

    def record(self, message: Communication) -> Recorded:
        if self.kill == "before":
            raise Killed
        key = (message.channel, message.direction, message.external_id)
        is_new = key not in self.rows
        self.rows[key] = message
        if self.kill == "after":
            raise Killed
        return Recorded("stored" if is_new else "unchanged")

    def mark_deleted(self, channel: str, external_id: str, job_id: UUID | None = None) -> Recorded:
        self.deleted.append(external_id)
        is_known = any((channel, direction, external_id) in self.rows for direction in ("in", "out"))
        return Recorded("deleted" if is_known else "unknown")

    @property
    def only(self) -> Communication:
        assert len(self.rows) == 1
        return next(iter(self.rows.values()))


class MemoryBlobs:
    """Blobs in memory; `reads` are the ranges that were read."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.reads: list[tuple[int, int]] = []

    def facts(self, blob: str) -> BlobFacts:
        if blob not in self.contents:
            raise RejectedError(f"there is no blob {blob}")
        return BlobFacts(len(self.contents[blob]), str(hash(self.contents[blob])))

    def read(self, blob: str, facts: BlobFacts, at: int, size: int) -> bytes:
        if self.facts(blob) != facts:
            raise NetworkError(f"the blob {blob} was changed while it was read")
        self.reads.append((at, size))
        return self.contents[blob][at : at + size]


class MemoryFailures:
    """DeliveryFailures in memory."""

    def __init__(self) -> None:
        self.reports: dict[str, DeliveryReport] = {}

    def record(self, report: DeliveryReport) -> int:
        new = 0 if report.report_id in self.reports else len(report.failures)
        self.reports[report.report_id] = report
        return new


@dataclass
class Run:
    """How a job went: its ended attempts, and its result, or the failure that it died of, or what it waits for."""

    job: Job
    attempts: list[Attempt] = field(default_factory=list)
    result: dict[str, Any] | None = None
    dead: Dead | None = None
    parked: ParkedError | None = None
    delays: list[timedelta] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    deferrals: int = 0

    @property
    def saved(self) -> dict[str, Any] | None:
        return self.job.progress

    def save(self, progress: dict[str, Any]) -> bool:
        """What a handler keeps for the next attempt."""
        self.job = replace(self.job, progress=json.loads(json.dumps(progress)))
        return True

    @property
    def classes(self) -> list[ErrorClass | None]:
        return [attempt.error_class for attempt in self.attempts]


@dataclass
class Wired:
    """Everything that talks to one fake Graph."""

    graph: FakeGraph
    session: KillableSession
    application: Application
    store: MemoryStore
    log: MemoryLog
    app_tokens: AppTokens
    tokens: DelegatedTokens
    mail: MailClient
    teams: TeamsClient
    subscriptions: SubscriptionClient
    bot: BotClient
    workflows: WorkflowClient
    activity_feed: ActivityClient
    teams_routes: Routes = field(default_factory=lambda: Routes(workflows=frozenset({"alerts"}), accounts=(SERVICE,)))
    events_endpoint: str | None = None
    service_account = SERVICE
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    failures: MemoryFailures = field(default_factory=MemoryFailures)
    #: Every so-manieth time that a handler asks for permits it gets none; None: never.
    refuse_every: int | None = None
    asked: int = 0
    permits: int = 0

    @property
    def communications(self) -> MemoryLog:
        return self.log

    def teams_as(self, account: str) -> TeamsClient:
        assert account == SERVICE
        return self.teams

    def handler(self, queue: str) -> Handler:
        match queue:
            case "teams-outbound":
                return teams_outbound.TeamsOutbound(self)
            case "outlook-outbound":
                uploads = UploadClient(self.session, self.graph.graph_url)
                urls = UploadUrls(KeyRing(KEY))
                attachments = MailAttachments(self.mail, uploads, urls, lambda: self.blobs)
                return outlook_outbound.OutlookOutbound(self.mail, attachments, self.log)
            case "teams-inbound":
                return teams_inbound.TeamsInbound(
                    self.teams, self.log, self.own_account_ids, Told(self.events_endpoint)
                )
        return outlook_inbound.OutlookInbound(
            self.mail, self.log, NonDelivery(self.mail, self.failures), Told(self.events_endpoint)
        )

    def own_account_ids(self) -> set[str]:
        return {found for found in (self.teams.own_account_id(),) if found is not None}

    def _permit(self, n: int) -> timedelta | None:
        self.asked += 1
        if self.refuse_every is not None and self.asked % self.refuse_every == 0:
            return timedelta(seconds=1)
        self.permits += n
        return None

    def run(
        self, queue: str, payload: Any, between: Callable[[], None] | None = None, redrive_of: Job | None = None
    ) -> Run:
        """Run a job as the engine does, without its waits; `between` is called after each failed attempt."""
        job = Job(uuid4(), queue, "", 1, 5, uuid4())
        if redrive_of is not None:
            job = replace(job, redrive_of=redrive_of.effect_id, inherited_effect_since=redrive_of.effect_since)
        run = Run(job)
        for _ in range(60):
            started, context = datetime.now(UTC), Context(saver=run.save, permits=self._permit)
            try:
                done = self.handler(queue)(run.job, payload, context)
            except Killed:
                self.session.kill_at = self.log.kill = None
                self._ended(run, started, ErrorClass.WORKER_LOST, {})
            except LimitReachedError:
                run.deferrals += 1
            except ParkedError as error:
                run.parked = error
                return run
            except Exception as error:  # noqa: BLE001 - as the worker does
                failure = classify(error)
                looked = bool(context.details.get(FOUND_NOTHING))
                outcome = decide(run.job, failure, Random(1), found_nothing=looked)
                if isinstance(outcome, Dead):
                    run.dead, run.details = outcome, context.details | failure.details
                    return run
                run.delays.append(outcome.delay)
                self._ended(run, started, failure.error_class, context.details | failure.details)
            else:
                if isinstance(done, Deferred):
                    run.deferrals += 1
                    continue
                assert isinstance(done, Completed)
                run.result, run.details = done.result, context.details
                return run
            if between:
                between()
        raise AssertionError("the job does not end")

    @staticmethod
    def _ended(run: Run, started: datetime, error_class: ErrorClass, details: dict[str, Any]) -> None:
        number = run.job.attempt
        run.attempts.append(Attempt(number, started, datetime.now(UTC), "w", "failed", error_class, "", details))
        run.job = replace(run.job, attempt=number + 1, attempts=tuple(run.attempts))

    def sent(self, method: str = "POST", path: str = "/send") -> list[dict[str, Any]]:
        """Recorded requests of this method whose path ends so."""
        return [r for r in self.graph.requests() if r["method"] == method and r["path"].endswith(path)]


@pytest.fixture(scope="module")
def module_url(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """One migrated database for a module's tests: making one for each would take longer than they do."""
    name = f"module_{abs(hash(request.module.__name__)) % 10**9}_{os.getpid()}"
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(f"create database {name} template template_fleet".encode())
        yield postgres.url(name)
        conn.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def emptied(module_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the module's database, empty again but for its settings."""
    with psycopg.connect(module_url, autocommit=True) as conn:
        tables = conn.execute(
            "select string_agg(format('%I.%I', schemaname, tablename), ', ') from pg_tables where schemaname = 'queue'"
            " and tablename not in ('queue_settings', 'schema_version', 'timer_turn', 'audit_log')"
            " and tablename !~ '[0-9]$'"
        ).fetchone()
        assert tables is not None
        conn.execute(f"truncate {tables[0]} restart identity cascade".encode())
        yield conn


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
def cipher() -> CacheCipher:
    return CacheCipher(KeyRing(KEY))


@pytest.fixture
def wired(graph: FakeGraph, cipher: CacheCipher) -> Iterator[Wired]:
    """Signed in and ready; afterwards, no request may have broken Graph's contract."""
    session = KillableSession(ca_file=str(graph.ca_file), read_seconds=2, total_seconds=4)
    application = Application(TENANT, CLIENT, ClientSecret(SECRET), graph.authority)
    store = MemoryStore()
    sign_in_service(graph, session, application, store, cipher)
    app_tokens = AppTokens(application, session)
    tokens = DelegatedTokens(application, session, account=SERVICE, store=store, cipher=cipher)
    reader = GraphClient(session, app_tokens, graph.graph_url)
    poster = GraphClient(session, tokens, graph.graph_url)
    teams = TeamsClient(reader, poster, tokens.user_id)
    bot_tokens = AppTokens(application, session, scopes=BOT_SCOPES)
    bot = BotClient(GraphClient(session, bot_tokens, graph.bot_url, "the Bot Framework"), CLIENT)
    workflows = WorkflowClient(session, {"alerts": graph.alerts_workflow})
    yield Wired(
        graph, session, application, store, MemoryLog(), app_tokens, tokens, MailClient(reader), teams,
        SubscriptionClient(reader), bot, workflows, ActivityClient(reader),
    )  # fmt: skip
    session.close()
    assert graph.violations() == []


def sign_in_service(
    graph: FakeGraph,
    session: GraphSession,
    application: Application,
    store: MemoryStore,
    cipher: CacheCipher,
    user: str = SERVICE,
) -> str:
    """The service account signs in; the person enters the code as soon as it shows."""

    def enter(text: str) -> None:
        graph.approve(text.split("enter the code ")[1].split()[0], user)

    return sign_in(application, session, account=SERVICE, store=store, cipher=cipher, show=enter)


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()
