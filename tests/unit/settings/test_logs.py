"""Logs: one line of JSON a record, and no secret in it, whoever logs."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shared.logs import JsonFormatter, Redaction
from shared.redaction import HIDDEN, Secrets
from tests.unit.test_redaction import TEXTS, TOKEN


class Logger:
    """A logger with the product's filter and format, and what it wrote."""

    def __init__(self) -> None:
        self.secrets = Secrets()
        self.text = io.StringIO()
        handler = logging.StreamHandler(self.text)
        handler.addFilter(Redaction(self.secrets))
        handler.setFormatter(JsonFormatter())
        self.log = logging.Logger("test", logging.DEBUG)
        self.log.addHandler(handler)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.getvalue().splitlines()]


@pytest.fixture
def logger() -> Logger:
    return Logger()


def test_a_record_is_one_json_object_with_its_extras(logger: Logger) -> None:
    logger.log.warning("job.%s", "died", extra={"job_id": "7", "attempt": 2, "left": None})
    (line,) = logger.lines
    assert line.items() >= {"level": "WARNING", "event": "job.died", "job_id": "7", "attempt": 2, "left": None}.items()
    assert line["time"].endswith("+00:00")


def test_line_breaks_and_terminal_codes_cannot_forge_a_line(logger: Logger) -> None:
    evil = "x\r\n2026-01-01 ERROR forged\x1b[31m\u2028\x00"
    logger.log.info("subject %s", evil, extra={"subject": evil})
    written = logger.text.getvalue()
    assert written.count("\n") == 1
    assert written.isascii()
    assert not any(ord(character) < 32 for character in written.rstrip("\n"))
    assert logger.lines[0]["subject"] == evil


@pytest.mark.parametrize(("text", "secret"), TEXTS)
def test_secrets_are_hidden_in_text_extras_and_exceptions(logger: Logger, text: str, secret: str) -> None:
    logger.log.debug(text)
    logger.log.debug("%s", text)
    logger.log.debug("x", extra={"error": text, "details": {"inner": [text]}})
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logger.log.exception("failed")
    assert secret not in logger.text.getvalue()
    assert logger.text.getvalue().count(HIDDEN) >= 4
    assert "RuntimeError" in logger.lines[-1]["exception"]


def test_a_known_secret_is_hidden_wherever_it_stands(logger: Logger) -> None:
    logger.secrets.hide(["plain-secret-of-no-form", "abc"])
    logger.log.info("before plain-secret-of-no-formafter abc")
    assert logger.lines[0]["event"] == f"before {HIDDEN}after abc"


def test_ordinary_text_stays_as_it_is(logger: Logger) -> None:
    text = "error code 404: https://graph.microsoft.com/v1.0/chats/19:dispatch@thread.v2 at 10:30, 5 signals"
    logger.log.info(text)
    assert logger.lines[0]["event"] == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Recipient 'bad.person@customer.example' is not resolved",
            "Recipient 'b***@customer.example' is not resolved",
        ),
        ("/users/a@b.example/messages", "/users/a***@b.example/messages"),
        ("<zoe+x@sub.customer.example>, o'hara@x.example", "<z***@sub.customer.example>, o'h***@x.example"),
    ],
)
def test_of_an_address_only_the_first_letter_and_the_domain_are_shown(logger: Logger, text: str, shown: str) -> None:
    logger.log.info(text, extra={"error": text})
    assert (logger.lines[0]["event"], logger.lines[0]["error"]) == (shown, shown)


def test_a_megabyte_without_an_address_takes_no_time(logger: Logger) -> None:
    started = time.monotonic()
    logger.log.info("a." * 500_000)
    assert time.monotonic() - started < 5


def test_at_debug_level_the_libraries_of_the_queue_and_of_graph_show_no_secret(logger: Logger) -> None:
    """What they write themselves: addresses with their query, headers, and their own failures."""
    from shared.engine.errors import TransportUnavailableError
    from shared.graph.client import GraphClient
    from shared.graph.errors import GraphError
    from shared.graph.session import GraphSession
    from shared.storage.queues import StorageQueues

    key = base64.b64encode(b"SECRET-KEY-OF-THE-ACCOUNT").decode()
    root, azure = logging.getLogger(), logging.getLogger("azure")
    levels, handler = (root.level, azure.level), logger.log.handlers[0]
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    azure.setLevel(logging.DEBUG)
    try:
        with refusing() as url, GraphSession() as session:
            account = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={key};QueueEndpoint={url}/a"
            for address in (account, f"{url}/a?sv=2024-11-04&sig=SECRETsig%3D"):
                with pytest.raises(TransportUnavailableError):
                    StorageQueues(address).send("alerts", "{}")
            with pytest.raises(GraphError):
                GraphClient(session, OneToken(), f"{url}/v1.0").call("GET", "/users", query={"code": "SECRETcode"})
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        azure.setLevel(levels[1])
    written = logger.text.getvalue()
    assert {line["logger"].split(".")[0] for line in logger.lines} >= {"azure", "urllib3"}
    assert "SECRET" not in written and key not in written and TOKEN not in written


@contextmanager
def refusing() -> Iterator[str]:
    """The address of a server that answers everything with 403."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class OneToken:
    def token(self, *, refused: str | None = None, claims: str | None = None) -> str:
        return TOKEN


def test_a_failing_database_login_shows_no_password(logger: Logger) -> None:
    import psycopg

    url = "postgresql://queue:SECRETpass@127.0.0.1:1/fleet?connect_timeout=1"
    try:
        psycopg.connect(url)
    except psycopg.OperationalError:
        logger.log.exception("cannot connect to %s", url)
    assert "SECRETpass" not in logger.text.getvalue()
