"""Spans by OpenTelemetry, for whoever switched it on; nothing else of the product imports this, or OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace as otel
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shared import tracing
from shared.tracing import Trace

SERVICE = "fleet-queue"
SELF_INSTRUMENTING = (
    "azure_sdk", "django", "fastapi", "flask", "httpx", "httpx2", "logging", "psycopg2", "requests", "urllib",
    "urllib3",
)  # fmt: skip
_SAMPLED = 1


class _Recorded:
    """See shared.tracing.Span."""

    def __init__(self, span: otel.Span) -> None:
        self._span = span

    @property
    def trace(self) -> Trace:
        return _trace(self._span.get_span_context())

    def set(self, name: str, value: str | int | float | bool) -> None:
        self._span.set_attribute(name, value)


class OpenTelemetryTracer:
    """See shared.tracing.Tracer. A failure is named by its class only: its message may quote what is private."""

    def __init__(self, provider: otel.TracerProvider) -> None:
        self._tracer = provider.get_tracer(SERVICE)

    @contextmanager
    def span(self, name: str, kind: str, parent: Trace | None) -> Iterator[_Recorded]:
        context = otel.set_span_in_context(NonRecordingSpan(_context(parent))) if parent else None
        with self._tracer.start_as_current_span(
            name, context, SpanKind[kind.upper()], record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _Recorded(span)
            except BaseException as error:
                span.set_status(Status(StatusCode.ERROR))
                span.set_attribute("error.type", type(error).__qualname__)
                raise

    def current(self) -> Trace | None:
        context = otel.get_current_span().get_span_context()
        return _trace(context) if context.is_valid else None


def start(exporter: str) -> None:
    """Export spans by `otlp` or `azure-monitor`, from now on. Where to, the exporter reads itself from its own
    variables (OTEL_EXPORTER_OTLP_ENDPOINT, APPLICATIONINSIGHTS_CONNECTION_STRING). Raises ImportError."""
    if exporter == "azure-monitor":
        from azure.monitor.opentelemetry import configure_azure_monitor

        # Logs and metrics reach Application Insights through the host. What instruments by itself would record whole
        # addresses, and those of uploads and workflows are secrets.
        configure_azure_monitor(
            disable_logging=True,
            disable_metrics=True,
            disable_azure_core_tracing=True,
            enable_live_metrics=False,
            enable_performance_counters=False,
            instrumentation_options={name: {"enabled": False} for name in SELF_INSTRUMENTING},
        )
        tracing.use(OpenTelemetryTracer(otel.get_tracer_provider()))
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    tracing.use(OpenTelemetryTracer(provider(OTLPSpanExporter())))


def provider(exporter: Any, *, at_once: bool = False) -> otel.TracerProvider:
    """A provider that hands spans to the exporter: in the background, or `at_once`."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    made = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    made.add_span_processor(SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter))
    return made


def _context(trace: Trace) -> SpanContext:
    # What was not sampled by who sent it is sampled here by our own rules: most callers only pass a header on.
    flags = TraceFlags(int(trace.flags, 16) | _SAMPLED)
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)


def _trace(context: SpanContext) -> Trace:
    return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{context.trace_flags:02x}")
