"""The examples of the README and of the tutorial, run as they stand against a running stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from local.demo.samples import CHAT
from local.stack import Stack
from tests.acceptance.system import System, wait_for
from tests.docs.pages import ROOT, blocks

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Shell:
    """A shell in a folder whose ./dev works on the stack."""

    def __init__(self, system: System, folder: Path) -> None:
        self.folder = folder
        call = f'"{sys.executable}" -m tests.docs.dev_on_stack "{system.stack.folder}" "$@"'
        script = folder / "dev"
        script.write_text(f'#!/bin/sh\nexport DEV_CALLED_FROM="$PWD" PYTHONPATH="{ROOT}"\nexec {call}\n')
        script.chmod(0o755)

    def start(self, script: str) -> subprocess.Popen[str]:
        command = ["bash", "-euo", "pipefail", "-c", f'eval "$(./dev env)"\n{script}']
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAPH_")}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, script: str) -> str:
        with self.start(script) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, f"{script}\n{output}"
        return output


@pytest.fixture
def system(stack: Stack) -> Iterator[System]:
    system = System(stack)
    yield system
    system.settle_down()


@pytest.fixture
def shell(system: System, tmp_path: Path) -> Shell:
    return Shell(system, tmp_path)


def completed(system: System, job_id: object) -> None:
    wait_for(lambda: system.state(UUID(str(job_id))), "completed")


@needs_curl
def test_the_readmes_request_over_http(system: System, shell: Shell) -> None:
    [command] = [block.text for block in blocks("sh", README) if "curl" in block.text]
    made = json.loads(shell.run(command))
    assert made["created"] is True
    completed(system, made["id"])
    assert "Gate 3 is blocked" in system.texts(CHAT)


def test_the_readmes_python(system: System, shell: Shell) -> None:
    [program] = [block.text for block in blocks("python", README)]
    (shell.folder / "enqueue.py").write_text(program)
    job_id, created = shell.run("./dev python enqueue.py").split()
    assert created == "True"
    completed(system, job_id)
    assert "Truck 12 is late" in system.texts(CHAT)


def test_the_readmes_sql(system: System) -> None:
    [statement] = [block.text for block in blocks("sql", README)]
    with psycopg.connect(system.stack.database_url) as conn:
        [(job_id,)] = conn.execute(statement.encode()).fetchall()
    assert system.state(job_id) == "scheduled"
    system.sql("update queue.later set run_at = clock_timestamp() where id = %s", job_id)
    completed(system, job_id)
    assert system.sent("Trip 7").startswith("1")


@needs_curl
def test_the_tutorial(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEV_HOST", "stand-in")
        stack = Stack(tmp_path_factory.mktemp("tutorial"), fast=True)
    commands = [block.text.strip() for block in blocks("sh", TUTORIAL)]
    up, env, sign_in, approve, *rest = commands
    assert (up, env, sign_in) == ("./dev up", 'eval "$(./dev env)"', "./dev sign-in")
    with stack:
        system = System(stack)
        shell = Shell(system, tmp_path)
        with shell.start(sign_in) as signing:
            assert signing.stdout is not None
            said = ""
            while not (code := re.search(r"code ([A-Z0-9-]+)", said)):
                line = signing.stdout.readline()
                assert line, said
                said += line
            assert '"CODE"' in approve
            shell.run(approve.replace("CODE", code[1]))
            assert signing.wait(30) == 0, said
        output = [_run(system, shell, command) for command in rest]
        hello, chat, jobs, refused, letters, redriven = output
        assert "(1 row)" in hello and "Hello" in chat
        assert re.search(r"teams-outbound \| completed \|\s+1 \|", jobs)
        assert "(1 row)" in refused
        assert re.search(r"teams-outbound \| validation\s+\| .*400", letters)
        assert "(1 row)" in redriven
        assert [text for text in system.texts(CHAT) if text != "Hello"] == ["Refused"]
        [(new, linked)] = system.sql(
            "select j.id, d.redriven_job_id from queue.jobs j"
            " join queue.dead_letter_queue d on d.job_id = j.redrive_of where j.state = 'completed'"
        )
        assert new == linked and system.graph.violations() == []


def _run(system: System, shell: Shell, command: str) -> str:
    output = shell.run(command)
    wait_for(system.unfinished, 0)
    return output
