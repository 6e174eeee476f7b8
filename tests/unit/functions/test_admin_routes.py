"""The table of routes: who may use each, which addresses hide others, and what the OpenAPI document says."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from functions.admin import addresses, function_name
from shared.access import KEY_HEADER, Role
from shared.admin.openapi import document
from shared.admin.routes import PATHS, ROUTES, Route
from shared.handlers.registry import QUEUES
from tests.unit.functions.admin_bench import Bench, ask, signed_in

PROTECTED = [route for route in ROUTES if route.role is not None]


@pytest.mark.parametrize("route", PROTECTED, ids=lambda route: route.operation)
def test_every_protected_route_refuses_without_a_key_and_below_its_role(route: Route, built: dict[str, Any]) -> None:
    Bench(built)

    def status(headers: dict[str, str]) -> int:
        answer = ask(route.method, route.path, headers=headers, queue="teams-outbound", id="x", name="x")
        return int(answer.status_code)

    assert status({}) == 401
    assert status({KEY_HEADER: "wrong"}) == 401
    assert status(signed_in("Visitor")) == 403
    for role in Role:
        if role < (route.role or role):
            assert status(signed_in(role.title)) == 403


@pytest.mark.parametrize("route", [route for route in PROTECTED if route.method != "GET"], ids=lambda r: r.operation)
def test_no_change_comes_from_a_page_of_another_site(route: Route, built: dict[str, Any]) -> None:
    """A cookie of App Service would come along with it; a key or a token does not."""
    Bench(built)

    def refused(**given: str) -> bool:
        headers = signed_in("Admin") | {name.replace("_", "-"): value for name, value in given.items()}
        answer = ask(route.method, route.path, headers=headers, queue="teams-outbound", id="x", name="x")
        return answer.status_code == 403 and b"another site" in answer.get_body()

    assert refused(sec_fetch_site="cross-site") and refused(sec_fetch_site="same-site")
    assert refused(origin="https://other.example", host="queue.example") and refused(origin="null", host="")


@pytest.mark.parametrize(
    "given",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "https://queue.example", "host": "queue.example"},
        {},
    ],
)
def test_a_change_from_the_dashboard_passes(given: dict[str, str], built: dict[str, Any]) -> None:
    Bench(built)
    headers = signed_in("Operator") | given
    assert ask("POST", "{queue}/pause", headers=headers, queue="teams-outbound").status_code == 200


def test_only_health_is_public() -> None:
    assert [route.path for route in ROUTES if route.role is None] == ["health"]


def test_every_change_takes_more_than_a_reader() -> None:
    assert all((route.role or 0) > Role.READER for route in ROUTES if route.method != "GET")


def matches(address: str, path: str) -> bool:
    """As a host matches."""
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", address), path) is not None


def winner(path: str) -> str:
    """A literal wins over a parameter, from left to right."""
    found = [address for address in addresses() if matches(address, path)]
    return min(found, key=lambda address: [part.startswith("{") for part in address.split("/")])


@pytest.mark.parametrize("path", PATHS)
def test_no_address_takes_what_is_meant_for_another(path: str) -> None:
    """For every queue, and for ids that are none of a queue's words."""
    if path == "health":
        return
    for queue, some_id in product(QUEUES, ["01a2108a-1e28-7df7-80d2-6f458516e508", "daily"]):
        given = path.replace("{queue}", queue).replace("{id}", some_id).replace("{name}", some_id)
        meant, parameters = addresses()[winner(given)]
        assert meant == path, given
        assert parameters in ({}, {"queue": queue})


def test_names_of_functions_are_unique() -> None:
    assert len({function_name(address) for address in addresses()}) == len(addresses())


def test_the_openapi_document_names_every_route_once_with_its_role() -> None:
    found = {
        (method.upper(), path[1:]): operation
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }
    assert set(found) == {(route.method, route.path) for route in ROUTES}
    assert len({operation["operationId"] for operation in found.values()}) == len(ROUTES)
    for route in ROUTES:
        operation = found[route.method, route.path]
        assert operation.get("x-role") == (route.role.title if route.role else None)
        assert bool(operation["security"]) is (route.role is not None)


def test_the_openapi_document_is_valid_and_closed() -> None:
    """Every reference leads somewhere, and no schema is there for nothing."""
    from openapi_spec_validator import OpenAPIV31SpecValidator

    OpenAPIV31SpecValidator(document()).validate()
    names = set(re.findall(r"#/components/schemas/(\w+)", str(document())))
    assert names == set(document()["components"]["schemas"])
