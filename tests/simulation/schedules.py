"""Recurring schedules in memory. A transaction is one step here: it either never began or is whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.engine.errors import StoreUnavailableError
from shared.engine.schedules import CatchUp, Held, Schedule, planned
from tests.simulation.clock import DatabaseClock
from tests.simulation.history import History
from tests.simulation.process import IN_TRANSACTION, Process
from tests.simulation.scenario import Scheduled


@dataclass(slots=True)
class ScheduleTable:
    clock: DatabaseClock
    history: History
    rows: dict[str, Schedule] = field(default_factory=dict)

    def add(self, wanted: Scheduled) -> None:
        now = self.clock()
        _, first = planned(wanted.cron, "UTC", now)
        self.rows[wanted.name] = Schedule(
            name=wanted.name,
            queue=wanted.queue,
            payload={"n": 3000, "do": "send", "schedule": wanted.name},
            cron=wanted.cron,
            time_zone="UTC",
            priority=None,
            catch_up=CatchUp(wanted.catch_up),
            paused=False,
            planned_from=now,
            next_run_at=first,
        )
        self.history.add("schedule.added", wanted.name, cron=wanted.cron, next_run_at=first, catch_up=wanted.catch_up)

    def pause(self) -> None:
        """Make no more jobs: a simulation has an end."""
        self.rows.clear()

    def reached_by(self, process: Process) -> RemoteSchedules:
        return RemoteSchedules(self, process)


@dataclass(slots=True)
class _Held:
    table: ScheduleTable
    schedule: Schedule
    now: datetime
    conn: Any = IN_TRANSACTION

    def undoing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def save(self, schedule: Schedule) -> None:
        self.table.rows[schedule.name] = schedule
        self.table.history.add("schedule.saved", schedule.name, next_run_at=schedule.next_run_at)

    def raise_alert(self, title: str, details: dict[str, Any]) -> None:
        raise AssertionError(f"{title}: {details}")

    def resolve_alert(self) -> None:
        pass


class RemoteSchedules:
    """See shared.engine.schedules.ScheduleStore; what the scheduler does not use is not here."""

    def __init__(self, table: ScheduleTable, process: Process) -> None:
        self._table = table
        self._process = process

    @contextmanager
    def next_due(self, after: str) -> Iterator[Held | None]:
        process, faults = self._process, self._process.around.faults
        process.boundary("before schedules")
        if faults.is_database_away:
            raise StoreUnavailableError("the database is away")
        now = self._table.clock()
        due = [s for name, s in sorted(self._table.rows.items()) if name > after and _is_due(s, now)]
        if not due:
            yield None
            return
        yield _Held(self._table, due[0], now)
        process.boundary("after schedules")
        if faults.happens(faults.rates.answer_lost):
            raise StoreUnavailableError("the connection broke")

    def hold(self, name: str) -> AbstractContextManager[Held | None]:
        raise NotImplementedError

    def now(self) -> datetime:
        return self._table.clock()

    def add(self, schedule: Schedule) -> bool:
        raise NotImplementedError

    def delete(self, name: str) -> bool:
        raise NotImplementedError

    def list(self) -> Sequence[Schedule]:
        return list(self._table.rows.values())


def _is_due(schedule: Schedule, now: datetime) -> bool:
    return not schedule.paused and (schedule.next_run_at is None or schedule.next_run_at <= now)
