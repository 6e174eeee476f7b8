"""How long the admin API and the dashboard's views take beside a long history: `./dev python -m bench.views`.

    python -m bench.views --jobs 10000000     fills a database (minutes, 1 KB of disk a job) and deletes it at the end
    python -m bench.views --keep /tmp/fleet   keeps it there; the next run with the same folder asks only

Every read route is asked through the function that a host would call. Warm: the median and the longest of some requests
on end. Cold: the first request after a restart of PostgreSQL, with none of the database in the system's page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import azure.functions as func
import psycopg

from bench.history import ANNOUNCEMENT, BATCH, CLEARED_UNTIL, fill
from functions.admin import ELSEWHERE, serve
from local.postgres import FAST, PostgresServer
from shared import bootstrap
from shared.access import KEY_HEADER
from shared.admin.cursor import Place, write_cursor
from shared.admin.routes import ROUTES
from shared.engine.memory import MemoryTransport
from shared.handlers.registry import QUEUES
from shared.postgres.migrate import migrate

MOST_MS = 300
WARM_REQUESTS = 5
KEY = "bench-" + "k" * 40


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: the path as in the routes, and what is in it."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    route: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        path = self.path.format(**{name: "…" if name == "id" else value for name, value in self.route.items()})
        shown = {name: "…" if name in ("cursor", "search") else value for name, value in self.query.items()}
        text = path + ("?" + "&".join(f"{name}={value}" for name, value in shown.items()) if shown else "")
        return f"{text} ({self.note})" if self.note else text


def ask(what: Ask) -> tuple[float, Any]:
    """Milliseconds and the answer's document. Raises RuntimeError for any answer but 200."""
    request = func.HttpRequest(
        "GET",
        "https://bench.example/api/queue/" + what.path,
        headers={KEY_HEADER: KEY},
        params=dict(what.query),
        route_params=dict(what.route),
        body=b"",
    )
    begun = time.perf_counter()
    response = serve(what.path, request)
    body = response.get_body()
    taken = (time.perf_counter() - begun) * 1000
    if response.status_code not in (200, 404):
        raise RuntimeError(f"{what.name}: {response.status_code} {body.decode()[:300]}")
    return taken, json.loads(body) if "json" in response.mimetype else body


