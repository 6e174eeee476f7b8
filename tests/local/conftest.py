"""Throwaway function apps on a real host and a real Azurite."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.storage.queue import QueueClient

from local.azurite import Azurite
from local.host import Host
from local.host_queues import poison_name
from local.process import wait_until
from tests.local import probe

HEADER = """
import azure.functions as func
from tests.local import probe
app = func.FunctionApp()
"""


@dataclass
class Queue:
    """A queue of this test alone, and its poison queue."""

    name: str
    connection: str

    def client(self, name: str | None = None) -> QueueClient:
        return QueueClient.from_connection_string(self.connection, name or self.name)

    def put(self, *bodies: str) -> None:
        with self.client() as client:
            for body in bodies:
                client.send_message(body, time_to_live=-1)

    def count(self, name: str | None = None) -> int:
        """Messages in it, the invisible ones too."""
        with self.client(name) as client:
            return client.get_queue_properties().approximate_message_count or 0

    def poison_bodies(self) -> list[str]:
        with self.client(poison_name(self.name)) as client:
            return [message.content for message in client.peek_messages(32)]


@pytest.fixture(autouse=True)
def _clean_probe() -> None:
    probe.reset()


@pytest.fixture
def queue(azurite: Azurite) -> Iterator[Queue]:
    queue = Queue(f"q-{uuid.uuid4().hex}", azurite.connection_string)
    with queue.client() as client:
        client.create_queue()
        yield queue


@pytest.fixture
def write_app(tmp_path: Path) -> Callable[..., Path]:
    """Write a function app; keyword arguments go into extensions.queues of its host.json."""

    def write(source: str, *, route_prefix: str = "api", **queues: Any) -> Path:
        folder = tmp_path / f"app-{uuid.uuid4().hex}"
        folder.mkdir()
        (folder / "function_app.py").write_text(HEADER + source)
        settings = {"messageEncoding": "none", "maxPollingInterval": "00:00:00.2"} | queues
        extensions = {"queues": settings, "http": {"routePrefix": route_prefix}}
        (folder / "host.json").write_text(json.dumps({"version": "2.0", "extensions": extensions}))
        return folder

    return write


@pytest.fixture
def start_host(
    write_app: Callable[..., Path], tmp_path: Path, azurite: Azurite, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Host]]:
    """Start a host on an app of this source; `queue` becomes the setting QUEUE. Stopped after the test."""
    hosts: list[Host] = []

    def start(source: str, *, queue: Queue | None = None, lease: int = 600, threads: int = 8, **options: Any) -> Host:
        settings = {"Storage": azurite.connection_string, "PYTHON_THREADPOOL_THREAD_COUNT": str(threads)}
        settings |= {"FUNCTIONS_KEY": "function-key", "FUNCTIONS_MASTER_KEY": "master-key"}
        if queue is not None:
            settings["QUEUE"] = queue.name
        host = Host(write_app(source, **options), 0, tmp_path / "state", settings, lease=lease)
        host.start()
        hosts.append(host)
        return host

    yield start
    for host in hosts:
        assert host.stop(20)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def check(condition: Callable[[], bool]) -> None:
        assert wait_until(condition, probe.SECONDS)

    return check
