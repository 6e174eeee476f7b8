"""Timer triggers as Azure's host runs them: six-field schedules, one catch-up run, never two runs at once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from azure.functions.timer import TimerRequest
from cronsim import CronSim, CronSimError

from local.worker import AppError, Function


@dataclass(eq=False)
class Timer:
    """One timer function. `folder` holds its status, and the lock that lets one host at a time run it.

    `wait` waits so many seconds, and is true when the timer is to stop; by default it waits on `stopping`.
    """

    function: Function
    schedule: str
    folder: Path
    invoke: Callable[[Function, Any], Future[Any]]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    wait: Callable[[float], bool] | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        try:
            if len(self.schedule.split()) != 6:
                raise CronSimError("it has not six fields")
            occurrences = list(islice(CronSim(self.schedule, self.now()), 10))
        except CronSimError as error:
            raise AppError(f"{self.function.name}: {self.schedule!r} is not a schedule: {error}") from error
        # As in Azure, no status and so no catch-up for what runs more often than once a minute.
        often = any(later - earlier < timedelta(minutes=1) for earlier, later in pairwise(occurrences))
        self._monitored = self.function.trigger.get("useMonitor") is not False and not often
        self._status = self.folder / f"{self.function.name}.json"
        self._wait = self.wait or self.stopping.wait

    def run(self) -> None:
        """Run as scheduled until told to stop."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{self.function.name}.lock").open("w") as lock:
            if not self._acquire(lock.fileno()):
                return
            status = self._read_status()
            past_due = status is not None and self.now() > datetime.fromisoformat(status["Next"])
            if past_due or self.function.trigger.get("runOnStartup"):
                self._fire(past_due=past_due)
            elif status is None:
                self._write_status(self.now())
            while self._reached(self._next()):
                self._fire(past_due=False)

    def _next(self) -> datetime:
        return next(CronSim(self.schedule, self.now()))

    def _reached(self, due: datetime) -> bool:
        """Wait until then; an early wake would run it twice. False when told to stop."""
        while (left := (due - self.now()).total_seconds()) > 0:
            if self._wait(min(left, 3600)):
                return False
        return not self.stopping.is_set()

    def _acquire(self, lock: int) -> bool:
        """Hold this timer's lock, which the system drops when its holder dies; False when told to stop."""
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if self._wait(1):
                    return False

    def _fire(self, *, past_due: bool) -> None:
        """Run once. The next time is looked up afterwards, so that those during a long run are skipped."""
        last, status = self.now(), self._read_status()
        request = TimerRequest(past_due=past_due, schedule_status=status, schedule={"AdjustForDST": True})
        self.invoke(self.function, request).exception()  # it is logged, and does not stop the schedule
        self._write_status(last)

    def _read_status(self) -> dict[str, str] | None:
        """What the last run left; None at the first start, or when the schedule was another one."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            status: dict[str, str] = json.loads(self._status.read_text())
            return status if self._monitored and status["Schedule"] == self.schedule else None
        return None

    def _write_status(self, last: datetime) -> None:
        if self._monitored:
            times = {"Last": last, "Next": self._next(), "LastUpdated": self.now()}
            new = self._status.with_suffix(".new")
            new.write_text(json.dumps(times | {"Schedule": self.schedule}, default=datetime.isoformat))
            new.replace(self._status)
