"""Spans, where they are switched on."""

from __future__ import annotations

import logging

from shared.bootstrap.once import load_settings, once
from shared.settings_errors import SettingsError

log = logging.getLogger(__name__)


@once
def telemetry() -> str:
    """Record spans from now on, where the settings say so; what exports them. Off, it loads nothing.

    Nothing that work depends on: where it cannot start, the log says why, and the work goes on.
    """
    from shared.settings import TelemetrySettings

    try:
        exporter = load_settings(TelemetrySettings).exporter
        if exporter == "off":
            return "off"
        from shared import telemetry

        telemetry.start(exporter)
    except (ImportError, SettingsError) as error:
        log.error("telemetry.not_started", extra={"error": str(error)})
        return "off"
    return exporter
