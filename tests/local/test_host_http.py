"""HTTP triggers of the development host: routes, methods, keys and bodies as Azure's host has them."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local.host import Host
from local.host_http import MAX_BODY
from tests.local import probe

StartHost = Callable[..., Host]

APP = """
import json

def describe(req, name):
    return func.HttpResponse(json.dumps({
        "name": name, "method": req.method, "route": dict(req.route_params), "params": dict(req.params),
        "url": req.url, "custom": req.headers.get("X-Custom"),
    }), mimetype="application/json")

@app.route("items/{item}", methods=["GET", "DELETE"], auth_level="anonymous")
def plain(req: func.HttpRequest): return describe(req, "plain")

@app.route("items/{number:int}", methods=["GET"], auth_level="anonymous")
def number(req: func.HttpRequest): return describe(req, "number")

@app.route("items/special", methods=["GET"], auth_level="anonymous")
def literal(req: func.HttpRequest): return describe(req, "literal")

@app.route("files/{*path}", methods=["GET"], auth_level="anonymous")
def rest(req: func.HttpRequest): return describe(req, "rest")

@app.route(auth_level="anonymous")
def unrouted(req: func.HttpRequest): return describe(req, "unrouted")

@app.route("echo", methods=["POST"], auth_level="anonymous")
def echo(req: func.HttpRequest):
    return func.HttpResponse(req.get_body(), status_code=201, mimetype="application/octet-stream")

@app.route("fail", auth_level="anonymous")
def fail(req: func.HttpRequest): raise RuntimeError("a secret detail")

@app.route("text", auth_level="anonymous")
def text(req: func.HttpRequest): return "plain text äöü"

@app.route("nothing", auth_level="anonymous")
def nothing(req: func.HttpRequest): return None

@app.route("wrong", auth_level="anonymous")
def wrong(req: func.HttpRequest): return 5

@app.route("cookies", auth_level="anonymous")
def cookies(req: func.HttpRequest):
    response = func.HttpResponse("x")
    response.headers.add("Set-Cookie", "a=1")
    response.headers.add("Set-Cookie", "b=2")
    return response

@app.route("coroutine", auth_level="anonymous")
async def coroutine(req: func.HttpRequest, context: func.Context): return context.function_name

@app.route("keyed", auth_level="function")
def keyed(req: func.HttpRequest): return "in"

