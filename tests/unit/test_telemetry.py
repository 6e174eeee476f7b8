"""Spans by OpenTelemetry, from the request through the queue to the call of Graph: in memory, and to a collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from shared import telemetry, tracing
from shared.engine.errors import RejectedError
from shared.graph.errors import GraphCall
from shared.graph.exchange import exchange
from shared.http_session import HttpSession
from tests.unit.engine.bench import QUEUE, Bench
from tests.unit.test_tracing import HEADER


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = telemetry.provider(exporter, at_once=True)
    tracing.use(telemetry.OpenTelemetryTracer(provider))
    yield exporter
    tracing.use(None)


class Graph:
    """A session that answers 202 and notes the headers."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []

    def request(self, method: str, url: str, *, data: Any, headers: dict[str, str]) -> requests.Response:
        self.headers.append(headers)
        answer = requests.Response()
        answer.status_code = 202
        return answer


def call(graph: Graph) -> None:
    made = GraphCall("POST", "/chats/{chat}/messages", "client-id")
    exchange(cast(HttpSession, graph), made, "https://graph.example/secret-address", headers={"Accept": "*/*"})


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def id_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    return f"{span.parent.span_id:016x}" if span.parent is not None else None


def test_one_trace_leads_from_the_request_through_the_queue_to_the_send(spans: InMemorySpanExporter) -> None:
    bench, graph = Bench(), Graph()
    with tracing.request(HEADER, "POST /api/queue/x/jobs"):
        [job_id] = bench.enqueue()
    bench.handler = lambda *_: call(graph)
    bench.worker.run(QUEUE, 1)
    found = by_name(spans)
    request, enqueue = found["POST /api/queue/x/jobs"], found["enqueue"]
    attempt, send = found[f"attempt {QUEUE}"], found["POST /chats/{chat}/messages"]
    assert parent_of(request) == "b7ad6b7169203331"
    assert parent_of(enqueue) == id_of(request)
    assert parent_of(attempt) == id_of(enqueue)
    assert parent_of(send) == id_of(attempt)
    for span in (request, enqueue, attempt, send):
        assert span.context is not None and f"{span.context.trace_id:032x}" == HEADER.split("-")[1]
    assert graph.headers[0]["traceparent"].split("-")[1:3] == [HEADER.split("-")[1], id_of(send)]
    assert [span.kind for span in (request, enqueue, attempt, send)] == [
        SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT,
    ]  # fmt: skip
    assert attempt.attributes is not None and send.attributes is not None
    assert attempt.attributes["fleet_queue.job_id"] == str(job_id)
    assert attempt.attributes["fleet_queue.outcome"] == "completed"
    assert send.attributes["http.response.status_code"] == 202
    assert "secret-address" not in repr([(span.name, dict(span.attributes or {})) for span in found.values()])


def test_a_job_that_came_without_a_trace_begins_one(spans: InMemorySpanExporter) -> None:
    bench = Bench()
    bench.enqueue()
    bench.worker.run(QUEUE, 1)
    found = by_name(spans)
    assert parent_of(found["enqueue"]) is None
    assert parent_of(found[f"attempt {QUEUE}"]) == id_of(found["enqueue"])


def test_a_failed_attempt_names_its_class_and_no_message(spans: InMemorySpanExporter) -> None:
    bench = Bench()
    bench.enqueue()

    def fail(*_: Any) -> None:
        raise RejectedError("the address secret@fleet.example is wrong")

    bench.handler = fail
    bench.worker.run(QUEUE, 1)
    attempt = by_name(spans)[f"attempt {QUEUE}"]
    assert attempt.attributes is not None
    assert (attempt.attributes["error.type"], attempt.attributes["fleet_queue.outcome"]) == ("validation", "dead")
    assert "secret@" not in attempt.to_json()


def test_a_call_that_fails_is_marked_and_not_quoted(spans: InMemorySpanExporter) -> None:
    class Away:
        def request(self, *_: Any, **__: Any) -> None:
            raise requests.ConnectionError("https://graph.example/secret-address")

    made = GraphCall("GET", "/users/{user}", "client-id")
    with pytest.raises(Exception, match="users"):
        exchange(cast(HttpSession, Away()), made, "https://graph.example/secret-address", headers={})
    span = by_name(spans)["GET /users/{user}"]
    assert not span.status.is_ok and span.attributes is not None and "error.type" in span.attributes
    assert "secret-address" not in span.to_json()


def test_spans_reach_an_otlp_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[str] = []
    arrived = threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            document = ExportTraceServiceRequest.FromString(body)
            for resource in document.resource_spans:
                service = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
                for scope in resource.scope_spans:
                    received.extend(f"{service['service.name']}: {span.name}" for span in scope.spans)
            self.send_response(200)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    try:
        telemetry.start("otlp")
        with tracing.span("hello"):
            pass
        assert arrived.wait(20)
    finally:
        tracing.use(None)
        server.shutdown()
        server.server_close()
    assert received == ["fleet-queue: hello"]
