"""Tells users something on the channel that they, or the caller, chose, and on the next when that one fails for good.

A job for several users becomes a job for each, and a job whose channel failed for good a job for the channels that
are left: follow-ups come into being in the transaction that completes their parent (I6), so each has its own attempts
and history, and none is lost or doubled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shared.engine.backoff import decide
from shared.engine.classify import classify
from shared.engine.context import Context, Handler
from shared.engine.errors import JobError
from shared.engine.job import Completed, Dead, Job, NewJob
from shared.graph.client import to_bytes
from shared.handlers.graph_errors import graph_attempt, sending
from shared.handlers.notification_channels import NEEDS_LINK, Channel, ChannelName, Notice, NotificationRoutes
from shared.handlers.payload_fields import Identifier, OneLine, Payload
from shared.handlers.services import Services

QUEUE = "notifications"
#: What a push service takes as a whole; Apple's and Google's limit is 4 KB.
DATA_BYTES = 2048


class Notification(Payload):
    """Tell users something. `channel` is one channel or several in order; without it each user's own choice holds.

    `data` goes to the receiving app as it is, `url` is where a click leads, and `endpoint` names the webhook endpoint
    (with it, and the channel webhook, there need be no users). `type` is the webhook's event type.
    """

    user_ids: Annotated[list[Identifier], Field(max_length=100)] = Field(default_factory=list)
    title: Annotated[OneLine, Field(min_length=1, max_length=150)]
    body: Annotated[str, Field(max_length=4000)] = ""
    data: dict[str, Any] = Field(default_factory=dict)
    channel: ChannelName | Annotated[list[ChannelName], Field(min_length=1, max_length=3)] | None = None
    endpoint: Annotated[OneLine, Field(min_length=1, max_length=100)] | None = None
    url: Annotated[OneLine, Field(max_length=2048)] | None = Field(None, validate_default=True)
    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] = "notification"

    @property
    def channels(self) -> tuple[ChannelName, ...]:
        """The caller's choice, in order; empty where users choose themselves."""
        if self.channel is None:
            return ()
        return (self.channel,) if isinstance(self.channel, str) else tuple(self.channel)

    @field_validator("channel")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        if isinstance(value, list) and len(set(value)) != len(value):
            raise ValueError("names a channel twice: name each once, in the order to try them")
        return value

    @field_validator("data")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        size = len(to_bytes(value))
        if size > DATA_BYTES:
            raise ValueError(f"takes {size} bytes as JSON, and {DATA_BYTES} go along: send an id and fetch the rest")
        return value

    @field_validator("url")
    @classmethod
    def _link(cls, value: str | None, info: ValidationInfo) -> str | None:
        chosen = info.data.get("channel")
        if value is None and "teams-activity" in ([chosen] if isinstance(chosen, str) else chosen or []):
            raise ValueError(NEEDS_LINK)
        if value is not None and (not value.startswith("https://") or " " in value):
            raise ValueError("must be an address that begins with https://, without spaces")
        return value

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.user_ids and (self.channels != ("webhook",) or self.endpoint is None):
            raise ValueError(
                'userIds is empty: name at least one user, or give channel "webhook" and an endpoint to tell an '
                "application"
            )
        if self.endpoint is not None and self.channels and "webhook" not in self.channels:
            raise ValueError('endpoint goes with the channel "webhook": add that channel, or leave endpoint out')
        return self


class Notifications:
    """The handler of `notifications`."""

    def __init__(
        self, channels: Mapping[str, Channel], routes: NotificationRoutes, default: Sequence[ChannelName]
    ) -> None:
        self._channels = channels
        self._routes = routes
        self._default = tuple(default)

    def __call__(self, job: Job, payload: Notification, context: Context) -> Completed:
        users = list(dict.fromkeys(payload.user_ids))
        if len(users) > 1:
            jobs = tuple(self._follow_up(job, payload, user, payload.channels, f"user:{user}") for user in users)
            return Completed({"outcome": "split", "jobs": len(jobs)}, jobs)
        user = users[0] if users else None
        order, endpoint = self._route(payload, user)
        notice = Notice(user, payload.title, payload.body, payload.type, payload.url, endpoint, payload.data)
        channel, rest = order[0], order[1:]
        try:
            with graph_attempt(context):
                context.checkpoint()
                with sending():
                    facts = self._channels[channel].send(job, notice)
        except JobError as error:
            if not rest or not isinstance(decide(job, classify(error), Random(0)), Dead):  # noqa: S311 - no secret
                raise
            follow_up = self._follow_up(job, payload, user, rest, f"after:{channel}")
            result = {"outcome": "failed-over", "channel": channel, "next": rest[0], "error": str(error)}
            return Completed(result, (follow_up,))
        return Completed({"outcome": "sent", "channel": channel, **facts})

    def _route(self, payload: Notification, user: str | None) -> tuple[tuple[ChannelName, ...], str | None]:
        """The channels to try, in order, and the endpoint of the webhook among them."""
        chosen = payload.channels
        if chosen and (payload.endpoint or "webhook" not in chosen):
            return chosen, payload.endpoint
        route = self._routes.of(user) if user else None
        endpoint = payload.endpoint or (route.endpoint if route else None)
        return chosen or (route.channels if route else self._default), endpoint

    @staticmethod
    def _follow_up(
        job: Job, payload: Notification, user: str | None, channels: Sequence[ChannelName], key: str
    ) -> NewJob:
        changes: dict[str, Any] = {"user_ids": [user] if user else [], "channel": list(channels) or None}
        body = payload.model_copy(update=changes).model_dump(by_alias=True, exclude_none=True, mode="json")
        return NewJob(QUEUE, body, priority=job.priority, idempotency_key=f"notification:{job.effect_id}:{key}")


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built."""
    return Notifications(services.notification_channels, services.notification_routes, services.default_channels)
