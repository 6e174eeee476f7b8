"""The commands of the page on the command line, run as they stand against a running stack (cli)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.q.errors import Exit
from local.stack import Stack
from tests.acceptance.system import System, wait_for
from tests.docs.pages import ROOT, blocks, table
from tests.docs.test_tutorial import Shell

PAGE = ROOT / "docs" / "how-to" / "use-the-command-line.md"


@pytest.fixture
def system(stack: Stack) -> Iterator[System]:
    system = System(stack)
    yield system
    system.sql("delete from queue.scheduled_jobs where name = 'morning'")
    system.settle_down()


def test_cli_page_commands_do_what_it_says(system: System, tmp_path: Path) -> None:
    shell = Shell(system, tmp_path)
    (tmp_path / "admin-key").write_text(system.key)
    elsewhere, look, job, enqueue, change, dead, queues, others, doctor = (block.text for block in blocks("sh", PAGE))
    assert "teams-outbound" in shell.run(elsewhere.replace("https://app.example", system.stack.host_url))
    looked = shell.run(look)  # what other pages' tests have left may be listed too
    assert looked.startswith("queue") and "teams-outbound" in looked
    # What the tail waits for ends while it looks: here, a moment after it has begun.
    first, tail, *show = job.splitlines()
    with shell.start(tail) as following:
        assert following.stdout is not None
        while not (line := following.stdout.readline()).startswith("Following"):
            assert line, "the tail ended before it had begun"
        shown = shell.run("\n".join((first, *show)))
        rest = following.stdout.read()
        assert following.wait(30) == 0
    assert "trip-7" in shown and "What to do now" in shown
    assert "validation" in rest
    assert shell.run(enqueue).count("enqueued") == 4
    changed = shell.run(change)
    assert "It runs now." in changed and "Cancelled." in changed
    wait_for(system.unfinished, 0)
    output = shell.run(dead)
    assert "is reviewed by" in output and "runs again as" in output and "No open dead letter fits." in output
    wait_for(system.unfinished, 0)
    output = shell.run(queues)
    assert "built-in ones" in output and "failure-rate" in output
    assert "4 in 1 s" in output and "0 of 10 in use" in output and "cancelled in teams-outbound" in output
    output = shell.run(others)
    assert "morning" in output and "is deleted" in output and "queue.pause" in output
    assert "Graph: a token with" in shell.run(doctor)


def test_cli_exit_codes_are_listed() -> None:
    text = PAGE.read_text("utf-8")
    documented = [int(cells[0]) for cells in table(PAGE, "In scripts")]
    assert documented == [*map(int, Exit), 130]
    assert re.search(r"`\./dev q COMMAND --help`", text)
