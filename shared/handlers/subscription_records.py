"""Where declared resources and subscriptions are kept: the port of the reconciler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from shared.graph.subscriptions import SubscriptionRecord
from shared.handlers.watching import Outcome, Wanted, Watch


@dataclass(frozen=True, slots=True)
class Listing:
    """A claimed turn to list what Graph has; `link` leads to the page that is next, None to the first."""

    token: UUID
    link: str | None


class SubscriptionRecords(Protocol):
    """Raises StoreUnavailableError. What changes claimed rows names the claim; where it was lost, nothing changes."""

    def note_settings(self, wanted: Wanted) -> None:
        """Make due what differs from the settings."""
        ...

    def claim(self, limit: int, lease: timedelta) -> tuple[UUID, list[Watch]]:
        """Due rows, those that wait longest first, and the token of the claim; none while Graph wants a pause."""
        ...

    def due(self) -> tuple[int, bool]:
        """How many rows are due, and whether there is anything else for a pass to do; nothing during a pause."""
        ...

    def mark_creating(self, token: UUID, watches: Sequence[Watch], state_id: str) -> None:
        """Before creations go out whose clientState is made with the secret `state_id`."""
        ...

    def settle(self, token: UUID, outcomes: Sequence[Outcome]) -> None:
        """Store what came of it, and record and enqueue the gaps, in one transaction."""
        ...

    def postpone_kind(self, kind: str, pause: timedelta, problem: str) -> None:
        """Put off the creations of a kind that are due within the pause."""
        ...

    def pause(self, pause: timedelta, reason: str) -> None:
        """Let no instance claim anything for so long."""
        ...

    def claim_listing(self, lease: timedelta) -> Listing | None:
        """The turn to list, when a listing is due and nobody has it."""
        ...

    def save_page(self, listing: Listing, found: Sequence[SubscriptionRecord], base_url: str) -> None:
        """Note what a page shows: of subscriptions that we know, and of others that report below `base_url`."""
        ...

    def go_on_listing(self, listing: Listing, link: str | None, pause: timedelta) -> None:
        """Give the turn back; after the pause the next goes on at `link`, or from the start."""
        ...

    def end_listing(self, listing: Listing, every: timedelta) -> bool:
        """All pages are seen: judge unfinished creations, and rows that Graph did not show. True: some are due now."""
        ...

    def strays(self, limit: int) -> list[str]:
        """Ids of subscriptions of ours that belong to nothing declared."""
        ...

    def remove_strays(self, ids: Sequence[str]) -> None:
        """They are gone at Graph."""
        ...
