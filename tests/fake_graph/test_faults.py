"""Faults and limits on demand, and tokens that stop working."""

from __future__ import annotations

import base64
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msal
import pytest
import requests

from local.fake_graph.process import ControlError, FakeGraph
from local.fake_graph.state import CHAT, SECRET
from local.fake_graph.state import DISPATCH as DISPATCH_ID
from tests.fake_graph.conftest import DISPATCH, DRIVER, Client, error_code, sign_in

CHAT_PATH = f"/chats/{CHAT}/messages"
MESSAGES = f"/users/{DISPATCH}/messages"
HELLO = {"body": {"content": "Hallo 🚚"}}


@pytest.mark.usefixtures("no_violations")
def test_a_status_with_retry_after_comes_so_often(graph: FakeGraph, user: Client) -> None:
    graph.add_fault("status", status=429, headers={"Retry-After": "2"}, times=2, method="POST", path="^/v1.0/chats/")
    for _ in range(2):
        throttled = user.post(CHAT_PATH, HELLO)
        assert (throttled.status_code, error_code(throttled)) == (429, "TooManyRequests")
        assert throttled.headers["Retry-After"] == "2"
    assert user.post(CHAT_PATH, HELLO).status_code == 201
    assert len(graph.chat_messages(CHAT)) == 1


def test_a_fault_meets_only_what_it_names(graph: FakeGraph, user: Client, app: Client) -> None:
    date = "Wed, 25 Nov 2026 10:00:00 GMT"
    graph.add_fault("status", status=503, request_body="🚚", headers={"Retry-After": date})
    assert app.get(MESSAGES).status_code == 200
    escaped = json.dumps(HELLO, ensure_ascii=True).encode()
    answer = user.call("POST", CHAT_PATH, data=escaped, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, date)


@pytest.mark.parametrize(
    ("kind", "status", "content_type"), [("html", 502, "text/html"), ("bad-json", 200, "application/json")]
)
def test_bodies_that_are_no_json(graph: FakeGraph, app: Client, kind: str, status: int, content_type: str) -> None:
    graph.add_fault(kind, status=status)
    answer = app.get(MESSAGES)
    assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (status, content_type)
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_an_empty_answer(graph: FakeGraph, app: Client) -> None:
    graph.add_fault("empty", status=200)
    answer = app.get(MESSAGES)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_lost_answer_has_had_its_effect_and_a_reset_has_not(graph: FakeGraph, user: Client) -> None:
    graph.add_fault("lose-answer", method="POST")
    with pytest.raises(requests.ConnectionError):
        user.post(CHAT_PATH, HELLO)
    assert len(graph.chat_messages(CHAT)) == 1
    graph.add_fault("reset", method="POST")
    with pytest.raises(requests.ConnectionError):
        user.post(CHAT_PATH, HELLO)
    assert len(graph.chat_messages(CHAT)) == 1
    lost, cut = graph.requests()[-2:]
    assert (lost["outcome"], lost["status"], cut["outcome"], cut["status"]) == ("lost", 201, "cut", None)


