"""Processes of the local stack: nothing is left running, nobody else's process is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.process import Identity, Process, ProcessError, free_port, is_free, run_logged, wait_until

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]
PARENT = """
import sys, time
from pathlib import Path
from local.process import Process
child = Process("child", sys.argv[3:], log=Path(sys.argv[1]), detached=sys.argv[2] == "detached")
child.launch()
print(child.identity.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "child.log"


def is_up(process: Process) -> bool:
    return "up" in process.last_lines()


def test_stop_asks_and_returns_the_exit_code(log: Path) -> None:
    process = Process("child", SLEEP, log=log)
    process.launch()
    process.wait_ready(lambda: is_up(process))
    assert process.stop() == -signal.SIGTERM
    assert not process.is_running()


def test_stop_kills_what_does_not_listen(log: Path) -> None:
    process = Process("child", STUBBORN, log=log)
    process.launch()
    process.wait_ready(lambda: is_up(process))
    assert process.stop(0.1) == -signal.SIGKILL


def test_a_process_that_ends_at_its_start_is_told_with_its_last_lines(log: Path) -> None:
    process = Process("the child", [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], log=log)
    process.launch()
    with pytest.raises(ProcessError, match=r"the child ended at its start \(exit code 3\)[\s\S]*the reason"):
        process.wait_ready(lambda: False)


def test_a_process_that_never_gets_ready_is_ended(log: Path) -> None:
    process = Process("child", SLEEP, log=log)
    process.launch()
    with pytest.raises(ProcessError, match="not ready after 0 s"):
        process.wait_ready(lambda: False, 0.1)
    assert not process.is_running()


def test_a_program_that_does_not_exist_is_told(log: Path) -> None:
    with pytest.raises(ProcessError, match="no-such-program cannot be started"):
        run_logged("it", ["/no-such-program"], log)


def test_only_the_lines_of_this_start_are_told(log: Path) -> None:
    run_logged("first", [sys.executable, "-c", "print('old')"], log)
    with pytest.raises(ProcessError) as caught:
        run_logged("second", [sys.executable, "-c", "print('new'); raise SystemExit(1)"], log)
    assert "new" in str(caught.value) and "old" not in str(caught.value)


@pytest.fixture
def parent(log: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start_parent(parent: list[subprocess.Popen[str]], log: Path, mode: str, command: list[str]) -> Identity:
    """A process that starts a child; who the child is."""
    arguments = [sys.executable, "-c", PARENT, str(log), mode, *command]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    parent.append(process)
    assert process.stdout is not None
    child = Identity.of(int(process.stdout.readline()))
    assert child is not None
    assert wait_until(lambda: log.exists() and "up" in log.read_text(), 10)
    return child


def test_a_child_ends_with_its_parent_even_when_that_is_killed(parent: list[subprocess.Popen[str]], log: Path) -> None:
    child = start_parent(parent, log, "tied", SLEEP)
    parent[0].kill()
    parent[0].wait()
    assert wait_until(lambda: not child.is_alive(), 10)


def test_a_detached_child_outlives_its_parent(parent: list[subprocess.Popen[str]], log: Path) -> None:
    child = start_parent(parent, log, "detached", SLEEP)
    parent[0].kill()
    parent[0].wait()
    assert child.is_alive()
    child.end()
    assert not child.is_alive()


def test_an_end_kills_what_does_not_listen(parent: list[subprocess.Popen[str]], log: Path) -> None:
    child = start_parent(parent, log, "detached", STUBBORN)
    child.end(seconds=0.1)
    assert not child.is_alive()


def test_a_pid_that_another_process_got_is_left_alone(log: Path) -> None:
    process = Process("child", SLEEP, log=log)
    process.launch()
    assert process.identity is not None
    earlier = Identity(process.identity.pid, "another boot:1")
    assert not earlier.is_alive()
    earlier.end()
    assert process.is_running()
    process.stop()


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = Identity.of(child.pid)
    assert wait_until(lambda: Identity.of(child.pid) is None, 10)
    assert identity is None or not identity.is_alive()
    child.wait()


def test_identity_is_the_same_at_every_look() -> None:
    assert Identity.of(os.getpid()) == Identity.of(os.getpid())
    assert Identity.of(2**22 + 1) is None


def test_free_ports() -> None:
    import socket

    port = free_port()
    assert is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
