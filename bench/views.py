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
from pathlib import Path
from typing import Any

import azure.functions as func
import psycopg

from bench.history import fill
from bench.requests import Ask, requests, views
from functions.admin import ELSEWHERE, serve
from local.postgres import FAST, PostgresServer
from shared import bootstrap
from shared.access import KEY_HEADER
from shared.admin.routes import ROUTES
from shared.engine.memory import MemoryTransport
from shared.postgres.migrate import migrate

MOST_MS = 300
WARM_REQUESTS = 5
KEY = "bench-" + "k" * 40


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


# ---------------------------------------------------------------------- measuring


def measure(server: PostgresServer, asks: list[Ask]) -> tuple[float, float]:
    """Milliseconds of these requests, one after the other, with nothing remembered in this process: by the clock, and
    of processors, which other work on the machine does not add to."""
    bootstrap.stop()
    bootstrap.built["queues"] = MemoryTransport()
    ask(Ask("thresholds"))  # opens the connection
    before, own = _busy_ms(server), time.process_time()
    taken = sum(ask(one)[0] for one in asks)
    busy = sum(used - before.get(process, 0) for process, used in _busy_ms(server).items())
    return taken, busy + (time.process_time() - own) * 1000


def _busy_ms(server: PostgresServer) -> dict[str, float]:
    """What each of the server's processes has used of processors."""
    main = server.identity
    if main is None:
        raise RuntimeError("the server has ended")
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == main.pid:
                found[folder.name] = int((folder / "schedstat").read_text().split()[0]) / 1e6
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found


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
    print("| what | warm, ms | longest | of it processors | cold, ms | |\n|---|---|---|---|---|---|")
    slow = []
    for name, asks in wanted.items():
        first = None
        if cold:
            chill(server)
            os.environ["DATABASE_URL"] = server.dsn
            first, _ = measure(server, asks)
        measure(server, asks)
        taken, busy = zip(*(measure(server, asks) for _ in range(WARM_REQUESTS)), strict=True)
        median, longest, work = statistics.median(taken), max(taken), statistics.median(busy)
        above = "warm" if median > MOST_MS else "cold" if first is not None and first > MOST_MS else ""
        over, shown = above and f"over {MOST_MS} {above}", f"{first:.0f}" if first is not None else "–"
        print(f"| {name} | {median:.0f} | {longest:.0f} | {work:.0f} | {shown} | {over} |", flush=True)
        slow += [name] if above else []
    return slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000_000, help="ended jobs (default: ten million)")
    parser.add_argument("--keep", type=Path, help="a folder for the database, which stays")
    parser.add_argument("--no-cold", action="store_true", help="ask warm only: quicker")
    parser.add_argument("--views", action="store_true", help="the views alone")
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
            _ask_all(server, options)
        finally:
            bootstrap.stop()
            server.stop()


def _ask_all(server: PostgresServer, options: argparse.Namespace) -> None:
    cold, only = not options.no_cold, options.only
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
    if not options.views:
        print("\n## Requests\n", flush=True)
        slow += report(server, {one.name: [one] for one in routes if only in one.name}, cold)
    print(f"\nOver {MOST_MS} ms: {'; '.join(slow) or 'none'}. Load {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
