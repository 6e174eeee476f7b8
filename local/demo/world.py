"""The demo's hands and eyes: the fleet application's database session, the HTTP API, and the fake Graph."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
import requests

from local.demo import samples
from local.stack import Stack


class World:
    """Everything that a step does goes through real protocols; everything that it sees comes from the far end."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.graph = stack.graph

    # ------------------------------------------------------------------ the fleet application

    def sql(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own, on a connection of its own."""
        with psycopg.connect(self.stack.database_url) as conn:
            cursor = conn.execute(statement.encode(), arguments)
            return cursor.fetchall() if cursor.description else []

    def count(self, statement: str, *arguments: object) -> int:
        return int(self.sql(statement, *arguments)[0][0])

    def post_job(self, queue: str, body: dict[str, Any], key: str | None) -> requests.Response:
        headers = {"x-admin-key": key} if key else {}
        return requests.post(f"{self.stack.host_url}/queue/{queue}/jobs", json=body, headers=headers, timeout=10)

    def job(self, job_id: object) -> dict[str, Any]:
        [row] = self.sql(
            "select state, attempt, error_class, error_message, attempts, leased_by from queue.jobs where id = %s",
            job_id,
        )
        return dict(
            zip(("state", "attempt", "error_class", "error_message", "attempts", "leased_by"), row, strict=True)
        )

    # ------------------------------------------------------------------ the far end

    def sent_mails(self, subject: str) -> int:
        """How many mails of this subject the service account's mailbox has sent."""
        return sum(
            mail["subject"] == subject and mail["folder"].lower() == "sentitems"
            for mail in self.graph.control("GET", f"mailbox/{samples.DISPATCH}")
        )

    def chat_texts(self) -> list[str]:
        """The chat's messages, oldest first, without our invisible markers."""
        return [
            plain(message["body"]["content"]) for message in self.graph.control("GET", f"chat/{samples.CHAT}/messages")
        ]

    def chat_count(self, text: str) -> int:
        return sum(text in content for content in self.chat_texts())

    def requests(self, method: str, path: str) -> list[dict[str, Any]]:
        """What Graph was asked, oldest first; `path` is a regular expression."""
        found = self.graph.control("GET", "requests")
        return [one for one in found if one["method"] == method and re.search(path, one["path"])]

    def fault(self, times: int = 1, *, body: str | None = None, path: str | None = None, **fault: Any) -> None:
        match = {"method": "POST"} | ({"body": body} if body else {}) | ({"path": path} if path else {})
        self.graph.control("POST", "faults", {"match": match, "times": times, "fault": fault})


def plain(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
