"""What this thread works on: the facts that each log line carries, and the trace (W3C Trace Context) that goes on
to whom it calls. Spans are recorded only where a tracer is set (shared/telemetry.py); without one they cost nothing.

A job carries its trace in its correlation id: a traceparent there is continued, and of any other text, or of the job's
id, the trace id is the hash. So all jobs of one correlation id are one trace, without a column of their own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: trace id and span id in hex."""

    trace_id: str
    span_id: str
    flags: str = "00"

    def __str__(self) -> str:
        """The value of the header traceparent."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


class Span(Protocol):
    """What is being recorded."""

    @property
    def trace(self) -> Trace: ...

    def set(self, name: str, value: str | int | float | bool) -> None: ...


class Tracer(Protocol):
    """Records spans. A span is the parent of those that begin inside it, on the same thread."""

    def span(self, name: str, kind: str, parent: Trace | None) -> AbstractContextManager[Span]: ...

    def current(self) -> Trace | None:
        """The span that is open on this thread."""
        ...


class _Unrecorded:
    """Where no tracer is set."""

    trace = Trace("0" * 32, "0" * 16)

    def set(self, name: str, value: str | int | float | bool) -> None:
        pass


class _Scope:
    """A request or an attempt. The trace is worked out when somebody asks for it."""

    __slots__ = ("attempt", "correlation_id", "job_id", "queue", "trace")

    def __init__(self, job_id: str, queue: str, attempt: int, correlation_id: str | None, trace: Trace | None) -> None:
        self.job_id = job_id
        self.queue = queue
        self.attempt = attempt
        self.correlation_id = correlation_id
        self.trace = trace


_scope: ContextVar[_Scope | None] = ContextVar("scope", default=None)
_tracer: Tracer | None = None
_nothing = nullcontext(_Unrecorded())


def use(tracer: Tracer | None) -> None:
    """Record spans from now on, or stop."""
    global _tracer
    _tracer = tracer


def read(traceparent: str | None) -> Trace | None:
    """What a traceparent says; None when it says nothing that can be gone on with."""
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    return Trace(*found.groups()) if found else None


def of_job(job_id: str, correlation_id: str | None) -> Trace:
    """The trace that a job belongs to."""
    return read(correlation_id) or Trace(*_hashed(correlation_id or job_id))


def span(name: str, kind: str = "internal", parent: Trace | None = None) -> AbstractContextManager[Span]:
    """Record the block, where a tracer is set."""
    return _nothing if _tracer is None else _tracer.span(name, kind, parent)


@contextmanager
def request(traceparent: str | None, name: str) -> Iterator[Span]:
    """The block answers a request that came with this header."""
    trace = read(traceparent)
    mark = _scope.set(_Scope("", "", 0, None, trace) if trace else None)
    try:
        with span(name, "server", trace) as recorded:
            yield recorded
    finally:
        _scope.reset(mark)


class attempt:
    """The block is one attempt of a job: `with attempt(…) as span`."""

    __slots__ = ("_mark", "_recording", "_scope")

    def __init__(self, job_id: str, queue: str, number: int, correlation_id: str | None) -> None:
        self._scope = _Scope(job_id, queue, number, correlation_id, None)

    def __enter__(self) -> Span:
        self._mark = _scope.set(self._scope)
        if _tracer is None:
            self._recording: AbstractContextManager[Span] = _nothing
            return _nothing.enter_result
        scope = self._scope
        self._recording = _tracer.span(f"attempt {scope.queue}", "consumer", of_job(scope.job_id, scope.correlation_id))
        recorded = self._recording.__enter__()
        for name, value in facts().items():
            recorded.set(f"fleet_queue.{name}", value)
        return recorded

    def __exit__(self, *raised: object) -> None:
        _scope.reset(self._mark)
        self._recording.__exit__(*raised)  # type: ignore[arg-type]


def facts() -> dict[str, str | int]:
    """What each log line says of the job that runs on this thread, and of the trace."""
    scope = _scope.get()
    found: dict[str, str | int] = {}
    if scope is not None and scope.job_id:
        found = {"job_id": scope.job_id, "queue": scope.queue, "attempt": scope.attempt}
        if scope.correlation_id is not None:
            found["correlation_id"] = scope.correlation_id
    trace = current()
    if trace is not None:
        found["trace_id"] = trace.trace_id
    return found


def current() -> Trace | None:
    """Where this thread is in which trace: what it calls gets this as its header traceparent."""
    if _tracer is not None and (recorded := _tracer.current()) is not None:
        return recorded
    scope = _scope.get()
    if scope is None:
        return None
    if scope.trace is None:
        job = of_job(scope.job_id, scope.correlation_id)
        scope.trace = Trace(job.trace_id, _hashed(f"{scope.job_id}/{scope.attempt}")[1], job.flags)
    return scope.trace


def headers() -> dict[str, str]:
    """The header that a request to somebody else carries; none outside a trace."""
    trace = current()
    return {} if trace is None else {"traceparent": str(trace)}


def correlation_id() -> str | None:
    """What a job enqueued here without a correlation id gets: that of the job that runs, else the trace of the
    request or of the caller's own span."""
    scope = _scope.get()
    if scope is not None and scope.job_id:
        return scope.correlation_id
    trace = current()
    return None if trace is None else str(trace)


def _hashed(text: str) -> tuple[str, str]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return digest[:32], digest[32:48]
