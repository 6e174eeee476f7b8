"""Which dead letters are one group: by class, status and operation, and not by what an answer says beside them."""

from __future__ import annotations

import psycopg

from shared.graph.errors import GraphCall, GraphError

POST = GraphCall("POST", "/chats/{id}/messages", "c")
GET = GraphCall("GET", "/me/drive/root:/{path}:/content", "c")
FLOW = GraphCall("POST", "workflow trips", "c", peer="the workflow")

ALIKE: dict[str, list[str]] = {
    "Graph answered 503 to POST /chats/{id}/messages": [
        str(GraphError(503, ("ServiceUnavailable",), "try later", call=POST)),
        str(GraphError(503, (), "<html> 17: gateway", call=POST)),
        str(GraphError(503, ("UnknownError", "generalException"), "", call=POST)),
    ],
    "Graph answered 404 NotFound to POST /chats/{id}/messages": [
        str(GraphError(404, ("NotFound",), f"chat 19:{name}@thread.v2 is not there: 7", call=POST)) for name in "ab"
    ],
    "Graph answered 404 itemNotFound to GET /me/drive/root:/{path}:/content": [
        str(GraphError(404, ("itemNotFound",), "gone: for good", call=GET))
    ],
    "the workflow answered 429 to POST workflow trips": [str(GraphError(429, ("TooMany",), "slow", call=FLOW))],
    "cannot tell whether it was sent: Graph answered 500 to POST /chats/{id}/messages": [
        f"cannot tell whether it was sent: {GraphError(500, ('x',), text, call=POST)}" for text in ("a", "b: c")
    ],
    "POST /chats/{id}/messages: the answer was lost": [
        f"POST /chats/{{id}}/messages: the answer was lost ({why})"
        for why in ("ConnectionResetError", "IncompleteRead")
    ],
    "POST /a answered 200": ["POST /a answered 200 without readable JSON"],
    "job #, which it depends on, ended as dead": [
        "job 01a21058-069c-7ab2-8759-0bc0b58b4726, which it depends on, ended as dead",
        "job 01a21058-069c-7ab2-8759-0bc0b58b4727, which it depends on, ended as dead",
    ],
    "# and # met at # in #s": [
        "ann@fleet.example and 19:x@thread.v2 met at 2026-11-25T13:59:33Z in 17s",
        "bob.b@fleet.example and 19:y2@thread.v2 met at 2026-11-25 14:00:01.5+00:00 in 9s",
    ],
    "the body is neither a JSON object nor base64 of one": ["the body is neither a JSON object nor base64 of one"],
    "message # is gone": [f"message AAMkAGI2TG93AAAxyz1234_bc-{end}= is gone" for end in ("AAA", "AAAB")],
}


def test_errors_of_one_cause_are_one_group_that_says_status_and_operation(sql: psycopg.Connection) -> None:
    for pattern, texts in ALIKE.items():
        rows = sql.execute("select distinct queue.error_pattern(t) from unnest(%s::text[]) t", (texts,))
        assert rows.fetchall() == [(pattern,)]
