"""The managed identity asks the platform's endpoint, and its failure counts as storage that is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core.exceptions import AzureError

from shared import bootstrap
from shared.settings_errors import SettingsError
from shared.storage.identity import DATABASE_RESOURCE, RESOURCE, ManagedIdentity


class Endpoint(HTTPServer):
    """What App Service offers as IDENTITY_ENDPOINT."""

    asked: list[dict[str, list[str]]]
    status = 200


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self.server.asked.append(parse_qs(urlsplit(self.path).query))
        good = self.headers["X-IDENTITY-HEADER"] == "header" and self.server.status == 200
        body = {"access_token": "token", "expires_on": "4102444800", "token_type": "Bearer", "resource": RESOURCE}
        raw = json.dumps(body if good else {"statusCode": 400, "message": "no identity"}).encode()
        self.send_response(200 if good else 400)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    server = Endpoint(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("client_id", [None, "33333333-3333-4333-8333-333333333333"])
def test_a_token_for_storage_is_fetched_once(endpoint: Endpoint, client_id: str | None) -> None:
    identity = ManagedIdentity(client_id)
    first, second = identity.get_token(f"{RESOURCE}/.default"), identity.get_token(f"{RESOURCE}/.default")
    assert (first.token, second.token) == ("token", "token")
    (asked,) = endpoint.asked
    assert asked["resource"] == [RESOURCE]
    assert asked.get("client_id") == ([client_id] if client_id else None)


def test_no_identity_is_an_azure_error(endpoint: Endpoint) -> None:
    endpoint.status = 400
    with pytest.raises(AzureError, match="no identity"):
        ManagedIdentity().get_token(f"{RESOURCE}/.default")


@pytest.mark.parametrize(("identity", "client_id"), [("system", None), ("3333", ["3333"])])
def test_the_database_signs_in_with_a_token_of_its_own_where_it_is_asked_to(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, identity: str, client_id: list[str] | None
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://fleet-queue@127.0.0.1:1/fleet")
    monkeypatch.setenv("DATABASE_IDENTITY", identity)
    bootstrap.stop()
    try:
        password = bootstrap.database()._password
        assert password is not None and endpoint.asked == [], "asked at the first connection"
        assert [password(), password()] == ["token"] * 2
    finally:
        bootstrap.stop()
    (asked,) = endpoint.asked
    assert (asked["resource"], asked.get("client_id")) == ([DATABASE_RESOURCE], client_id)


def test_two_passwords_for_the_database_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://fleet-queue:hidden@127.0.0.1:1/fleet")
    monkeypatch.setenv("DATABASE_IDENTITY", "system")
    bootstrap.stop()
    with pytest.raises(SettingsError, match="DATABASE_IDENTITY: leave the password out") as raised:
        bootstrap.database()
    assert "hidden" not in str(raised.value)
