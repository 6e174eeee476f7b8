"""The admin API on a real database, as a host would call it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from functions.admin import serve
from shared import bootstrap
from shared.access import KEY_HEADER
from shared.engine.memory import MemoryTransport
from tests.unit.functions.requests import request

KEY = "k" * 40
CHAT = {"chatId": "19:dispatch@thread.v2", "content": "on my way"}


class Api:
    """Asks as a client with the admin key, or with what else it is told to prove itself by."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **route: str,
    ) -> tuple[int, Any]:
        given = {KEY_HEADER: KEY} if headers is None else dict(headers)
        raw = b"" if body is None else json.dumps(body).encode()
        given |= {"content-type": "application/json"} if body is not None else {}
        response = serve(
            path,
            request(method, f"/queue/{path}", body=raw, params=dict(query or {}), headers=given, route=route),
        )
        text = response.get_body()
        return response.status_code, json.loads(text) if text and "json" in response.mimetype else text.decode()

    def get(self, path: str, query: Mapping[str, str] | None = None, **route: str) -> Any:
        status, answer = self.ask("GET", path, None, query=query, headers=None, **route)
        assert status == 200, answer
        return answer

    def enqueue(self, queue: str = "teams-outbound", **options: Any) -> str:
        status, answer = self.ask("POST", "{queue}/jobs", {"payload": CHAT} | options, queue=queue)
        assert status == 202, answer
        return str(answer["id"])


@pytest.fixture
def api(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    bootstrap.stop()
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("ADMIN_KEY", KEY)
    monkeypatch.setenv("ADMIN_APP_SERVICE_AUTH", "true")
    monkeypatch.setenv("ENCRYPTION_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    transport = MemoryTransport()
    bootstrap.built["queues"] = transport
    yield Api(transport)
    bootstrap.stop()
    bootstrap.built.clear()
