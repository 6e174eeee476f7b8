"""The whole system on one machine: PostgreSQL, Azurite, the fake Graph and the function host, for real."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from local.azurite import Azurite
from local.certificate import as_setting, self_signed
from local.fake_graph.process import FakeGraph
from local.fake_graph.workflows import ALERTS
from local.postgres import FAST, STOP_SIGNALS, PostgresServer
from local.process import Identity, Process, ProcessError, free_port, is_free
from local.state import Entry, State, write_private

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".local"
SCHEMAS = HOME / "graph-schemas"
DATABASE = "fleet_queue"
#: Where attachments that mails name are put; the default of BLOB_CONTAINERS.
BLOB_CONTAINER = "attachments"
#: The ports of `./dev up`, where they are free.
PREFERRED_PORTS = {"host": 7071, "azurite": 10001, "graph": 7443, "postgres": 5433}
#: The host waits this long for running functions, and is then ended.
HOST_STOP_SECONDS = 40
#: What each folder makes for itself, once.
SECRETS: dict[str, Callable[[], str]] = {
    "ADMIN_KEY": lambda: secrets.token_urlsafe(32),
    "WEBHOOK_SECRET": lambda: secrets.token_urlsafe(32),
    "FUNCTIONS_KEY": lambda: secrets.token_urlsafe(32),
    "ENCRYPTION_KEY": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
    "WEBHOOK_CERTIFICATE": lambda: as_setting(self_signed()),
}


class Stack:
    """Everything on one data folder; `start()` ends what an earlier run left there.

    `fast` trades PostgreSQL's durability for speed. `detached` lets the processes outlive this one (`./dev
    down` ends them); otherwise they end when it does, even by SIGKILL. `ports` are taken where they are free,
    `settings` are added to the host's environment. Without `with_host` all but the host is started; `app` is
    the folder of the host's function_app.py.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fast: bool = False,
        host_processes: int = 1,
        detached: bool = False,
        with_host: bool = True,
        app: Path = ROOT,
        ports: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        logs: Path | None = None,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.folder = folder.resolve()
        self.logs = logs or self.folder / "logs"
        self.detached = detached
        self.with_host = with_host
        self.app = app
        self._say = say
        self._wanted = dict(ports or {})
        self._settings = dict(settings or {})
        self._state = State()
        self._lock: IO[str] | None = None
        self._func = find_func()
        self._host_ports = [self._port(f"host-{number}" if number else "host") for number in range(host_processes)]
        self._hosts: dict[int, Process] = {}
        self.postgres = PostgresServer(
            self.folder / "postgres", self._port("postgres"), FAST if fast else None,
            log=self.logs / "postgres.log", detached=detached,
        )  # fmt: skip
        self.azurite = Azurite(
            self.folder / "queues", self._port("azurite"), log=self.logs / "azurite.log",
            blob=True, detached=detached,
        )  # fmt: skip
        self.graph = FakeGraph(
            self.folder / "graph", SCHEMAS, self._port("graph"), log=self.logs / "graph.log", detached=detached
        )

    # What others need to know

    @property
    def host_url(self) -> str:
        """Base URL of the (first) host's functions."""
        return f"http://127.0.0.1:{self._host_ports[0]}/api"

    @property
    def host_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}/api" for port in self._host_ports]

    @property
    def database_url(self) -> str:
        return self.postgres.url(DATABASE)

    @property
    def environment(self) -> dict[str, str]:
        """The settings that the product's programs run with; the same names as in Azure."""
        return {
            "DATABASE_URL": self.database_url,
            "QueueStorage": self.azurite.connection_string,
            "AzureWebJobsStorage": self.azurite.connection_string,
            "BlobStorage": self.azurite.connection_string,
            "GRAPH_BASE_URL": self.graph.graph_url,
            "GRAPH_AUTHORITY": self.graph.authority,
            "GRAPH_TENANT_ID": "11111111-1111-4111-8111-111111111111",
            "GRAPH_CLIENT_ID": "22222222-2222-4222-8222-222222222222",
            "GRAPH_CLIENT_SECRET": "local-secret",
            "GRAPH_CA_FILE": str(self.graph.ca_file),
            "GRAPH_SERVICE_ACCOUNT": "queue@fleet.example",
            "TEAMS_BOT_SERVICE_URL": self.graph.bot_url,
            "TEAMS_WORKFLOWS": json.dumps({ALERTS: self.graph.alerts_workflow}),
            "WEBHOOK_BASE_URL": self.host_url,
            **self.graph.notification_settings,
            "OUTGOING_NETWORKS": "127.0.0.0/8",
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "AZURE_FUNCTIONS_ENVIRONMENT": "Development",
            "PYTHON_THREADPOOL_THREAD_COUNT": "32",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **self._secrets(),
            **self._settings,
        }

    # Start and stop

    def start(self) -> None:
        """Start all, in parallel where it can be; whatever fails, nothing is left running."""
        self._take_folder()
        try:
            self._state = State(owner=Identity.of(os.getpid()), detached=self.detached, ports=self._ports())
            self.azurite.launch()
            self._record("Azurite", self.azurite.process.identity)
            self.graph.launch()
            self._record("fake Graph", self.graph.process.identity)
            self.start_postgres()
            self._state.ports = self._ports()
            self._migrate()
            self.azurite.wait_ready()
            self._create_storage()
            self.graph.wait_ready()
            self._state.environment = self.environment
            self._state.save(self.folder)
            if self.with_host:
                for index in range(len(self._host_ports)):
                    self.start_host(index)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all in order: the host drains while the rest still answers; Azurite saves; PostgreSQL last."""
        with contextlib.ExitStack() as steps:  # each step runs even if the one before failed
            steps.callback(self._release_folder)
            steps.callback(self.postgres.stop)
            steps.callback(self.azurite.stop)
            steps.callback(self.graph.stop)
            for process in self._hosts.values():
                steps.callback(process.stop, HOST_STOP_SECONDS)

    def leave(self) -> None:
        """Leave a detached stack running after this process; `./dev down` ends it."""
        self._state.owner = None
        self._state.save(self.folder)
        self._close_lock()

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Parts of it, to break on purpose

    def start_host(self, index: int = 0) -> None:
        """Start a function host (again): Azure's own where `func` is on the PATH, else local/host.py."""
        port = self._host_ports[index]
        name = f"host-{index}" if index else "host"
        command = [sys.executable, "-m", "local.host", "--port", str(port), "--app", str(self.app)]
        command += ["--state", str(self.folder / "host")]
        environment = os.environ | self.environment | {"PYTHONUNBUFFERED": "1"}
        if self._func is not None:
            command = [self._func, "start", "--port", str(port)]
            environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
            environment["VIRTUAL_ENV"] = sys.prefix
        process = Process(
            "the function host", command, log=self.logs / f"{name}.log", environment=environment,
            folder=ROOT if self._func is None else self.app, detached=self.detached,
        )  # fmt: skip
        self._hosts[index] = process
        process.launch()
        self._record(name, process.identity)
        process.wait_ready(lambda: _answers(port), seconds=120 if self._func else 30)

    def stop_host(self, index: int = 0) -> int | None:
        """End a host in order: what it has begun, it finishes. Its exit code."""
        return self._hosts[index].stop(HOST_STOP_SECONDS)

    def kill_host(self, index: int = 0) -> None:
        """SIGKILL, in the middle of whatever it does."""
        self._hosts[index].kill()

    def start_postgres(self) -> None:
        self.postgres.start()
        self._record("PostgreSQL", self.postgres.identity, STOP_SIGNALS["fast"])

    def stop_postgres(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is a crash, of which it recovers at its next start."""
        self.postgres.stop(mode)

    def ended(self) -> list[Process]:
        """Processes that ended on their own."""
        return [process for process in (self.azurite.process, self.graph.process, *self._hosts.values())
                if process.identity is not None and not process.is_running()]  # fmt: skip

    # Inside

    def _port(self, name: str) -> int:
        wanted = self._wanted.get(name)
        if wanted is None:
            return free_port()
        if is_free(wanted):
            return wanted
        port = free_port()
        self._say(f"Port {wanted} ({name}) is taken; using {port}.")
        return port

    def _ports(self) -> dict[str, int]:
        hosts = {f"host-{index}" if index else "host": port for index, port in enumerate(self._host_ports)}
        return hosts | {
            "postgres": self.postgres.port or 0,
            "azurite": self.azurite.port,
            "graph": self.graph.port,
        }

    def _record(self, name: str, identity: Identity | None, stop_signal: int | None = None) -> None:
        if identity is not None:
            entry = Entry(name, identity) if stop_signal is None else Entry(name, identity, stop_signal)
            self._state.processes = [e for e in self._state.processes if e.name != name] + [entry]
        self._state.save(self.folder)

    def _take_folder(self) -> None:
        """Be the only one that works on this folder, and end what a killed run has left."""
        (self.folder / "run").mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "run" / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            owner = State.load(self.folder).owner
            pid = f" (process {owner.pid})" if owner else ""
            raise ProcessError(f"the local stack already runs{pid}; ./dev down ends it") from None
        self._lock = lock
        ended = State.load(self.folder).end()
        if ended:
            self._say(f"Ended what an earlier run left: {', '.join(ended)}.")

    def _release_folder(self) -> None:
        if self._lock is not None:
            State(ports=self._state.ports).save(self.folder)
            self._close_lock()

    def _close_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _secrets(self) -> dict[str, str]:
        """Keys and secrets of this folder, each made once."""
        file = self.folder / "settings.json"
        known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            known = {str(name): str(value) for name, value in json.loads(file.read_text()).items()}
        made = {name: make() for name, make in SECRETS.items() if name not in known}
        if made:
            write_private(file, json.dumps(known | made, indent=1))
        return known | made

    def _migrate(self) -> None:
        import psycopg

        from shared.postgres.migrate import MigrationError, migrate

        with psycopg.connect(self.postgres.dsn, autocommit=True) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        try:
            migrate(self.database_url)
        except MigrationError as error:
            raise ProcessError(f"{error} (to start with an empty database: ./dev reset)") from error

    def _create_storage(self) -> None:
        from shared.handlers.registry import QUEUES
        from shared.storage.blobs import StorageBlobs
        from shared.storage.queues import StorageQueues

        storage = StorageQueues(self.azurite.connection_string)
        for spec in QUEUES.values():
            storage.create(spec.name)
            storage.create(spec.poison)
        StorageBlobs(self.azurite.connection_string, [BLOB_CONTAINER]).create(BLOB_CONTAINER)


def find_func() -> str | None:
    """Azure's own function host; DEV_HOST=stand-in in the environment prefers ours."""
    return None if os.environ.get("DEV_HOST") == "stand-in" else shutil.which("func")


@contextlib.contextmanager
def temporary_folder(name: str, *, keep: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A data folder for one run, removed after it unless `keep()`; also removes those of killed runs."""
    remove_stale_folders()
    parent = HOME / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    State(owner=Identity.of(os.getpid())).save(folder)
    try:
        yield folder
    finally:
        if not keep():
            shutil.rmtree(folder, ignore_errors=True)


def remove_stale_folders() -> None:
    """Remove temporary folders that no run uses, and end what was left running on them."""
    for folder in (HOME / "tmp").glob("*"):
        state = State.load(folder)
        used = state.is_running() if state.detached else state.owner is not None and state.owner.is_alive()
        if not used:
            state.end()
            shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/host/ping", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
