"""From what Graph did to how the attempt ended (docs/explanation/architecture.md, Retries); keeps the calls on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from shared.engine.context import Context
from shared.engine.errors import (
    AuthError,
    JobError,
    NetworkError,
    ParkedError,
    RateLimitedError,
    RejectedError,
    TimedOutError,
    UncertainError,
)
from shared.graph.errors import (
    AnswerLost,
    GraphCall,
    GraphError,
    GraphFailure,
    GraphTimeout,
    LinkRefused,
    TokenFailure,
    TokenUnavailable,
)
from shared.graph.exchange import recorded_calls

#: Refused for now, and without effect: precondition failed, locked, failed dependency, too early.
_PASSING = {412, 423, 424, 425}
#: Not implemented, version not supported, quota used up: the same request will not succeed later either.
_PERMANENT_5XX = {501, 505, 507}
#: A job whose identity gives no token is called back when it does; should the call be lost, it comes after so long.
CALLED_BACK = timedelta(minutes=10)
#: An authority that is away or busy comes back by itself.
AUTHORITY_PAUSE = timedelta(seconds=30)


@contextmanager
def graph_attempt(context: Context, keep: int | None = None) -> Iterator[None]:
    """Around all Graph calls of an attempt: keeps them on it, the last `keep` of many, and turns failures into the
    engine's errors.

    Without a token the job is parked. But what this attempt may have done already must be on record, so that the next
    one looks for it: then the attempt counts, as uncertain.
    """
    with recorded_calls() as calls:
        try:
            try:
                yield
            except GraphFailure as failure:
                raise job_error(failure, send=False) from failure
        except ParkedError as parked:
            if any(_may_have_had_effect(call) for call in calls):
                raise UncertainError(str(parked)) from parked
            raise
        finally:
            if calls:
                context.note(graph_calls=[call.as_details() for call in (calls[-keep:] if keep else calls)])


@contextmanager
def sending() -> Iterator[None]:
    """Around the one call that must not happen twice: a failure that may have had its effect is uncertain."""
    try:
        yield
    except GraphFailure as failure:
        raise job_error(failure, send=True) from failure


def job_error(failure: GraphFailure, *, send: bool) -> JobError:
    """The engine's error for a failed call; `send`: the call is not idempotent. Raises ParkedError without a token."""
    if isinstance(failure, TokenFailure):
        raise _parked(failure) from failure
    return _kind(failure, send)(str(failure), retry_after=failure.retry_after, details=_details(failure))


def _parked(failure: TokenFailure) -> ParkedError:
    urgent = not isinstance(failure, TokenUnavailable)
    pause = CALLED_BACK if urgent else max(failure.retry_after or AUTHORITY_PAUSE, AUTHORITY_PAUSE)
    return ParkedError(str(failure), needs=failure.identity, remedy=failure.remedy, urgent=urgent, pause=pause)


def _may_have_had_effect(call: GraphCall) -> bool:
    return call.method != "GET" and (call.status is None or 200 <= call.status < 300 or call.status >= 500)


def _kind(failure: GraphFailure, send: bool) -> type[JobError]:
    if isinstance(failure, GraphError):
        return _kind_of_status(failure, send)
    if isinstance(failure, LinkRefused):
        return RejectedError
    if send and failure.sent:
        return UncertainError
    if isinstance(failure, GraphTimeout):
        return TimedOutError
    if failure.retry_after is not None and not isinstance(failure, AnswerLost):
        return RateLimitedError
    return NetworkError


def _kind_of_status(error: GraphError, send: bool) -> type[JobError]:
    status = error.status
    if status == 429:
        return RateLimitedError
    if status in (401, 403):
        return AuthError
    if status in _PASSING:
        return NetworkError
    if status == 408:
        return UncertainError if send else TimedOutError
    if status < 500 or status in _PERMANENT_5XX:
        return RejectedError
    if send:
        return UncertainError  # also with Retry-After: Graph has been seen to send and then answer 504
    return RateLimitedError if error.retry_after is not None and status in (503, 509) else NetworkError


def _details(failure: GraphFailure) -> dict[str, Any]:
    details: dict[str, Any] = {"failure": type(failure).__name__}
    if failure.call is not None:
        details["failed_call"] = failure.call.as_details()
    if isinstance(failure, GraphError):
        details["code"] = failure.code
    return details
