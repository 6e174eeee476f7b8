"""Which job a log line belongs to, and which trace a request, a job and a call: without any tracer."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import tracing
from shared.engine.context import Context
from shared.engine.job import Completed, Job, NewJob
from shared.handlers.intake import Intake
from tests.unit.engine.bench import QUEUE, Bench
from tests.unit.settings.test_logs import Logger

HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "text",
    [
        None, "", "x", HEADER + "-00", HEADER.replace("00-0", "ff-0", 1), HEADER.upper(), HEADER[:-1],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        HEADER + "\nx: y",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_left_out(text: str | None) -> None:
    assert tracing.read(text) is None
    with tracing.request(text, "test"):
        assert tracing.headers() == {} and tracing.correlation_id() is None


@given(st.text())
def test_no_text_breaks_the_reading_of_a_traceparent(text: str) -> None:
    found = tracing.read(text)
    assert found is None or str(found) == text.strip()


def test_a_job_carries_its_trace_in_its_correlation_id() -> None:
    assert str(tracing.of_job("1", HEADER)) == HEADER
    mine, yours = tracing.of_job("1", "order-7"), tracing.of_job("2", "order-7")
    assert mine == yours != tracing.of_job("2", "order-8")
    assert tracing.of_job("1", None) != tracing.of_job("2", None)
    assert tracing.read(str(mine)) == mine


def test_a_job_enqueued_in_a_request_goes_on_with_its_trace() -> None:
    bench = Bench()
    with tracing.request(HEADER, "test"):
        bench.enqueue()
        bench.enqueue(correlation_id="mine")
    bench.enqueue()
    assert [job.correlation_id for job in bench.store.jobs(QUEUE)] == [HEADER, "mine", None]


def test_a_notification_goes_on_with_the_trace_of_its_delivery() -> None:
    from shared.graph.notifications import ClientStates
    from tests.integration.monitoring.test_alerting import Wire

    bodies: list[dict[str, Any]] = []

    class Transport(Wire):
        def send(self, queue: str, body: str, delay: Any = None) -> None:
            bodies.append(json.loads(body))

    states = ClientStates(b"x" * 32)
    intake = Intake(Transport(), states)
    delivery = json.dumps({"value": [{"clientState": states.new(), "subscriptionId": "s"}]}).encode()
    for header in (HEADER, None):
        with tracing.request(header, "test"):
            intake.take(delivery, time.monotonic() + 5)
    intake.close()
    assert [body.get("traceparent") for body in bodies] == [HEADER, None]


def run(bench: Bench, handler: Any) -> None:
    bench.handler = handler
    bench.worker.run(QUEUE, 10)


def test_what_a_handler_calls_gets_the_jobs_trace_and_a_span_of_the_attempt() -> None:
    bench, seen = Bench(), list[str]()
    bench.enqueue(correlation_id=HEADER)
    run(bench, lambda *_: seen.append(tracing.headers()["traceparent"]))
    assert seen[0].split("-")[:2] == HEADER.split("-")[:2]
    assert seen[0].split("-")[2] != HEADER.split("-")[2]
    assert tracing.headers() == {}, "nothing is left behind"


def test_what_follows_from_a_job_has_its_correlation_id() -> None:
    bench = Bench()
    bench.enqueue(correlation_id=HEADER)

    def handle(job: Job, payload: Any, context: Context) -> Completed:
        bench.producer.enqueue("mails", {"by": "producer"})
        return Completed(
            follow_ups=(NewJob("mails", {"by": "follow-up"}), NewJob("mails", {"own": 1}, correlation_id="own"))
        )

    run(bench, handle)
    assert [job.correlation_id for job in bench.store.jobs("mails")] == [HEADER, HEADER, "own"]


def test_each_log_line_inside_a_handler_says_which_job_it_is_about() -> None:
    bench, logger = Bench(), Logger()
    [job_id] = bench.enqueue(correlation_id="order-7")

    def handle(*_: Any) -> None:
        logger.log.info("something.happened")
        logger.log.info("other.job", extra={"job_id": "its own", "queue": None})

    logger.log.info("before")
    run(bench, handle)
    logger.log.info("after")
    before, mine, other, after = logger.lines
    expected = {"job_id": str(job_id), "queue": QUEUE, "attempt": 1, "correlation_id": "order-7"}
    assert mine.items() >= expected.items()
    assert mine["trace_id"] == tracing.of_job(str(job_id), "order-7").trace_id
    assert other["job_id"] == "its own" and other["queue"] is None
    assert not {"job_id", "trace_id"} & {*before, *after}


def test_a_correlation_id_in_a_log_line_is_cleaned_like_all_of_it() -> None:
    bench, logger = Bench(), Logger()
    bench.enqueue(correlation_id="for alex.driver@fleet.example")
    run(bench, lambda *_: logger.log.info("x"))
    assert "alex.driver" not in logger.text.getvalue()


OFF = """
import json, sys
from shared import bootstrap, tracing
from shared.bootstrap.telemetry import telemetry
assert telemetry() == "off"
from tests.unit.engine.bench import QUEUE, Bench
bench = Bench()
with tracing.request("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x"):
    bench.enqueue(3)
assert bench.worker.run(QUEUE, 3).ran == 3
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry") or name == "shared.telemetry"]))
"""


def test_telemetry_that_is_off_loads_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", OFF], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_an_attempt_costs_next_to_nothing_while_telemetry_is_off() -> None:
    def cost(times: int = 2000) -> float:
        started = time.perf_counter()
        for _ in range(times):
            with tracing.attempt("id", QUEUE, 1, "x") as span:
                span.set("a", "b")
        return (time.perf_counter() - started) / times

    assert min(cost() for _ in range(5)) < 0.00005, "about 1.5 microseconds on an idle machine"


def test_telemetry_without_its_packages_is_told_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from shared import bootstrap
    from shared.bootstrap.telemetry import telemetry

    bootstrap.stop()
    monkeypatch.setenv("TELEMETRY", "azure-monitor")
    monkeypatch.setitem(sys.modules, "azure.monitor.opentelemetry", None)
    with caplog.at_level(logging.ERROR):
        assert telemetry() == "off"
    assert "telemetry.not_started" in caplog.text
    bootstrap.stop()
