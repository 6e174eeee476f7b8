"""Health: cheap, public, and it names what lacks."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import azure.functions as func
import pytest

from functions import health
from local.q.doctor import check_parts
from shared.engine.errors import (
    NoRightsError,
    NotMigratedError,
    Problem,
    StoreNotReadyError,
    StoreUnavailableError,
    TransportUnavailableError,
)
from shared.monitoring.health import CACHE_SECONDS, Health
from tests.unit.functions.requests import assert_problem, document, request


def show_health(req: func.HttpRequest) -> func.HttpResponse:
    """As the worker calls it."""
    response: func.HttpResponse = asyncio.run(health.show_health(req))
    return response


class Part:
    """Counts how often it is reached; raises `error` if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.reached = 0

    def __call__(self) -> None:
        self.reached += 1
        if self.error:
            raise self.error


def test_everything_there_is_200(built: dict[str, Any]) -> None:
    built["health"] = Health({"database": Part(), "storage": Part()}, list)
    response = show_health(request("GET"))
    assert response.status_code == 200
    assert document(response) == {"status": "ok", "checks": {"database": "ok", "storage": "ok"}, "settings": []}


def test_what_is_away_is_named_without_its_address(built: dict[str, Any]) -> None:
    away = StoreUnavailableError('connection to "10.0.0.5" failed for user "hidden"')
    built["health"] = Health({"database": Part(away), "storage": Part(TransportUnavailableError("x"))}, list)
    response = show_health(request("GET"))
    assert response.status_code == 503
    assert document(response)["checks"] == {"database": "away", "storage": "away"}
    assert b"hidden" not in response.get_body()


def test_missing_settings_are_named_with_their_remedy_and_without_any_settings() -> None:
    response = show_health(request("GET"))
    assert response.status_code == 503
    found = document(response)
    assert found["checks"] == {"database": "not configured", "storage": "not configured"}
    assert {"DATABASE_URL", "QueueStorage", "WEBHOOK_SECRET", "ADMIN_KEY", "GRAPH_CLIENT_SECRET"} <= {
        setting["name"] for setting in found["settings"]
    }


def test_values_of_settings_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADMIN_KEY", "WEBHOOK_SECRET", "ENCRYPTION_KEY", "DATABASE_POOLER", "GRAPH_BASE_URL"):
        monkeypatch.setenv(name, "hidden-value")
    assert b"hidden-value" not in show_health(request("GET")).get_body()


def test_wrong_settings_make_it_503_although_all_parts_answer(built: dict[str, Any]) -> None:
    built["health"] = Health({"database": Part()}, lambda: [Problem("ADMIN_KEY", "it is not set")])
    assert show_health(request("GET")).status_code == 503


def test_many_askers_cause_one_look_and_a_later_one_looks_again() -> None:
    now, part = [0.0], Part()
    health = Health({"database": part}, list, lambda: now[0])
    threads = [threading.Thread(target=health.report) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert part.reached == 1
    now[0] = CACHE_SECONDS
    health.report()
    assert part.reached == 2


def test_while_one_looks_others_are_told_what_was_before_and_none_waits_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.monitoring.health.PATIENCE_SECONDS", 0.01)
    now, looking, go_on = [0.0], threading.Event(), threading.Event()

    def hang() -> None:
        looking.set()
        assert go_on.wait(10)

    health = Health({"database": hang}, list, lambda: now[0])
    for expected in ("no answer yet", "ok"):
        with ThreadPoolExecutor() as threads:
            looker = threads.submit(health.report)
            assert looking.wait(10)
            assert health.report().checks == {"database": expected}
            go_on.set()
            assert looker.result(10).is_healthy
        looking.clear()
        go_on.clear()
        now[0] += CACHE_SECONDS


@pytest.mark.parametrize("error", [NotMigratedError("relation x"), NoRightsError("for schema x")])
def test_a_database_that_waits_for_a_person_is_told_apart_from_one_that_is_away(
    built: dict[str, Any], error: StoreNotReadyError
) -> None:
    built["health"] = Health({"database": Part(error)}, list)
    response = show_health(request("GET"))
    assert response.status_code == 503
    assert document(response)["checks"] == {"database": error.state}
    [found, _] = check_parts(document(response))
    assert found.remedy == error.remedy and "./dev migrate" in found.remedy
    assert b" x" not in response.get_body()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_405(method: str) -> None:
    assert_problem(show_health(request(method)), 405)