@app.route("administered", auth_level="admin")
def administered(req: func.HttpRequest): return "in"
"""


class Client:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **options: Any
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        self._connection.request(method, path, body, headers or {}, **options)
        response = self._connection.getresponse()
        return response.status, response.headers, response.read()

    def json(self, method: str, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        status, _, body = self(method, path, headers=headers)
        assert status == 200
        result: dict[str, Any] = json.loads(body)
        return result

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(start_host: StartHost) -> Iterator[Client]:
    client = Client(start_host(APP).port)
    yield client
    client.close()


def test_a_literal_wins_over_a_constraint_and_this_over_a_placeholder(client: Client) -> None:
    names = {path: client.json("GET", f"/api/items/{path}")["name"] for path in ("special", "17", "abc")}
    assert names == {"special": "literal", "17": "number", "abc": "plain"}


def test_route_parameters_are_decoded_strings(client: Client) -> None:
    assert client.json("GET", "/api/items/a%20b%C3%A4")["route"] == {"item": "a bä"}
    assert client.json("GET", "/api/items/17")["route"] == {"number": "17"}
    assert client.json("GET", "/api/files/a/b.txt")["route"] == {"path": "a/b.txt"}


def test_a_function_without_a_route_has_its_name(client: Client) -> None:
    for method in ("GET", "PUT", "PATCH"):
        assert client.json(method, "/api/unrouted")["method"] == method


@pytest.mark.parametrize("target", ["POST /api/items/abc", "HEAD /api/items/abc", "GET /api/echo", "GET /api/none"])
def test_another_method_or_path_is_404(client: Client, target: str) -> None:
    method, path = target.split()
    status, _, body = client(method, path)
    assert (status, body) == (404, b"")


def test_the_prefix_of_host_json(start_host: StartHost) -> None:
    client = Client(start_host(APP, route_prefix="").port)
    assert client("GET", "/text")[0] == 200
    assert client("GET", "/api/text")[0] == 404
    client.close()


def test_query_and_headers(client: Client) -> None:
    seen = client.json("GET", "/api/unrouted?a=1&a=2&empty=&t=x%2By%20z", {"X-Custom": "yes"})
    assert seen["params"] == {"a": "1,2", "t": "x+y z"}
    assert seen["custom"] == "yes"
    assert seen["url"].endswith("/api/unrouted?a=1&a=2&empty=&t=x%2By%20z")


def test_binary_bodies_come_and_go_unchanged(client: Client) -> None:
    body = bytes(range(256)) * 4_000
    status, headers, answer = client("POST", "/api/echo", body)
    assert (status, answer, headers["content-type"]) == (201, body, "application/octet-stream")


def test_chunked_bodies(client: Client) -> None:
    status, _, answer = client("POST", "/api/echo", iter([b"one ", b"\x00\xff", b" two"]), encode_chunked=True)
    assert (status, answer) == (201, b"one \x00\xff two")


def test_a_body_above_100_mb_is_413(client: Client) -> None:
    connection = client._connection
    connection.putrequest("POST", "/api/echo")
    connection.putheader("Content-Length", str(MAX_BODY + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_a_chunked_body_above_the_limit_is_413(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.host_http.MAX_BODY", 1_000)
    assert client("POST", "/api/echo", iter([b"x" * 600, b"x" * 600]), encode_chunked=True)[0] == 413


@pytest.mark.parametrize("path", ["fail", "wrong"])
def test_an_exception_is_500_without_details_and_the_next_request_works(client: Client, path: str) -> None:
    status, _, body = client("GET", f"/api/{path}")
    assert status == 500
    assert b"secret" not in body and b"Traceback" not in body
    assert client("GET", "/api/text")[0] == 200


def test_what_a_function_returns(client: Client) -> None:
    status, headers, body = client("GET", "/api/text")
    assert (status, body.decode()) == (200, "plain text äöü")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert client("GET", "/api/nothing")[::2] == (204, b"")
    assert client("GET", "/api/cookies")[1].get_all("Set-Cookie") == ["a=1", "b=2"]
    assert client("GET", "/api/coroutine")[2] == b"coroutine"


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("keyed", None, 401),
        ("keyed", "wrong", 401),
        ("keyed", "é", 401),
        ("keyed", "function-key", 200),
        ("keyed", "master-key", 200),
        ("administered", "function-key", 401),
        ("administered", "master-key", 200),
    ],
)
def test_keys(client: Client, path: str, key: str | None, status: int) -> None:
    assert client("GET", f"/api/{path}", headers={"x-functions-key": key} if key else {})[0] == status
    if key and key.isascii():
        assert client("GET", f"/api/{path}?code={key}")[0] == status


def test_an_answer_does_not_wait_for_an_acknowledgement(start_host: StartHost) -> None:
    assert start_host(APP)._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_ping(client: Client) -> None:
    assert client("GET", "/admin/host/ping")[0] == 200


def test_a_stop_answers_what_has_begun(start_host: StartHost) -> None:
    import threading

    host = start_host("""
@app.route("slow", auth_level="anonymous")
def slow(req: func.HttpRequest):
    probe.saw("begun")
    probe.pass_gate("slow")
    return "done"
""")
    answers: list[bytes] = []
    client = Client(host.port)
    asking = threading.Thread(target=lambda: answers.append(client("GET", "/api/slow")[2]))
    asking.start()
    assert probe.next_seen() == "begun"
    stopping = threading.Thread(target=host.stop)
    stopping.start()
    probe.open_gate("slow")
    stopping.join(20)
    asking.join(20)
    client.close()
    assert answers == [b"done"]
