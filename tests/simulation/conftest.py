"""The batch of seeds that every invariant is checked on: run once, however many processes the tests run in."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.seeds import FIXED, Report, run, todays_seeds

#: So that two processes share the work evenly, and none holds up the other for long.
SHARDS = 20


@pytest.fixture(scope="session")
def batch(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Report:
    """What was found in the fixed seeds and in today's."""
    base = tmp_path_factory.getbasetemp()
    is_worker = hasattr(request.config, "workerinput")
    folder = (base.parent if is_worker else base) / "simulation"
    folder.mkdir(exist_ok=True)
    seeds = [*FIXED, *todays_seeds()]
    shards = [seeds[first::SHARDS] for first in range(SHARDS)]
    mine_first = os.getpid() % SHARDS
    order = [(mine_first + i) % SHARDS for i in range(SHARDS)]
    # Those that another process is running are read in the second round, when they are done.
    for number in order:
        _run_shard(folder, number, shards[number], wait=False)
    for number in order:
        _run_shard(folder, number, shards[number], wait=True)
    reports = [Report.load(folder / f"{number}.json") for number in range(SHARDS)]
    return sum(reports, Report(0, [], Counter()))


def _run_shard(folder: Path, number: int, seeds: list[int], *, wait: bool) -> None:
    result = folder / f"{number}.json"
    with (folder / f"{number}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if not result.exists():
            run(seeds).save(result)
