"""The product as bootstrap builds it, on real servers."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

import pytest

from local.azurite import Azurite
from shared import bootstrap
from shared.storage.queues import StorageQueues

SECRET = "webhook-secret-of-the-tests-0123456789"


@pytest.fixture
def product(
    database_url: str, azurite: Azurite, storage: StorageQueues, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StorageQueues]:
    """Settings that lead to a fresh database and empty queues; gives the queues for looking."""
    for name in list(os.environ):
        if name.startswith(("GRAPH_", "OPERATOR_", "QueueStorage")):
            monkeypatch.delenv(name)
    bootstrap.stop()
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("QueueStorage", azurite.connection_string)
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("ENCRYPTION_KEY", base64.b64encode(bytes(32)).decode())
    yield storage
    bootstrap.stop()
