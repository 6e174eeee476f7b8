"""What makes two notifications the same: the message that they name, and the change that they tell."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.handlers import outlook_inbound, teams_inbound


@dataclass(frozen=True, slots=True)
class Target:
    """What a resource path names. `identity` is the same however the path is written; `place` is the mailbox, the
    chat, or team and channel.
    """

    queue: str
    identity: tuple[str, ...]
    place: tuple[str, ...]


def find_target(resource: str) -> Target | None:
    """The inbound queue of the message that a path names, `users/{id}/messages/{id}` for one; None: no queue's."""
    with suppress(ValueError):
        user, message = outlook_inbound.address(resource)
        return Target("outlook-inbound", ("mail", user.lower(), message), (user.lower(),))
    with suppress(ValueError):
        place, message = teams_inbound.address(resource)
        identity = ("chat", place.thread_id(message), place.external_id(message))
        return Target("teams-inbound", identity, tuple(filter(None, (place.chat_id, place.team_id, place.channel_id))))
    return None


def is_mail(target: Target | None) -> bool:
    """Whether it is a message of a mailbox."""
    return target is not None and target.queue == "outlook-inbound"


def change_key(
    item: dict[str, Any], target: Target | None, position: str, content: dict[str, Any] | None = None
) -> str:
    """What makes two notifications the same change; `content` is the resource that it brings.

    With an etag: the resource in that state. So `created` and `updated` of one creation, repeats, and the views of
    two subscriptions are one; an edit has a new etag. Without one, a creation is one for its resource. A deletion
    is told by its notification's id, since a move is told as one and leaves the etag: the real one may follow.
    Anything else is told by the id too, or only by its place in its delivery: rather a spare look than a missed
    change.
    """
    change = str(item.get("changeType")).lower()
    resource = target.identity if target else (str(item.get("resource")),)
    data = item.get("resourceData")
    etag = (data.get("@odata.etag") if isinstance(data, dict) else None) or (content or {}).get("etag")
    notification = item.get("id")
    state: tuple[str, ...]
    if change == "deleted" and isinstance(notification, str):
        state = (change, "id", notification)
    elif isinstance(etag, str) and etag:
        state = ("etag", etag, "gone" if change == "deleted" else "there")
    elif change == "created":
        state = (change,)
    elif isinstance(notification, str):
        state = (change, "id", notification)
    else:
        state = (change, "at", position)
    return digest("change", str(item.get("tenantId")), *resource, *state)


def lifecycle_key(item: dict[str, Any], received_at: datetime | None) -> str:
    """A subscription is removed once; the other events may come again and mean it: told by id, or by the minute."""
    event = str(item.get("lifecycleEvent"))
    parts = ["lifecycle", str(item.get("subscriptionId")), event]
    if event != "subscriptionRemoved":
        minute = received_at.strftime("%Y-%m-%dT%H:%M") if received_at else ""
        parts.append(str(item["id"]) if isinstance(item.get("id"), str) else minute)
    return digest(*parts)


def digest(*parts: str) -> str:
    """A key made of texts, of the same length whatever they are."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
