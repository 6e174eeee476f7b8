"""The whole stack: it starts, it stops, and whatever happens to it nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from local import stack as stack_module
from local.process import Identity, ProcessError, wait_until
from local.stack import Stack, remove_stale_folders, temporary_folder
from local.state import Entry, State
from shared.handlers.registry import QUEUES
from shared.storage.queues import StorageQueues

ROOT = Path(__file__).parents[2]
APP = """
import os
@app.route("setting/{name}", auth_level="anonymous")
def setting(req: func.HttpRequest): return os.environ.get(req.route_params["name"], "")
"""
#: Runs a stack until it is told to end, as `./dev up` does.
SCRIPT = """
import signal, sys, threading
from pathlib import Path
from local import stack
stack.SCHEMAS = None
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with stack.Stack(Path(sys.argv[1]), fast=True, app=Path(sys.argv[2])) as running:
    print("running", flush=True)
    threading.Event().wait()
"""


@pytest.fixture(autouse=True)
def _without_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "SCHEMAS", None)
    monkeypatch.setenv("DEV_HOST", "stand-in")


@pytest.fixture
def app(write_app: Callable[..., Path]) -> Path:
    return write_app(APP)


def ask(stack: Stack, path: str) -> str:
    with urllib.request.urlopen(f"{stack.host_url}/{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_everything_runs_with_one_set_of_settings_and_stops(tmp_path: Path, app: Path) -> None:
    with Stack(tmp_path / "s", fast=True, app=app) as stack:
        for name in ("DATABASE_URL", "QueueStorage", "GRAPH_BASE_URL", "ADMIN_KEY", "WEBHOOK_BASE_URL"):
            assert ask(stack, f"setting/{name}") == stack.environment[name]
        with psycopg.connect(stack.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM queue.job").fetchone() == (0,)
        storage = StorageQueues(stack.azurite.connection_string)
        for spec in QUEUES.values():
            assert storage.count(spec.name) == storage.count(spec.poison) == 0
        entries = State.load(stack.folder).processes
        assert [entry.name for entry in entries] == ["Azurite", "fake Graph", "PostgreSQL", "host"]
        assert all(entry.identity.is_alive() for entry in entries)
    assert not any(entry.identity.is_alive() for entry in entries)
    assert not State.load(stack.folder).processes


def test_keys_are_made_once_and_kept_from_others(tmp_path: Path, app: Path) -> None:
    first, second = (Stack(tmp_path / "s", app=app) for _ in range(2))
    assert first._secrets() == second._secrets()
    assert len(first._secrets()["ADMIN_KEY"]) >= 32
    assert (tmp_path / "s" / "settings.json").stat().st_mode & 0o077 == 0


def test_parts_can_be_broken_and_come_back_with_their_data(tmp_path: Path, app: Path) -> None:
    with Stack(tmp_path / "s", app=app, host_processes=2) as stack:
        with psycopg.connect(stack.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1")
        stack.kill_host()
        assert [process.name for process in stack.ended()] == ["the function host"]
        stack.start_host()
        assert ask(stack, "setting/LEASE_SECONDS") == ""
        stack.stop_postgres("immediate")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(stack.database_url)
        stack.start_postgres()
        with psycopg.connect(stack.database_url) as connection:
            assert connection.execute("SELECT * FROM kept").fetchone() == (1,)
        assert len(stack.host_urls) == 2


def test_an_app_that_does_not_load_is_told_and_nothing_is_left(tmp_path: Path, write_app: Callable[..., Path]) -> None:
    stack = Stack(tmp_path / "s", fast=True, app=write_app("import does_not_exist"))
    with pytest.raises(ProcessError, match=r"function host ended at its start[\s\S]*does_not_exist"):
        stack.start()
    assert not stack.postgres.is_running()
    assert not stack.azurite.process.is_running()
    assert not stack.graph.process.is_running()


def test_ports_are_kept_and_a_taken_one_is_replaced_with_a_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said: list[str] = []
        stack = Stack(tmp_path / "s", ports={"azurite": port, "host": 29_999}, say=said.append)
        assert stack.azurite.port != port
        assert said == [f"Port {port} (azurite) is taken; using {stack.azurite.port}."]
        assert stack.host_url == "http://127.0.0.1:29999/api"


@pytest.fixture
def run_script(tmp_path: Path, app: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """A process that runs a stack on tmp_path/s."""
    started: list[subprocess.Popen[str]] = []

    def run() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "s"), str(app)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
    State.load(tmp_path / "s").end()


def test_a_kill_of_the_script_ends_everything_and_the_next_run_works(
    tmp_path: Path, app: Path, run_script: Callable[[], subprocess.Popen[str]]
) -> None:
    script = run_script()
    left = State.load(tmp_path / "s").processes
    assert len(left) == 4
    script.kill()
    script.wait()
    assert wait_until(lambda: not any(entry.identity.is_alive() for entry in left), 20)
    with Stack(tmp_path / "s", fast=True, app=app) as stack:
        assert ask(stack, "setting/nothing") == ""


def test_sigterm_stops_everything_in_order(tmp_path: Path, run_script: Callable[[], subprocess.Popen[str]]) -> None:
    script = run_script()
    processes = State.load(tmp_path / "s").processes
    script.send_signal(signal.SIGTERM)
    assert script.wait(30) == 143
    assert not any(entry.identity.is_alive() for entry in processes)
    assert '"host.stopped"' in (tmp_path / "s" / "logs" / "host.log").read_text()
    assert "database system is shut down" in (tmp_path / "s" / "logs" / "postgres.log").read_text()


def test_a_second_run_on_the_same_folder_is_refused(
    tmp_path: Path, app: Path, run_script: Callable[[], subprocess.Popen[str]]
) -> None:
    script = run_script()
    with pytest.raises(ProcessError, match=rf"already runs \(process {script.pid}\); ./dev down"):
        Stack(tmp_path / "s", app=app).start()
    assert State.load(tmp_path / "s").end_with_owner() == ["Azurite", "fake Graph", "PostgreSQL", "host"]
    assert script.wait(10) == 143


def test_a_detached_stack_stays_until_it_is_ended(tmp_path: Path, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "HOME", tmp_path)
    with temporary_folder("kept", keep=lambda: True) as folder:
        stack = Stack(folder, fast=True, app=app, detached=True)
        stack.start()
        stack.leave()
    remove_stale_folders()
    assert folder.exists()
    assert State.load(folder).is_running()
    assert len(State.load(folder).end_with_owner()) == 4
    stack.stop()  # what has ended is still this process's to reap
    remove_stale_folders()
    assert not folder.exists()


def test_the_folder_of_a_killed_run_is_removed_and_that_of_a_running_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "HOME", tmp_path)
    dead = tmp_path / "tmp" / "demo-dead"
    State(owner=Identity(os.getpid(), "another boot:1")).save(dead)
    with temporary_folder("demo") as running:
        assert not dead.exists()
        remove_stale_folders()
        assert running.exists()
    assert not running.exists()


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"owner": 5}'])
def test_a_damaged_state_file_is_like_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").write_text(damage)
    assert State.load(tmp_path) == State()


def test_the_state_comes_back_as_it_was_saved_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    state = State(Identity(5, "boot:7"), True, [Entry("host", Identity(6, "boot:8"), 2)], {"host": 7071}, {"KEY": "x"})
    state.save(tmp_path)
    assert State.load(tmp_path) == state
    file = tmp_path / "run" / "state.json"
    assert json.loads(file.read_text())["ports"] == {"host": 7071}
    assert file.stat().st_mode & 0o077 == 0
