"""The demo's hands and eyes: the fleet application's database session, the HTTP API, and the fake Graph."""

from __future__ import annotations

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
        self._chats = 0

    # The fleet application

    def sql(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own, on a connection of its own."""
        with psycopg.connect(self.stack.database_url) as conn:
            cursor = conn.execute(statement.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    def count(self, statement: str, *arguments: object) -> int:
        return int(self.sql(statement, *arguments)[0][0])

    def post_job(self, queue: str, body: dict[str, Any], key: str | None) -> requests.Response:
        headers = {"x-admin-key": key} if key else {}
        return requests.post(f"{self.stack.host_url}/queue/{queue}/jobs", json=body, headers=headers, timeout=10)

    def job(self, job_id: object) -> dict[str, Any]:
        columns = ("state", "attempt", "error_class", "error_message", "attempts", "leased_by")
        [row] = self.sql(f"select {', '.join(columns)} from queue.jobs where id = %s", job_id)
        return dict(zip(columns, row, strict=True))

    # The far end

    def sent(self, subject: str) -> str:
        """How many mails of this subject the dispatcher's mailbox has sent, and the names of what is attached."""
        mails = [one for one in self.graph.mailbox(samples.DISPATCH, "sentitems") if one["subject"] == subject]
        names = [attachment["name"] for mail in mails for attachment in mail["attachments"]]
        return ", ".join([str(len(mails)), *names])

    def chat_texts(self) -> list[str]:
        """The chat's messages, oldest first, without our invisible markers."""
        return [plain(message["body"]["content"]) for message in self.graph.chat_messages(samples.CHAT)]

    def chat_count(self, text: str) -> int:
        return sum(text in content for content in self.chat_texts())

    def make_chats(self, n: int) -> list[str]:
        """As many new chats of the service account with the driver; their ids."""
        numbers = range(self._chats, self._chats + n)
        self._chats += n
        ids = [f"19:driver-{number}@thread.v2" for number in numbers]
        for chat_id in ids:
            members = [samples.DRIVER_ID, samples.ACCOUNT_ID]
            self.graph.control("POST", "chats", {"id": chat_id, "topic": chat_id, "members": members})
        return ids

    def posted(self, text: str) -> list[str]:
        """What was posted to any chat and taken, oldest first: of each body, what the regular expression finds."""
        taken = [one for one in self.requests("POST", "/chats/") if one["status"] == 201]
        found = [re.search(text, str(one["body"])) for one in taken]
        return [match[0] for match in found if match is not None]

    def requests(self, method: str, path: str) -> list[dict[str, Any]]:
        """What Graph was asked, oldest first; `path` is a regular expression."""
        return [one for one in self.graph.requests() if one["method"] == method and re.search(path, one["path"])]

    def fault(
        self, times: int = 1, *, method: str = "POST", body: str | None = None, path: str | None = None, **fault: Any
    ) -> None:
        match = {"method": method} | ({"body": body} if body else {}) | ({"path": path} if path else {})
        self.graph.control("POST", "faults", {"match": match, "times": times, "fault": fault})

    def has_put_back(self) -> bool:
        """Whether a worker said that it put a message back because the database was away."""
        return "message.put_back" in (self.stack.logs / "host.log").read_text("utf-8", "replace")


def plain(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)
