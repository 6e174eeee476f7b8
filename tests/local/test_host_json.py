"""Our own host.json: what the real host would ignore in silence, or refuse only in Azure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from local.host_queues import QueueSettings

ROOT = Path(__file__).parents[2]
#: Of the schema of host.json 2.0, those that this app may have some use for.
TOP_LEVEL = {
    "version",
    "functionTimeout",
    "logging",
    "extensionBundle",
    "extensions",
    "telemetryMode",
    "concurrency",
    "healthMonitor",
    "retry",
    "watchDirectories",
}


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "host.json").read_text())
    return loaded


def test_only_known_keys_and_queue_settings_where_they_are_read() -> None:
    assert set(document()) <= TOP_LEVEL
    assert set(document()["extensions"]) <= {"queues", "http"}
    assert document()["version"] == "2.0"


def test_queue_settings_are_within_their_limits() -> None:
    settings = QueueSettings.model_validate(document()["extensions"]["queues"])
    assert 1 <= settings.batch_size <= 32
    assert settings.message_encoding == "none", "bodies are ASCII JSON, and we decode them ourselves"
    assert settings.max_dequeue_count >= 2
    assert settings.max_polling_interval.total_seconds() <= 60


def test_the_extension_bundle_is_of_the_supported_range() -> None:
    assert document()["extensionBundle"] == {
        "id": "Microsoft.Azure.Functions.ExtensionBundle",
        "version": "[4.*, 5.0.0)",
    }


def test_nothing_of_development_is_deployed() -> None:
    ignored = set((ROOT / ".funcignore").read_text().split())
    assert {"local/", "tests/", "bench/", "docs/", "dev", ".venv/", ".local/", "local.settings.json"} <= ignored
    for needed in ("function_app.py", "host.json", "requirements.txt", "functions/", "shared/"):
        assert needed not in ignored
