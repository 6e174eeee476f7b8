"""A seed says everything: the same history again, in another process too."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import date

import pytest

from tests.simulation.__main__ import main
from tests.simulation.mutants import MUTANTS
from tests.simulation.seeds import FIXED, Finding, Report, findings_in, run, seeds_of
from tests.simulation.world import simulate

SEEDS = (3, 11, 42)


def test_a_seed_has_one_history() -> None:
    for seed in SEEDS:
        assert simulate(seed).history.lines() == simulate(seed).history.lines()


def test_another_process_has_the_same_history(capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(SEEDS[0]), "--trace"]
    for hash_seed in ("1", "2"):
        answer = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, timeout=60, check=False)
        assert answer.returncode == 0
        printed = capfd.readouterr().out.splitlines()
        assert [line for line in simulate(SEEDS[0]).history.lines() if line not in printed] == []


def test_a_replay_stops_after_so_many_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--steps", "40"]) == 0
    assert "stopped" in capsys.readouterr().out


def test_many_seeds_in_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "20", "25"]) == 0
    assert "5 seeds, 0 of them" in capsys.readouterr().out


def test_a_finding_tells_how_to_replay_it() -> None:
    mutation = MUTANTS["a claim takes the worst"].mutation
    report = run(range(3), mutation)
    found = [finding for finding in report.findings if finding.invariant == "I3"]
    assert f"./dev python -m tests.simulation --seed {found[0].seed} --trace" in str(found[0])
    assert 30 < len(str(found[0]).splitlines()) <= 43


def test_what_the_engine_raises_is_a_finding() -> None:
    outcome = simulate(3)
    outcome.failure = "Traceback …"
    assert findings_in(outcome)[0].invariant == "raised"


def test_a_report_can_be_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("report") / "1.json"
    report = run([3])
    report.findings.append(Finding(3, "I1", "lost", ("one", "two")))
    report.save(path)
    assert Report.load(path) == replace(report)


def test_every_day_has_seeds_of_its_own() -> None:
    one, two = seeds_of(date(2026, 3, 2)), seeds_of(date(2026, 3, 3))
    assert not set(one) & set(two) and one.start > FIXED.stop
