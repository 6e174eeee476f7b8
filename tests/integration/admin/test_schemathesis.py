"""Schemathesis asks the running host what the OpenAPI document allows, and what it forbids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local.azurite import Azurite
from local.process import Process, accepts_connections, free_port
from shared.access import KEY_HEADER
from shared.admin.openapi import document
from shared.admin.routes import ROUTES
from shared.storage.queues import StorageQueues
from tests.environment import own_environment

ROOT = Path(__file__).parents[3]
FOLDER = Path(__file__).parent
KEY = "k" * 40
SECONDS = 20
#: What no answer may break. Methods that a host itself does not know (TRACE) are not ours to answer, and who guesses
#: keys is slowed (429), which other tests look at. Whether a request is refused that a schema forbids is the models'
#: affair: the schemas are made of them.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture
def host(azurite: Azurite, storage: StorageQueues, database_url: str, tmp_path: Path) -> Iterator[str]:
    """The development host with the whole app; its address below which the admin API is."""
    port = free_port()
    settings = {
        "DATABASE_URL": database_url,
        "QueueStorage": azurite.connection_string,
        "AzureWebJobsStorage": azurite.connection_string,
        "ADMIN_KEY": KEY,
        "WEBHOOK_SECRET": "w" * 40,
        "WEBHOOK_BASE_URL": "http://127.0.0.1:1/api",
        "GRAPH_AUTHORITY": "http://127.0.0.1:1",
        "GRAPH_BASE_URL": "http://127.0.0.1:1/v1.0",
        "GRAPH_TENANT_ID": "11111111-1111-4111-8111-111111111111",
        "GRAPH_CLIENT_ID": "22222222-2222-4222-8222-222222222222",
        "GRAPH_CLIENT_SECRET": "secret",
        "ENCRYPTION_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    }
    process = Process(
        "host",
        [sys.executable, "-m", "local.host", "--port", str(port), "--state", str(tmp_path / "state"), "--grace", "5"],
        log=tmp_path / "host.log",
        environment=os.environ | settings,
        folder=ROOT,
    )
    process.launch()
    try:
        process.wait_ready(lambda: accepts_connections(port))
        yield f"http://127.0.0.1:{port}/api/queue"
    finally:
        process.kill()


def ask(method: str, url: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


ALERT = "insert into queue.queue_alerts (alert_key, level, title) values ('a', 'warning', 'A') returning id"


def with_ids(text: bytes, sql: psycopg.Connection) -> bytes:
    """The document with ids of what is there, beside what is not. Names of schedules are any text."""
    [job] = sql.execute("select queue.enqueue('sync', '{}', delay => interval '1 day')").fetchone() or [None]
    sql.execute("select queue.bury('sync', 'x', 'unreadable', 'm1')")
    [alert] = sql.execute(ALERT).fetchone() or [None]
    [letter] = sql.execute("select id from queue.dead_letter_queue").fetchone() or [None]
    found = {"jobs": job, "retry": job, "alerts": alert, "dead-letter": letter}
    spec = json.loads(text)
    for path, methods in spec["paths"].items():
        known = found.get(path.split("/")[1])
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and parameter["name"] != "queue" and known:
                    parameter["schema"] = {"type": "string", "enum": [str(known), "unknown"]}
    return json.dumps(spec).encode()


def test_schemathesis_finds_no_server_error_and_no_answer_that_the_openapi_document_does_not_have(
    host: str, tmp_path: Path, sql: psycopg.Connection
) -> None:
    python = own_environment("schemathesis", FOLDER / "requirements.txt")
    status, _, body = ask("GET", f"{host}/openapi.json", {KEY_HEADER: KEY})
    assert (status, json.loads(body)) == (200, document())
    for name in ("a%00b", "%FF", "%20"):  # it makes no NUL in an address, and hardly ever what is no UTF-8
        status, kind, said = ask("POST", f"{host}/schedules/{name}/run", {KEY_HEADER: KEY})
        assert (status, kind) == (404, "application/problem+json"), (name, said)
    (tmp_path / "openapi.json").write_bytes(with_ids(body, sql))
    # One worker: Python 3.11's ast.parse, which Hypothesis uses, fails at random when several threads are in it.
    done = subprocess.run(
        [
            str(python.with_name("st")), "run", str(tmp_path / "openapi.json"), "--url", host,
            "-H", f"{KEY_HEADER}: {KEY}", "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing",
            "--max-examples", "8", "--max-time", str(SECONDS), "--workers", "1", "--seed", "6", "--no-shrink",
            "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]


def test_every_protected_route_of_the_host_refuses_without_a_key(host: str) -> None:
    for route in ROUTES:
        path = route.path.replace("{queue}", "sync").replace("{id}", "x").replace("{name}", "x")
        status, kind, body = ask(route.method, f"{host}/{path}", {"content-type": "application/json"})
        if route.role is None:
            assert status in (200, 503), route.operation
        else:
            assert (status, kind) == (401, "application/problem+json"), route.operation
            assert json.loads(body)["status"] == 401