def requests(conn: psycopg.Connection) -> list[Ask]:
    """Every read route, in the ways that a person or a dashboard asks it, the rare and the hard ones too."""
    deep = write_cursor(Place(datetime.now(UTC) - timedelta(days=15), UUID(int=2**127)))
    clear = "after a clearing"
    cleared = {"cursor": write_cursor(Place(CLEARED_UNTIL, UUID(int=2**127)))}
    jobs = "{queue}/jobs"
    found: list[Ask] = [Ask(path) for path in ("openapi.json", "stats", "prometheus", "me", "schedules", "thresholds")]
    found += [Ask("metrics", {"timeRange": span}) for span in ("1h", "6h", "24h", "7d", "30d")]
    found += [Ask("metrics", {"timeRange": span, "queue": "teams-outbound"}) for span in ("24h", "30d")]
    for queue in ("teams-outbound", "attachments", "webhooks", "subscriptions"):
        found += [Ask(jobs, {}, {"queue": queue}), Ask(jobs, {"cursor": deep}, {"queue": queue})]
        for status in ("ready", "active", "scheduled", "waiting", "completed", "dead", "cancelled"):
            found.append(Ask(jobs, {"status": status}, {"queue": queue}))
        found.append(Ask("{queue}/failed", {}, {"queue": queue}))
    found += [
        Ask(jobs, {"limit": "200"}, {"queue": "teams-outbound"}),
        Ask(jobs, {"status": "completed", "cursor": deep}, {"queue": "teams-outbound"}),
        Ask(jobs, {"status": "completed"} | cleared, {"queue": "attachments"}, clear),
        Ask(jobs, {"status": "dead"} | cleared, {"queue": "attachments"}, clear),
        Ask(jobs, {"status": "dead", "cursor": deep}, {"queue": "outlook-outbound"}),
        Ask("{queue}/failed", {"cursor": deep}, {"queue": "outlook-outbound"}),
    ]
    ids = _ids(conn)
    searches = ids | {"id of many": ANNOUNCEMENT, "of none": "x", "key": _key(conn), "id of some": _correlation(conn)}
    for note, search in searches.items():
        found.append(Ask("jobs", {"search": search}, note=note))
        found.append(Ask(jobs, {"search": search}, {"queue": "teams-outbound"}, note))
    found.append(Ask("{queue}/failed", {"search": ANNOUNCEMENT}, {"queue": "teams-outbound"}))
    found += [Ask("jobs/{id}", {}, {"id": one}, note) for note, one in ids.items()]
    found += [Ask("{queue}/limits", {}, {"queue": queue}) for queue in QUEUES]
    letters = [{}, {"status": "open"}, {"status": "redriven"}, {"status": "discarded"}, {"reviewed": "true"}]
    letters += [{"status": "open", "reviewed": "false"}, {"status": "open", "reviewed": "true"}, {"cursor": deep}]
    letters += [{"status": "open", "cursor": deep}, {"queue": "teams-outbound", "status": "open"}]
    letters += [{"queue": "sync", "status": "discarded", "reviewed": "true"}, {"queue": "webhooks"}]
    letters += [{"errorClass": "auth"}, {"errorClass": "auth", "status": "redriven"}, {"errorClass": "never"}]
    pattern = {"pattern": "the peer does not answer (b), case #"}
    letters += [pattern, pattern | {"status": "open"}, {"pattern": "never"}, {"pattern": "never", "status": "open"}]
    letters += [{"queue": "teams-outbound", "errorClass": "network", "status": "open"} | pattern]
    letters += [{"queue": "teams-outbound", "errorClass": "network", "pattern": "never"}]
    found += [Ask("dead-letter", filters) for filters in letters]
    groups = [{}, {"reviewed": "false"}, {"reviewed": "true"}, {"queue": "teams-outbound"}, {"queue": "webhooks"}]
    found += [Ask("dead-letter/groups", filters) for filters in groups]
    found += [Ask("dead-letter/{id}", {}, {"id": ids[note]}, note) for note in ("dead", "never")]
    found += [Ask("alerts", filters) for filters in ({}, {"status": "open"}, {"level": "critical"}, {"cursor": deep})]
    found += [Ask("alerts", {"status": "open", "level": "critical"}), Ask("alerts", {"status": "resolved"})]
    found += [Ask("subscriptions", filters) for filters in ({}, {"status": "covered"}, {"status": "uncovered"})]
    found.append(Ask("subscriptions", {"status": "failing"}))
    one = {"account": "user-77@fleet.example"}
    syncs = [{}, {"cursor": deep}, one, {"resourceType": "emails"}, {"resourceType": "files"}]
    syncs += [one | {"resourceType": "emails"}, {"account": "never"}, {"account": "never", "resourceType": "emails"}]
    found += [Ask("syncs", filters) for filters in syncs]
    audit = [{}, {"cursor": deep}, {"who": "operator-7"}, {"who": "never"}, {"action": "queue.pause"}]
    audit += [{"action": "never"}, {"target": "never"}, {"who": "operator-7", "action": "queue.pause"}]
    found += [Ask("audit", filters) for filters in audit]
    return found


#: The dashboard's views: what each asks for, as shared/web/views/*.js does, one after the other.
def views(conn: psycopg.Connection) -> dict[str, list[Ask]]:
    stats, jobs, ids = Ask("stats"), "{queue}/jobs", _ids(conn)
    one, attachments = {"queue": "teams-outbound"}, {"queue": "attachments"}
    return {
        "overview, 24 hours": [stats, Ask("metrics", {"timeRange": "24h"})],
        "overview, 30 days": [stats, Ask("metrics", {"timeRange": "30d"})],
        "jobs of a queue": [stats, Ask(jobs, {}, one)],
        "jobs of a queue that run": [stats, Ask(jobs, {"status": "active"}, one)],
        "jobs of a cleared queue that completed": [stats, Ask(jobs, {"status": "completed"}, attachments)],
        "jobs by an id that many carry": [stats, Ask("jobs", {"search": ANNOUNCEMENT})],
        "a dead job": [stats, Ask("jobs/{id}", {}, {"id": ids["dead"]})],
        "a job of a large batch": [stats, Ask("jobs/{id}", {}, {"id": ids["of a batch"]})],
        "dead letters": [stats, Ask("dead-letter/groups"), Ask("dead-letter", {"status": "open"})],
        "dead letters that nobody has reviewed": [
            stats,
            Ask("dead-letter/groups", {"reviewed": "false"}),
            Ask("dead-letter", {"status": "open", "reviewed": "false"}),
        ],
        "a dead letter": [stats, Ask("dead-letter/{id}", {}, {"id": ids["dead"]})],
        "schedules": [stats, Ask("schedules")],
        "limits": [stats, *(Ask("{queue}/limits", {}, {"queue": queue}) for queue in QUEUES)],
        "subscriptions": [stats, Ask("subscriptions")],
        "syncs": [stats, Ask("syncs")],
        "syncs of an account": [stats, Ask("syncs", {"account": "user-77@fleet.example"})],
        "alerts": [stats, Ask("alerts", {"status": "open"})],
        "audit": [stats, Ask("audit")],
    }


