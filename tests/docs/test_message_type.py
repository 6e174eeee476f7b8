"""docs/how-to/add-a-message-type.md, followed in a copy of the project: one module and one declaration are enough."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import tuple_row

from shared.handlers.registry import QUEUES
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "add-a-message-type.md"
NAME = "tyre-alerts"
COPIED = ("shared", "functions", "local", "docs", "tests", "function_app.py", "host.json", "pyproject.toml")
ALERT = {"truck": "T7", "bar": 2.5}

LOOK_AROUND = """
import json, sys
import azure.functions as func
import function_app
from functools import partial
from functions.admin import serve
from shared import bootstrap
from shared.engine.memory import MemoryTransport
from shared.postgres.migrate import migrate

enqueue_jobs, show_job = partial(serve, "{queue}/jobs"), partial(serve, "jobs/{id}")
found = {}
for function in function_app.app.get_functions():
    trigger = next(b for b in map(json.loads, function.get_raw_bindings()) if b["type"].endswith("Trigger"))
    if trigger["type"] == "queueTrigger":
        found[function.get_function_name()] = trigger["queueName"]
migrate(sys.argv[1])
bootstrap.built["queues"] = MemoryTransport()
def ask(call, payload, **route):
    headers = {"x-admin-key": "k" * 32, "content-type": "application/json"}
    body = json.dumps({"payload": payload}).encode() if payload is not None else b""
    request = func.HttpRequest(
        "POST" if body else "GET", "http://x/api/queue/x", headers=headers, route_params=route, body=body)
    answer = call(request)
    return answer.status_code, json.loads(answer.get_body())
made = ask(enqueue_jobs, json.loads(sys.argv[2]), queue="tyre-alerts")
shown = ask(show_job, None, id=made[1].get("id", ""))
refused = ask(enqueue_jobs, {"truck": "T7"}, queue="tyre-alerts")
bootstrap.stop()
print(json.dumps({"triggers": found, "made": made, "shown": shown, "refused": refused}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with what the page adds, and nothing else."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, folder)
    module, declaration, test = (block.text for block in blocks("python", PAGE))
    (folder / "shared/handlers/tyre_alert.py").write_text(module, "utf-8")
    (folder / "tests/unit/handlers/test_tyre_alert.py").write_text(test, "utf-8")
    registry = folder / "shared/handlers/registry.py"
    text = registry.read_text("utf-8").rstrip()
    assert text.endswith("\n)"), "the registry ends with the list of queues"
    registry.write_text(f"{text.removesuffix(')')}{declaration}\n)\n", "utf-8")
    return folder


def run(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def pytest_run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", *args)


@pytest.fixture
def found(project: Path, database_url: str, direct_url: str) -> dict[str, Any]:
    """What the copy shows of the new type, on a database of its own."""
    pooler = os.environ.get("DATABASE_POOLER", "false")
    env = {"DATABASE_URL": database_url, "DATABASE_POOLER": pooler, "ADMIN_KEY": "k" * 32}
    done = run(project, "-c", LOOK_AROUND, direct_url, json.dumps(ALERT), **env)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_type_that_was_added_is_known_everywhere(found: dict[str, Any], sql: psycopg.Connection) -> None:
    assert NAME not in QUEUES
    assert found["triggers"]["run_tyre_alerts"] == NAME
    assert found["triggers"]["poison_tyre_alerts"] == f"{NAME}-poison"
    assert found["made"][0] == 202
    status, shown = found["shown"]
    assert (status, shown["queue"], shown["state"], shown["payload"]) == (200, NAME, "ready", ALERT)
    assert found["refused"][0] == 422
    assert [problem["field"] for problem in found["refused"][1]["errors"]] == ["payload.bar"]
    with sql.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("select class, closed from queue.queue_settings where queue = %s", (NAME,))
        assert cursor.fetchone() == ("high", "")
        cursor.execute("select queue.enqueue(%s, %s)", (NAME, json.dumps(ALERT)))
        cursor.execute("select queue.pause(%s)", (NAME,))
        assert cursor.fetchone() == (True,)
        cursor.execute("select count(*) from queue.jobs where queue = %s", (NAME,))
        assert cursor.fetchone() == (2,)


def test_the_tests_of_the_page_pass(project: Path) -> None:
    done = pytest_run(project, "tests/unit/handlers/test_tyre_alert.py")
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_list_of_queues_asks_for_its_row(project: Path) -> None:
    done = pytest_run(project, "tests/docs/test_pages.py", "-k", "list_of_queues")
    assert done.returncode == 1
    assert "| `tyre-alerts` | high | **`truck`**, **`bar`** | no | none |" in done.stdout
