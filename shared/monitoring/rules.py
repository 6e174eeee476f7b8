"""The rules that open alerts, as data, and the thresholds that an operator may set in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from shared.engine.errors import FleetQueueError

Level = Literal["info", "warning", "critical"]
LEVELS: tuple[Level, ...] = ("info", "warning", "critical")
#: So few attempts say nothing about a rate.
FEWEST_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which value on a rule is broken, for each level; None: never."""

    warning: float | None
    critical: float | None

    def level_of(self, value: float) -> Level | None:
        """A value above the highest of the thresholds that it exceeds."""
        if self.critical is not None and value > self.critical:
            return "critical"
        return "warning" if self.warning is not None and value > self.warning else None

    def passed(self, level: Level) -> float | None:
        return self.critical if level == "critical" else self.warning


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is watched, for each queue or each timer (a scope).

    `title` is a format of `scope` and `value`; the rule must be broken for `after` without a break before an alert
    opens. `scopes` are thresholds of some scopes in place of `threshold`.
    """

    name: str
    per: Literal["queue", "timer"]
    unit: Literal["jobs", "share", "seconds", "dead letters"]
    title: str
    remedy: str
    threshold: Threshold
    after: timedelta = timedelta()
    scopes: Mapping[str, Threshold] = field(default_factory=dict)

    def key(self, scope: str) -> str:
        return f"{self.name}:{scope}"

    def measured(self, value: float) -> str:
        """A value with its unit, as people write it."""
        if self.unit == "share":
            return f"{value:.0%}"
        number = f"{value:,.0f}"
        return f"{number} {self.unit.removesuffix('s') if number == '1' else self.unit}"


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "backlog",
            "queue",
            "jobs",
            "{value:,.0f} jobs are ready in {scope}",
            "See whether jobs end. If they do, wait, or raise the queue's limits; if not, look at its newest errors.",
            Threshold(1000, 10_000),
            after=timedelta(minutes=1),
        ),
        Rule(
            "failure-rate",
            "queue",
            "share",
            "{value:.0%} of the attempts in {scope} failed in the last five minutes",
            "Look at the queue's newest failures by class: one cause has usually most of them.",
            Threshold(0.1, 0.5),
        ),
        Rule(
            "processing-time",
            "queue",
            "seconds",
            "An attempt in {scope} takes {value:.0f} seconds on average",
            "Look at the slowest jobs and at what they wait for: Microsoft Graph, large files, the database.",
            Threshold(60, 150),
        ),
        Rule(
            "dead-letters",
            "queue",
            "dead letters",
            "Dead letters of {scope} wait for somebody: {value:,.0f}",
            "Group them by error, mend the cause, then redrive or discard them.",
            Threshold(50, 500),
        ),
        Rule(
            "oldest-ready",
            "queue",
            "seconds",
            "A job in {scope} has been ready for {value:,.0f} seconds",
            "See whether workers run, and whether a limit or a long Retry-After holds the queue back.",
            Threshold(300, 1800),
        ),
        Rule(
            "stalled",
            "queue",
            "seconds",
            "Nothing has ended in {scope} for {value:,.0f} seconds while jobs come in",
            "See whether the queue trigger runs, and what the running jobs wait for.",
            Threshold(300, 900),
        ),
        Rule(
            "timer",
            "timer",
            "seconds",
            "The timer {scope} has not finished for {value:,.0f} seconds",
            "See whether the function app runs and its timers are switched on; the log names what stops a turn.",
            Threshold(600, 1800),
            scopes={
                "relay": Threshold(60, 300),
                "rescue": Threshold(120, 600),
                "schedules": Threshold(180, 600),
                "statistics": Threshold(900, 3600),
                "partitions": Threshold(2 * 3600, 24 * 3600),
            },
        ),
    )
}
#: The timers that are watched; the one that evaluates the rules cannot be among them.
TIMERS = ("relay", "rescue", "schedules", "subscriptions", "statistics", "partitions")


@dataclass(frozen=True, slots=True)
class SetThreshold:
    """What an operator set for a rule: for one scope, or for all of them ("")."""

    rule: str
    scope: str
    threshold: Threshold
    changed_at: datetime
    changed_by: str


class ThresholdError(FleetQueueError):
    """A threshold that cannot be set; `field` names what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class Thresholds(Protocol):
    """Reads and changes thresholds; they hold from the next evaluation on. Raises StoreUnavailableError.

    `conn` puts a change into the caller's transaction.
    """

    def list(self) -> Sequence[SetThreshold]: ...

    def set(self, rule: str, scope: str, threshold: Threshold, by: str, conn: Any = None) -> None:
        """In place of the defaults. Raises ThresholdError."""
        ...

    def reset(self, rule: str, scope: str, conn: Any = None) -> bool:
        """Back to the defaults; False when they held. Raises ThresholdError for what there is not and nobody has set:
        what was set is reset also when its rule or queue is gone."""
        ...


def check(rule: str, scope: str, threshold: Threshold, queues: Sequence[str]) -> None:
    """Raises ThresholdError naming the field."""
    if rule not in RULES:
        raise ThresholdError("rule", f"there is no such rule; the rules are {', '.join(RULES)}")
    known = queues if RULES[rule].per == "queue" else TIMERS
    if scope and scope not in known:
        raise ThresholdError("scope", f"it must be one of {', '.join(known)}, or empty for all of them")
    for name, value in (("warning", threshold.warning), ("critical", threshold.critical)):
        if value is not None and not 0 <= value < 1e12:
            raise ThresholdError(name, "it must be a number from 0 on")
    if None not in (threshold.warning, threshold.critical) and not (threshold.warning or 0) <= (
        threshold.critical or 0
    ):
        raise ThresholdError("critical", "it must not be below the warning")


def threshold_of(rule: Rule, scope: str, given: Mapping[tuple[str, str], Threshold]) -> Threshold:
    """What holds: set for the scope, set for all, declared for the scope, declared for all."""
    for key in ((rule.name, scope), (rule.name, "")):
        if key in given:
            return given[key]
    return rule.scopes.get(scope, rule.threshold)
