"""`./dev demo` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from local.process import wait_until

ROOT = Path(__file__).parents[2]
#: Its own time on an idle machine with two cores is below 60 s.
LONGEST_SECONDS = 90
#: PostgreSQL, Azurite, the fake Graph and the function host; and the demo itself.
LEAST_PROCESSES = 5
MARK = "FLEET_QUEUE_TEST_RUN"


def processes_of(run: str) -> list[str]:
    """The command lines of the processes that have this run's mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={run}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile, or it is another user's
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("scenario", "least_lines"), [("engine", 45), ("graph", 35)])
def test_the_demo_is_green_and_leaves_nothing_running(
    scenario: str, least_lines: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, report = uuid.uuid4().hex, tmp_path / "demo.json"
    command = [str(ROOT / "dev"), "demo", scenario, "--json", str(report)]
    environment = os.environ | {MARK: run, "DEV_HOST": "stand-in"}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as demo:
        most = 0

        def has_started() -> bool:
            nonlocal most
            most = max(most, len(processes_of(run)))
            return most >= LEAST_PROCESSES or demo.poll() is not None

        wait_until(has_started, 60)
        output, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, output
    assert most >= LEAST_PROCESSES, "the mark does not reach the processes: the check below would be empty"
    assert processes_of(run) == []
    result = json.loads(report.read_text("utf-8"))
    with capsys.disabled():
        sys.stdout.write(f"\n./dev demo {scenario}: {len(result['lines'])} lines in {result['seconds']} s\n")
    assert result["ok"] is True and len(result["lines"]) >= least_lines
    assert all(line["ok"] for line in result["lines"])
    assert result["seconds"] <= LONGEST_SECONDS
