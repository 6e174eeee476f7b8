"""The operations table and the schemas: what is refused, how, and that it is remembered."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from local.fake_graph.app import HANDLERS
from local.fake_graph.checks import Checks
from local.fake_graph.operations import OPERATIONS, route
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CHAT
from tests.fake_graph.conftest import DISPATCH, DRIVER, SCHEMAS, Client, error_code

MESSAGES = f"/users/{DISPATCH}/messages"
TO = [{"emailAddress": {"address": DRIVER}}]


def test_every_operation_has_a_handler() -> None:
    for operation in OPERATIONS:
        assert any(hasattr(module, operation.name) for module in HANDLERS), operation.name


def test_paths_are_matched_without_case_and_decoded() -> None:
    found = route("GET", "/Users/a%40b.c/mailfolders('sentitems')/Messages")
    assert isinstance(found, tuple)
    assert found[1] == {"user": "a@b.c", "folder": "sentitems"}
    found = route("GET", "/users/u/messages/AA%2FBB%3D/attachments/1/$value")
    assert isinstance(found, tuple)
    assert found[1]["message"] == "AA/BB="


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/planets", 404, "BadRequest"),
        ("GET", f"{MESSAGES}/x/y/z", 404, "BadRequest"),
        ("PUT", MESSAGES, 405, "Request_BadRequest"),
        ("GET", f"{MESSAGES}?$foo=1", 400, "BadRequest"),
        ("GET", f"{MESSAGES}?$search=x", 400, "BadRequest"),
        ("GET", f"{MESSAGES}?$top=0", 400, "BadRequest"),
        ("GET", f"{MESSAGES}?$filter=body lt", 400, "ErrorInvalidUrlQueryFilter"),
        ("GET", f"{MESSAGES}?$filter=isDraft eq true or isRead eq true", 400, "ErrorInvalidUrlQueryFilter"),
        ("GET", f"{MESSAGES}?$orderby=colour", 400, "BadRequest"),
        ("GET", f"{MESSAGES}?$skiptoken=x", 400, "BadRequest"),
        ("POST", MESSAGES, 415, "RequestBodyRead"),
    ],
)
def test_a_violation_is_answered_and_remembered(
    graph: FakeGraph, app: Client, method: str, path: str, status: int, code: str
) -> None:
    answer = app.call(method, path, headers={"client-request-id": "ours"})
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert answer.headers["client-request-id"] == "ours"
    (violation,) = graph.violations()
    assert (violation["side"], violation["method"]) == ("request", method)


@pytest.mark.parametrize(
    "body",
    [
        {"subject": "x", "colour": "red"},
        {"toRecipients": "alex@fleet.example"},
        {"toRecipients": [{"address": "alex@fleet.example"}]},
        {"body": {"contentType": "markdown", "content": "x"}},
        {"importance": "critical"},
        {"isRead": "true"},
        {"attachments": [{"name": "a", "contentBytes": "YQ=="}]},
        {"attachments": [{"@odata.type": "#microsoft.graph.message", "name": "a"}]},
    ],
)
def test_a_draft_is_checked_against_microsofts_type(graph: FakeGraph, app: Client, body: dict[str, Any]) -> None:
    assert error_code(app.post(MESSAGES, body)) == "BadRequest"
    assert len(graph.violations()) == 1
    assert graph.mailbox(DISPATCH) == []


def test_parameters_of_actions_may_be_written_in_any_case(app: Client) -> None:
    body = {"Message": {"toRecipients": TO}, "SaveToSentItems": False}
    assert app.post(f"/users/{DISPATCH}/sendMail", body).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": {"subject": "x"}},
        {"message": {"toRecipients": TO}, "saveToSentItems": "false"},
        {"Message": {"toRecipients": "alex.driver@fleet.example"}},
        {"message": {"toRecipients": TO}, "sendLater": True},
    ],
)
def test_send_mail_is_checked(app: Client, body: dict[str, Any]) -> None:
    assert app.post(f"/users/{DISPATCH}/sendMail", body).status_code == 400


@pytest.mark.parametrize(
    "body", [{}, {"body": "text"}, {"body": {"content": "x"}, "importance": "critical"}, {"body": {"html": "x"}}, []]
)
def test_a_chat_message_is_checked(graph: FakeGraph, user: Client, body: Any) -> None:
    assert user.post(f"/chats/{CHAT}/messages", body).status_code == 400
    assert len(graph.violations()) == 1


def test_broken_json_and_unasked_bodies(graph: FakeGraph, app: Client) -> None:
    json_type = {"Content-Type": "application/json"}
    assert app.call("POST", MESSAGES, data=b'{"subject": ', headers=json_type).status_code == 400
    draft = app.post(MESSAGES, {"toRecipients": TO}).json()["id"]
    assert app.post(f"{MESSAGES}/{draft}/send", {"comment": "x"}).status_code == 400
    assert len(graph.violations()) == 2


@pytest.mark.parametrize("header", [None, "Basic x", "Bearer", "Bearer x.y.z"])
def test_requests_need_a_token_of_the_authority(
    graph: FakeGraph, session: requests.Session, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = session.get(graph.graph_url + MESSAGES, headers=headers, timeout=10)
    assert (answer.status_code, error_code(answer)) == (401, "InvalidAuthenticationToken")
    assert len(graph.violations()) == 1


def test_a_token_without_the_permission_is_refused(graph: FakeGraph, user: Client) -> None:
    answer = user.get(MESSAGES)
    assert (answer.status_code, error_code(answer)) == (403, "ErrorAccessDenied")
    assert len(graph.violations()) == 1


def test_the_fakes_own_answers_are_checked() -> None:
    checks = Checks(SCHEMAS)
    assert checks.answer_fault("[ChatMessage]", {"value": [{"id": "1"}]}) is None
    assert checks.answer_fault("[ChatMessage]", {"value": [{"id": 1}]}) is not None
    assert checks.answer_fault("[ChatMessage]", {"value": [], "total": 0}) is not None
    assert "colour" in str(checks.answer_fault("Message", {"colour": "red"}))


def test_enumerations_ignore_case(app: Client) -> None:
    body = {"body": {"contentType": "HTML", "content": "<p>x</p>"}, "importance": "High", "toRecipients": TO}
    created = app.post(MESSAGES, body)
    assert (created.status_code, created.json()["importance"]) == (201, "high")
