"""The whole path on this machine: `./dev python -m bench.end_to_end`.

PostgreSQL (durable), Azurite, the fake Graph and one function host, all on the same cores as this client. Azurite is
one Node.js process and far below Azure's limits, and the fake Graph answers in about a millisecond: read the figures
as what the path costs, not as what Azure reaches.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import psycopg
import requests
from rich.console import Console

from local.demo import steps
from local.demo.report import Report
from local.demo.world import World
from local.stack import Stack

JOBS = 300
DELIVERIES = 100
ITEMS = 100


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        os.environ.update(stack.environment)
        world = World(stack)
        steps.sign_in(world, Report(Console(quiet=True)))
        from shared import bootstrap
        from shared.engine.ports import NO_LIMITS

        bootstrap.control().set_limits("teams-outbound", NO_LIMITS)  # else one message a second for each chat
        print("| what | figure |\n|---|---|")
        _idle_latency(world)
        _throughput(world)
        _webhook(world)
        bootstrap.stop()


def _idle_latency(world: World) -> None:
    """From the enqueueing call to the completed job, one at a time."""
    from shared import bootstrap

    seconds = []
    for number in range(30):
        start = time.perf_counter()
        made = bootstrap.producer().enqueue("teams-outbound", steps.chat(f"idle {number}"))
        _until(partial(_is_completed, world, made.id))
        seconds.append(time.perf_counter() - start)
    _line("one message, from enqueue to completed, idle host (its poll backs off to 2 s): p50", seconds, 0.5)


def _throughput(world: World) -> None:
    from shared import bootstrap
    from shared.engine.job import NewJob

    jobs = [NewJob("teams-outbound", steps.chat(f"many {number}")) for number in range(JOBS)]
    start = time.perf_counter()
    bootstrap.producer().enqueue_many(jobs)
    with psycopg.connect(world.stack.database_url, autocommit=True) as conn:
        unfinished = "select 1 from queue.job where queue = 'teams-outbound' limit 1"
        _until(lambda: conn.execute(unfinished).fetchone() is None)
    rate = JOBS / (time.perf_counter() - start)
    print(f"| {JOBS} messages to one chat, limits lifted, posted singly, stored and settled | {rate:,.0f} a second |")


def _webhook(world: World) -> None:
    """Deliveries of 100 notifications over one connection, while nothing else is done."""
    from shared import bootstrap

    state = bootstrap.client_states().new()
    session = requests.Session()
    seconds = []
    for number in range(DELIVERIES):
        items = [
            {
                "subscriptionId": "bench",
                "clientState": state,
                "changeType": "created",
                "tenantId": world.stack.environment["GRAPH_TENANT_ID"],
                "resource": f"drives/bench/items/{number}-{item}",
                "resourceData": {"id": f"{number}-{item}"},
            }
            for item in range(ITEMS)
        ]
        body = json.dumps({"value": items})
        start = time.perf_counter()
        answer = session.post(
            f"{world.stack.host_url}/webhooks/graph",
            data=body,
            headers={"content-type": "application/json"},
            timeout=10,
        )
        seconds.append(time.perf_counter() - start)
        assert answer.status_code == 202, answer.text
    _line(f"a delivery of {ITEMS} notifications, answered 202: p50", seconds, 0.5)
    _line(f"a delivery of {ITEMS} notifications, answered 202: p99", seconds, 0.99)


def _is_completed(world: World, job_id: UUID) -> bool:
    return bool(world.job(job_id)["state"] == "completed")


def _line(what: str, seconds: list[float], share: float) -> None:
    value = statistics.quantiles(seconds, n=100)[round(share * 100) - 1]
    print(f"| {what} | {value * 1000:,.0f} ms |", flush=True)


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("it did not come")
        time.sleep(0.005)


if __name__ == "__main__":
    main()
