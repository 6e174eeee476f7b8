"""The development host as a process: its start, its signals, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.process import Process, ProcessError, accepts_connections, free_port, wait_until
from tests.local.conftest import Queue

ROOT = Path(__file__).parents[2]
# The app and its test are two processes: files say what happened.
GATED = """
import os, pathlib, time
folder = pathlib.Path(os.environ["FOLDER"])

@app.queue_trigger("message", "%QUEUE%", "Storage")
def gated(message: func.QueueMessage):
    (folder / f"begun-{os.getpid()}").write_text(str(message.dequeue_count))
    while not (folder / "go").exists():
        time.sleep(0.01)
    (folder / f"done-{os.getpid()}").write_text("")
"""


@pytest.fixture
def make_host(
    write_app: Callable[..., Path], tmp_path: Path, queue: Queue
) -> Iterator[Callable[..., tuple[Process, int]]]:
    processes: list[Process] = []

    def make(source: str, *options: str) -> tuple[Process, int]:
        port = free_port()
        command = [sys.executable, "-m", "local.host", "--port", str(port), "--app", str(write_app(source))]
        settings = {"Storage": queue.connection, "QUEUE": queue.name, "FOLDER": str(tmp_path)}
        process = Process(
            "host",
            [*command, "--state", str(tmp_path / "state"), *options],
            log=tmp_path / f"host-{port}.log",
            environment=os.environ | settings,
            folder=ROOT,
        )
        processes.append(process)
        process.launch()
        return process, port

    yield make
    for process in processes:
        process.kill()


def test_it_names_its_functions_and_itself_as_a_development_tool(make_host: Callable[..., tuple[Process, int]]) -> None:
    process, port = make_host(GATED)
    process.wait_ready(lambda: accepts_connections(port))
    assert wait_until(lambda: "gated:" in process.last_lines(), 10)
    assert "for development (not Azure's)" in process.last_lines()


def test_an_import_error_is_told_and_ends_it(make_host: Callable[..., tuple[Process, int]]) -> None:
    process, port = make_host("import does_not_exist")
    with pytest.raises(ProcessError, match=r"cannot start: .*No module named 'does_not_exist'"):
        process.wait_ready(lambda: accepts_connections(port))
    assert process.stop() == 1


def test_a_taken_port_is_told(make_host: Callable[..., tuple[Process, int]]) -> None:
    first, port = make_host(GATED)
    first.wait_ready(lambda: accepts_connections(port))
    second, _ = make_host(GATED, "--port", str(port))
    with pytest.raises(ProcessError, match="Address already in use"):
        second.wait_ready(lambda: False)


def test_sigterm_finishes_what_has_begun(
    make_host: Callable[..., tuple[Process, int]], queue: Queue, tmp_path: Path
) -> None:
    process, _ = make_host(GATED)
    queue.put("one")
    assert wait_until(lambda: any(tmp_path.glob("begun-*")), 20)
    assert process.identity is not None
    process.identity.send(signal.SIGTERM)
    (tmp_path / "go").write_text("")
    assert process.wait() == 0
    assert list(tmp_path.glob("done-*"))
    assert queue.count() == 0


def test_a_second_sigterm_ends_it_at_once(
    make_host: Callable[..., tuple[Process, int]], queue: Queue, tmp_path: Path
) -> None:
    process, _ = make_host(GATED)
    queue.put("one")
    assert wait_until(lambda: any(tmp_path.glob("begun-*")), 20)
    assert process.identity is not None
    process.identity.send(signal.SIGTERM)
    process.identity.send(signal.SIGTERM)  # may melt into one with the first
    assert wait_until(lambda: _again(process), 10)
    assert process.stop() == 1
    assert queue.count() == 1


def _again(process: Process) -> bool:
    if process.identity is not None:
        process.identity.send(signal.SIGTERM)
    return not process.is_running()


def test_a_run_that_outlasts_the_grace_is_given_up(
    make_host: Callable[..., tuple[Process, int]], queue: Queue, tmp_path: Path
) -> None:
    process, _ = make_host(GATED, "--grace", "0.2")
    queue.put("one")
    assert wait_until(lambda: any(tmp_path.glob("begun-*")), 20)
    assert process.stop(10) == 1
    assert queue.count() == 1


def test_the_message_of_a_killed_host_comes_back_after_its_lease(
    make_host: Callable[..., tuple[Process, int]], queue: Queue, tmp_path: Path
) -> None:
    first, _ = make_host(GATED, "--visibility", "2")
    queue.put("one")
    assert wait_until(lambda: any(tmp_path.glob("begun-*")), 20)
    first.kill()
    second, _ = make_host(GATED, "--visibility", "2")
    assert second.identity is not None
    begun = tmp_path / f"begun-{second.identity.pid}"
    assert wait_until(begun.exists, 20)
    assert wait_until(lambda: begun.read_text() == "2", 5)
    (tmp_path / "go").write_text("")
    assert wait_until(lambda: queue.count() == 0, 10)
    assert second.stop() == 0
