"""One fake Graph per test process, reset for each test; clients with either kind of token; a webhook to post to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msal
import pytest
import requests

from local.fake_graph import schemas
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CLIENT, SECRET, TENANT
from local.process import wait_until

SCHEMAS = schemas.HOME / "graph-schemas"
SERVICE = "queue@fleet.example"
DISPATCH = "dispatch@fleet.example"
DRIVER = "alex.driver@fleet.example"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGraph]:
    schemas.make(SCHEMAS)
    with FakeGraph(tmp_path_factory.mktemp("graph"), SCHEMAS) as graph:
        yield graph


@pytest.fixture
def graph(server: FakeGraph) -> FakeGraph:
    server.reset()
    return server


@dataclass
class Client:
    """A plain client of Graph with one token; keeps nothing, judges nothing."""

    graph: FakeGraph
    session: requests.Session
    token: str
    prefer: str = 'IdType="ImmutableId"'

    def call(self, method: str, path: str, json: Any = None, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Prefer": self.prefer} | more.pop("headers", {})
        return self.session.request(method, self.graph.graph_url + path, json=json, headers=headers, timeout=20, **more)

    def get(self, path: str, **query: str) -> requests.Response:
        return self.call("GET", path, params={f"${name}": value for name, value in query.items()})

    def post(self, path: str, json: Any = None) -> requests.Response:
        return self.call("POST", path, json)


@pytest.fixture
def session(graph: FakeGraph) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(graph.ca_file)
        yield session


@pytest.fixture
def authority(graph: FakeGraph, session: requests.Session) -> dict[str, Any]:
    """Arguments for MSAL's applications."""
    return {
        "client_id": CLIENT,
        "authority": f"{graph.authority}/{TENANT}",
        "instance_discovery": False,
        "http_client": session,
        "http_cache": {},
    }


@pytest.fixture
def app(graph: FakeGraph, session: requests.Session, authority: dict[str, Any]) -> Client:
    """Graph with an app-only token."""
    msal_app = msal.ConfidentialClientApplication(client_credential=SECRET, **authority)
    answer = msal_app.acquire_token_for_client(["https://graph.microsoft.com/.default"])
    return Client(graph, session, answer["access_token"])


@pytest.fixture
def user(graph: FakeGraph, session: requests.Session) -> Client:
    """Graph as the service account."""
    return Client(graph, session, sign_in(graph, session, SERVICE)["access_token"])


def sign_in(graph: FakeGraph, session: requests.Session, name: str) -> dict[str, Any]:
    """A user's token by device code, without MSAL."""
    root = f"{graph.authority}/{TENANT}/oauth2/v2.0"
    form = {"client_id": CLIENT, "scope": "https://graph.microsoft.com/.default offline_access"}
    code = session.post(f"{root}/devicecode", data=form, timeout=10).json()
    graph.approve(code["user_code"], name)
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    form = {"client_id": CLIENT, "grant_type": grant, "device_code": code["device_code"]}
    answer: dict[str, Any] = session.post(f"{root}/token", data=form, timeout=10).json()
    return answer


@dataclass
class Webhook:
    """A webhook on loopback that records what is posted and answers as it is told."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list)
    handshakes: list[str] = field(default_factory=list)
    #: Called for each delivery; returns its status.
    answer: Callable[[dict[str, Any]], int] = lambda _: 202
    #: Called for each handshake with the decoded token; returns status, content type and body.
    shake: Callable[[str], tuple[int, str, str]] = lambda token: (200, "text/plain", token)

    def items(self) -> list[dict[str, Any]]:
        return [item for post in self.posts for item in post["value"]]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        assert wait_until(lambda: len(self.items()) >= count, 10), self.posts
        return self.items()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = parse_qs(urlsplit(self.path).query).get("validationToken")
            if token:
                hook.handshakes.append(self.path)
                status, content_type, text = hook.shake(token[0])
            else:
                body = json.loads(raw)
                hook.posts.append(body)
                status, content_type, text = hook.answer(body), "text/plain", ""
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/api/webhooks/graph"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield hook
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_violations(graph: FakeGraph) -> Iterator[None]:
    """The test's requests and the fake's answers keep to the contract."""
    yield
    assert graph.violations() == []


def error_code(response: requests.Response) -> str:
    """The code of an error in Graph's shape; asserts the shape."""
    error = response.json()["error"]
    assert set(error) == {"code", "message", "innerError"}
    assert {"date", "request-id", "client-request-id"} <= set(error["innerError"])
    assert response.headers["request-id"] == error["innerError"]["request-id"]
    return str(error["code"])


def project_file(name: str) -> Path:
    return Path(__file__).resolve().parent.parent.parent / name
