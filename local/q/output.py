"""What commands print: JSON as the API gives it, or text and tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

#: Not a terminal: lines are for other programs, and nothing is cut.
PIPE_WIDTH = 100_000
GAP = "  "
#: Less than this beside the other columns, and the last one goes below them.
LEAST_ROOM = 30


def show_json(document: Any) -> None:
    """Indented; ASCII only, so that it passes through every pipe."""
    print(json.dumps(document, indent=2))


def show_line(document: Any) -> None:
    """One JSON object on one line, at once."""
    print(json.dumps(document), flush=True)


def say(text: str = "", style: str = "") -> None:
    for line in text.split("\n"):
        _print(safe(line), style)


def note(text: str) -> None:
    """Beside the output: what is for the person alone."""
    for line in text.split("\n"):
        print(safe(line), file=sys.stderr, flush=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, styles: Sequence[str] = ()) -> None:
    """Columns as wide as their longest cell. The last one wraps, below its row where there is little room beside it.

    `styles` has one for each row.
    """
    lines = [[safe("" if cell is None else str(cell)) for cell in row] for row in (columns, *rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    before = sum(widths[:-1]) + len(GAP) * (len(columns) - 1)
    room = _width() - before
    beside = room >= min(widths[-1], LEAST_ROOM)
    for number, line in enumerate(lines):
        style = "bold" if number == 0 else styles[number - 1] if styles else ""
        start = GAP.join(_padded(cell, width) for cell, width in zip(line, widths[:-1], strict=False))
        if beside:
            first, *more = wrap(line[-1], room) or [""]
            _print((start + GAP + first).rstrip(), style)
            indent = " " * before
        else:
            _print(start.rstrip(), style)
            indent = "    "
            more = wrap(line[-1], _width() - len(indent)) if number else []
        for rest in more:
            _print(indent + rest, style)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def show_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Those that have a value, one a line."""
    known = [(name, value) for name, value in fields if value not in (None, "", [])]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        say(f"{name:<{width}}  {value}")


def safe(text: str) -> str:
    """Without what a terminal would obey: texts come from senders whom nobody checks."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)


def moment(text: str | None) -> str | None:
    """A time of the API in this machine's time zone, which is named."""
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def ago(text: str | None) -> str:
    if text is None:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
    return f"in {span(-seconds // 1)}" if seconds < -1 else f"{span(max(seconds, 0) // 1)} ago"


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 dead letter`, `1,204 dead letters`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def span(seconds: float | None) -> str:
    """`42 s`, `3 min`, `5 h`, `2 d`."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"


def brief(seconds: float | None) -> str:
    """`41 ms`, and from a second on as span."""
    return f"{seconds * 1000:.0f} ms" if seconds is not None and seconds < 1 else span(seconds)


def seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


def _width() -> int:
    console = _console()
    return console.width if console.is_terminal else PIPE_WIDTH


def _print(line: str, style: str) -> None:
    """Without colours where Rich finds no terminal, or NO_COLOR."""
    console = _console()
    console.print(Text(line, style=style), soft_wrap=True)
