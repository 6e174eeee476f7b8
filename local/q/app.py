"""The commands of `./dev q`, and how each of them ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from local.q import (
    alerts,
    audit,
    dead_letters,
    doctor,
    enqueue,
    jobs,
    limits,
    metrics,
    queues,
    reports,
    schedules,
    tail,
    thresholds,
    watched,
)  # fmt: skip
from local.q.errors import CommandError, Exit
from local.q.output import note
from local.q.session import Session

HELP = """\
Look at a running Fleet Queue app and operate it: the local one, or one in Azure.

The app is that of --url or FLEET_QUEUE_URL, else the one that ./dev up or ./dev demo --keep runs here. Who asks is
proved by FLEET_QUEUE_KEY (the admin key) or FLEET_QUEUE_TOKEN (an Entra token); the local app's key is found by itself.

Exit codes: 0 done, 1 something needs doing (doctor) or was not confirmed, 2 wrong usage, 3 refused by the app,
4 not allowed, 5 not found, 6 the app cannot be reached or used.
"""

app = typer.Typer(
    help=HELP, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True
)
app.command("list")(queues.list_)
for command in (
    jobs.show, tail.tail, enqueue.enqueue, jobs.cancel, jobs.retry,
    dead_letters.dead, dead_letters.redrive, dead_letters.review, dead_letters.discard,
    queues.pause, queues.resume, queues.clear, limits.limits, thresholds.thresholds,
    metrics.metrics, reports.reports, reports.report,
    watched.subscriptions, watched.syncs, audit.audit, doctor.doctor,
):  # fmt: skip
    app.command()(command)
app.add_typer(schedules.app, name="schedules")
app.add_typer(alerts.app, name="alerts")


@app.callback()
def connect(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(metavar="URL", help="The app's address (FLEET_QUEUE_URL).")] = None,
    key_file: Annotated[Path | None, typer.Option(help="A file with the admin key (else FLEET_QUEUE_KEY).")] = None,
    token: Annotated[
        bool, typer.Option("--token", help="The token in FLEET_QUEUE_TOKEN, though a key is set.")
    ] = False,
) -> None:
    context.obj = Session(url, key_file, token, context.find_root().obj or local_settings)


def local_settings() -> Mapping[str, str]:
    """The settings of the local stack, empty when none runs."""
    from local.cli import running_settings

    return running_settings()


def main(
    arguments: Sequence[str] | None = None, running: Callable[[], Mapping[str, str]] | None = None, name: str = "q"
) -> int:
    """Run one command; its exit code. `running` gives the settings of the local stack."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = app(
            args=list(sys.argv[1:] if arguments is None else arguments),
            prog_name=name, standalone_mode=False, obj=running,
        )  # fmt: skip
        sys.stdout.flush()
    except CommandError as error:
        note("\n".join(f"{name}: {line}" if not at else f"  {line}" for at, line in enumerate(error.lines())))
        return int(error.code)
    except TyperException as error:
        note(f"{name}: {error.format_message()}\nSee {name} --help.")
        return int(Exit.USAGE)
    except typer.Abort:
        note("Nothing was done.")
        return int(Exit.ATTENTION)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.DONE)
    return code if isinstance(code, int) else int(Exit.DONE)
