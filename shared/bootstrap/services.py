"""What handlers get."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.bootstrap.engine import blobs, database, key_ring_or_reason, store
from shared.bootstrap.graph import (
    activity_feed,
    bot,
    delta,
    mail,
    teams,
    teams_as,
    teams_routes,
    upload_urls,
    uploads,
    workflows,
)
from shared.bootstrap.identity import own_account_ids, service_accounts
from shared.bootstrap.once import load_settings, once
from shared.bootstrap.outgoing import default_channels, notification_channels
from shared.bootstrap.watching import reconciler, subscription_records
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from shared.graph.activity import ActivityClient
    from shared.graph.bot import BotClient
    from shared.graph.delta import DeltaClient
    from shared.graph.mail import MailClient
    from shared.graph.teams import TeamsClient
    from shared.graph.uploads import UploadClient, UploadUrls
    from shared.handlers.notification_channels import Channel, ChannelName, NotificationRoutes
    from shared.handlers.reconciler import Reconciler
    from shared.handlers.services import Alerts, Blobs, CommunicationLog, LetterNames, Operator
    from shared.handlers.subscriptions import LifecycleRecords
    from shared.handlers.sync_store import SyncStore
    from shared.handlers.teams_routes import Routes
    from shared.outgoing.workflows import WorkflowClient
    from shared.postgres.delivery_failures import PostgresDeliveryFailures
    from shared.postgres.letter_names import PostgresLetterNames


@once
def delivery_failures() -> PostgresDeliveryFailures:
    """What non-delivery reports have said of mails."""
    from shared.postgres.delivery_failures import PostgresDeliveryFailures

    return PostgresDeliveryFailures(database())


@once
def letter_names() -> PostgresLetterNames:
    """By whom dead jobs are found."""
    from shared.postgres.letter_names import PostgresLetterNames

    return PostgresLetterNames(database(), store(), key_ring_or_reason)


@once
def operator() -> Operator:
    """Where an operator is told."""
    from shared.handlers.services import Operator
    from shared.settings import OperatorSettings, SubscriptionSettings

    settings = load_settings(OperatorSettings)
    dashboard = settings.dashboard
    if dashboard is None:
        with suppress(SettingsError):  # then messages carry no link
            dashboard = f"{load_settings(SubscriptionSettings).base_url}/queue/dashboard"
    return Operator(settings.chat_id, settings.mail_from, settings.mail_to, settings.endpoint, dashboard)


class HandlerServices:
    """See shared.handlers.services.Services."""

    @property
    def mail(self) -> MailClient:
        return mail()

    @property
    def teams(self) -> TeamsClient:
        return teams()

    def teams_as(self, account: str) -> TeamsClient:
        return teams_as(account)

    @property
    def teams_routes(self) -> Routes:
        return teams_routes()

    @property
    def bot(self) -> BotClient:
        return bot()

    @property
    def workflows(self) -> WorkflowClient:
        return workflows()

    @property
    def activity_feed(self) -> ActivityClient:
        return activity_feed()

    @property
    def uploads(self) -> UploadClient:
        return uploads()

    @property
    def upload_urls(self) -> UploadUrls:
        return upload_urls()

    @property
    def blobs(self) -> Blobs:
        return blobs()

    @property
    def delivery_failures(self) -> PostgresDeliveryFailures:
        return delivery_failures()

    @property
    def delta(self) -> DeltaClient:
        return delta()

    @property
    def communications(self) -> CommunicationLog:
        from shared.postgres.communications import PostgresCommunications

        return PostgresCommunications(database())

    def own_account_ids(self) -> Collection[str]:
        return own_account_ids()

    @property
    def events_endpoint(self) -> str | None:
        from shared.settings import EventSettings

        return load_settings(EventSettings).endpoint

    @property
    def sync(self) -> SyncStore:
        from shared.postgres.sync import PostgresSync

        return PostgresSync(database())

    @property
    def alerts(self) -> Alerts:
        from shared.postgres.alerts import PostgresAlerts

        return PostgresAlerts(database())

    @property
    def letter_names(self) -> LetterNames:
        return letter_names()

    @property
    def operator(self) -> Operator:
        return operator()

    @property
    def service_account(self) -> str | None:
        return next(iter(service_accounts()), None)

    @property
    def reconciler(self) -> Reconciler:
        return reconciler()

    @property
    def subscription_records(self) -> LifecycleRecords:
        return subscription_records()

    @property
    def notification_channels(self) -> Mapping[str, Channel]:
        return notification_channels()

    @property
    def notification_routes(self) -> NotificationRoutes:
        from shared.postgres.notification_routes import PostgresNotificationRoutes

        return PostgresNotificationRoutes(database())

    @property
    def default_channels(self) -> Sequence[ChannelName]:
        return default_channels()
