"""Subscriptions at the fake Graph and in our records."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.graph.errors import GraphError
from shared.graph.subscriptions import Subscriptions, lifetime
from shared.postgres.pool import Database
from shared.postgres.subscriptions import PostgresSubscriptions
from tests.integration.graph.conftest import CHAT, DISPATCH, Wired

MAIL = f"users/{DISPATCH}/mailFolders('inbox')/messages"
CHATS = f"chats/{CHAT}/messages"


class Shaking(BaseHTTPRequestHandler):
    """Answers Graph's handshake."""

    def do_POST(self) -> None:
        token = parse_qs(urlsplit(self.path).query).get("validationToken", [""])[0].encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(token)))
        self.end_headers()
        self.wfile.write(token)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def webhook() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shaking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def subscriptions(wired: Wired, webhook: str, database: Database) -> Subscriptions:
    return make(wired, webhook, database)


def make(wired: Wired, webhook: str, database: Database, path: str = "/graph") -> Subscriptions:
    return Subscriptions(
        wired.subscriptions,
        PostgresSubscriptions(database),
        notification_url=webhook + path,
        lifecycle_url=webhook + "/lifecycle",
        client_state=lambda: "nonce.mac",
    )


@pytest.mark.parametrize("resource", [MAIL, CHATS])
def test_one_is_created_for_nearly_the_longest_and_recorded(
    wired: Wired, subscriptions: Subscriptions, database: Database, resource: str
) -> None:
    record = subscriptions.ensure(resource, "created")
    (made,) = wired.graph.subscriptions()
    assert made["id"] == record.id
    left = record.expires_at - datetime.now(UTC)
    assert lifetime(resource) - timedelta(minutes=7) < left < lifetime(resource)
    assert PostgresSubscriptions(database).live(resource, "created") == record


@pytest.mark.parametrize("expiry", ["2026-03-01T10:00:00.1234567Z", "2026-03-01T10:00:00.4Z", "2026-03-01T10:00:00Z"])
def test_an_expiry_is_read_with_any_number_of_digits(subscriptions: Subscriptions, wired: Wired, expiry: str) -> None:
    answer = {
        "id": "s1",
        "resource": MAIL,
        "changeType": "created",
        "notificationUrl": "https://app.example/api/webhooks/graph",
        "expirationDateTime": expiry,
    }
    wired.graph.add_fault("status", method="POST", path="/subscriptions$", status=201, body=json.dumps(answer))
    assert subscriptions.ensure(MAIL, "created").expires_at.replace(microsecond=0) == datetime(
        2026, 3, 1, 10, tzinfo=UTC
    )


def test_asking_again_creates_no_second_one(wired: Wired, subscriptions: Subscriptions) -> None:
    first = subscriptions.ensure(MAIL)
    assert subscriptions.ensure(MAIL).id == first.id
    assert len(wired.sent("POST", "/subscriptions")) == 1


def test_409_is_looked_up_and_recorded(
    wired: Wired, subscriptions: Subscriptions, webhook: str, database: Database
) -> None:
    first = subscriptions.ensure(CHATS)
    PostgresSubscriptions(database).remove(first.id)
    again = subscriptions.ensure(CHATS)
    assert again.id == first.id
    live = PostgresSubscriptions(database).live(CHATS, "created,updated")
    assert live is not None and live.id == first.id


def test_a_subscription_that_reports_elsewhere_is_replaced(
    wired: Wired, subscriptions: Subscriptions, webhook: str, database: Database
) -> None:
    old = subscriptions.ensure(CHATS)
    new = make(wired, webhook, database, "/moved").ensure(CHATS)
    assert new.id != old.id
    (left,) = wired.graph.subscriptions()
    assert left["notificationUrl"].endswith("/moved")


def test_renewal_moves_the_expiry_and_makes_anew_what_graph_forgot(wired: Wired, subscriptions: Subscriptions) -> None:
    record = subscriptions.ensure(MAIL)
    assert subscriptions.renew(record).id == record.id
    wired.subscriptions.delete(record.id)
    assert subscriptions.renew(record).id != record.id


def test_removing_ends_it_on_both_sides_and_twice_is_no_error(
    wired: Wired, subscriptions: Subscriptions, database: Database
) -> None:
    record = subscriptions.ensure(MAIL)
    subscriptions.remove(record)
    subscriptions.remove(record)
    assert wired.graph.subscriptions() == []
    assert PostgresSubscriptions(database).live(MAIL, "created,updated") is None


def test_reauthorize_keeps_the_expiry(wired: Wired, subscriptions: Subscriptions) -> None:
    record = subscriptions.ensure(MAIL)
    wired.subscriptions.reauthorize(record.id)
    (made,) = wired.graph.subscriptions()
    assert datetime.fromisoformat(made["expirationDateTime"]) == record.expires_at


def test_no_subscription_is_made_without_a_client_state(wired: Wired, webhook: str, database: Database) -> None:
    for state in ("", "x" * 129):
        service = Subscriptions(
            wired.subscriptions,
            PostgresSubscriptions(database),
            notification_url=webhook,
            lifecycle_url=webhook,
            client_state=lambda state=state: state,  # type: ignore[misc]
        )
        with pytest.raises(ValueError, match="clientState"):
            service.ensure(MAIL)
    assert wired.graph.subscriptions() == []


def test_other_refusals_come_through(wired: Wired, subscriptions: Subscriptions) -> None:
    wired.graph.add_fault("status", method="POST", path="/subscriptions$", status=403)
    with pytest.raises(GraphError) as caught:
        subscriptions.ensure(MAIL)
    assert caught.value.status == 403
