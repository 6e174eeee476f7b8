"""MSAL itself against the fake authority, and the authority's errors."""

from __future__ import annotations

import json
from typing import Any

import msal
import pytest
import requests

from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CLIENT, SECRET, TENANT
from tests.fake_graph.conftest import DISPATCH, SERVICE, sign_in

DEFAULT = ["https://graph.microsoft.com/.default"]
SCOPES = ["https://graph.microsoft.com/ChatMessage.Send", "https://graph.microsoft.com/Chat.Read"]


def token(graph: FakeGraph, session: requests.Session, **form: str) -> requests.Response:
    url = f"{graph.authority}/{TENANT}/oauth2/v2.0/token"
    return session.post(url, data={"client_id": CLIENT, **form}, timeout=10)


def test_msal_gets_an_app_token_and_keeps_it(graph: FakeGraph, authority: dict[str, Any]) -> None:
    app = msal.ConfidentialClientApplication(client_credential=SECRET, **authority)
    first = app.acquire_token_for_client(DEFAULT)
    second = app.acquire_token_for_client(DEFAULT)
    assert first["token_source"] == "identity_provider"
    assert second["token_source"] == "cache"
    assert first["access_token"] == second["access_token"]


def test_msal_sends_claims_past_its_cache(graph: FakeGraph, authority: dict[str, Any]) -> None:
    app = msal.ConfidentialClientApplication(client_credential=SECRET, **authority)
    app.acquire_token_for_client(DEFAULT)
    claims = json.dumps({"access_token": {"nbf": {"essential": True, "value": "1700000000"}}})
    renewed = app.acquire_token_for_client(DEFAULT, claims_challenge=claims)
    assert renewed["token_source"] == "identity_provider"
    assert json.loads(graph.requests()[-1]["body"]["claims"]) == json.loads(claims)


def test_msal_signs_a_user_in_by_device_code_and_refreshes(graph: FakeGraph, authority: dict[str, Any]) -> None:
    cache = msal.SerializableTokenCache()
    public = msal.PublicClientApplication(token_cache=cache, **authority)
    flow = public.initiate_device_flow(SCOPES)
    assert flow["user_code"] in flow["message"]
    graph.approve(flow["user_code"], SERVICE)
    answer = public.acquire_token_by_device_flow(flow)
    assert answer["id_token_claims"]["preferred_username"] == SERVICE
    (account,) = public.get_accounts()
    assert account["username"] == SERVICE
    assert public.acquire_token_silent(SCOPES, account)["token_source"] == "cache"
    refreshed = public.acquire_token_silent(SCOPES, account, force_refresh=True)
    assert refreshed["token_source"] == "identity_provider"
    assert refreshed["access_token"] != answer["access_token"]
    # A confidential client takes over what is cached, and cannot refresh it: what a public client got stays public.
    app = msal.ConfidentialClientApplication(client_credential=SECRET, token_cache=cache, **authority)
    refused = app.acquire_token_silent_with_error(SCOPES, account, force_refresh=True)
    assert refused["error_codes"] == [700025]


def test_a_device_code_is_pending_until_it_is_approved(graph: FakeGraph, session: requests.Session) -> None:
    root = f"{graph.authority}/{TENANT}/oauth2/v2.0"
    form = {"client_id": CLIENT, "scope": SCOPES[0]}
    code = session.post(f"{root}/devicecode", data=form, timeout=10).json()
    ask = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": code["device_code"]}
    pending = token(graph, session, **ask)
    assert (pending.status_code, pending.json()["error"]) == (400, "authorization_pending")
    graph.approve(code["user_code"], DISPATCH)
    answer = token(graph, session, **ask).json()
    assert answer["scope"] == SCOPES[0]
    assert token(graph, session, **ask).json()["error"] == "bad_verification_code"


@pytest.mark.parametrize(
    ("form", "status", "error", "number"),
    [
        ({"client_secret": "wrong", "scope": DEFAULT[0]}, 401, "invalid_client", 7000215),
        ({"scope": DEFAULT[0]}, 401, "invalid_client", 7000216),
        ({"client_secret": SECRET, "scope": "Mail.Send"}, 400, "invalid_scope", 1002012),
        ({"client_secret": SECRET, "client_id": "x", "scope": DEFAULT[0]}, 400, "unauthorized_client", 700016),
        ({"client_secret": SECRET, "scope": DEFAULT[0], "claims": "{"}, 400, "invalid_request", 50146),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant", 9002313),
    ],
)
def test_errors_have_the_form_of_AADSTS(
    graph: FakeGraph, session: requests.Session, form: dict[str, str], status: int, error: str, number: int
) -> None:
    answer = token(graph, session, **{"grant_type": "client_credentials", **form})
    body = answer.json()
    assert (answer.status_code, body["error"], body["error_codes"]) == (status, error, [number])
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert {"timestamp", "trace_id", "correlation_id"} <= set(body)


def test_a_scope_that_nobody_consented_to_is_refused(graph: FakeGraph, session: requests.Session) -> None:
    url = f"{graph.authority}/{TENANT}/oauth2/v2.0/devicecode"
    answer = session.post(url, data={"client_id": CLIENT, "scope": "Files.ReadWrite.All"}, timeout=10).json()
    assert answer["error_codes"] == [65001]


def test_revoked_sessions_end_refresh_tokens(graph: FakeGraph, session: requests.Session) -> None:
    signed_in = sign_in(graph, session, SERVICE)
    ask = {"grant_type": "refresh_token", "refresh_token": signed_in["refresh_token"]}
    assert token(graph, session, **ask).status_code == 200
    graph.control("POST", "revoke-sessions")
    refused = token(graph, session, **ask).json()
    assert (refused["error"], refused["error_codes"]) == ("invalid_grant", [50173])


def test_another_tenant_is_unknown(graph: FakeGraph, session: requests.Session) -> None:
    url = f"{graph.authority}/common/v2.0/.well-known/openid-configuration"
    answer = session.get(url, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_tenant")


def test_the_journal_holds_no_secret(graph: FakeGraph, session: requests.Session) -> None:
    signed_in = sign_in(graph, session, SERVICE)
    token(graph, session, grant_type="client_credentials", client_secret=SECRET, scope=DEFAULT[0])
    seen = json.dumps(graph.requests())
    assert "client_credentials" in seen
    for secret in (SECRET, signed_in["access_token"], signed_in["refresh_token"]):
        assert secret not in seen
