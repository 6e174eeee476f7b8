"""./dev on machines other than this one: a fresh one, a poor one, a broken one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from local.cli import HELP

ROOT = Path(__file__).parents[2]
MAIN = "import sys; print('ran', sys.argv[1:]); raise SystemExit(7)"
#: What ./dev uses of a minimal Debian.
TOOLS = ("bash", "cat", "cut", "dirname", "env", "flock", "grep", "id", "mkdir", "mv", "readlink", "rm")
MORE_TOOLS = ("sha256sum", "tail")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with ./dev, no requirements, and a command that shows its arguments and exits with 7."""
    folder = tmp_path / "a project"
    (folder / "local").mkdir(parents=True)
    shutil.copy(ROOT / "dev", folder / "dev")
    (folder / "requirements-dev.txt").write_text("-r requirements.txt\n")
    (folder / "requirements.txt").write_text("")
    (folder / "local" / "__main__.py").write_text(MAIN)
    return folder


def dev(project: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIRTUAL_ENV")}
    environment |= {"PYTHON": sys.executable} | dict(settings or {})
    command = [str(project / "dev"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=120)


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",), ("-h",)])
def test_help_comes_at_once_and_installs_nothing(project: Path, arguments: tuple[str, ...]) -> None:
    shutil.copy(ROOT / "local" / "help.txt", project / "local" / "help.txt")
    shown = dev(project, *arguments)
    assert (shown.returncode, shown.stderr) == (0, "") and shown.stdout == HELP
    assert not (project / ".venv").exists()


def test_a_fresh_machine_then_a_quick_second_run_then_changed_requirements(project: Path) -> None:
    first = dev(project, "test", "-k", "a b", "--help")
    assert (first.returncode, first.stdout) == (7, "ran ['test', '-k', 'a b', '--help']\n")
    assert "Making .venv" in first.stderr

    started = time.monotonic()
    second = dev(project, "x")
    assert time.monotonic() - started < 2
    assert (second.returncode, second.stdout, second.stderr) == (7, "ran ['x']\n", "")

    (project / "requirements.txt").write_text("no-such-package-of-fleet-queue==1\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project), "PIP_CONFIG_FILE": os.devnull}
    broken = dev(project, "x", settings=offline)
    assert broken.returncode == 1
    assert "no-such-package-of-fleet-queue" in broken.stderr
    assert "Making .venv" not in broken.stderr

    (project / "requirements.txt").write_text("\n")
    assert dev(project, "x").returncode == 7

    moved = project.rename(project.with_name("moved"))
    again = dev(moved, "x")
    assert again.returncode == 7
    assert "Making .venv" in again.stderr


def test_another_folders_environment_is_left_alone(project: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "bin").mkdir(parents=True)
    (theirs / "bin" / "python").symlink_to(sys.executable)
    (theirs / ".requirements").write_text("for another folder")
    (project / ".venv").symlink_to(theirs)
    assert dev(project, "x").returncode == 7
    assert (theirs / ".requirements").read_text() == "for another folder"
    assert (theirs / "bin" / "python").exists()
    assert not (project / ".venv").is_symlink()


def test_two_at_once_make_one_environment(project: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable}
    both = [
        subprocess.Popen(
            [str(project / "dev"), "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [7, 7]
    assert [stdout for stdout, _ in outputs] == ["ran ['x']\n"] * 2
    assert "".join(stderr for _, stderr in outputs).count("Making .venv") == 1


def test_no_python_is_told(project: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS + MORE_TOOLS:
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    result = dev(project, "x", settings={"PATH": str(tools), "PYTHON": ""})
    assert result.returncode == 1
    assert "no Python 3.11 or later found" in result.stderr


def test_a_python_that_makes_no_environments_is_told(project: Path, tmp_path: Path) -> None:
    debian = tmp_path / "python3"
    debian.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*|*"-m pip"*) exit 1;; esac\nexec "{sys.executable}" "$@"\n')
    debian.chmod(0o755)
    result = dev(project, "x", settings={"PYTHON": str(debian)})
    assert result.returncode == 1
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt-get install python{version}-venv" in result.stderr
