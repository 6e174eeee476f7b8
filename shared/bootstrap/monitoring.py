"""What watches the queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.bootstrap.engine import database
from shared.bootstrap.once import once

if TYPE_CHECKING:
    from shared.monitoring.statistics import Overview
    from shared.postgres.statistics import PostgresStatistics


@once
def statistics() -> PostgresStatistics:
    from shared.postgres.statistics import PostgresStatistics

    return PostgresStatistics(database())


@once
def overview() -> Overview:
    """Every queue as it is now, looked at once for all who ask within two seconds."""
    from shared.monitoring.statistics import Overview

    return Overview(statistics())
