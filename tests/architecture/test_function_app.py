"""The app as Azure's host sees it: names, routes, import cost. A failing import there means no functions at all."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from functions.admin import addresses, function_name
from shared.handlers.inbox import MOST_DELIVERIES
from shared.handlers.registry import QUEUES

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = {
    *(function_name(address) for address in addresses()),
    "keep_subscriptions",
    "maintain_partitions",
    "keep_statistics",
    "evaluate_alerts",
    "make_reports",
    "clean_statistics",
    "relay_jobs",
    "rescue_jobs",
    "run_schedules",
    "show_dashboard",
    "show_dashboard_file",
    "show_health",
    "sweep_poison_queues",
    "take_lifecycle_notifications",
    "take_notifications",
    "watch_identities",
    *(f"run_{spec.function}" for spec in QUEUES.values()),
    *(f"poison_{spec.function}" for spec in QUEUES.values()),
}
#: A page and its files, which need no key.
DASHBOARD = {"queue/dashboard", "queue/dashboard/{version}/{*file}"}
ROUTES = {
    *DASHBOARD,
    "queue/health",
    "queue/{queue}/clear",
    "queue/{queue}/failed",
    "queue/{queue}/jobs",
    "queue/{queue}/limits",
    "queue/{queue}/pause",
    "queue/{queue}/resume",
    "queue/alerts",
    "queue/alerts/{id}",
    "queue/alerts/{id}/acknowledge",
    "queue/audit",
    "queue/dead-letter",
    "queue/dead-letter/discard",
    "queue/dead-letter/groups",
    "queue/dead-letter/redrive",
    "queue/dead-letter/review",
    "queue/dead-letter/{id}",
    "queue/dead-letter/{id}/discard",
    "queue/dead-letter/{id}/review",
    "queue/jobs",
    "queue/jobs/{id}",
    "queue/jobs/{id}/cancel",
    "queue/me",
    "queue/metrics",
    "queue/openapi.json",
    "queue/prometheus",
    "queue/reports",
    "queue/reports/{day}",
    "queue/retry/{id}",
    "queue/schedule-times",
    "queue/schedules",
    "queue/schedules/{name}",
    "queue/schedules/{name}/run",
    "queue/stats",
    "queue/subscriptions",
    "queue/syncs",
    "queue/thresholds",
    "webhooks/graph",
    "webhooks/graph/lifecycle",
}
#: Written out, since `dead-letter/{id}` would take what is meant for the queue of this name.
OF_DEAD_LETTER = {f"queue/dead-letter/{verb}" for verb in ("clear", "failed", "jobs", "limits", "pause", "resume")}
SCHEDULES = {
    "relay_jobs": "*/10 * * * * *",
    "rescue_jobs": "*/30 * * * * *",
    "run_schedules": "0 * * * * *",
    "watch_identities": "30 * * * * *",
    "maintain_partitions": "0 7 * * * *",
    "keep_statistics": "20 */5 * * * *",
    "evaluate_alerts": "40 * * * * *",
    "make_reports": "45 */10 * * * *",
    "clean_statistics": "0 0 2 * * *",
    "sweep_poison_queues": "0 */5 * * * *",
    "keep_subscriptions": "15 */2 * * * *",
}
#: Loaded on first use only: a cold start must answer Graph's handshake.
HEAVY = (
    "pydantic",
    "pydantic_settings",
    "psycopg",
    "psycopg_pool",
    "requests",
    "msal",
    "azure.storage",
    "cryptography",
    "cronsim",
)
IMPORTS = 7
LIST_FUNCTIONS = """
import json, function_app
print(json.dumps([[f.get_function_name(), [json.loads(b) for b in f.get_raw_bindings()]]
                  for f in function_app.app.get_functions()]))
"""


def python(code: str) -> str:
    """Run code in a fresh interpreter in the project's folder, with an empty environment."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def indexed() -> list[tuple[str, dict[str, Any]]]:
    """Name and trigger of each function, as the worker reports them."""
    found = json.loads(python(LIST_FUNCTIONS))
    return [(name, next(b for b in bindings if b["type"].endswith("Trigger"))) for name, bindings in found]


def test_exactly_these_functions_exist_each_once(indexed: list[tuple[str, dict[str, Any]]]) -> None:
    assert Counter(name for name, _ in indexed) == Counter(FUNCTIONS)


def test_routes_are_unique_and_anonymous_because_keys_in_a_query_end_up_in_logs(
    indexed: list[tuple[str, dict[str, Any]]],
) -> None:
    triggers = [trigger for _, trigger in indexed if trigger["type"] == "httpTrigger"]
    assert Counter(trigger["route"] for trigger in triggers) == Counter(ROUTES | OF_DEAD_LETTER)
    assert {trigger["authLevel"] for trigger in triggers} == {"ANONYMOUS"}


