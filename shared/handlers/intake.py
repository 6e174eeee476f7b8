"""Takes in what Graph posts: checks it and makes it durable in the Storage Queue, within Graph's three seconds.

Nothing here needs the database, Graph or a model of the payload: a delivery must be taken while they are away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared import tracing
from shared.engine.errors import FleetQueueError, TransportUnavailableError
from shared.engine.ports import Transport
from shared.graph.notifications import ClientStates, pack, read_delivery

log = logging.getLogger(__name__)

WEBHOOKS = "webhooks"
SENDERS = 16


class DeliveryError(FleetQueueError):
    """The body is not a delivery of notifications."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a delivery's items: `queued` are durable; the others were dropped."""

    queued: int
    forged: int = 0
    malformed: int = 0
    messages: int = 0


class Intake:
    """One for a process. `states` knows our clientStates; `transport` is where the items go."""

    def __init__(
        self,
        transport: Transport,
        states: ClientStates,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._transport = transport
        self._states = states
        self._now = now
        self._senders = ThreadPoolExecutor(SENDERS, "intake")

    def take(self, body: bytes, until: float) -> Taken:
        """Queue every genuine item of a delivery before the monotonic time `until`.

        Raises DeliveryError when the body has not Graph's form, TransportUnavailableError when not every item
        is known to be durable: then Graph must send it again, and what came through already does no harm.
        """
        try:
            delivery = read_delivery(body)
        except ValueError as error:
            raise DeliveryError(str(error)) from error
        items = delivery.items
        objects = [item for item in items if isinstance(item, dict)]
        genuine = [item for item in objects if self._states.is_ours(item.get("clientState"))]
        messages, unpacked = pack(genuine, self._now().isoformat(), delivery.tokens, tracing.correlation_id())
        taken = Taken(
            queued=len(genuine) - unpacked,
            forged=len(objects) - len(genuine),
            malformed=len(items) - len(objects) + unpacked,
            messages=len(messages),
        )
        self._send(messages, until)
        _report(taken)
        return taken

    def close(self) -> None:
        self._senders.shutdown(wait=False, cancel_futures=True)

    def _send(self, messages: Sequence[str], until: float) -> None:
        """All messages at once: a put takes milliseconds, but one that hangs must not outlast Graph's patience."""
        puts: list[Future[Any]] = [self._senders.submit(self._transport.send, WEBHOOKS, text) for text in messages]
        try:
            _, late = wait(puts, max(0.0, until - time.monotonic()))
            if late:
                raise TransportUnavailableError(f"{len(late)} of {len(puts)} messages were not queued in time")
            for put in puts:
                put.result()
        finally:
            for put in puts:
                put.cancel()


def _report(taken: Taken) -> None:
    facts = {"queued": taken.queued, "messages": taken.messages}
    if taken.forged or taken.malformed:
        log.warning("delivery.items_dropped", extra=facts | {"forged": taken.forged, "malformed": taken.malformed})
    else:
        log.info("delivery.taken", extra=facts)
