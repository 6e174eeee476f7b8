"""A bootstrap of its own for each test: nothing built, and no settings but the test's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from shared import bootstrap

PREFIXES = ("GRAPH_", "WEBHOOK_", "ADMIN_", "OPERATOR_", "QueueStorage", "DATABASE_", "ENCRYPTION_")


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What bootstrap has built; put a fake under a name to have it used."""
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    bootstrap.stop()
    yield bootstrap.built
    bootstrap.built.clear()
