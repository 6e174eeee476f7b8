"""Microsoft's own Python client drives the fake Graph, so that the fake cannot drift towards our client."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from local.fake_graph import schemas
from local.fake_graph.app import IMPORT_ONLY
from local.fake_graph.process import FakeGraph
from local.fake_graph.state import CHAT, CLIENT, DRIVER, SECRET, TENANT
from tests.environment import own_environment

FOLDER = Path(__file__).parent
HOME = Path(__file__).parents[2] / ".local"
USER = "dispatch@fleet.example"
SCHEMAS = HOME / "graph-schemas"


@pytest.fixture(scope="session")
def sdk_python() -> Path:
    """The interpreter of an environment with msgraph-sdk; made once, about half a minute."""
    return own_environment("msgraph-sdk", FOLDER / "requirements.txt")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGraph]:
    schemas.make(SCHEMAS)
    with FakeGraph(tmp_path_factory.mktemp("graph"), SCHEMAS) as graph:
        yield graph


@pytest.fixture(autouse=True)
def clean(graph: FakeGraph) -> Iterator[None]:
    """Each test begins anew, and Microsoft's client breaks no rule of the fake but where it means to."""
    graph.reset()
    yield
    assert [one for one in graph.violations() if IMPORT_ONLY not in one["message"]] == []


def run(python: Path, graph: FakeGraph, operation: str, text: str = "") -> Any:
    arguments = [graph.base_url, str(graph.ca_file), TENANT, CLIENT, SECRET]
    done = subprocess.run(
        [str(python), str(FOLDER / "program.py"), operation, *arguments],
        input=text, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_mail_is_drafted_attached_to_and_sent(sdk_python: Path, graph: FakeGraph) -> None:
    result = run(sdk_python, graph, "mail")
    assert result == {"subject": "By Microsoft's client", "isDraft": True, "attached": "trip.txt", "size": 6}
    [sent] = graph.mailbox("dispatch@fleet.example", "sentitems")
    assert [one["name"] for one in sent["attachments"]] == ["trip.txt"]
    assert [one["subject"] for one in graph.mailbox("alex.driver@fleet.example", "inbox")] == [sent["subject"]]


def test_an_error_is_read_as_graphs_own(sdk_python: Path, graph: FakeGraph) -> None:
    assert run(sdk_python, graph, "missing") == {"status": 404, "code": "ErrorItemNotFound"}


def test_a_chat_is_read_and_posting_as_an_application_is_refused(sdk_python: Path, graph: FakeGraph) -> None:
    message = {"chat": CHAT, "from": DRIVER, "body": {"contentType": "text", "content": "Gate 7 👍"}}
    graph.control("POST", "chat-messages", message)
    assert run(sdk_python, graph, "chat") == {"texts": ["Gate 7 👍"], "refused": 401}


class Webhook(BaseHTTPRequestHandler):
    """Answers the handshake."""

    def do_POST(self) -> None:
        token = parse_qs(urlsplit(self.path).query)["validationToken"][0].encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(token)))
        self.end_headers()
        self.wfile.write(token)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def test_a_subscription_is_made_renewed_listed_and_removed(sdk_python: Path, graph: FakeGraph) -> None:
    with HTTPServer(("127.0.0.1", 0), Webhook) as webhook:
        thread = threading.Thread(target=webhook.serve_forever)
        thread.start()
        try:
            result = run(sdk_python, graph, "subscriptions", f"http://127.0.0.1:{webhook.server_port}/api\n")
        finally:
            webhook.shutdown()
            thread.join()
    assert result == {"longer": True, "listed": [True], "left": 0}


def test_a_large_file_is_uploaded_by_microsofts_own_task(sdk_python: Path, graph: FakeGraph) -> None:
    assert run(sdk_python, graph, "upload") == {"files": [["trip.bin", 4_000_000]], "reply": "RE: Large"}


def test_deltas_are_read_page_by_page(sdk_python: Path, graph: FakeGraph) -> None:
    for number in range(5):
        mime = f"Subject: {number}\r\nFrom: a@b.example\r\nMessage-ID: <{number}@b.example>\r\n\r\nx".encode()
        graph.arrive_mail(USER, mime)
    graph.control("POST", "contacts", {"user": USER, "contact": {"displayName": "Zoë"}})
    graph.control("POST", "drive-items", {"owner": USER, "item": {"name": "trip.pdf", "size": 7}})
    result = run(sdk_python, graph, "deltas")
    assert sorted(result["mails"]) == ["0", "1", "2", "3", "4"] and result["pages"] == 3 and result["since"] == 0
    assert result["contacts"] == ["Zoë"] and "trip.pdf" in result["items"]


def test_a_calendar_is_read(sdk_python: Path, graph: FakeGraph) -> None:
    at = {"start": {"dateTime": "2026-11-25T08:00:00", "timeZone": "UTC"}}
    event = {"subject": "Handover", "end": {"dateTime": "2026-11-25T09:00:00", "timeZone": "UTC"}} | at
    graph.control("POST", "events", {"user": USER, "event": event})
    assert [subject for subject, _ in run(sdk_python, graph, "calendar")] == ["Handover"]


def test_a_repeat_of_an_activity_takes_the_place_of_the_first(sdk_python: Path, graph: FakeGraph) -> None:
    run(sdk_python, graph, "activity")
    [shown] = graph.activity(USER)
    assert shown["times"] == 2 and shown["topic"]["value"] == "Gate 7"


def test_a_user_posts_to_a_chat_a_channel_and_a_thread(sdk_python: Path, graph: FakeGraph) -> None:
    result = run(sdk_python, graph, "post")
    assert result == {"content": "<b>Gate 7</b>", "from": "Fleet Queue", "reply": True}
    assert [message["body"]["content"] for message in graph.chat_messages(CHAT)] == ["<b>Gate 7</b>"]
