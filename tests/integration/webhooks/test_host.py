"""The webhook behind a real HTTP server: what a query really looks like when it arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from local.azurite import Azurite
from local.process import free_port, wait_until

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def webhook(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A host without any setting but the queues': no database, no secret."""
    port, state = free_port(), tmp_path_factory.mktemp("host")
    environment = {"PATH": os.environ["PATH"], "QueueStorage": azurite.connection_string}
    with (state / "log").open("w") as log:
        host = subprocess.Popen(
            [sys.executable, "-m", "local.host", "--port", str(port), "--state", str(state)],
            cwd=ROOT, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            assert wait_until(lambda: answers(f"http://127.0.0.1:{port}/admin/host/ping"), 30)
            yield f"http://127.0.0.1:{port}/api/webhooks/graph"
        finally:
            host.send_signal(signal.SIGTERM)
            host.wait(40)


def answers(url: str) -> bool:
    try:
        requests.get(url, timeout=1).close()
    except requests.ConnectionError:
        return False
    return True


@pytest.mark.parametrize("path", ["", "/lifecycle"])
@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            "validationToken=Validation%3a+Testing+client+application+reachability+for+subscription+Request-Id%3a+1111",
            "Validation: Testing client application reachability for subscription Request-Id: 1111",
        ),
        ("validationToken=a%2Bb%252B%25%26c%3Dd", "a+b%2B%&c=d"),
        ("code=key&VALIDATIONTOKEN=%C3%A9", "é"),
    ],
)
def test_the_token_comes_back_decoded_once_although_nothing_is_configured(
    webhook: str, path: str, query: str, text: str
) -> None:
    with requests.post(f"{webhook}{path}?{query}", headers={"content-type": "text/plain; charset=utf-8"}) as response:
        assert response.status_code == 200
        assert response.content.decode() == text
        assert response.headers["content-type"].replace(" ", "") == "text/plain;charset=utf-8"
        assert response.headers["x-content-type-options"] == "nosniff"


def test_markup_in_the_token_is_not_reflected(webhook: str) -> None:
    with requests.post(f"{webhook}?validationToken=%3Cscript%3Ealert(1)%3C/script%3E") as response:
        assert response.status_code == 400
        assert "script" not in response.text


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_get_a_405(webhook: str, method: str) -> None:
    with requests.request(method, f"{webhook}?validationToken=x") as response:
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"


def test_a_delivery_without_a_secret_in_the_settings_is_503(webhook: str) -> None:
    with requests.post(webhook, json={"value": []}) as response:
        assert response.status_code == 503