def _ids(conn: psycopg.Connection) -> dict[str, str]:
    history = "select id from queue.job_tracking where"
    statements = {
        "dead": f"{history} queue = 'outlook-outbound' and state = 'dead' order by finished_at limit 1",
        "completed": f"{history} queue = 'teams-outbound' order by finished_at desc limit 1",
        "of a batch": f"{history} batch_id = '{BATCH}' limit 1",
        "ready": "select id from queue.job limit 1",
        "never": "select '01a2108a-1e28-7df7-80d2-6f458516e508'::uuid",
    }
    return {name: str(_one(conn, statement)) for name, statement in statements.items()}


def _key(conn: psycopg.Connection) -> str:
    return str(_one(conn, "select key from queue.idempotency limit 1"))


def _correlation(conn: psycopg.Connection) -> str:
    return str(_one(conn, "select correlation_id from queue.job_tracking where correlation_id like 'trip%' limit 1"))


def _one(conn: psycopg.Connection, statement: str) -> Any:
    row = conn.execute(statement.encode()).fetchone()
    if row is None:
        raise RuntimeError(f"nothing is found by: {statement}")
    return row[0]


# ---------------------------------------------------------------------- measuring


def measure(server: PostgresServer, asks: list[Ask]) -> float:
    """The time of these requests, one after the other, with nothing remembered in this process."""
    bootstrap.stop()
    bootstrap.built["queues"] = MemoryTransport()
    ask(Ask("thresholds"))  # opens the connection
    return sum(ask(one)[0] for one in asks)


def chill(server: PostgresServer) -> None:
    """Start the server anew with none of its files in the page cache."""
    bootstrap.stop()
    server.stop()
    for file in server.folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
    server.start()


def report(server: PostgresServer, wanted: Mapping[str, list[Ask]], cold: bool) -> list[str]:
    """Prints a row for each; gives the names of those above MOST_MS."""
    print("| what | warm, ms | longest | cold, ms | |\n|---|---|---|---|---|")
    slow = []
    for name, asks in wanted.items():
        first = None
        if cold:
            chill(server)
            os.environ["DATABASE_URL"] = server.dsn
            first = measure(server, asks)
        measure(server, asks)
        taken = [measure(server, asks) for _ in range(WARM_REQUESTS)]
        median, longest = statistics.median(taken), max(taken)
        above = "warm" if median > MOST_MS else "cold" if first is not None and first > MOST_MS else ""
        over = above and f"over {MOST_MS} {above}"
        shown = f"{first:.0f}" if first is not None else "–"
        print(f"| {name} | {median:.1f} | {longest:.0f} | {shown} | {over} |", flush=True)
        slow += [name] if above else []
    return slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000_000, help="ended jobs (default: ten million)")
    parser.add_argument("--keep", type=Path, help="a folder for the database, which stays")
    parser.add_argument("--no-cold", action="store_true", help="ask warm only: quicker")
    parser.add_argument("--only", default="", help="only what has this in its name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = (options.keep or Path(folder)) / "pg"
        is_new = not data.exists()
        data.parent.mkdir(parents=True, exist_ok=True)
        # Filled without waiting for the disk: what is measured only reads.
        server = PostgresServer(data, settings=FAST | {"max_wal_size": "2GB", "maintenance_work_mem": "256MB"})
        server.start()
        try:
            if is_new:
                begun = time.perf_counter()
                migrate(server.dsn)
                fill(server.dsn, options.jobs)
                print(f"Filled in {time.perf_counter() - begun:.0f} s.", flush=True)
            _ask_all(server, cold=not options.no_cold, only=options.only)
        finally:
            bootstrap.stop()
            server.stop()


def _ask_all(server: PostgresServer, *, cold: bool, only: str) -> None:
    os.environ |= {"DATABASE_URL": server.dsn, "ADMIN_KEY": KEY}
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        routes, pages = requests(conn), views(conn)
        size, jobs = conn.execute(
            "select pg_size_pretty(pg_database_size(current_database())),"
            " (select sum(reltuples)::bigint from pg_class where relname ~ '^job_tracking_\\d+$')"
        ).fetchone() or ("", 0)
    reads = {route.path for route in ROUTES if route.method == "GET" and route.path not in ELSEWHERE}
    if missing := reads - {one.path for one in routes}:
        raise RuntimeError(f"no request of this benchmark asks {', '.join(sorted(missing))}")
    print(f"\n{jobs:,} ended jobs, {size}; load {os.getloadavg()[0]:.1f}\n\n## Views\n", flush=True)
    slow = report(server, {name: asks for name, asks in pages.items() if only in name}, cold)
    print("\n## Requests\n", flush=True)
    slow += report(server, {one.name: [one] for one in routes if only in one.name}, cold)
    print(f"\nOver {MOST_MS} ms: {'; '.join(slow) or 'none'}. Load {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
