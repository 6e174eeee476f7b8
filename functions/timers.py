"""The timers (UTC). Each takes its turn in the database, and does what the database says is due: a tick too many
does nothing, and one that was missed is made up by the next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import azure.functions as func

from shared.engine.errors import StoreUnavailableError
from shared.engine.timers import turn

bp = func.Blueprint()  # type: ignore[no-untyped-call]
log = logging.getLogger(__name__)


@bp.function_name("relay_jobs")
@bp.timer_trigger(arg_name="timer", schedule="*/10 * * * * *", run_on_startup=False, use_monitor=False)
def relay_jobs(timer: func.TimerRequest) -> None:
    """Makes due jobs ready and sends missing wake-ups."""
    from shared import bootstrap

    _take_turn(timer, "relay", timedelta(minutes=1), bootstrap.relay().run)


@bp.function_name("rescue_jobs")
@bp.timer_trigger(arg_name="timer", schedule="*/30 * * * * *", run_on_startup=False, use_monitor=False)
def rescue_jobs(timer: func.TimerRequest) -> None:
    """Takes back the jobs of workers that died."""
    from shared import bootstrap

    _take_turn(timer, "rescue", timedelta(minutes=2), bootstrap.rescue().run)


@bp.function_name("run_schedules")
@bp.timer_trigger(arg_name="timer", schedule="0 * * * * *", run_on_startup=False, use_monitor=False)
def run_schedules(timer: func.TimerRequest) -> None:
    """Makes the jobs of recurring schedules."""
    from shared import bootstrap

    _take_turn(timer, "schedules", timedelta(minutes=5), bootstrap.scheduler().run)


@bp.function_name("watch_identities")
@bp.timer_trigger(arg_name="timer", schedule="30 * * * * *", run_on_startup=False, use_monitor=False)
def watch_identities(timer: func.TimerRequest) -> None:
    """Lets jobs go on whose sign-in or credential works again, and warns of a certificate that ends soon."""
    from shared import bootstrap

    _take_turn(timer, "identities", timedelta(minutes=2), bootstrap.identity_watch().run)


@bp.function_name("maintain_partitions")
@bp.timer_trigger(arg_name="timer", schedule="0 7 * * * *", run_on_startup=False, use_monitor=True)
def maintain_partitions(timer: func.TimerRequest) -> None:
    """Makes the history's coming partitions and drops the old ones."""
    from shared import bootstrap

    _take_turn(timer, "partitions", timedelta(minutes=10), bootstrap.partitions().maintain)


@bp.function_name("keep_statistics")
@bp.timer_trigger(arg_name="timer", schedule="20 */5 * * * *", run_on_startup=False, use_monitor=True)
def keep_statistics(timer: func.TimerRequest) -> None:
    """Writes the figures of the five minutes that have just ended, and of those that were missed."""
    from shared import bootstrap

    _take_turn(timer, "statistics", timedelta(minutes=10), bootstrap.statistics().keep)


@bp.function_name("evaluate_alerts")
@bp.timer_trigger(arg_name="timer", schedule="40 * * * * *", run_on_startup=False, use_monitor=False)
def evaluate_alerts(timer: func.TimerRequest) -> None:
    """Opens, changes and resolves alerts, and tells the operator."""
    from shared import bootstrap

    _take_turn(timer, "alerts", timedelta(minutes=2), bootstrap.alert_watch().run)


@bp.function_name("make_reports")
@bp.timer_trigger(arg_name="timer", schedule="45 */10 * * * *", run_on_startup=False, use_monitor=False)
def make_reports(timer: func.TimerRequest) -> None:
    """Makes and sends the report of the day before, at midnight or as soon as its figures are complete."""
    from shared import bootstrap

    _take_turn(timer, "reports", timedelta(minutes=5), bootstrap.report_timer().run)


@bp.function_name("clean_statistics")
@bp.timer_trigger(arg_name="timer", schedule="0 0 2 * * *", run_on_startup=False, use_monitor=True)
def clean_statistics(timer: func.TimerRequest) -> None:
    """Forgets old figures and alerts."""
    from shared import bootstrap

    _take_turn(timer, "clean-up", timedelta(minutes=10), bootstrap.statistics().forget)


@bp.function_name("sweep_poison_queues")
@bp.timer_trigger(arg_name="timer", schedule="0 */5 * * * *", run_on_startup=False, use_monitor=True)
def sweep_poison_queues(timer: func.TimerRequest) -> None:
    """Handles what lies in poison queues although their triggers run."""
    from shared import bootstrap

    _take_turn(timer, "poison-sweep", timedelta(minutes=10), bootstrap.poison_sweep().run)


@bp.function_name("keep_subscriptions")
@bp.timer_trigger(arg_name="timer", schedule="15 */2 * * * *", run_on_startup=False, use_monitor=False)
def keep_subscriptions(timer: func.TimerRequest) -> None:
    """Enqueues passes over the subscriptions that are due, and tells of those that run out."""
    from shared import bootstrap

    _take_turn(timer, "subscriptions", timedelta(minutes=5), bootstrap.upkeep_timer().run)


def _take_turn(timer: func.TimerRequest, name: str, at_most: timedelta, work: Callable[[], object]) -> None:
    from shared import bootstrap

    try:
        with turn(bootstrap.store(), name, at_most) as mine:
            if mine:
                work()
            if timer.past_due:
                log.info("timer.was_past_due", extra={"timer": name})
    except StoreUnavailableError as error:
        log.warning("timer.skipped", extra={"timer": name, "error": str(error)})
