"""Runs the demo on a stack of its own."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rich.console import Console

from local.demo import engine_steps, graph, monitoring_steps, steps
from local.demo.report import Report
from local.demo.world import World
from local.stack import Stack, temporary_folder


def run(scenario: Literal["engine", "graph"], json_file: Path | None, keep: bool) -> int:
    """Play a scenario; 0 when everything happened as expected, 1 otherwise."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    # What the product logs in this process would stand between the lines of the report; the host has its own log.
    logging.getLogger("shared").addHandler(logging.NullHandler())
    started = time.monotonic()
    with temporary_folder("demo", keep=lambda: keep) as folder:
        console.print("Starting PostgreSQL, Azurite, the fake Graph and the function host …")
        stack = Stack(folder, detached=keep, say=console.print)
        stack.start()
        try:
            console.print(f"Started in {time.monotonic() - started:.1f} s.\n")
            os.environ.update(stack.environment)
            report = Report(console)
            try:
                SCENARIOS[scenario](World(stack), report)
            finally:
                from shared import bootstrap

                bootstrap.stop()
            console.print()
            console.print(report.table())
            seconds = time.monotonic() - started
            if json_file is not None:
                report.write(json_file, seconds)
            failed = sum(not line.ok for line in report.lines)
            verdict = "[red]Not as expected[/red]" if failed else "[green]All as expected[/green]"
            console.print(f"\n{verdict}: {len(report.lines) - failed} of {len(report.lines)} lines, {seconds:.0f} s.")
            return 0 if report.ok else 1
        finally:
            if keep:
                _say_addresses(console, stack)
                stack.leave()
            else:
                stack.stop()


def _play(world: World, report: Report) -> None:
    steps.sign_in(world, report)
    has_fired = engine_steps.schedule(world, report)
    steps.subscriptions(world, report)
    steps.arrivals(world, report)
    steps.enqueueing(world, report)
    steps.priorities(world, report)
    steps.refusals(world, report)
    afterwards = steps.kill_a_worker(world, report)
    steps.stop_the_database(world, report)
    afterwards()
    engine_steps.limits(world, report)
    engine_steps.batch(world, report)
    engine_steps.control(world, report)
    monitoring_steps.monitoring(world, report)
    has_fired()
    steps.nothing_left(world, report)


SCENARIOS: dict[str, Callable[[World, Report], None]] = {"engine": _play, "graph": graph.play}


def _say_addresses(console: Console, stack: Stack) -> None:
    console.print("\nStill running; `./dev down` stops it:")
    console.print(f"  dashboard   {stack.host_url}/queue/dashboard")
    console.print(f"  functions   {stack.host_url}/queue/health")
    console.print(f"  database    {stack.database_url}")
    console.print(f"  fake Graph  {stack.graph.base_url}")
    console.print(f"  admin key   {stack.environment['ADMIN_KEY']}")
