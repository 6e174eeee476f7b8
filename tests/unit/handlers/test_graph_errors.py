"""The whole table from a failed call to the engine's error classes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.engine.context import Context
from shared.engine.errors import JobError, ParkedError, UncertainError
from shared.engine.job import ErrorClass
from shared.graph import exchange
from shared.graph.errors import (
    AnswerLost,
    GraphCall,
    GraphError,
    GraphFailure,
    GraphTimeout,
    GraphUnreachable,
    LinkRefused,
    SignInRequired,
    TokenFailure,
    TokenRefused,
    TokenUnavailable,
)
from shared.handlers.graph_errors import AUTHORITY_PAUSE, CALLED_BACK, graph_attempt, job_error, sending

SOON = timedelta(seconds=7)
NO_WAIT = None

R, N, T, A, V, U = (
    ErrorClass.RATE_LIMIT,
    ErrorClass.NETWORK,
    ErrorClass.TIMEOUT,
    ErrorClass.AUTH,
    ErrorClass.VALIDATION,
    ErrorClass.UNCERTAIN,
)

#: status, Retry-After, class of a read (or another repeatable call), class of a send
STATUSES = [
    (302, NO_WAIT, V, V),
    (400, NO_WAIT, V, V),
    (401, NO_WAIT, A, A),
    (402, NO_WAIT, V, V),
    (403, NO_WAIT, A, A),
    (404, NO_WAIT, V, V),
    (405, NO_WAIT, V, V),
    (408, NO_WAIT, T, U),
    (409, NO_WAIT, V, V),
    (410, NO_WAIT, V, V),
    (412, NO_WAIT, N, N),
    (413, NO_WAIT, V, V),
    (415, NO_WAIT, V, V),
    (422, NO_WAIT, V, V),
    (423, NO_WAIT, N, N),
    (424, NO_WAIT, N, N),
    (429, NO_WAIT, R, R),
    (429, SOON, R, R),
    (500, NO_WAIT, N, U),
    (501, NO_WAIT, V, V),
    (502, NO_WAIT, N, U),
    (503, NO_WAIT, N, U),
    (503, SOON, R, U),
    (504, NO_WAIT, N, U),
    (504, SOON, N, U),
    (507, NO_WAIT, V, V),
    (509, NO_WAIT, N, U),
    (509, SOON, R, U),
]


@pytest.mark.parametrize(("status", "wait", "read", "send"), STATUSES)
def test_each_status_has_its_class(status: int, wait: timedelta | None, read: ErrorClass, send: ErrorClass) -> None:
    failure = GraphError(status, ("Code",), "text", retry_after=wait)
    for is_send, expected in ((False, read), (True, send)):
        error = job_error(failure, send=is_send)
        assert error.error_class is expected
        assert error.retry_after == wait


FAILURES: list[tuple[GraphFailure, ErrorClass, ErrorClass]] = [
    (GraphUnreachable("x"), N, N),
    (GraphTimeout("x", sent=False), T, T),
    (GraphTimeout("x", sent=True), T, U),
    (AnswerLost("x"), N, U),
    (LinkRefused("x"), V, V),
]


@pytest.mark.parametrize(("failure", "read", "send"), FAILURES, ids=lambda value: type(value).__name__)
def test_each_failure_without_an_answer_has_its_class(
    failure: GraphFailure, read: ErrorClass, send: ErrorClass
) -> None:
    assert job_error(failure, send=False).error_class is read
    assert job_error(failure, send=True).error_class is send


def test_the_failed_call_is_kept_for_the_operator() -> None:
    call = GraphCall("POST", "/x", "c-1", 400, "r-1")
    details = job_error(GraphError(400, ("Outer", "Inner"), "text", call=call), send=True).details
    assert details["code"] == "Inner"
    assert details["failed_call"] == {
        "method": "POST",
        "path": "/x",
        "status": 400,
        "request_id": "r-1",
        "client_request_id": "c-1",
    }


def test_failures_are_turned_where_they_leave_the_handler() -> None:
    with pytest.raises(JobError) as caught, graph_attempt(Context()):
        raise AnswerLost("x")
    assert caught.value.error_class is N
    with pytest.raises(JobError) as caught, graph_attempt(Context()), sending():
        raise AnswerLost("x")
    assert caught.value.error_class is U
    assert isinstance(caught.value.__cause__, AnswerLost)


@pytest.mark.parametrize(
    ("failure", "needs", "urgent", "pause"),
    [
        (TokenUnavailable("x"), "application", False, AUTHORITY_PAUSE),
        (TokenUnavailable("x", retry_after=timedelta(minutes=2)), "application", False, timedelta(minutes=2)),
        (TokenRefused("x", remedy="y"), "application", True, CALLED_BACK),
        (SignInRequired("queue@fleet.example", "b", "c"), "queue@fleet.example", True, CALLED_BACK),
    ],
)
def test_without_a_token_a_job_is_parked(failure: TokenFailure, needs: str, urgent: bool, pause: timedelta) -> None:
    with pytest.raises(ParkedError) as caught, graph_attempt(Context()), sending():
        raise failure
    parked = caught.value
    assert (parked.needs, parked.urgent, parked.pause, parked.remedy) == (needs, urgent, pause, failure.remedy)


@pytest.mark.parametrize(
    ("method", "status", "error"),
    [
        ("GET", 200, ParkedError),
        ("POST", 401, ParkedError),
        ("POST", 429, ParkedError),
        ("POST", 201, UncertainError),
        ("PATCH", None, UncertainError),
        ("POST", 503, UncertainError),
    ],
)
def test_an_attempt_that_may_have_done_something_is_on_record(
    method: str, status: int | None, error: type[Exception]
) -> None:
    def attempt() -> None:
        with graph_attempt(Context()):
            calls = exchange._calls.get()
            assert calls is not None
            calls.append(GraphCall(method, "/x", "c-1", status))
            raise SignInRequired("queue@fleet.example", "b", "c")

    with pytest.raises(error):
        attempt()
