"""Child processes of the local stack: started with a log, ended for certain, recognised in a later run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
#: Below the range from which the system takes ports of outgoing connections.
PORTS = range(20_000, 32_000)


class ProcessError(RuntimeError):
    """A process did not start, or ended on its own; the message has the end of its log."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    source = random.SystemRandom()  # the plain generator is seeded equally in every test worker
    while True:
        port = source.choice(PORTS)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def accepts_connections(port: int) -> bool:
    """Whether something listens on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look until `condition` holds, at most so long; whether it held."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


@dataclass(frozen=True, slots=True)
class Identity:
    """A process, told by `started` from a later one that got the same pid."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process with this pid now; None when there is none, or only a zombie."""
        try:
            # The name in brackets may hold anything; after it come the state (3rd field) … the start (22nd).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return None
        return None if fields[0] in "ZX" else cls(pid, f"{boot}:{fields[19]}")

    def is_alive(self) -> bool:
        return Identity.of(self.pid) == self

    def send(self, number: int, *, group: bool = False) -> None:
        """Signal this process (or its group, which it leads), if it is still the same one."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def end(self, number: int = signal.SIGTERM, seconds: float = 15) -> None:
        """Ask it to end, wait, and SIGKILL its whole group if it does not."""
        self.send(number)
        if not wait_until(lambda: not self.is_alive(), seconds):
            self.send(signal.SIGKILL, group=True)
            wait_until(lambda: not self.is_alive(), 5)


class Process:
    """One child in a session of its own (a Ctrl-C in the terminal does not reach it), output in a log file.

    It gets `stop_signal` when this process dies, however that happens, unless it is `detached`. The tie is to
    the thread that starts it: start from one that lives as long as the process is wanted.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        detached: bool = False,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.environment = dict(os.environ if environment is None else environment)
        self.folder = folder
        self.user = user
        self.stop_signal = stop_signal
        self.detached = detached
        self.identity: Identity | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def launch(self) -> None:
        """Start it, without waiting until it is ready."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        death_signal = 0 if self.detached else int(self.stop_signal)
        launcher = [
            sys.executable,
            "-I",
            "-S",
            str(LAUNCHER),
            str(os.getpid()),
            str(death_signal),
            self.user or "-",
        ]
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [*launcher, *self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self.environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self.identity = Identity.of(self._child.pid)

    def wait_ready(self, is_ready: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until `is_ready`; ProcessError when the process ends or takes longer (it is then ended)."""
        if not wait_until(lambda: not self.is_running() or is_ready(), seconds):
            self.kill()
            raise ProcessError(f"{self.name} was not ready after {seconds:.0f} s.{self.explain()}")
        if not self.is_running():
            code = self._child.returncode if self._child else None
            raise ProcessError(f"{self.name} ended at its start (exit code {code}).{self.explain()}")

    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def stop(self, seconds: float = 15) -> int | None:
        """End it with its stop signal, after `seconds` with SIGKILL; its exit code."""
        if self._child is None:
            return None
        if self.is_running():
            self._child.send_signal(self.stop_signal)
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._child.returncode

    def wait(self) -> int:
        """Wait for its end; its exit code. Ends it when the wait is interrupted."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        try:
            return self._child.wait()
        finally:
            self.stop()

    def kill(self) -> None:
        """SIGKILL it and its group, and wait until it is gone."""
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def last_lines(self, count: int = 15) -> str:
        """The end of what it has written since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-count:])

    def explain(self) -> str:
        """The end of its log, for an error message."""
        lines = self.last_lines().strip()
        return f" It wrote nothing to {self.log}." if not lines else f" The end of {self.log}:\n{lines}"


def run_logged(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user: str | None = None,
) -> None:
    """Run a command to its end, its output into `log`; ProcessError with the log's end when it fails."""
    process = Process(name, command, log=log, environment=environment, folder=folder, user=user)
    process.launch()
    code = process.wait()
    if code != 0:
        raise ProcessError(f"{name} failed (exit code {code}).{process.explain()}")
