"""Runs many seeds, and says what was found in a form that can be kept and shown."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from tests.simulation.invariants import check
from tests.simulation.world import Mutation, Outcome, simulate

FIXED = range(3000)
#: New ones every day: what thousands of fixed seeds do not meet.
A_DAY = 200
SHOWN_EVENTS = 40
#: What `Finding.invariant` names when the engine or the simulation raised what nobody expects.
RAISED = "raised"


#: How the text of a violation names an event.
_EVENT = re.compile(r"event (\d+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation in one seed. `events` are the last of its history, up to the one that the text names."""

    seed: int
    invariant: str
    text: str
    events: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            (
                f"seed {self.seed}, {self.invariant}: {self.text}",
                f"replay it: {replay_command(self.seed)}",
                f"the last {len(self.events)} events:",
                *self.events,
            )
        )


def replay_command(seed: int) -> str:
    return f"./dev python -m tests.simulation --seed {seed} --trace"


def seeds_of(day: date) -> range:
    """The seeds of one day, beyond the fixed ones."""
    first = day.toordinal() * 1000
    return range(first, first + A_DAY)


def todays_seeds() -> range:
    return seeds_of(datetime.now(UTC).date())


def findings_in(outcome: Outcome) -> list[Finding]:
    """The violations of one outcome."""
    seed = outcome.scenario.seed
    found = [(violation.invariant, violation.text) for violation in check(outcome)]
    if outcome.failure is not None:
        found.insert(0, (RAISED, outcome.failure))
    if not found:
        return []
    lines = outcome.history.lines()
    return [Finding(seed, invariant, text, _last_events(lines, text)) for invariant, text in found]


def _last_events(lines: list[str], text: str) -> tuple[str, ...]:
    named = _EVENT.search(text)
    end = int(named[1]) + 1 if named else len(lines)
    return tuple(lines[max(0, end - SHOWN_EVENTS) : end])


@dataclass(slots=True)
class Report:
    """What a run over seeds found, and how often each kind of event happened in them."""

    seeds: int
    findings: list[Finding]
    events: Counter[str]

    def __add__(self, other: Report) -> Report:
        return Report(self.seeds + other.seeds, self.findings + other.findings, self.events + other.events)

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        text = json.dumps(
            {"seeds": self.seeds, "findings": [asdict(one) for one in self.findings], "events": self.events}
        )
        part = path.with_suffix(".part")
        part.write_text(text)
        part.replace(path)

    @staticmethod
    def load(path: Path) -> Report:
        data = json.loads(path.read_text())
        findings = [Finding(**one | {"events": tuple(one["events"])}) for one in data["findings"]]
        return Report(data["seeds"], findings, Counter(data["events"]))


def run(seeds: Iterable[int], mutation: Mutation | None = None) -> Report:
    report = Report(0, [], Counter())
    for outcome in outcomes(seeds, mutation):
        report.seeds += 1
        report.findings += findings_in(outcome)
        report.events.update(event.kind for event in outcome.history.events)
        report.events.update(f"{e.kind} {e.facts['outcome']}" for e in outcome.history.of("settled"))
        report.events.update(f"{e.kind} {e.facts['state']}" for e in outcome.history.of("job.ended", "job.made"))
    return report


def outcomes(seeds: Iterable[int], mutation: Mutation | None = None) -> Iterator[Outcome]:
    for seed in seeds:
        yield simulate(seed, mutation)
