"""The admin API on the store in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import azure.functions as func

from functions.admin import serve
from shared.access import KEY_HEADER, AdminAccess, Principal
from shared.admin.ports import Admin
from shared.engine.control import Control
from shared.engine.enqueue import Producer
from shared.engine.memory import MemoryStore, MemoryTransport
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from tests.unit.functions.requests import request

T = TypeVar("T")
KEY, PREVIOUS = "k" * 40, "p" * 40
JSON = {"content-type": "application/json", KEY_HEADER: KEY}


class MemoryOrder:
    """An order that is carried out at once."""

    def __init__(self, orders: MemoryOrders) -> None:
        self._orders = orders
        self.store = orders.store
        self.producer = Producer(self.store, MemoryTransport(), QUEUES, parse_payload)
        self.control = Control(self.store, self.producer)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def job_before(self, job_id: UUID) -> Mapping[str, Any] | None:
        job = self.store.get(job_id)
        return None if job is None else {
            "queue": job.queue, "state": job.state.value, "priority": job.priority, "run_at": job.run_at
        }  # fmt: skip

    def record(self, action: str, target: str, before: Any, after: Any) -> None:
        self._orders.records.append((action, target, before, after))


class MemoryOrders:
    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.records: list[tuple[str, str, Any, Any]] = []

    def run(self, who: Principal, correlation_id: str, order: Callable[[Any], T]) -> T:
        return order(MemoryOrder(self))


class Nothing:
    """A history in which nothing was ever done."""

    def audit(self, *_: Any) -> list[Any]:
        return []

    def related(self, *_: Any) -> list[Any]:
        return []

    def letter(self, *_: Any) -> None:
        return None

    def job_facts(self, *_: Any) -> dict[Any, Any]:
        return {}

    def circumstances(self, *_: Any) -> None:
        return None


class Bench:
    """Answers requests; what bootstrap would build is in memory."""

    def __init__(self, built: dict[str, Any]) -> None:
        closed = {name: spec.closed for name, spec in QUEUES.items() if spec.closed}
        self.store = MemoryStore(list(QUEUES), closed)
        self.orders = MemoryOrders(self.store)
        self.failures: dict[str, list[dict[str, Any]]] = {}
        nothing: Any = Nothing()
        orders: Any = self.orders
        built["admin"] = Admin(
            nothing,
            orders,
            self.store,
            lambda: nothing,
            lambda job_id: self.failures.get(str(job_id), []),
            lambda: nothing,
            list,
            lambda: nothing,
            lambda: nothing,
        )
        built["admin_access"] = AdminAccess(KEY, PREVIOUS, app_service=True)


def ask(
    method: str,
    path: str,
    *,
    body: bytes = b"",
    params: dict[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    **route: str,
) -> func.HttpResponse:
    """What a route answers, by its path in the routes."""
    given = JSON if headers is None else dict(headers)
    return serve(path, request(method, f"/queue/{path}", body=body, params=params, headers=given, route=route))


def signed_in(role: str, name: str = "ada@fleet.example") -> dict[str, str]:
    """What App Service says of a person with this role."""
    claims = [{"typ": "preferred_username", "val": name}, {"typ": "roles", "val": role}]
    text = json.dumps({"auth_typ": "aad", "claims": claims, "name_typ": "name", "role_typ": "roles"})
    return {"x-ms-client-principal": base64.b64encode(text.encode()).decode()}
