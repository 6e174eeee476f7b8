"""The release before works on this one's schema, as it must while a deployment replaces it (or takes it back)."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.memory import in_memory

ROOT = Path(__file__).parents[3]
#: A module beside this one, for the earlier release's pytest alone: whoever imports it migrates otherwise.
PLUGIN = "newer_schema"
MIGRATIONS = "shared/postgres/migrations"
#: Most of a test's time is the copying of a database of its own: two do it at once.
WORKERS = "2"
#: For one that hangs: beside a busy suite it takes three minutes.
SUITE_SECONDS = 400

pytestmark = pytest.mark.timeout(2 * SUITE_SECONDS + 30)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the newest commit that has fewer migrations than there are here."""
    commit = commit_before()
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def commit_before() -> str:
    """Along the first parents: HEAD while its newest migration is not committed, else the parent of what added it."""
    here = {path.name for path in (ROOT / MIGRATIONS).glob("*.sql")}
    added = git("log", "--first-parent", "-m", "--diff-filter=A", "--format=%H", "--", MIGRATIONS).decode().split()
    for commit in ("HEAD", *(f"{one}^" for one in added)):
        listed = git("ls-tree", "--name-only", commit, f"{MIGRATIONS}/").decode().split()
        if {Path(name).name for name in listed} < here:
            return git("rev-parse", commit).decode().strip()
    pytest.skip("the history has no commit with fewer migrations")


def git(*arguments: str) -> bytes:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, env=environment)
    except FileNotFoundError:
        pytest.skip("git is not installed, so the release before is not at hand")
    if done.returncode != 0:
        pytest.skip(f"the release before is not at hand (no or a shallow clone?): {done.stderr.decode().strip()}")
    return done.stdout


def failures(earlier: Path, *arguments: str, plugin: bool = True, spoil: str | None = None) -> dict[str, str]:
    """Run the earlier release's own contract suite against PostgreSQL; what failed, and how."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    if spoil is not None:
        environment["SPOIL_SCHEMA"] = spoil
    report = earlier / "report.xml"
    command = [sys.executable, "-m", "pytest", "tests/contract", "-k", "postgres", "-q", "-n", WORKERS]
    command.append(f"--junitxml={report}")
    command += ["-p", PLUGIN] if plugin else []
    with in_memory(otherwise=earlier.parent) as folder:
        environment["TMPDIR"] = str(folder)
        done = subprocess.run(
            [*command, *arguments], cwd=earlier, env=environment, capture_output=True, text=True, timeout=SUITE_SECONDS
        )
    assert done.returncode in (0, 1), f"the earlier suite did not run:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert len(cases) > (0 if arguments else 20), done.stdout[-4000:]
    problems = [(case, *case.findall("failure"), *case.findall("error")) for case in cases]
    return {f"{case.get('classname')}::{case.get('name')}": found[0].text or "" for case, *found in problems if found}


def test_the_release_before_passes_its_contract_on_this_schema(earlier: Path) -> None:
    broken = failures(earlier)
    if broken:  # a commit in the middle of work may fail on its own schema, too: that tells nothing about this one
        own = failures(earlier, "--last-failed", plugin=False)
        broken = {name: text for name, text in broken.items() if name not in own}
    told = git("log", "-1", "--format=%h %s", commit_before()).decode()
    assert not broken, f"{told}\n" + "\n\n".join(f"{name}\n{text[-3000:]}" for name, text in broken.items())


def test_a_migration_that_breaks_the_release_before_is_noticed(earlier: Path) -> None:
    assert failures(earlier, "--maxfail=1", "-n", "0", spoil="alter table queue.job rename column payload to body")
