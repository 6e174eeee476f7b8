"""What is kept for people holds no secret, whatever an exception, Graph or the database said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shared.engine.classify import LONGEST_MESSAGE, classify
from shared.engine.context import Context
from shared.engine.errors import RejectedError
from shared.engine.job import Deferred, Job, JobState
from shared.graph.errors import GraphError, GraphFailure
from shared.redaction import HIDDEN, facts_without_secrets, without_secrets
from tests.unit.engine.bench import QUEUE, Bench

TOKEN = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln"
TEXTS = [
    (f"Authorization: Bearer {TOKEN}", TOKEN),
    (f"bearer {TOKEN}", TOKEN),
    ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0LWtleQ==;x", "c2VjcmV0LWtleQ"),
    ("https://a.blob.core.windows.net/c?sv=2024&sig=SECRETsig%3D&se=1", "SECRETsig"),
    ("https://x.sharepoint.com/f?tempauth=SECRETtemp&a=1", "SECRETtemp"),
    ("https://outlook.office.com/up?authtoken=SECRETauth", "SECRETauth"),
    ("POST /api/webhooks?code=SECRETcode&validationToken=x", "SECRETcode"),
    ("postgresql://queue:SECRETpass@db:5432/fleet", "SECRETpass"),
    ("host=db password=SECRETpass user=x", "SECRETpass"),
    ("client_id=1&client_secret=SECRETvalue&grant_type=x", "SECRETvalue"),
    ('{"refresh_token": "SECRETrefresh", "a": 1}', "SECRETrefresh"),
    ("{'clientState': 'SECRETstate'}", "SECRETstate"),
    ("{'x-admin-key': 'SECRETadmin'}", "SECRETadmin"),
    ("SharedKey account:SECRETsignature=", "SECRETsignature"),
    (f"the token {TOKEN} is refused", TOKEN),
    (f"{TOKEN}.aXY.Y2lwaGVy", "Y2lwaGVy"),
    ("amqp://queue:SECRET@pass@db:5432/fleet", "pass"),
    ("Max retries exceeded with url: /hook?token=SECRETtoken (Caused by x)", "SECRETtoken"),
    ("https://push.example/send?api-key=SECRETkey", "SECRETkey"),
    ("SharedAccessSignature=sv=2024&sig=SECRETsig", "SECRETsig"),
]


@pytest.mark.parametrize(("text", "secret"), TEXTS)
def test_a_secret_is_in_nothing_that_an_attempt_leaves(text: str, secret: str) -> None:
    kept = [
        classify(RuntimeError(text)).message,
        classify(RejectedError(text, details={"answer": [{"body": text}], "status": 400})),
        Deferred(timedelta(), text).reason,
        str(GraphFailure(text)),
        str(GraphError(400, ("BadRequest",), text)) + GraphError(400, (), text).message,
    ]
    context = Context()
    context.note(not_confirmed=text, calls=[{"answer": text}])
    assert secret not in str(kept) + str(context.details)
    assert str(kept).count(HIDDEN) >= len(kept)


def raising(error: Exception) -> Any:
    def handler(job: Job, payload: Any, context: Context) -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("GET https://a.blob.core.windows.net/c?sv=1&sig=SECRETSIG failed"),
        RejectedError("refused: Bearer SECRETSIG.1", details={"url": "https://queue:SECRETSIG@host/x"}),
    ],
)
def test_a_secret_in_an_exception_is_in_no_attempt_and_no_dead_letter(error: Exception) -> None:
    bench = Bench(handler=raising(error))
    [job_id] = bench.enqueue()
    while bench.worker.run(QUEUE, 1).ran:
        bench.clock.advance(timedelta(hours=1))
        bench.relay.run()
    record, [letter] = bench.store.get(job_id), bench.store.letters
    assert record is not None and record.state is JobState.DEAD and record.attempts
    assert HIDDEN in str(letter.message) and "SECRETSIG" not in f"{record}{letter}"


def test_a_secret_in_the_reason_why_a_message_is_buried_is_hidden() -> None:
    """Fields that are not known are named, and a foreign message's may be called anything."""
    bench = Bench()
    bench.receiver.receive(QUEUE, b'{"payload": {}, "x?sig=SECRETSIG": 1}', "m1")
    [letter] = bench.store.letters
    assert f"x?sig={HIDDEN}" in str(letter.message) and "SECRETSIG" not in str(letter.message)


def test_half_a_secret_at_the_end_of_a_long_text_is_hidden_too() -> None:
    failure = classify(RuntimeError("y" * (LONGEST_MESSAGE - 12) + " password=SECRETSIG"))
    assert "SECR" not in failure.message and len(failure.message) <= LONGEST_MESSAGE + 20


@pytest.mark.parametrize(
    "text",
    [
        "Graph answered 404 ErrorItemNotFound to GET /users/{user}/messages/{id}: code: ErrorItemNotFound, 5 signals",
        "Recipient 'bad.person@customer.example' is not resolved",
        "https://localhost:7071/api/users/dispatch@fleet.example/messages took 3 s at 10:30",
        "payload.content: it is missing; payload.chatId: give a chat",
        "there is no token: the key of the chat, its secret and its code stay",
        "AADSTS7000215: Invalid client secret provided",
    ],
)
def test_what_an_operator_needs_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text
    assert facts_without_secrets({"a": [text, 5, None, True]}) == {"a": [text, 5, None, True]}
