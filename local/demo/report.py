"""What was expected and what happened, as a table and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

#: Nothing in the demo takes longer than a lease, a rescue, a relay pass and a put-back together.
PATIENCE_SECONDS = 90.0
LOOK_EVERY_SECONDS = 0.05


@dataclass
class Line:
    step: int
    what: str
    expected: str
    happened: str
    ok: bool
    seconds: float


@dataclass
class Report:
    """Collects lines; prints each as it comes."""

    console: Console
    lines: list[Line] = field(default_factory=list)
    _mark: float = field(default_factory=time.monotonic)

    def heading(self, step: int, text: str) -> None:
        self.console.print(f"[bold]{step}[/bold]  {escape(text)}")
        self._mark = time.monotonic()

    def expect(self, step: int, what: str, expected: Any, happened: Any) -> bool:
        """Record one comparison; both sides are shown as text, and compared as they are."""
        return self.judge(step, what, str(expected), str(happened), ok=bool(expected == happened))

    def judge(self, step: int, what: str, expected: str, happened: str, *, ok: bool) -> bool:
        """Record a comparison that the caller has made."""
        now = time.monotonic()
        self.lines.append(Line(step, what, expected, happened, ok, round(now - self._mark, 2)))
        self._mark = now
        sign = "[green]✓[/green]" if ok else "[red]✗[/red]"
        self.console.print(f"   {sign} {escape(what)}: {escape(happened)}", highlight=False)
        if not ok:
            self.console.print(f"     expected: {escape(expected)}", highlight=False)
        return ok

    def wait(self, step: int, what: str, expected: Any, look: Callable[[], Any]) -> bool:
        """Look until it is as expected, at most PATIENCE_SECONDS; then record what was seen last."""
        until = time.monotonic() + PATIENCE_SECONDS
        happened = look()
        while happened != expected and time.monotonic() < until:
            time.sleep(LOOK_EVERY_SECONDS)
            happened = look()
        return self.expect(step, what, expected, happened)

    @property
    def ok(self) -> bool:
        return bool(self.lines) and all(line.ok for line in self.lines)

    def table(self) -> Table:
        table = Table(title="Expected and happened", show_lines=False)
        for name in ("Step", "What", "Expected", "Happened", "s"):
            table.add_column(name, justify="right" if name == "s" else "left", overflow="fold")
        last = 0
        for line in self.lines:
            step = str(line.step) if line.step != last else ""
            last = line.step
            style = None if line.ok else "red"
            cells = (step, line.what, line.expected, line.happened, f"{line.seconds:.1f}")
            table.add_row(*(escape(cell) for cell in cells), style=style)
        return table

    def write(self, file: Path, seconds: float) -> None:
        document = {"ok": self.ok, "seconds": round(seconds, 1), "lines": [asdict(line) for line in self.lines]}
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
