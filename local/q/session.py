"""What every command gets: the app that it talks to, found when first asked for, and options that many have."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from local.q.client import Client
from local.q.errors import usage
from local.q.target import Target, find_target
from local.q.times import HOW

AsJson = Annotated[bool, typer.Option("--json", help="JSON, as the admin API gives it.")]
Cursor = Annotated[str | None, typer.Option(help="The next page: what the one before ended with.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="Rows of a page.")]
From = Annotated[str | None, typer.Option("--from", metavar="TIME", help=f"Not before: {HOW}.")]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Before.")]
Queue = Annotated[str, typer.Argument(help="A queue's name, e.g. teams-outbound.")]


def finite(number: float | None) -> float | None:
    """Of an option. Raises typer's BadParameter for what is no number, though Python reads it as one."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is no number")
    return number


class Session:
    """The options before the command's name."""

    def __init__(
        self, url: str | None, key_file: Path | None, token: bool, running: Callable[[], Mapping[str, str]]
    ) -> None:
        self._given = (url, key_file, token, running)

    @cached_property
    def target(self) -> Target:
        return find_target(*self._given)

    @cached_property
    def client(self) -> Client:
        return Client(self.target)


def session_of(context: typer.Context) -> Session:
    session = context.obj
    assert isinstance(session, Session)
    return session


def client_of(context: typer.Context) -> Client:
    """Raises CommandError when no app is named and none runs here."""
    return session_of(context).client


def confirm(question: str, yes: bool) -> None:
    """Ask, unless told not to. Raises typer's Abort for a no, CommandError where nobody can be asked."""
    if not yes:
        _check_asked()
        typer.confirm(question, abort=True, err=True)


def confirm_count(question: str, count: int, yes: bool) -> None:
    """Ask for the number of what is lost, unless told not to. Raises as `confirm`."""
    if not yes:
        _check_asked()
        if typer.prompt(f"{question} Type {count} to confirm", err=True).strip() != str(count):
            raise typer.Abort


def _check_asked() -> None:
    if not is_asked():
        raise usage("nobody can be asked here.", hint="Add --yes to do it without a question.")


def is_asked() -> bool:
    """Whether somebody sits at the terminal."""
    return sys.stdin.isatty()
