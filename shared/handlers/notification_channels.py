"""The ways on which a notification reaches a user. Each sends one notification to one user, or raises."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, get_args

from shared.engine.errors import RejectedError
from shared.engine.job import Job
from shared.graph.activity import PREVIEW_CHARACTERS, Activity, ActivityClient, chain_id_of
from shared.graph.client import to_bytes
from shared.outgoing.hubs import NotificationHub
from shared.outgoing.webhooks import Endpoint, WebhookSender

ChannelName = Literal["teams-activity", "push", "webhook"]
CHANNELS: tuple[ChannelName, ...] = get_args(ChannelName)
NEEDS_LINK = "the channel teams-activity needs one, where a click leads: give a link into Teams"
#: What a tag of Notification Hubs may be made of.
_TAG = re.compile(r"[A-Za-z0-9_@#.:-]+")


@dataclass(frozen=True, slots=True)
class Route:
    """A user's own choice: channels in order, and where the webhook goes."""

    channels: tuple[ChannelName, ...]
    endpoint: str | None = None


class NotificationRoutes(Protocol):
    """Where users' choices are kept."""

    def of(self, user_id: str) -> Route | None:
        """The user's choice, if one was made."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """What one user is told. `user_id` is missing where a webhook tells an application, not a person."""

    user_id: str | None
    title: str
    body: str
    type: str
    url: str | None = None
    endpoint: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


class Channel(Protocol):
    """One way to reach a user. Raises GraphFailure, or RejectedError when there is no such way for this user."""

    def send(self, job: Job, notice: Notice) -> dict[str, Any]:
        """Send once; the answer's facts for the job's result. The same job sends the same identity each time."""
        ...


class ActivityChannel:
    """The activity feed of Teams. A repeat takes the place of the first."""

    def __init__(self, feed: ActivityClient) -> None:
        self._feed = feed

    def send(self, job: Job, notice: Notice) -> dict[str, Any]:
        user_id = _user(notice)
        if notice.url is None:
            raise RejectedError(f"url: {NEEDS_LINK}")
        activity = Activity(
            notice.body or notice.title,
            chain_id_of(job.effect_id),
            topic=notice.title,
            web_url=notice.url,
            preview=notice.body[:PREVIEW_CHARACTERS],
        )
        self._feed.notify_user(user_id, activity)
        return {"chain_id": str(activity.chain_id)}


class PushChannel:
    """All devices of the user, through Notification Hubs."""

    def __init__(self, hub: NotificationHub) -> None:
        self._hub = hub

    def send(self, job: Job, notice: Notice) -> dict[str, Any]:
        user_id = _user(notice)
        if not _TAG.fullmatch(user_id):
            # A tag is an expression to the hub: with other characters it could name other people's devices.
            raise RejectedError(
                "userIds: a push is told by a tag, which takes letters and digits of ASCII and _ @ # . : - only: give "
                "Graph's id of the user"
            )
        properties = {
            "title": notice.title,
            "body": notice.body,
            "type": notice.type,
            # An app that shows each id once does not show a repeat.
            "id": str(job.effect_id),
            "data": json.dumps(notice.data, ensure_ascii=False),
        }
        if notice.url:
            properties["url"] = notice.url
        return {"notification_id": self._hub.send(user_id, properties)}


class WebhookChannel:
    """The endpoint that the payload or the user's choice names."""

    def __init__(self, sender: WebhookSender, endpoints: Mapping[str, Endpoint]) -> None:
        self._sender = sender
        self._endpoints = endpoints

    def send(self, job: Job, notice: Notice) -> dict[str, Any]:
        endpoint = self._endpoints.get(notice.endpoint or "")
        if endpoint is None:
            raise RejectedError(
                f"endpoint: OUTGOING_WEBHOOKS has no {notice.endpoint!r}; name one of its endpoints in the payload or "
                "in the user's row of notification_routes"
            )
        now = datetime.now(UTC)
        data = {"userId": notice.user_id, "title": notice.title, "body": notice.body, "url": notice.url}
        event = {
            "type": notice.type,
            "timestamp": (job.enqueued_at or now).isoformat(),
            "data": {name: value for name, value in data.items() if value not in (None, "")} | {"data": notice.data},
        }
        self._sender.send(endpoint, str(job.effect_id), to_bytes(event), now)
        return {"endpoint": endpoint.name}


class MissingChannel:
    """A channel that the settings do not provide."""

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy

    def send(self, job: Job, notice: Notice) -> dict[str, Any]:  # noqa: ARG002 - as every channel
        raise RejectedError(f"this channel is not set up: {self._remedy}")


def _user(notice: Notice) -> str:
    if notice.user_id is None:
        raise RejectedError("userIds: this channel reaches users, and none is named")
    return notice.user_id
