"""The client against exact answers: what is an answer, what is a failure, and of which kind."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.graph.client import GraphClient
from shared.graph.errors import (
    AnswerLost,
    GraphError,
    GraphTimeout,
    GraphUnreachable,
    LinkRefused,
)
from shared.graph.exchange import read_error, recorded_calls
from shared.graph.session import GraphSession
from tests.unit.graph.conftest import Act, Script, Tokens, answer, raw

ONE = "/users/{user}/messages/{message}"


def get(client: GraphClient) -> dict[str, Any]:
    return client.call("GET", ONE, user="a@b.example", message="m1")


def send(client: GraphClient) -> dict[str, Any]:
    return client.call("POST", f"{ONE}/send", user="a@b.example", message="m1", expect=202)


def test_a_request_has_a_token_an_id_of_its_own_and_escaped_segments(script: Script, client: GraphClient) -> None:
    script.then(answer(200, '{"id":"x"}', request_id="r-1"))
    with recorded_calls() as calls:
        client.call("GET", ONE, user="a/b?c@d", message="19:x@thread.v2", query={"$filter": "a eq 'b c'"})
    (line, headers, _), (call,) = script.requests[0], calls
    assert line == "GET /v1.0/users/a%2Fb%3Fc%40d/messages/19%3Ax%40thread.v2?$filter=a%20eq%20%27b%20c%27"
    assert headers["authorization"] == "Bearer token-1"
    assert headers["client-request-id"] == call.client_request_id
    assert (call.template, call.status, call.request_id) == (ONE, 200, "r-1")


@pytest.mark.parametrize("segment", ["", ".", ".."])
def test_a_segment_never_changes_the_path(client: GraphClient, segment: str) -> None:
    with pytest.raises(ValueError, match="is"):
        client.call("GET", ONE, user=segment, message="m")


def test_text_arrives_as_it_was_given(script: Script, client: GraphClient) -> None:
    text = 'He said "x\\y"\n\u2028\t\u0000 \U0001f69a'
    script.then(answer(202))
    client.call("POST", "/users/{user}/sendMail", user="u", body={"t": text}, expect=202)
    assert json.loads(script.requests[0][2]) == {"t": text}


@pytest.mark.parametrize("status", [202, 204])
def test_an_empty_202_and_204_are_success(script: Script, client: GraphClient, status: int) -> None:
    script.then(answer(status))
    assert client.call("POST", "/x", expect=status) == {}


@pytest.mark.parametrize("body", ["", "{", "<html>", "[1]", "null", '"x"'])
def test_a_200_without_a_json_object_is_a_lost_answer(script: Script, client: GraphClient, body: str) -> None:
    script.then(answer(200, body))
    with pytest.raises(AnswerLost) as caught:
        get(client)
    assert caught.value.sent


def test_success_needs_the_expected_status(script: Script, client: GraphClient) -> None:
    script.then(answer(200, "the message was too large: 413"))
    with pytest.raises(AnswerLost):
        send(client)


def test_html_in_a_503_is_a_graph_error_with_its_title(script: Script, client: GraphClient) -> None:
    page = "<html><head><title>Service\n Unavailable</title></head><body>x</body></html>"
    script.then(answer(503, page, Content_Type="text/html", Retry_After="7"))
    with pytest.raises(GraphError) as caught:
        get(client)
    error = caught.value
    assert (error.status, error.code, error.message) == (503, "", "Service Unavailable")
    assert error.retry_after is not None and error.retry_after.total_seconds() == 7


@pytest.mark.parametrize("spelling", ["innerError", "innererror"])
def test_both_spellings_of_inner_errors_are_read_to_the_most_specific_code(
    script: Script, client: GraphClient, spelling: str
) -> None:
    inner = {"code": "MailboxConcurrency", "request-id": "r-9", spelling: {"code": "429"}}
    body = json.dumps({"error": {"code": "TooManyRequests", "message": "slow", spelling: inner}})
    script.then(answer(429, body, retry_after="10"))
    with pytest.raises(GraphError) as caught:
        get(client)
    error = caught.value
    assert (error.code, error.codes[0]) == ("MailboxConcurrency", "TooManyRequests")
    assert error.request_id == "r-9"
    assert error.client_request_id
    assert error.retry_after is not None and error.retry_after.total_seconds() == 10


@pytest.mark.parametrize(
    "data", [None, [], {}, {"error": None}, {"error": []}, {"error": {"code": 5, "innerError": "x"}}]
)
def test_error_bodies_of_any_form_are_read(data: Any) -> None:
    assert read_error(data) == ((), "", None)


def test_an_oauth_error_body_is_read() -> None:
    assert read_error({"error": "invalid_grant", "error_description": "no"}) == (("invalid_grant",), "no", None)


def test_a_message_names_no_person(script: Script, client: GraphClient) -> None:
    script.then(answer(404, '{"error":{"code":"ErrorItemNotFound","message":"gone"}}'))
    with pytest.raises(GraphError) as caught:
        get(client)
    assert str(caught.value) == f"Graph answered 404 ErrorItemNotFound to GET {ONE}: gone"


class TestConnections:
    """What the network does, and whether the request may have been carried out."""

    def test_nobody_listens(self, session: GraphSession, tokens: Tokens) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(GraphUnreachable) as caught:
            send(GraphClient(session, tokens, f"http://127.0.0.1:{port}/v1.0"))
        assert not caught.value.sent
        assert "a@b" not in str(caught.value)

    def test_a_name_that_does_not_exist(self, session: GraphSession, tokens: Tokens) -> None:
        with pytest.raises(GraphUnreachable):
            send(GraphClient(session, tokens, "http://no-such-host.invalid/v1.0"))

    def test_a_server_that_speaks_no_tls(self, script: Script, session: GraphSession, tokens: Tokens) -> None:
        script.then(raw(b"hello"))
        with pytest.raises((AnswerLost, GraphUnreachable, GraphTimeout)):
            send(GraphClient(session, tokens, script.url.replace("http", "https") + "/v1.0"))

    @pytest.mark.parametrize(
        "parts",
        [
            (),
            (b"HTTP/1.1 2",),
            (b"garbage\r\n\r\n",),
            (b"HTTP/1.1 202 OK\r\nContent-Length: 9\r\n\r\nx",),
        ],
        ids=["nothing", "half a status", "garbage", "half a body"],
    )
    def test_a_cut_answer_is_lost(self, script: Script, client: GraphClient, parts: tuple[bytes, ...]) -> None:
        script.then(raw(*parts))
        with recorded_calls() as calls, pytest.raises(AnswerLost) as caught:
            send(client)
        assert caught.value.sent
        assert caught.value.client_request_id == calls[0].client_request_id

    def test_a_body_shorter_than_its_content_length_is_a_lost_answer(self, script: Script, client: GraphClient) -> None:
        script.then(raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"id":"x"}'))
        with pytest.raises(AnswerLost):
            get(client)

    def test_of_a_body_that_is_no_json_only_the_start_is_read(self, script: Script, client: GraphClient) -> None:
        """The rest never comes, so nobody has waited for it; the connection is not used again."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
        script.then(lambda sock: sock.sendall(head + b"x" * 200_001), answer(200, b"y" * 5), answer(200, b"z"))
        assert client.content("/x/$value", at_most=200_000) == b"x" * 200_000
        assert client.content("/x/$value", at_most=5) == b"y" * 5
        assert client.content("/x/$value", at_most=5) == b"z"

    def test_a_start_that_breaks_off_or_drips_is_a_lost_answer(self, script: Script, client: GraphClient) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        script.then(raw(head + b"abc"), _drip(script, head))
        with pytest.raises(AnswerLost):
            client.content("/x/$value", at_most=500)
        with pytest.raises(GraphTimeout):
            client.content("/x/$value", at_most=500)

    def test_a_server_that_never_answers_ends_in_time(self, script: Script, client: GraphClient) -> None:
        script.then(lambda _: None)
        started = time.monotonic()
        with pytest.raises(GraphTimeout) as caught:
            send(client)
        assert caught.value.sent
        assert time.monotonic() - started < 2

    @pytest.mark.parametrize(
        "head",
        [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"],
        ids=["head", "body"],
    )
    def test_a_dripping_server_ends_at_the_deadline(self, script: Script, client: GraphClient, head: bytes) -> None:
        script.then(_drip(script, head))
        started = time.monotonic()
        with pytest.raises(GraphTimeout) as caught:
            get(client)
        assert caught.value.sent
        assert 0.8 < time.monotonic() - started < 2

    def test_the_next_call_after_a_slow_one_has_its_whole_time(self, script: Script, client: GraphClient) -> None:
        script.then(_slowly(script, 0.3), _slowly(script, 0.3), _slowly(script, 0.3), _slowly(script, 0.3))
        for _ in range(4):
            get(client)

    def test_nothing_is_repeated_behind_our_back(self, script: Script, client: GraphClient) -> None:
        script.then(answer(503, "", Retry_After="1"))
        with pytest.raises(GraphError):
            get(client)
        assert len(script.requests) == 1

    def test_thirty_two_threads_use_one_session(self, script: Script, client: GraphClient) -> None:
        script.then(*[answer(200, '{"id":"x"}')] * 64)
        with ThreadPoolExecutor(32) as pool:
            assert len(list(pool.map(lambda _: get(client), range(64)))) == 64

    def test_a_cookie_is_never_sent_back(self, script: Script, client: GraphClient) -> None:
        script.then(answer(200, "{}", Set_Cookie="a=b; Path=/"), answer(200, "{}"))
        get(client)
        get(client)
        assert "cookie" not in script.requests[1][1]

    def test_the_environment_does_not_change_certificates(
        self, script: Script, client: GraphClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        script.then(answer(200, "{}"))
        get(client)


class TestTokens:
    """401 and claims challenges: one new token, one repeat."""

    def test_401_is_repeated_once_with_a_fresh_token(self, script: Script, client: GraphClient, tokens: Tokens) -> None:
        script.then(answer(401, "{}"), answer(200, '{"id":"x"}'))
        with recorded_calls() as calls:
            get(client)
        assert [headers["authorization"] for _, headers, _ in script.requests] == ["Bearer token-1", "Bearer token-2"]
        assert tokens.asked == [("token-1", None)]
        assert [call.status for call in calls] == [401, 200]

    def test_401_for_ever_is_two_requests_then_an_error(
        self, script: Script, client: GraphClient, tokens: Tokens
    ) -> None:
        script.then(answer(401, "{}"), answer(401, '{"error":{"code":"InvalidAuthenticationToken"}}'))
        with pytest.raises(GraphError) as caught:
            get(client)
        assert caught.value.status == 401
        assert len(script.requests) == 2

    def test_a_claims_challenge_asks_for_a_token_with_those_claims(
        self, script: Script, client: GraphClient, tokens: Tokens
    ) -> None:
        claims = '{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}'
        encoded = base64.b64encode(claims.encode()).decode().rstrip("=")
        header = f'Bearer realm="", error="insufficient_claims", claims="{encoded}"'
        script.then(answer(401, "{}", WWW_Authenticate=header), answer(200, "{}"))
        get(client)
        assert tokens.asked == [("token-1", claims)]

    @pytest.mark.parametrize("text", ["!!!", "bm90IGpzb24="])
    def test_a_broken_challenge_counts_as_a_plain_401(
        self, script: Script, client: GraphClient, tokens: Tokens, text: str
    ) -> None:
        script.then(answer(401, "{}", WWW_Authenticate=f'Bearer claims="{text}"'), answer(200, "{}"))
        get(client)
        assert tokens.asked == [("token-1", None)]

    def test_a_token_is_asked_for_at_each_request(self, script: Script, client: GraphClient, tokens: Tokens) -> None:
        script.then(answer(200, "{}"), answer(200, "{}"))
        get(client)
        tokens.number = 7
        get(client)
        assert script.requests[1][1]["authorization"] == "Bearer token-7"

    def test_a_redirect_is_not_followed_with_the_token(self, script: Script, client: GraphClient) -> None:
        script.then(answer(302, "", Location=f"{script.url}/elsewhere"))
        with pytest.raises(GraphError) as caught:
            get(client)
        assert caught.value.status == 302
        assert len(script.requests) == 1


class TestPages:
    """nextLinks: only on Graph's own host, and never in a circle."""

    def test_pages_are_followed_with_the_same_preferences(self, script: Script, client: GraphClient) -> None:
        link = f"{script.url}/v1.0/things?$skiptoken=a%20b"
        script.then(
            answer(200, json.dumps({"value": [{"id": 1}], "@odata.nextLink": link})),
            answer(200, json.dumps({"value": []})),
        )
        assert list(client.pages("/things", prefer=["a"])) == [{"id": 1}]
        assert script.requests[1][0] == "GET /v1.0/things?$skiptoken=a%20b"
        assert [headers["prefer"] for _, headers, _ in script.requests] == ["a", "a"]

    def test_a_401_between_pages_loses_no_page(self, script: Script, client: GraphClient) -> None:
        link = f"{script.url}/v1.0/things?p=2"
        script.then(
            answer(200, json.dumps({"value": [{"id": 1}], "@odata.nextLink": link})),
            answer(401, "{}"),
            answer(200, json.dumps({"value": [{"id": 2}]})),
        )
        assert [item["id"] for item in client.pages("/things")] == [1, 2]

    @pytest.mark.parametrize(
        "link",
        [
            "https://attacker.example/v1.0/x",
            "{http}/other/x",
            "{https}/v1.0/x",
            "{http}.evil.example/v1.0/x",
            "{http}@evil.example/v1.0/x",
            "//evil.example/v1.0/x",
            "{user}/v1.0/x",
            "{http}/beta/x",
            "{http}/v1.0",
            "{http}/v1.0.evil/x",
            "{http}x/v1.0/x",
            "https://[::1/v1.0/x",
            "",
            5,
        ],
    )
    def test_the_token_goes_to_graphs_own_host_only(self, script: Script, client: GraphClient, link: Any) -> None:
        if isinstance(link, str):
            user = script.url.replace("//", "//me:secret@")
            link = link.format(http=script.url, https=script.url.replace("http", "https"), user=user)
        script.then(answer(200, json.dumps({"value": [{"id": 1}], "@odata.nextLink": link})))
        with pytest.raises(LinkRefused):
            list(client.pages("/things"))
        assert len(script.requests) == 1

    @pytest.mark.parametrize(
        ("base", "link"),
        [
            ("https://graph.microsoft.com/v1.0", "https://graph.microsoft.com:443/v1.0/x?$skiptoken=a"),
            ("https://graph.microsoft.com/v1.0", "HTTPS://Graph.Microsoft.Com/v1.0/x"),
            ("https://graph.microsoft.com:443/v1.0/", "https://graph.microsoft.com/v1.0/x"),
            ("http://127.0.0.1/v1.0", "http://127.0.0.1:80/v1.0/x"),
        ],
    )
    def test_graphs_own_host_may_be_spelled_otherwise(self, tokens: Tokens, base: str, link: str) -> None:
        GraphClient(GraphSession(), tokens, base).guard(link)

    def test_the_same_link_again_ends(self, script: Script, client: GraphClient) -> None:
        page = json.dumps({"value": [{"id": 1}], "@odata.nextLink": f"{script.url}/v1.0/things?p=1"})
        script.then(*[answer(200, page)] * 5)
        with pytest.raises(LinkRefused, match=re.escape("in circles")):
            list(client.pages("/things"))
        assert len(script.requests) == 2

    def test_new_links_for_ever_end(self, script: Script, client: GraphClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shared.graph.client.MOST_PAGES", 5)
        for number in range(10):
            page = {"value": [{"id": 1}], "@odata.nextLink": f"{script.url}/v1.0/things?p={number}"}
            script.then(answer(200, json.dumps(page)))
        with pytest.raises(LinkRefused, match=re.escape("in circles")):
            list(client.pages("/things"))
        assert len(script.requests) == 6

    def test_odd_pages_do_not_break(self, script: Script, client: GraphClient) -> None:
        values: list[Any] = [None, {}, [None, 5, {"id": 1}]]
        for value in values:
            script.then(answer(200, json.dumps({"value": value})))
        assert [list(client.pages("/things")) for _ in range(3)] == [[], [], [{"id": 1}]]


def _drip(script: Script, head: bytes) -> Act:
    def act(sock: socket.socket) -> None:
        sock.sendall(head)
        while not script.stopping.wait(0.1):
            sock.sendall(b"x")

    return act


def _slowly(script: Script, seconds: float) -> Act:
    def act(sock: socket.socket) -> None:
        script.stopping.wait(seconds)
        answer(200, "{}")(sock)

    return act
