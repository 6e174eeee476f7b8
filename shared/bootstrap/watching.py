"""What is watched, and what keeps the subscriptions that this takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.bootstrap.engine import database, producer
from shared.bootstrap.graph import application_client
from shared.bootstrap.once import load_settings, once
from shared.bootstrap.receiving import encryption_certificates
from shared.bootstrap.ways_in import client_states

if TYPE_CHECKING:
    from shared.handlers.reconciler import Reconciler
    from shared.handlers.subscriptions import UpkeepTimer
    from shared.postgres.subscription_listing import PostgresSubscriptionRecords
    from shared.postgres.watched_resources import WatchedResources


@once
def watched_resources() -> WatchedResources:
    """What the fleet application in Python declares what to watch with."""
    from shared.postgres.watched_resources import WatchedResources

    return WatchedResources(database(), producer())


@once
def subscription_records() -> PostgresSubscriptionRecords:
    from shared.postgres.subscription_listing import PostgresSubscriptionRecords

    return PostgresSubscriptionRecords(database(), producer())


@once
def reconciler() -> Reconciler:
    """What keeps the subscriptions at Graph as they are declared."""
    from shared.graph.subscriptions import SubscriptionClient
    from shared.handlers.reconciler import Reconciler
    from shared.handlers.watching import Wanted
    from shared.settings import SubscriptionSettings

    base_url, states = load_settings(SubscriptionSettings).base_url, client_states()
    wanted = Wanted(
        base_url=base_url,
        notification_url=f"{base_url}/webhooks/graph",
        lifecycle_url=f"{base_url}/webhooks/graph/lifecycle",
        new_state=states.new,
        state_id=states.ids[0],
        state_ids=frozenset(states.ids),
        certificate=encryption_certificates().current(),
    )
    return Reconciler(SubscriptionClient(application_client()), subscription_records(), wanted)


@once
def upkeep_timer() -> UpkeepTimer:
    from shared.handlers.subscriptions import UpkeepTimer

    return UpkeepTimer(subscription_records(), producer())
