"""The engine's Transport on Azure Storage Queues (and Azurite, which speaks the same protocol)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import ceil
from typing import Any

import requests
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.queue import QueueClient, QueueServiceClient, StorageErrorCode
from requests.adapters import HTTPAdapter

from shared.engine.errors import TransportUnavailableError

log = logging.getLogger(__name__)

#: The service takes at most this many messages a call.
PAGE = 32
#: Never expire: the default of seven days would drop a long backlog silently.
NO_EXPIRY = -1
CONNECTIONS = 64
#: Of the SDK: a put may take so long with all its tries. The webhook has a deadline of its own below that.
TIMEOUT_SECONDS = 5
RETRIES = 2
#: Of a message whose visibility has ended: somebody else has received it, or deleted it.
_NO_LONGER_OURS = {StorageErrorCode.POP_RECEIPT_MISMATCH, StorageErrorCode.MESSAGE_NOT_FOUND}


@dataclass(frozen=True, slots=True)
class Received:
    """A message taken from a queue; `delete` ends it, otherwise it comes back when its visibility ends."""

    id: str
    body: bytes
    dequeue_count: int
    delete: Callable[[], None]


class StorageQueues:
    """One client a process; thread-safe. `credential` where the address is a URL and not a connection string."""

    def __init__(self, address: str, credential: Any = None) -> None:
        session = requests.Session()
        session.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS))
        session.mount("https://", HTTPAdapter(pool_maxsize=CONNECTIONS))
        options: dict[str, Any] = {
            "transport": RequestsTransport(session=session, session_owner=False),
            "connection_timeout": TIMEOUT_SECONDS,
            "read_timeout": TIMEOUT_SECONDS,
            "retry_total": RETRIES,
            "retry_connect": RETRIES,
            "retry_read": RETRIES,
            "initial_backoff": 0.2,
            "increment_base": 1,
            "secondary_read": False,
        }
        if "=" in address and not address.startswith("http"):
            self._service = QueueServiceClient.from_connection_string(address, **options)
        else:
            self._service = QueueServiceClient(address, credential=credential, **options)
        self._clients: dict[str, QueueClient] = {}
        self._lock = threading.Lock()

    def send(self, queue: str, body: str, delay: timedelta = timedelta()) -> None:
        """Put one message; `delay` is rounded up to whole seconds. Raises TransportUnavailableError."""
        with _unavailable(queue):
            self._client(queue).send_message(
                body, visibility_timeout=ceil(delay.total_seconds()), time_to_live=NO_EXPIRY
            )

    def visible(self, queue: str, cap: int) -> int:
        """How many messages could be received now, counted up to `cap` (at most 32)."""
        with _unavailable(queue):
            return len(self._client(queue).peek_messages(max_messages=min(cap, PAGE)))

    def receive(self, queue: str, limit: int, visibility: timedelta) -> Iterator[Received]:
        """Up to `limit` messages, each hidden for `visibility`, at least a second; stops at what was there at first."""
        client, hidden_for = self._client(queue), max(1, ceil(visibility.total_seconds()))
        left = limit
        while left > 0:
            with _unavailable(queue):
                page = list(client.receive_messages(max_messages=min(left, PAGE), visibility_timeout=hidden_for))
            for message in page:
                delete = partial(self._delete, queue, message.id, message.pop_receipt or "")
                yield Received(message.id, str(message.content).encode(), message.dequeue_count or 1, delete)
            left -= len(page)
            if len(page) < PAGE:
                return

    def create(self, queue: str) -> None:
        """Make the queue; does nothing when it is there."""
        with _unavailable(queue):
            try:
                self._client(queue).create_queue()
            except ResourceExistsError:
                return

    def count(self, queue: str) -> int:
        """Roughly how many messages it holds, invisible ones too: what Azure scales on."""
        with _unavailable(queue):
            return self._client(queue).get_queue_properties().approximate_message_count or 0

    def clear(self, queue: str) -> None:
        """Remove all messages: for tests and for starting afresh."""
        with _unavailable(queue):
            self._client(queue).clear_messages()

    def reach(self, queue: str) -> None:
        """Raises TransportUnavailableError when the queue cannot be reached: the health check."""
        with _unavailable(queue):
            self._client(queue).get_queue_properties()

    def _delete(self, queue: str, message_id: str, pop_receipt: str) -> None:
        with _unavailable(queue):
            try:
                self._client(queue).delete_message(message_id, pop_receipt)
            except HttpResponseError as error:
                if getattr(error, "error_code", None) not in _NO_LONGER_OURS:
                    raise
                log.info("message.not_ours_to_delete", extra={"queue": queue, "message_id": message_id})

    def _client(self, queue: str) -> QueueClient:
        with self._lock:
            client = self._clients.get(queue)
            if client is None:
                client = self._clients[queue] = self._service.get_queue_client(queue)
            return client


@contextmanager
def _unavailable(queue: str) -> Iterator[None]:
    try:
        yield
    except AzureError as error:
        code = getattr(error, "error_code", None)
        reason = getattr(code, "value", code) or type(error).__name__
        raise TransportUnavailableError(f"storage queue {queue}: {reason}") from error
