"""Timer triggers of the development host, against a clock of our own: nothing here waits for real time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.functions.timer import TimerRequest

from local.host import Host
from local.host_timers import Timer
from local.process import wait_until
from local.worker import AppError, Function
from tests.local import probe

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EVERY_5_MINUTES = "0 */5 * * * *"


class Time:
    """A clock that jumps when it is waited on, until `end`; then it tells the timer to stop."""

    def __init__(self, start: datetime, minutes: float) -> None:
        self.instant = start
        self.end = start + timedelta(minutes=minutes)

    def now(self) -> datetime:
        return self.instant

    def wait(self, seconds: float) -> bool:
        self.instant += timedelta(seconds=seconds)
        return self.instant > self.end


class Runs:
    """Records each run; a run may take time, or fail."""

    def __init__(self, time: Time, *, run_minutes: float = 0, error: Exception | None = None) -> None:
        self.time = time
        self.length = timedelta(minutes=run_minutes)
        self.error = error
        self.times: list[str] = []
        self.past_due: list[bool] = []

    def __call__(self, function: Function, request: TimerRequest) -> Future[Any]:
        self.times.append(f"{self.time.instant:%H:%M:%S}")
        self.past_due.append(request.past_due)
        self.time.instant += self.length
        future: Future[Any] = Future()
        if self.error is None:
            future.set_result(None)
        else:
            future.set_exception(self.error)
        return future


def run(
    folder: Path,
    *,
    start: datetime = START,
    minutes: float = 16,
    schedule: str = EVERY_5_MINUTES,
    trigger: dict[str, Any] | None = None,
    **runs: Any,
) -> Runs:
    time = Time(start, minutes)
    recorded = Runs(time, **runs)
    function = Function("tick", lambda: None, {"type": "timerTrigger"} | (trigger or {}))
    Timer(function, schedule, folder, recorded, now=time.now, wait=time.wait).run()
    return recorded


def test_runs_at_each_time_of_the_schedule_and_not_at_the_first_start(tmp_path: Path) -> None:
    assert run(tmp_path).times == ["12:05:00", "12:10:00", "12:15:00"]


def test_six_fields_with_seconds_first(tmp_path: Path) -> None:
    assert run(tmp_path, schedule="*/10 * * * * *", minutes=0.5).times == ["12:00:10", "12:00:20", "12:00:30"]


def test_missed_times_become_one_past_due_run(tmp_path: Path) -> None:
    run(tmp_path)
    later = run(tmp_path, start=START + timedelta(hours=3, minutes=1), minutes=5)
    assert later.times == ["15:01:00", "15:05:00"]
    assert later.past_due == [True, False]


def test_a_restart_before_the_next_time_runs_nothing_extra(tmp_path: Path) -> None:
    run(tmp_path, minutes=6)
    assert run(tmp_path, start=START + timedelta(minutes=8), minutes=4).times == ["12:10:00"]


def test_another_schedule_is_not_past_due(tmp_path: Path) -> None:
    run(tmp_path)
    later = run(tmp_path, start=START + timedelta(hours=3), minutes=61, schedule="0 0 * * * *")
    assert later.times == ["16:00:00"]
    assert later.past_due == [False]


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]"])
def test_a_damaged_status_is_like_a_first_start(tmp_path: Path, damage: str) -> None:
    run(tmp_path)
    (tmp_path / "tick.json").write_text(damage)
    assert run(tmp_path, start=START + timedelta(hours=3), minutes=6).past_due == [False]


def test_no_catch_up_without_monitor_or_more_often_than_once_a_minute(tmp_path: Path) -> None:
    run(tmp_path, trigger={"useMonitor": False})
    run(tmp_path, schedule="*/30 * * * * *")
    assert not (tmp_path / "tick.json").exists()


def test_run_on_startup(tmp_path: Path) -> None:
    assert run(tmp_path, minutes=4, trigger={"runOnStartup": True}).times == ["12:00:00"]


def test_times_during_a_long_run_are_skipped(tmp_path: Path) -> None:
    assert run(tmp_path, minutes=26, run_minutes=7).times == ["12:05:00", "12:15:00", "12:25:00"]


def test_an_error_does_not_stop_the_schedule(tmp_path: Path) -> None:
    assert len(run(tmp_path, error=RuntimeError("on purpose")).times) == 3


def test_a_wait_that_ends_early_does_not_run_twice(tmp_path: Path) -> None:
    time = Time(START, 11)
    recorded = Runs(time)

    def restless(seconds: float) -> bool:
        return time.wait(seconds if seconds < 1 else seconds / 2)

    function = Function("tick", lambda: None, {})
    Timer(function, EVERY_5_MINUTES, tmp_path, recorded, now=time.now, wait=restless).run()
    assert recorded.times == ["12:05:00", "12:10:00"]


@pytest.mark.parametrize("schedule", ["*/5 * * * *", "00:05:00", "0 0 0 30 2 *", "0 61 * * * *", ""])
def test_what_is_no_six_field_schedule_is_refused(tmp_path: Path, schedule: str) -> None:
    with pytest.raises(AppError, match="tick"):
        Timer(Function("tick", lambda: None, {}), schedule, tmp_path, lambda *_: Future())


def test_one_of_two_hosts_runs_a_timer_and_the_other_takes_over(tmp_path: Path) -> None:
    started: list[str] = []

    def timer(name: str) -> tuple[Timer, threading.Thread]:
        def invoke(function: Function, request: TimerRequest) -> Future[Any]:
            started.append(name)
            done: Future[Any] = Future()
            done.set_result(None)
            return done

        function = Function("tick", lambda: None, {"runOnStartup": True})
        made = Timer(function, "0 0 0 1 1 *", tmp_path, invoke)
        thread = threading.Thread(target=made.run)
        thread.start()
        return made, thread

    first, first_thread = timer("first")
    assert wait_until(lambda: started == ["first"], 10)
    second, second_thread = timer("second")
    third, third_thread = timer("third")
    third.stopping.set()  # one that waits for its turn can be stopped
    third_thread.join(10)
    assert not third_thread.is_alive()
    assert started == ["first"]
    first.stopping.set()
    first_thread.join(10)
    assert wait_until(lambda: started == ["first", "second"], 10)
    second.stopping.set()
    second_thread.join(10)
    assert not second_thread.is_alive()


def test_a_timer_function_runs_on_the_host(start_host: Callable[..., Host], tmp_path: Path) -> None:
    start_host("""
@app.timer_trigger("timer", "0 0 0 1 1 *", run_on_startup=True)
def tick(timer: func.TimerRequest, context: func.Context):
    probe.saw((timer.past_due, context.function_name, bool(context.invocation_id)))
""")
    assert probe.next_seen() == (False, "tick", True)
    status = tmp_path / "state" / "timers" / "tick.json"
    assert wait_until(status.exists, 10)
    assert json.loads(status.read_text())["Schedule"] == "0 0 0 1 1 *"
