"""How a command ends when it does not do what was asked, and the exit code for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every command; docs/how-to/use-the-command-line.md lists them."""

    DONE = 0
    ATTENTION = 1
    USAGE = 2
    REFUSED = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    UNAVAILABLE = 6


class CommandError(Exception):
    """What is wrong, field by field where fields are (`problems`: name and remedy), and what to try (`hint`)."""

    def __init__(
        self, code: Exit, message: str, *, problems: Sequence[tuple[str, str]] = (), hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.problems = tuple(problems)
        self.hint = hint

    def lines(self) -> list[str]:
        """As a person reads it; a single text would repeat the fields."""
        first = [] if self.problems else [str(self)]
        fields = [f"{field}: {message}" if field else message for field, message in self.problems]
        return [*first, *fields, *([self.hint] if self.hint else [])]


def usage(message: str, hint: str | None = None) -> CommandError:
    return CommandError(Exit.USAGE, message, hint=hint)
