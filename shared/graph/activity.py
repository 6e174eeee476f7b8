"""The activity feed of Teams: notifications from the application to a person, a chat or a team.

Needs TeamsActivity.Send, and a Teams app with the same application id that is installed for the recipients.
Facts: https://learn.microsoft.com/graph/teams-send-activityfeednotifications.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from shared.graph.client import GraphClient

#: Free text; every other type must be declared in the Teams app's manifest.
SYSTEM_DEFAULT = "systemDefault"
#: Teams shows so many characters of the preview.
PREVIEW_CHARACTERS = 150
#: One request reaches so many people.
MOST_USERS = 100
GRAPH = "https://graph.microsoft.com/v1.0"


@dataclass(frozen=True, slots=True)
class Activity:
    """What a notification says. `chain_id` makes a repeat take the place of the first: see `chain_id_of`.

    `topic` is a title of our own with `web_url`, where a click leads (a Teams deep link); without them a chat or team
    is its own topic. `text` is the row under it with the type systemDefault, `parameters` fill other types.
    """

    text: str
    chain_id: int
    topic: str | None = None
    web_url: str | None = None
    preview: str = ""
    activity_type: str = SYSTEM_DEFAULT
    parameters: Mapping[str, str] = field(default_factory=dict)


class ActivityClient:
    """Sends activity-feed notifications as the application. Methods raise GraphFailure.

    A repeat with the same chain id changes nothing but the time: after a lost answer, just send again.
    """

    def __init__(self, graph: GraphClient) -> None:
        self._graph = graph

    def notify_user(self, user_id: str, activity: Activity) -> None:
        """Tell one person; `activity` needs topic and web_url."""
        body = _body(activity)
        self._graph.call("POST", "/users/{user}/teamwork/sendActivityNotification", expect=204, body=body, user=user_id)

    def notify_users(self, user_ids: Sequence[str], activity: Activity) -> None:
        """Tell up to MOST_USERS people by one request, which Graph carries out later; needs topic and web_url."""
        recipients = [_recipient("aadUser", userId=user_id) for user_id in user_ids]
        body = _body(activity) | {"recipients": recipients}
        self._graph.call("POST", "/teamwork/sendActivityNotificationToRecipients", expect=202, body=body)

    def notify_chat(self, chat_id: str, activity: Activity) -> None:
        """Tell everybody in a chat."""
        body = _body(activity, f"{GRAPH}/chats/{chat_id}") | {"recipient": _recipient("chatMembers", chatId=chat_id)}
        self._graph.call("POST", "/chats/{chat}/sendActivityNotification", expect=204, body=body, chat=chat_id)

    def notify_team(self, team_id: str, activity: Activity, channel_id: str | None = None) -> None:
        """Tell everybody in a team, or in one of its channels."""
        if channel_id is None:
            entity, recipient = f"{GRAPH}/teams/{team_id}", _recipient("teamMembers", teamId=team_id)
        else:
            entity = f"{GRAPH}/teams/{team_id}/channels/{channel_id}"
            recipient = _recipient("channelMembers", teamId=team_id, channelId=channel_id)
        body = _body(activity, entity) | {"recipient": recipient}
        self._graph.call("POST", "/teams/{team}/sendActivityNotification", expect=204, body=body, team=team_id)


def chain_id_of(effect_id: UUID) -> int:
    """A chain id (a positive int64) that is the same for every attempt of a job and of its redrives."""
    digest = hashlib.sha256(b"activity:" + effect_id.bytes).digest()
    return (int.from_bytes(digest[:8]) & 0x7FFF_FFFF_FFFF_FFFF) or 1


def _body(activity: Activity, entity: str | None = None) -> dict[str, Any]:
    if activity.topic is not None:
        topic = {"source": "text", "value": activity.topic, "webUrl": activity.web_url}
    elif entity is not None:
        topic = {"source": "entityUrl", "value": entity}
    else:
        raise ValueError("a notification to people needs a topic and its web_url")
    parameters = dict(activity.parameters)
    if activity.activity_type == SYSTEM_DEFAULT:
        parameters["systemDefaultText"] = activity.text
    return {
        "topic": topic,
        "activityType": activity.activity_type,
        "chainId": activity.chain_id,
        "previewText": {"content": (activity.preview or activity.text)[:PREVIEW_CHARACTERS]},
        "templateParameters": [{"name": name, "value": value} for name, value in parameters.items()],
    }


def _recipient(kind: str, **ids: str) -> dict[str, Any]:
    return {"@odata.type": f"#microsoft.graph.{kind}NotificationRecipient", **ids}
