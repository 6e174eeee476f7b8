"""What Graph has: listed a few pages at a time, since Graph limits this most, and compared with what is declared."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from shared.engine.errors import FleetQueueError
from shared.graph.errors import GraphError, GraphFailure
from shared.graph.subscriptions import SubscriptionClient
from shared.handlers.graph_pause import PAUSE, HaltError, asked_pause
from shared.handlers.subscription_records import SubscriptionRecords

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=10)
#: Graph allows 25 of these requests in 20 s.
PAGES_AT_ONCE = 20
PAUSE_BETWEEN = timedelta(seconds=20)
EVERY = timedelta(hours=6)
#: A link to a page that Graph no longer takes: begin again.
LINK_ENDED = (400, 404, 410)


class SubscriptionListing:
    """Goes on with a listing that is due, and removes what it shows to be nobody's."""

    def __init__(self, graph: SubscriptionClient, records: SubscriptionRecords) -> None:
        self._graph = graph
        self._records = records

    def go_on(self, permit: Callable[[int], None], base_url: str) -> bool:
        """List a few pages when it is time; True when that was the end and made rows due. Raises HaltError."""
        listing = self._records.claim_listing(LEASE)
        if listing is None:
            return False
        link = listing.link
        try:
            for _ in range(PAGES_AT_ONCE):
                permit(1)
                found, link = self._graph.page(link)
                self._records.save_page(listing, found, base_url)
                if link is None:
                    return self._records.end_listing(listing, EVERY)
        except GraphFailure as error:
            ended = isinstance(error, GraphError) and error.status in LINK_ENDED
            self._records.go_on_listing(listing, None if ended else link, PAUSE_BETWEEN)
            raise HaltError(asked_pause(error) or PAUSE, str(error)) from error
        except FleetQueueError:
            self._records.go_on_listing(listing, link, PAUSE_BETWEEN)
            raise
        self._records.go_on_listing(listing, link, PAUSE_BETWEEN)
        return False

    def remove_strays(self, permit: Callable[[int], None], limit: int) -> int:
        """Delete up to `limit` of them at Graph; how many. Raises HaltError."""
        removed: list[str] = []
        try:
            for subscription_id in self._records.strays(limit):
                permit(1)
                self._graph.delete(subscription_id)
                removed.append(subscription_id)
        except GraphFailure as error:
            raise HaltError(asked_pause(error) or PAUSE, str(error)) from error
        finally:
            if removed:
                self._records.remove_strays(removed)
                log.warning("subscriptions.strays_removed", extra={"ids": removed})
        return len(removed)
