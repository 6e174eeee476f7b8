"""Python and SQL make the same limit key of a payload."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from shared.engine.json_text import to_json
from shared.engine.limit_key import LimitKey
from shared.handlers.registry import QUEUES

KEYS = {name: spec.limit_key for name, spec in QUEUES.items() if spec.limit_key is not None}
PAYLOADS: list[dict[str, Any]] = [
    {},
    {"chatId": "19:Dispatch@thread.v2"},
    {"chatId": ""},
    {"chatId": None, "teamId": "Team", "channelId": "19:Alerts"},
    {"chatId": 7, "teamId": "Team", "channelId": ["19:Alerts"]},
    {"teamId": "Team"},
    {"workflow": "Alerts"},
    {"chatId": "19:Dispatch@thread.v2", "workflow": "Alerts"},
    {"from": "Dispatch@Fleet.example"},
    {"from": {"address": "Dispatch@Fleet.example", "name": "D"}},
    {"from": {"name": "D"}},
    {"from": {"address": "Fleet@Fleet.example", "sender": "Dispatch@Fleet.example"}},
    {"from": {"address": {"address": "deep"}}},
]


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
@pytest.mark.parametrize("payload", PAYLOADS, ids=str)
def test_python_and_sql_make_the_same_limit_key(
    sql: psycopg.Connection, key: LimitKey, payload: dict[str, Any]
) -> None:
    statement = "select queue.limit_key_of(%s, %s, %s)"
    row = sql.execute(statement, (to_json(payload), key.scope, to_json(key.fields))).fetchone()
    assert row == (key.of(payload),)
