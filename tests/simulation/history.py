"""What happened, append-only: the invariants are checked from this alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Event:
    """`at` and `clock` are seconds since the start, of the simulation and of the database; `subject` is a job's id, a
    message's, a queue's name."""

    number: int
    at: float
    clock: float
    process: str
    kind: str
    subject: UUID | str
    facts: dict[str, Any]


class History:
    """`times` gives the two clocks; `process` names who acts now."""

    def __init__(self, times: Callable[[], tuple[float, float]]) -> None:
        self.events: list[Event] = []
        self.process = ""
        self._times = times
        self._names: dict[UUID, str] = {}

    def add(self, kind: str, subject: UUID | str, **facts: Any) -> Event:
        at, clock = self._times()
        event = Event(len(self.events), at, clock, self.process, kind, subject, facts)
        self.events.append(event)
        self.name(subject)
        return event

    def of(self, *kinds: str) -> Iterable[Event]:
        return (event for event in self.events if event.kind in kinds)

    def name(self, subject: object) -> str:
        """A short name for an id, the same in every replay of a seed."""
        if isinstance(subject, UUID):
            return self._names.setdefault(subject, f"#{len(self._names) + 1}")
        return str(subject)

    def lines(self) -> list[str]:
        return [self._line(event) for event in self.events]

    def _line(self, event: Event) -> str:
        facts = "  ".join(f"{key}={self._text(value)}" for key, value in event.facts.items() if value is not None)
        jump = event.clock - event.at
        clock = f"{event.at:10.3f}" + (f" (database {jump:+.0f} s)" if jump else "")
        return f"{event.number:5} {clock}  {event.process:<10} {event.kind:<20} {self.name(event.subject)}  {facts}"

    def _text(self, value: object) -> str:
        if isinstance(value, list | tuple):
            return "[" + ", ".join(self._text(one) for one in value) + "]"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self._text(k)}: {self._text(v)}" for k, v in value.items()) + "}"
        return self.name(value)
