"""What Graph keeps of subscriptions beyond what it shows: its clock, its quotas, and for how long it may deliver."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from local.fake_graph.call import GraphError, Json, bad_request
from local.fake_graph.subscription import Subscription

#: The right to deliver lasts as long as an access token; Graph asks for a new one some time before.
RIGHT_LASTS = timedelta(hours=1)
ASKED_AHEAD = timedelta(minutes=15)
#: What could not be delivered for want of the right is kept for so long.
WITHHELD_FOR = timedelta(hours=4)
#: Renewing and reauthorising must be so far apart.
APART = timedelta(minutes=10)
#: Subscriptions of all applications together.
QUOTAS = {"mailbox": 1_000, "organization": 10_000, "user": 10, "resource": 1}
_CODES = {
    "mailbox": "the mailbox",
    "organization": "the organization",
    "user": "the application and user",
    "resource": "the application and chat or channel",
}


class SubscriptionBook:
    """One for a world."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.ahead = timedelta()
        self.quotas = dict(QUOTAS)

    def now(self) -> datetime:
        """Graph's clock, which a control call moves; tokens go by the machine's."""
        return datetime.now(UTC) + self.ahead

    def set_clock(self, body: Json) -> Json:
        """`ahead`: seconds that Graph's clock is ahead of the machine's."""
        self.ahead = timedelta(seconds=float(body["ahead"]))
        return {"now": self.now().isoformat()}

    def set_quotas(self, body: Json) -> Json:
        """Other quotas, by name."""
        unknown = set(body) - set(QUOTAS)
        if unknown:
            raise ValueError(f"unknown: {sorted(unknown)}")
        self.quotas |= {name: int(value) for name, value in body.items()}
        return dict(self.quotas)

    def check_quotas(self, quotas: dict[str, str], live: Iterable[Subscription]) -> None:
        """403 when one more subscription of these quotas would be one too many."""
        others = list(live)
        for name, key in quotas.items():
            if sum(other.quotas.get(name) == key for other in others) >= self.quotas[name]:
                message = f"The limit of {self.quotas[name]} subscriptions of {_CODES[name]} has been reached."
                raise GraphError(403, "ExtensionError", message)

    def begin(self, subscription: Subscription) -> None:
        """A new one may be delivered to at once."""
        subscription.deliverable_until = self.now() + RIGHT_LASTS

    def renew(self, subscription: Subscription) -> None:
        """A PATCH renews the right to deliver too."""
        self._give_right(subscription, "renewed_at", subscription.reauthorized_at)

    def reauthorize(self, subscription: Subscription) -> None:
        self._give_right(subscription, "reauthorized_at", subscription.renewed_at)

    def _give_right(self, subscription: Subscription, done: str, other: datetime | None) -> None:
        now = self.now()
        if other is not None and now - other < APART:
            raise bad_request("A subscription must not be renewed and reauthorized within ten minutes.")
        setattr(subscription, done, now)
        self.begin(subscription)
        subscription.is_asked = False

    def may_deliver(self, subscription: Subscription) -> bool:
        return subscription.deliverable_until > self.now()

    def wants_right(self, subscription: Subscription) -> bool:
        """Whether it is time to ask for reauthorization; asked once."""
        if subscription.is_asked or subscription.deliverable_until - ASKED_AHEAD > self.now():
            return False
        subscription.is_asked = True
        return True
