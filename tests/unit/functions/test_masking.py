"""What an answer hides from whom: every field is decided on, and content stands in none that is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import pytest
from pydantic import BaseModel

from shared.access import Role
from shared.admin.dispatch import load_model
from shared.admin.masking import FIELDS, MASK, hide, keep_ids, masked, without_addresses
from shared.admin.models.jobs import Attempt
from shared.admin.models.schedules import Schedule
from shared.admin.routes import ROUTES

#: Objects without a form of their own that hold no content, each with the reason.
OPEN = {
    "AuditEntry.before": "the audit log holds no payload (test_audit)",
    "AuditEntry.after": "the audit log holds no payload (test_audit)",
    "Report.figures": "counts, ids of jobs, titles of alerts",
    "Openapi.root": "the document",
    "Bucket.failures": "counts by class",
    "Health.checks": "names",
}
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def answers(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """A model and those inside it."""
    if model in seen:
        return
    seen.add(model)
    yield model
    for field in model.model_fields.values():
        for inner in nested(field.annotation):
            yield from answers(inner, seen)


def nested(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from nested(argument)


def every_answer() -> list[type[BaseModel]]:
    seen: set[type[BaseModel]] = set()
    return [one for route in ROUTES if route.answer for one in answers(load_model(route.answer), seen)]


def test_every_object_without_a_form_is_decided_on() -> None:
    found = {
        f"{model.__name__}.{name}"
        for model in every_answer()
        for name, field in model.model_fields.items()
        if "dict[" in str(field.annotation)
    }
    assert found <= set(FIELDS) | set(OPEN), found - set(FIELDS) - set(OPEN)


def test_every_error_text_is_decided_on() -> None:
    names = ("error_message", "message", "problem", "diagnostic", "body", "pattern", "example_message")
    found = {f"{m.__name__}.{name}" for m in every_answer() for name in m.model_fields if name in names}
    assert found - {"SettingProblem.problem"} <= set(FIELDS)


def test_every_field_of_the_table_exists() -> None:
    assert set(FIELDS) <= {f"{model.__name__}.{name}" for model in every_answer() for name in model.model_fields}


def attempt(**changes: Any) -> Attempt:
    given: dict[str, Any] = {
        "number": 1, "started_at": NOW, "finished_at": NOW, "worker": "w", "outcome": "dead",
        "error_class": "network", "message": "ann@fleet.example is full", "details": {},
    }  # fmt: skip
    return Attempt.model_validate(given | changes)


def test_an_admin_sees_what_is_there() -> None:
    one = attempt(details={"text": "secret"})
    assert masked(one, Role.ADMIN) is one


@pytest.mark.parametrize("role", [None, Role.READER, Role.OPERATOR])
def test_ids_statuses_and_request_ids_stay_and_the_rest_keeps_its_form(role: Role | None) -> None:
    call = {"method": "POST", "path": "/users/{id}/messages", "status": 503, "request_id": str(uuid4())}
    details = {"graph_calls": [call | {"body": "secret"}], "code": "ErrorX", "lines": ["secret", {"to": "secret"}]}
    shown = masked(attempt(details=details), role)
    assert shown.details == {"graph_calls": [call | {"body": MASK}], "code": "ErrorX", "lines": [MASK, {"to": MASK}]}
    assert shown.message == f"{MASK} is full"


def test_a_sentence_under_a_key_of_ids_is_hidden() -> None:
    assert keep_ids({"outcome": "sent", "message_id": "I will be late", "pages": 3, "confirmed": True}) == {
        "outcome": "sent", "message_id": MASK, "pages": 3, "confirmed": True,
    }  # fmt: skip


@pytest.mark.parametrize(("role", "shown"), [(Role.READER, f"KeyError: {MASK}"), (Role.OPERATOR, "KeyError: 'secret'")])
def test_what_an_unknown_exception_says_takes_an_operator(role: Role, shown: str) -> None:
    assert masked(attempt(error_class="unknown", message="KeyError: 'secret'"), role).message == shown


def test_an_unknown_text_without_an_exceptions_name_is_hidden_whole() -> None:
    assert masked(attempt(error_class="unknown", message="a secret: x"), Role.READER).message == MASK


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Mailbox ann.b+c@fleet.example, gone", f"Mailbox {MASK}, gone"),
        ("<ann@fleet.example> 'ben@x.co.uk'", f"<{MASK}> '{MASK}'"),
        ("chat 19:4f@thread.v2 and 19:a_b@unq.gbl.spaces", "chat 19:4f@thread.v2 and 19:a_b@unq.gbl.spaces"),
        ("a @ b, 5 @home", "a @ b, 5 @home"),
    ],
)
def test_addresses_are_hidden_and_ids_of_chats_are_not(text: str, shown: str) -> None:
    assert without_addresses({"a": [text]}) == {"a": [shown]}


def test_hiding_keeps_keys_and_lengths() -> None:
    assert hide({"a": [1, {"b": "x"}], "c": None}) == {"a": [MASK, {"b": MASK}], "c": None}


def test_a_schedules_payload_is_left_out() -> None:
    given: dict[str, Any] = {
        "name": "daily", "queue": "sync", "cron": "0 6 * * *", "time_zone": "UTC", "priority": None,
        "catch_up": "once", "paused": False, "next_run_at": NOW, "last_run_at": None, "last_job_id": None,
        "problem": "payload: to: 'ann@fleet.example' is none", "payload": {"text": "secret"},
    }  # fmt: skip
    shown = masked(Schedule.model_validate(given), Role.OPERATOR)
    assert (shown.payload, shown.problem) == (None, f"payload: to: '{MASK}' is none")


def test_the_reference_names_every_field_that_is_hidden() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "http.md").read_text("utf-8")
    section = text.partition("## What is hidden\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(\w+\.\w+)`", section))
    assert told == {f"{model}.{camel(name)}" for model, name in (field.split(".") for field in FIELDS)}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
