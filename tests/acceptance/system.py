"""The running system as its users and its operator see it: HTTP, SQL, the storage queues, the far end, the logs."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import pytest
import requests

from local.demo.world import World, plain
from local.process import wait_until
from local.stack import Stack
from shared import bootstrap
from shared.engine.job import JobRecord
from shared.graph.notifications import ClientStates
from shared.handlers.registry import QUEUES
from shared.storage.queues import StorageQueues
from tests.limits import LIFT

T = TypeVar("T")
#: More than a lease, a rescue, a relay pass and a put-back together.
PATIENCE_SECONDS = 60.0
#: Looks like the beginning of a signed token.
TOKEN = re.compile(r"eyJ[\w-]{16,}\.")
_numbers = itertools.count(1)


def wait_for(look: Callable[[], T], expected: T, seconds: float = PATIENCE_SECONDS) -> None:
    """Look until it is as expected; fails with what was seen last."""
    seen: list[T] = []

    def is_there() -> bool:
        seen[:] = [look()]
        return bool(seen[0] == expected)

    wait_until(is_there, seconds)
    assert seen[0] == expected, f"waited {seconds:.0f} s for {expected!r}, and saw {seen[0]!r}"


class System(World):
    """One running stack; `chat` is a chat of this test's own, which no subscription watches."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.storage = StorageQueues(stack.azurite.connection_string)
        self.environment: Mapping[str, str] = stack.environment
        self.key = self.environment["ADMIN_KEY"]
        self.client_states = ClientStates(self.environment["WEBHOOK_SECRET"].encode())
        number = next(_numbers)
        self.tag = f"t{number}"
        self.chat = f"19:test-{number}@thread.v2"
        users = ["dispatch@fleet.example", "queue@fleet.example"]
        self.graph.control("POST", "chats", {"id": self.chat, "topic": self.tag, "members": users})

    # Enqueue

    def message(self, content: str, **more: Any) -> dict[str, Any]:
        """A payload of teams-outbound for this test's chat."""
        return {"chatId": self.chat, "content": content, **more}

    def ask(self, queue: str, body: Any) -> requests.Response:
        """POST to the admin API."""
        return requests.post(
            f"{self.stack.host_url}/queue/{queue}/jobs", json=body, headers={"x-admin-key": self.key}, timeout=20
        )

    def enqueue(self, queue: str, payload: Mapping[str, Any], **options: Any) -> UUID:
        """Over HTTP; the job's id."""
        answer = self.ask(queue, {"payload": payload, **options})
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])

    def send(self, content: str, **options: Any) -> UUID:
        return self.enqueue("teams-outbound", self.message(content), **options)

    def put(self, queue: str, body: str | Mapping[str, Any]) -> None:
        """What a foreign producer does: a message straight into the storage queue."""
        self.storage.send(queue, body if isinstance(body, str) else json.dumps(body))

    # Look

    def texts(self, chat: str | None = None) -> list[str]:
        """What the chat shows, oldest first."""
        return [plain(message["body"]["content"]) for message in self.graph.chat_messages(chat or self.chat)]

    def state(self, job_id: UUID) -> str:
        return str(self.job(job_id)["state"])

    def unfinished(self) -> int:
        return self.count("select count(*) from queue.jobs where finished_at is null")

    def dead_letters(self, queue: str) -> list[tuple[str | None, str, str]]:
        """(raw text, class, reason) of the dead letters that speak of this test."""
        return self.sql(
            "select d.body, d.error_class, d.error_message from queue.dead_letter_queue d"
            " left join queue.job_tracking j on j.id = d.job_id"
            " where d.queue = %s and position(%s in concat(d.body, j.correlation_id)) > 0 order by d.died_at",
            queue,
            f"({self.tag})",
        )

    def jobs(self, queue: str) -> list[JobRecord]:
        """Every job of a queue, oldest first, its payload opened."""
        ids = [row[0] for row in self.sql("select id from queue.jobs where queue = %s order by id", queue)]
        with in_process(self.environment):
            records = [bootstrap.store().get(job_id) for job_id in ids]
        return [record for record in records if record is not None]

    def log_lines(self, name: str = "host") -> list[dict[str, Any]]:
        """The JSON lines of a host's log."""
        lines = (self.stack.logs / f"{name}.log").read_text("utf-8", "replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def secrets_in_logs(self) -> list[str]:
        """Where a secret of this stack, or something like a token, stands in one of its log files."""
        names = ("ADMIN_KEY", "WEBHOOK_SECRET", "FUNCTIONS_KEY", "ENCRYPTION_KEY", "GRAPH_CLIENT_SECRET")
        wanted = {name: self.environment[name] for name in names}
        wanted["AccountKey"] = self.environment["QueueStorage"].partition("AccountKey=")[2].partition(";")[0]
        assert all(len(value) >= 8 for value in wanted.values())
        found = []
        for file in sorted(self.stack.logs.glob("*.log")):
            text = file.read_text("utf-8", "replace")
            found += [f"{name} in {file.name}" for name, value in wanted.items() if value in text]
            found += [f"a token in {file.name}: {match[0]}" for match in TOKEN.finditer(text)]
        return found

    # Begin and end

    def prepare(self) -> None:
        """Lift the limits, sign the service account in, and subscribe to the dispatcher's inbox and chat."""
        from local.demo import steps

        def type_the_code(text: str) -> None:
            code = re.search(r"code ([\w-]+)", text)
            assert code is not None, text
            self.graph.approve(code[1], "queue@fleet.example")

        self.sql(LIFT)
        with in_process(self.environment):
            bootstrap.sign_in(type_the_code)
            steps.watch()
        covered = "select count(*) from queue.subscriptions where removed_at is null"
        wait_for(lambda: self.sql(covered)[0][0], 2)

    def settle_down(self) -> None:
        """As before the test: no faults, no changed settings or limits, every job ended."""
        self.graph.clear_faults()
        self.graph.set_automatic_delivery(True)
        self.sql(LIFT)
        self.sql(
            "update queue.queue_settings set paused = false, lease_seconds = 45, wake_size = 16, claim_batch = 1"
            " where (paused, lease_seconds, wake_size, claim_batch) <> (false, 45, 16, 1)"
        )
        wait_for(self.unfinished, 0)
        self.graph.control("DELETE", "requests")
        assert self.graph.violations() == []


@contextmanager
def in_process(environment: Mapping[str, str]) -> Iterator[None]:
    """Let shared.bootstrap work in this process with a stack's settings, and leave no trace of it."""
    root = logging.getLogger()
    filters = {handler: list(handler.filters) for handler in root.handlers}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            yield
        finally:
            bootstrap.stop()
            for handler, kept in filters.items():
                handler.filters[:] = kept


def closed_queues() -> list[str]:
    """The queues that take no jobs yet, but for the one that carries notifications."""
    return [spec.name for spec in QUEUES.values() if spec.closed and spec.carries == "jobs"]
