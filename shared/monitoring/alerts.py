"""Judges the rules every minute: which alerts open, change their level and resolve, and what is told of them.

One transaction does all of it: who dies in between has neither opened nor told anything, and the next run does both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from shared.engine.enqueue import Producer
from shared.engine.errors import EnqueueError
from shared.engine.job import NewJob
from shared.monitoring.rules import FEWEST_ATTEMPTS, RULES, Level, Rule, Threshold, threshold_of
from shared.monitoring.statistics import QueueNow
from shared.settings_errors import SettingsError

log = logging.getLogger(__name__)

#: An alert resolves after so long without a break below its threshold; twice as long each time that it came back
#: within FLAPPING, at most LONGEST_CALM.
CALM = timedelta(minutes=5)
LONGEST_CALM = timedelta(hours=1)
FLAPPING = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a rule measured for a scope."""

    rule: Rule
    scope: str
    value: float

    @property
    def key(self) -> str:
        return self.rule.key(self.scope)


@dataclass(frozen=True, slots=True)
class Watched:
    """What is remembered of a key; `opened_lately` counts its alerts of the time FLAPPING, the open one too."""

    breached_since: datetime | None = None
    calm_since: datetime | None = None
    is_open: bool = False
    opened_lately: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows for a key: the alert to open or to change (`level`), to `resolve`, or else, where it `is_calm`, to
    say what is measured now (`reading`, None: nothing is); and what to remember."""

    key: str
    after: Watched
    reading: Reading | None = None
    level: Level | None = None
    passed: float | None = None
    resolve: bool = False
    is_calm: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """What the rules are judged by. `stalled` has, for queues whose backlog grows, for how long nothing has ended;
    `timers` how long ago each finished; `retried` how many attempts of the last five minutes failed whose jobs wait
    for the next one."""

    queues: Sequence[QueueNow]
    stalled: Mapping[str, float]
    timers: Mapping[str, float]
    retried: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToldAlert:
    """An alert to tell of, as it stands."""

    id: str
    key: str
    level: Level
    title: str
    details: Mapping[str, Any]
    opened_at: datetime
    resolved_at: datetime | None = None
    acknowledged_at: datetime | None = None


class Board(Protocol):
    """The evaluation's transaction. Leaving it commits, an exception undoes all of it."""

    @property
    def now(self) -> datetime: ...

    @property
    def conn(self) -> Any:
        """The transaction, for Producer.enqueue_many."""
        ...

    def figures(self) -> Figures: ...

    def thresholds(self) -> Mapping[tuple[str, str], Threshold]: ...

    def watched(self) -> Mapping[str, Watched]:
        """What is remembered, by key; of keys of the rules only."""
        ...

    def record(self, judgements: Iterable[Judgement]) -> None: ...

    def resolve_what_is_over(self) -> None:
        """Alerts of dead letters that are all dealt with, and of events that nobody repeated for a day."""
        ...

    def untold(self) -> Sequence[ToldAlert]:
        """Alerts whose opening, rise or end is still to be told; of one that is acknowledged only a rise above the
        level that it had then."""
        ...

    def mark_told(self, alerts: Sequence[ToldAlert]) -> None: ...


class Boards(Protocol):
    """Where alerts are kept. Raises StoreUnavailableError."""

    def evaluation(self) -> AbstractContextManager[Board | None]:
        """None while another evaluation is under way."""
        ...


