"""Sends the wake-ups that are missing, makes jobs ready whose time has come, and ends those past their deadline."""

from __future__ import annotations

import logging
from math import ceil

from shared.engine.errors import TransportUnavailableError
from shared.engine.messages import wake_up_body
from shared.engine.ports import Store, Transport

log = logging.getLogger(__name__)

PROMOTED_AT_ONCE = 1000
EXPIRED_AT_ONCE = 1000
OPENED_AT_ONCE = 1000
#: Runnable jobs are counted no further: more than enough for the most wake-ups that one pass sends.
COUNTED_AT_MOST = 1024
#: Enough to see a backlog and for Azure to scale on; more are sent when these are used up.
MOST_WAKE_UPS = 32


class Relay:
    """Runs every ten seconds.

    What is missing is runnable jobs less *visible* messages. Invisible ones do not count: a message whose worker was
    killed stays invisible for ten minutes, and its jobs must not wait for it. One too many finds nothing and ends.
    """

    def __init__(self, store: Store, transport: Transport) -> None:
        self._store = store
        self._transport = transport

    def run(self) -> int:
        """One pass; returns the number of wake-ups sent. Raises StoreUnavailableError."""
        while self._store.expire_due(EXPIRED_AT_ONCE) >= EXPIRED_AT_ONCE:
            pass
        while self._store.promote_due(PROMOTED_AT_ONCE) >= PROMOTED_AT_ONCE:
            pass
        while self._store.open_due(OPENED_AT_ONCE) >= OPENED_AT_ONCE:
            pass
        sent = 0
        for queue, jobs in self._store.runnable(COUNTED_AT_MOST).items():
            try:
                sent += self._wake(queue, jobs)
            except TransportUnavailableError as error:
                log.warning("relay.queue_failed", extra={"queue": queue, "error": str(error)})
        return sent

    def _wake(self, queue: str, jobs: int) -> int:
        size = self._store.settings(queue).wake_size
        wanted = min(ceil(jobs / size), MOST_WAKE_UPS)
        missing = max(0, wanted - self._transport.visible(queue, wanted))
        for _ in range(missing):
            self._transport.send(queue, wake_up_body(queue, min(size, jobs)))
        if missing:
            log.info("relay.sent", extra={"queue": queue, "wake_ups": missing, "runnable": jobs})
        return missing
