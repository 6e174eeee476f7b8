"""What watches the queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.bootstrap.engine import database, producer
from shared.bootstrap.once import once
from shared.bootstrap.services import operator

if TYPE_CHECKING:
    from shared.monitoring.alerts import AlertWatch
    from shared.monitoring.report import ReportTimer
    from shared.monitoring.statistics import Overview
    from shared.postgres.reports import PostgresReports
    from shared.postgres.statistics import PostgresStatistics
    from shared.postgres.thresholds import PostgresThresholds


@once
def statistics() -> PostgresStatistics:
    from shared.postgres.statistics import PostgresStatistics

    return PostgresStatistics(database())


@once
def overview() -> Overview:
    """Every queue as it is now, looked at once for all who ask at about the same time."""
    from shared.monitoring.statistics import Overview

    return Overview(statistics())


@once
def thresholds() -> PostgresThresholds:
    from shared.postgres.thresholds import PostgresThresholds

    return PostgresThresholds(database())


@once
def alert_watch() -> AlertWatch:
    """What opens alerts, resolves them, and tells the operator."""
    from shared.monitoring.alerts import AlertWatch
    from shared.monitoring.notices import Notices
    from shared.postgres.alert_board import PostgresAlertBoards

    return AlertWatch(PostgresAlertBoards(database()), producer(), Notices(operator()).jobs)


@once
def reports() -> PostgresReports:
    from shared.postgres.reports import PostgresReports

    return PostgresReports(database())


@once
def report_timer() -> ReportTimer:
    """What makes and sends the daily reports."""
    from shared.monitoring.report import ReportTimer

    return ReportTimer(reports(), producer(), operator())
