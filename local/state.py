"""What of a local stack runs: one JSON file per data folder, for other shells and for a run after a crash."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from local.process import Identity, wait_until


@dataclass(frozen=True, slots=True)
class Entry:
    """One process; `stop_signal` makes it end in order."""

    name: str
    identity: Identity
    stop_signal: int = signal.SIGTERM


@dataclass(slots=True)
class State:
    """One stack: the process that runs it (`owner`; None when it was left running), its processes in the
    order of their start, its ports, which the next run takes again, and the settings of its programs."""

    owner: Identity | None = None
    detached: bool = False
    processes: list[Entry] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> State:
        """The state of the stack on this folder; empty when there is none, or when the file is damaged."""
        try:
            raw: dict[str, Any] = json.loads(_file(folder).read_text())
            return cls(
                owner=Identity(**raw["owner"]) if raw["owner"] else None,
                detached=raw["detached"],
                processes=[
                    Entry(entry["name"], Identity(**entry["identity"]), entry["stop_signal"])
                    for entry in raw["processes"]
                ],
                ports=raw["ports"],
                environment=raw["environment"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def save(self, folder: Path) -> None:
        """Write it in one step; for its owner's eyes only, since the settings hold secrets."""
        write_private(_file(folder), json.dumps(asdict(self), indent=1))

    def is_running(self) -> bool:
        return any(entry.identity.is_alive() for entry in self.processes)

    def end(self) -> list[str]:
        """End what runs, last started first; the names of what was ended."""
        alive = [entry for entry in reversed(self.processes) if entry.identity.is_alive()]
        for entry in alive:
            entry.identity.end(entry.stop_signal, seconds=45)
        return [entry.name for entry in alive]

    def end_with_owner(self) -> list[str]:
        """End it through the process that runs it, if there is one; else directly."""
        owner = self.owner
        if owner is not None and owner.is_alive():
            names = [entry.name for entry in self.processes if entry.identity.is_alive()]
            owner.send(signal.SIGTERM)
            wait_until(lambda: not owner.is_alive(), 60)
            self.end()
            return names
        return self.end()


def write_private(file: Path, text: str) -> None:
    """Replace a file in one step, readable by nobody else at any moment."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write(text)
    new.replace(file)


def _file(folder: Path) -> Path:
    return folder / "run" / "state.json"
