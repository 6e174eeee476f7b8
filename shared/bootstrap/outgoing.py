"""Ways to tell users and applications something: activity feed, push, signed webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from shared.bootstrap.graph import activity_feed
from shared.bootstrap.identity import graph_session
from shared.bootstrap.once import load_settings, once

if TYPE_CHECKING:
    from shared.handlers.notification_channels import Channel, ChannelName
    from shared.outgoing.session import PublicSession


@once
def public_session() -> PublicSession:
    """For addresses that come from settings."""
    from ipaddress import ip_network

    from shared.graph_settings import GraphSettings
    from shared.notification_settings import NotificationSettings
    from shared.outgoing.addresses import PublicAddresses
    from shared.outgoing.session import PublicSession

    networks = load_settings(NotificationSettings).networks or ""
    allowed = [ip_network(text.strip()) for text in networks.split(",") if text.strip()]
    return PublicSession(PublicAddresses(allowed), ca_file=load_settings(GraphSettings).ca_file)


@once
def notification_channels() -> Mapping[str, Channel]:
    from shared.handlers.notification_channels import ActivityChannel

    return {"teams-activity": ActivityChannel(activity_feed()), "push": _push(), "webhook": _webhook()}


def default_channels() -> Sequence[ChannelName]:
    from shared.notification_settings import NotificationSettings

    return cast("Sequence[ChannelName]", load_settings(NotificationSettings).channels.split(","))


def _push() -> Channel:
    from shared.handlers.notification_channels import MissingChannel, PushChannel
    from shared.notification_settings import NotificationSettings, connection_parts
    from shared.outgoing.hubs import Hub, NotificationHub

    settings = load_settings(NotificationSettings)
    if settings.hub_connection is None:
        return MissingChannel("set NOTIFICATION_HUB_CONNECTION and NOTIFICATION_HUB_NAME")
    parts = connection_parts(settings.hub_connection)
    address = parts["Endpoint"].replace("sb://", "https://", 1).rstrip("/")
    hub = Hub(
        address, settings.hub_name or "", parts["SharedAccessKeyName"], parts["SharedAccessKey"], settings.hub_tag
    )
    return PushChannel(NotificationHub(graph_session(), hub))


def _webhook() -> Channel:
    from shared.handlers.notification_channels import MissingChannel, WebhookChannel
    from shared.notification_settings import NotificationSettings, outgoing_endpoints
    from shared.outgoing.webhooks import Endpoint, WebhookSender

    settings = load_settings(NotificationSettings)
    if settings.webhooks is None:
        return MissingChannel("set OUTGOING_WEBHOOKS")
    endpoints = {name: Endpoint(name, url, keys) for name, (url, keys) in outgoing_endpoints(settings.webhooks).items()}
    return WebhookChannel(WebhookSender(public_session()), endpoints)
