"""What Prometheus scrapes, read by its own parser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from shared.monitoring.histogram import CELLS
from shared.monitoring.prometheus import COUNTERS, GAUGES, exposition
from shared.monitoring.statistics import Activity, QueueNow, TimerRun, Totals

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_figure_of_a_queue_is_exposed() -> None:
    recent = Activity(
        "mail", NOW, timedelta(minutes=5), 50, 30, 10, 5, 0, 40, 80.0, [0] * 10 + [40] + [0] * (CELLS - 11)
    )
    queue = QueueNow("mail", True, 7, 2, 3, 1, 1, 4, 12.5, recent)
    found = samples(exposition([queue], [], [TimerRun("relay", NOW, NOW - timedelta(seconds=9))], {"critical": 2}, NOW))
    assert found["fleet_queue_paused", "mail"] == 1
    assert found["fleet_queue_ready_jobs", "mail"] == 7
    assert found["fleet_queue_enqueued_per_minute", "mail"] == 10
    assert found["fleet_queue_ended_per_minute", "mail"] == 7
    assert found["fleet_queue_failure_ratio", "mail"] == 0.25
    assert found["fleet_queue_processing_seconds", "mail"] == 2
    assert 0.03 < found["fleet_queue_latency_seconds", "mail", "0.95"] < 0.046
    assert found["fleet_queue_timer_age_seconds", "relay"] == 9
    alerts = {key[1]: value for key, value in found.items() if key[0] == "fleet_queue_open_alerts"}
    assert alerts == {"info": 0, "warning": 0, "critical": 2}
    assert {name for name, _, _ in GAUGES} <= {key[0] for key in found}


def test_totals_are_counters_of_their_own() -> None:
    text = exposition([], [Totals("mail", 5, 4, 3, 2, 1)], [], {}, NOW)
    found = {name: samples(text)[f"{name}_total", "mail"] for name, _, _ in COUNTERS}
    assert list(found.values()) == [5, 4, 3, 2, 1]
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert {kinds[name] for name, _, _ in COUNTERS} == {"counter"}


def test_what_is_not_known_has_no_line_and_odd_names_do_no_harm() -> None:
    queue = QueueNow('a"b\\c\nd', False, 0, 0, 0, 0, 0, 0, None)
    found = samples(exposition([queue], [], [TimerRun("never", None, None)], {}, NOW))
    assert found["fleet_queue_ready_jobs", 'a"b\\c\nd'] == 0
    assert not [key for key in found if key[0] == "fleet_queue_oldest_ready_seconds"]
    assert not [key for key in found if key[0] == "fleet_queue_timer_age_seconds"]