class AlertWatch:
    """The timer's work. `jobs_for(alerts)` makes the messages about alerts."""

    def __init__(
        self, boards: Boards, producer: Producer, jobs_for: Callable[[Sequence[ToldAlert]], Sequence[NewJob]]
    ) -> None:
        self._boards = boards
        self._producer = producer
        self._jobs_for = jobs_for

    def run(self) -> None:
        jobs: list[NewJob] = []
        with self._boards.evaluation() as board:
            if board is None:
                return
            board.record(judge(readings(board.figures()), board.watched(), board.thresholds(), board.now))
            board.resolve_what_is_over()
            untold = board.untold()
            jobs = [job for job in self._jobs_for(untold) if self._is_possible(job)]
            enqueued = self._producer.enqueue_many(jobs, conn=board.conn)
            board.mark_told(untold)
        self._producer.wake_for(jobs, enqueued)
        for alert in untold:
            facts = {"alert_id": alert.id, "alert_key": alert.key, "alert_level": alert.level}
            log.warning("alert.resolved" if alert.resolved_at else "alert.opened", extra=facts)

    def _is_possible(self, job: NewJob) -> bool:
        """One way that is set up wrongly must not keep an alert from being opened, and told on the others."""
        try:
            self._producer.validate(job)
        except (EnqueueError, SettingsError) as error:
            log.error("alert.not_tellable", extra={"queue": job.queue, "error": str(error)})
            return False
        return True


def readings(figures: Figures) -> list[Reading]:
    """Every rule's value for every scope that has one."""
    found: list[Reading] = []
    for queue in figures.queues:
        values: dict[str, float | None] = {
            "backlog": queue.ready,
            "dead-letters": queue.dead_letters,
            "oldest-ready": None if queue.paused else queue.oldest_ready_seconds,
            "stalled": None if queue.paused else figures.stalled.get(queue.queue),
        }
        if (recent := queue.recent) is not None:
            values["processing-time"] = recent.average_processing_seconds
            # Jobs that wait for their next attempt have failed too, though they have not ended.
            failed = recent.failed + figures.retried.get(queue.queue, 0)
            if failed + recent.completed >= FEWEST_ATTEMPTS:
                values["failure-rate"] = failed / (failed + recent.completed)
        found += [Reading(RULES[name], queue.queue, value) for name, value in values.items() if value is not None]
    return found + [Reading(RULES["timer"], timer, seconds) for timer, seconds in figures.timers.items()]


def judge(
    found: Sequence[Reading],
    watched: Mapping[str, Watched],
    thresholds: Mapping[tuple[str, str], Threshold],
    now: datetime,
) -> list[Judgement]:
    """What follows from this minute's readings; keys for which nothing changes are left out."""
    by_key = {reading.key: reading for reading in found}
    judgements = []
    for key in sorted({*by_key, *watched}):
        reading, before = by_key.get(key), watched.get(key, Watched())
        threshold = threshold_of(reading.rule, reading.scope, thresholds) if reading else None
        level = threshold.level_of(reading.value) if reading and threshold else None
        passed = threshold.passed(level) if threshold and level else None
        judgement = _step(key, reading, level, before, now)
        if judgement.after != before or judgement.level or judgement.resolve or judgement.is_calm:
            judgements.append(replace(judgement, passed=passed))
    return judgements


def calm_needed(opened_lately: int) -> timedelta:
    """How long an alert must be calm before it resolves: longer for one that flaps."""
    doublings = min(max(opened_lately - 1, 0), 10)
    return min(CALM * (1 << doublings), LONGEST_CALM)


def _step(key: str, reading: Reading | None, level: Level | None, before: Watched, now: datetime) -> Judgement:
    if before.is_open:
        if level is not None:
            return Judgement(key, replace(before, calm_since=None), reading, level)
        calm_since = before.calm_since or now
        if now - calm_since >= calm_needed(before.opened_lately):
            return Judgement(key, Watched(opened_lately=before.opened_lately), resolve=True)
        return Judgement(key, replace(before, calm_since=calm_since), reading, is_calm=True)
    if level is None or reading is None:
        return Judgement(key, Watched(opened_lately=before.opened_lately))
    since = before.breached_since or now
    if now - since >= reading.rule.after:
        return Judgement(key, Watched(since, None, True, before.opened_lately + 1), reading, level)
    return Judgement(key, replace(before, breached_since=since))