@pytest.mark.usefixtures("no_violations")
def test_a_status_may_come_although_the_request_was_carried_out(graph: FakeGraph, user: Client) -> None:
    graph.add_fault("status-after", status=504, method="POST", times=2)
    answers = [user.post(CHAT_PATH, HELLO) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [504, 504]
    assert len(graph.chat_messages(CHAT)) == 2


def test_a_slow_answer_has_had_its_effect_at_once(graph: FakeGraph, user: Client) -> None:
    graph.add_fault("delay", seconds=0.5)
    with pytest.raises(requests.ReadTimeout):
        user.session.post(
            graph.graph_url + CHAT_PATH, json=HELLO, headers={"Authorization": f"Bearer {user.token}"}, timeout=0.2
        )
    assert len(graph.chat_messages(CHAT)) == 1


def test_faults_can_be_cleared_and_must_make_sense(graph: FakeGraph, app: Client) -> None:
    graph.add_fault("status", status=500, times=100)
    graph.clear_faults()
    assert app.get(MESSAGES).status_code == 200
    for wanted in ({"fault": {"kind": "fire"}}, {"fault": {"kind": "html"}, "when": "now"}, {}):
        with pytest.raises(ControlError):
            graph.control("POST", "faults", wanted)
    with pytest.raises(ControlError):
        graph.add_fault("status", path="(")


def test_the_token_endpoint_fails_too(graph: FakeGraph, authority: dict[str, Any]) -> None:
    app = msal.ConfidentialClientApplication(client_credential=SECRET, **authority)
    graph.add_fault("status", status=503, path="/oauth2/v2.0/token")
    with pytest.raises(msal.exceptions.MsalServiceError):
        app.acquire_token_for_client(["https://graph.microsoft.com/.default"])


@pytest.mark.usefixtures("no_violations")
def test_expired_tokens_are_refused_and_new_ones_work(
    graph: FakeGraph, session: requests.Session, user: Client
) -> None:
    graph.control("POST", "expire-tokens")
    expired = user.post(CHAT_PATH, HELLO)
    assert (expired.status_code, error_code(expired)) == (401, "InvalidAuthenticationToken")
    user.token = sign_in(graph, session, "queue@fleet.example")["access_token"]
    assert user.post(CHAT_PATH, HELLO).status_code == 201


@pytest.mark.usefixtures("no_violations")
def test_a_claims_challenge_is_met_by_a_token_asked_for_with_the_claims(
    graph: FakeGraph, session: requests.Session, authority: dict[str, Any]
) -> None:
    msal_app = msal.ConfidentialClientApplication(client_credential=SECRET, **authority)
    scopes = ["https://graph.microsoft.com/.default"]
    app = Client(graph, session, msal_app.acquire_token_for_client(scopes)["access_token"])
    graph.add_fault("claims-challenge")
    for _ in range(2):
        challenged = app.get(MESSAGES)
        assert challenged.status_code == 401
        assert 'error="insufficient_claims"' in challenged.headers["WWW-Authenticate"]
    match = re.search(r'claims="([^"]+)"', challenged.headers["WWW-Authenticate"])
    assert match is not None
    claims = base64.b64decode(match[1]).decode()
    app.token = msal_app.acquire_token_for_client(scopes, claims_challenge=claims)["access_token"]
    assert app.get(MESSAGES).status_code == 200


@pytest.mark.usefixtures("no_violations")
def test_limits_of_a_chat_and_of_sent_mails(graph: FakeGraph, user: Client, app: Client) -> None:
    assert [user.post(CHAT_PATH, HELLO).status_code for _ in range(3)] == [201] * 3
    graph.control("POST", "limits", {"on": True})
    assert user.post(CHAT_PATH, HELLO).status_code == 201
    throttled = user.post(CHAT_PATH, HELLO)
    assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "1")
    message = {"message": {"toRecipients": [{"emailAddress": {"address": DRIVER}}]}}
    names = [DISPATCH, DISPATCH_ID] * 16
    statuses = [app.post(f"/users/{name}/sendMail", message).status_code for name in names[:31]]
    assert statuses == [202] * 30 + [429]


@pytest.mark.usefixtures("no_violations")
def test_four_requests_at_once_for_a_mailbox(graph: FakeGraph, app: Client) -> None:
    graph.control("POST", "limits", {"on": True, "mailboxSeconds": 0.5})
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: requests_get(app), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 2
    throttled = next(answer for answer in answers if answer.status_code == 429)
    assert error_code(throttled) == "ApplicationThrottled"
    assert "MailboxConcurrency" in throttled.json()["error"]["message"]


def requests_get(app: Client) -> requests.Response:
    """Each on a connection of its own."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(app.graph.ca_file)
        return Client(app.graph, session, app.token).get(MESSAGES)


def test_requests_are_recorded_with_answer_and_kind_of_token(graph: FakeGraph, user: Client) -> None:
    before = time.monotonic()
    user.call("POST", CHAT_PATH, HELLO, headers={"x-own": "1"}, params={"a": "b"})
    entry = graph.requests()[-1]
    assert (entry["method"], entry["path"], entry["query"]) == ("POST", f"/v1.0{CHAT_PATH}", {"a": "b"})
    assert (entry["headers"]["authorization"], entry["headers"]["x-own"]) == ("user", "1")
    assert (entry["body"], entry["status"], entry["answer"]["chatId"]) == (HELLO, 201, CHAT)
    assert before <= entry["at"] <= time.monotonic()
