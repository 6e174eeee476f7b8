"""The commands of ./dev, as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from local import cli
from local.process import wait_until
from local.state import State

ROOT = Path(__file__).parents[2]
#: The command line on another data folder, with a small app in place of the product.
SCRIPT = """
import functools, sys
from pathlib import Path
from local import cli, stack
cli.HOME = stack.HOME = Path(sys.argv[1])
cli.install_tools = lambda: None
stack.SCHEMAS, stack.PREFERRED_PORTS = None, {}
stack.Stack = functools.partial(stack.Stack, app=Path(sys.argv[2]))
sys.argv = ["./dev", *sys.argv[3:]]
sys.exit(cli.main())
"""
APP = """
@app.route("hello", auth_level="anonymous")
def hello(req: func.HttpRequest): return "hello"
"""


def run(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", *arguments]
    environment = os.environ | options
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_help_is_one_screen_and_names_every_command(arguments: tuple[str, ...]) -> None:
    from local import cli

    done = run(*arguments)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 24
    for command in cli.app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        assert f"./dev {name}" in done.stdout


def test_an_unknown_command_is_an_error() -> None:
    done = run("nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_exit_codes_and_arguments_pass_through() -> None:
    done = run("python", "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "--help", "-f")
    assert (done.returncode, done.stdout) == (7, "['--help', '-f']\n")


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (
            (),
            [
                "tests -n 2 --ignore=tests/acceptance --ignore=tests/dashboard --ignore=tests/docs",
                "tests/acceptance tests/dashboard tests/docs",
            ],
        ),
        (
            ("--through", "pgbouncer", "--postgres=/opt/15/bin"),
            [
                "tests -n 2 --ignore=tests/acceptance --ignore=tests/dashboard --ignore=tests/docs"
                " --through pgbouncer --postgres=/opt/15/bin",
                "tests/acceptance tests/dashboard tests/docs --through pgbouncer --postgres=/opt/15/bin",
            ],
        ),
        (("--through", "pgbouncer", "tests/contract"), ["--through pgbouncer tests/contract"]),
        (("-k", "lanes"), ["-k lanes"]),
        (("--through",), ["--through"]),
    ],
)
def test_the_whole_suite_runs_unless_something_is_chosen(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], runs: list[str]
) -> None:
    ran: list[str] = []

    def record(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(" ".join(command[3:]))  # without python -m pytest
        return subprocess.CompletedProcess([], 1)

    def replace(command: Sequence[str]) -> NoReturn:
        record(command)
        raise SystemExit(1)

    monkeypatch.setattr(cli, "install_tools", lambda: None)
    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.setattr(cli, "_replace", replace)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert CliRunner().invoke(cli.app, ["test", *arguments]).exit_code == 1
    assert ran == runs


def test_paths_are_those_of_the_caller(tmp_path: Path) -> None:
    done = run("python", "-c", "import os; print(os.getcwd())", DEV_CALLED_FROM=str(tmp_path))
    assert done.stdout.strip() == str(tmp_path)


@pytest.fixture
def dev(tmp_path: Path, write_app: Callable[..., Path]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    app = write_app(APP)

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "home"), str(app), *arguments]
        environment = os.environ | {"DEV_HOST": "stand-in", "DEV_CALLED_FROM": str(tmp_path)}
        environment.pop("DATABASE_URL", None)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=ROOT, env=environment,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    State.load(tmp_path / "home").end()


def output(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[0]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if text in line:
            return lines
    raise AssertionError(f"{text!r} did not come: {lines}")


def test_up_and_what_other_shells_do_with_it(tmp_path: Path, dev: Callable[..., subprocess.Popen[str]]) -> None:
    home = tmp_path / "home"
    up = dev("up")
    assert "/api" in read_until(up, "Ctrl-C stops everything")
    ports = State.load(home).ports
    processes = State.load(home).processes

    assert output(dev("psql", "-c", "create table kept as select 42 as answer")) == "SELECT 1\n"
    assert "export ADMIN_KEY=" in output(dev("env"))
    assert output(dev("python", "-c", "import os; print(len(os.environ['ADMIN_KEY']) >= 32)")) == "True\n"
    assert "development (not Azure's)" in output(dev("logs", "host"))
    assert output(dev("migrate")) == "The database is up to date.\n"
    second = dev("up")
    assert "already runs" in output(second)
    assert second.returncode == 1

    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 130
    assert not any(entry.identity.is_alive() for entry in processes)

    up = dev("up")
    read_until(up, "Ctrl-C stops everything")
    assert State.load(home).ports == ports
    assert "42" in output(dev("psql", "-c", "select answer from kept"))
    up.kill()  # and the next one finds whatever that left
    up.wait()
    up = dev("up")
    read_until(up, "Ctrl-C stops everything")
    assert "42" in output(dev("psql", "-c", "select answer from kept"))

    assert output(dev("down")) == "Stopped Azurite, fake Graph, PostgreSQL, host.\n"
    assert up.wait(60) == 143
    assert output(dev("down")) == "Nothing is running.\n"
    assert "start it with ./dev up" in output(dev("psql"))

    refused = dev("reset")
    assert "Aborted" in output(refused)
    assert refused.returncode == 1
    assert (home / "postgres").exists()
    assert output(dev("reset", "--yes")) == "The local data is removed.\n"
    assert not (home / "postgres").exists()


def test_up_ends_with_the_reason_when_a_part_dies(tmp_path: Path, dev: Callable[..., subprocess.Popen[str]]) -> None:
    up = dev("up")
    read_until(up, "Ctrl-C stops everything")
    processes = {entry.name: entry.identity for entry in State.load(tmp_path / "home").processes}
    processes["Azurite"].send(signal.SIGKILL)
    assert "Azurite" in output(up)
    assert up.returncode == 1
    assert wait_until(lambda: not any(identity.is_alive() for identity in processes.values()), 5)