def test_every_queue_is_read_by_one_function_through_one_connection(
    indexed: list[tuple[str, dict[str, Any]]],
) -> None:
    triggers = [trigger for _, trigger in indexed if trigger["type"] == "queueTrigger"]
    assert Counter(trigger["queueName"] for trigger in triggers) == Counter(
        [*QUEUES, *(spec.poison for spec in QUEUES.values())]
    )
    assert {trigger["connection"] for trigger in triggers} == {"QueueStorage"}


def test_timers_have_six_fields_and_do_not_run_at_a_start(indexed: list[tuple[str, dict[str, Any]]]) -> None:
    timers = {name: trigger for name, trigger in indexed if trigger["type"] == "timerTrigger"}
    assert {name: trigger["schedule"] for name, trigger in timers.items()} == SCHEDULES
    assert not any(trigger["runOnStartup"] for trigger in timers.values())


def test_there_is_no_output_binding_that_could_split_or_lose_a_message() -> None:
    bindings = [binding for _, found in json.loads(python(LIST_FUNCTIONS)) for binding in found]
    assert {binding["type"] for binding in bindings if binding["direction"] == "OUT"} == {"http"}


def test_every_blueprint_is_registered() -> None:
    registered = {
        node.args[0].value.id
        for node in ast.walk(ast.parse((ROOT / "function_app.py").read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "register_functions"
        and isinstance(node.args[0], ast.Attribute)
        and isinstance(node.args[0].value, ast.Name)
    }
    with_blueprint = {path.stem for path in (ROOT / "functions").glob("*.py") if "Blueprint()" in path.read_text()}
    assert registered == with_blueprint


def test_function_app_only_registers() -> None:
    assert len((ROOT / "function_app.py").read_text().splitlines()) < 40


def test_shared_and_functions_are_ours() -> None:
    code = "import functions, shared, json; print(json.dumps([functions.__file__, shared.__file__]))"
    files = [Path(name) for name in json.loads(python(code))]
    assert files == [ROOT / "functions/__init__.py", ROOT / "shared/__init__.py"]


def test_importing_the_app_loads_nothing_heavy_and_needs_no_settings() -> None:
    code = f"import function_app, sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    assert json.loads(python(code)) == []


def test_a_handshake_loads_nothing_heavy_either() -> None:
    code = f"""
import azure.functions as func, json, sys
from functions.webhooks import take_notifications
req = func.HttpRequest("POST", "http://x/api/webhooks/graph", params={{"validationToken": "a: b"}}, body=b"")
import asyncio
assert asyncio.run(take_notifications(req)).get_body() == b"a: b"
print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))
"""
    assert json.loads(python(code)) == []


def test_a_delivery_loads_neither_the_database_nor_graph() -> None:
    code = """
import azure.functions as func, json, os, sys
os.environ["WEBHOOK_SECRET"] = "s" * 32
os.environ["QueueStorage"] = ("DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;"
                              "QueueEndpoint=http://127.0.0.1:1/a;")
from functions.webhooks import take_notifications
from shared import bootstrap
item = {"subscriptionId": "s", "clientState": bootstrap.client_states().new()}
req = func.HttpRequest("POST", "http://x/api/webhooks/graph", body=json.dumps({"value": [item]}).encode())
import asyncio
assert asyncio.run(take_notifications(req)).status_code == 503
heavy = ("psycopg", "psycopg_pool", "msal", "shared.handlers.webhooks", "shared.graph.client")
print(json.dumps([m for m in heavy if m in sys.modules]), flush=True)
os._exit(0)  # not waiting for the client's retries
"""
    assert json.loads(python(code)) == []


def test_importing_the_app_stays_in_its_budget() -> None:
    """At most 1.5 x azure.functions + 0.15 s; best of several, in turns: a busy machine hits both."""

    def seconds(module: str) -> float:
        return float(python(f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"))

    base, app = [], []
    for _ in range(IMPORTS):
        base.append(seconds("azure.functions"))
        app.append(seconds("function_app"))
    assert min(app) <= 1.5 * min(base) + 0.15, f"function_app {min(app):.3f} s, azure.functions {min(base):.3f} s"


def test_host_json_has_the_queue_settings_where_the_host_reads_them() -> None:
    host = json.loads((ROOT / "host.json").read_text())
    assert set(host) <= {"version", "functionTimeout", "logging", "extensionBundle", "extensions", "concurrency"}
    queues = host["extensions"]["queues"]
    assert queues["messageEncoding"] == "none"
    assert 1 <= queues["batchSize"] <= 32
    assert queues["maxDequeueCount"] == MOST_DELIVERIES
    hours, minutes, seconds = map(int, queues["visibilityTimeout"].split(":"))
    assert 0 < hours * 3600 + minutes * 60 + seconds <= 60, "a failed delivery comes back soon, and not at once"
    assert "retry" not in host, "attempts are ours"
