"""The activity feeds of people: notifications that an app sends, one of a chain in the place of the one before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local.fake_graph.call import Answer, Call, Json, bad_request, milliseconds_text, utc_now

if TYPE_CHECKING:
    from local.fake_graph.state import World

_GRAPH = "https://graph.microsoft.com/"
_KIND = "#microsoft.graph.{}NotificationRecipient"
MOST_RECIPIENTS = 100


class ActivityFeeds:
    """What everybody's feed shows, oldest first; `times` counts how often a notification was sent."""

    def __init__(self) -> None:
        self._feeds: dict[str, dict[Any, Json]] = {}

    def of(self, user_id: str) -> list[Json]:
        return list(self._feeds.get(user_id, {}).values())

    def add(self, user_id: str, body: Json) -> None:
        feed = self._feeds.setdefault(user_id, {})
        chain = body.get("chainId")
        key = len(feed) if chain is None else f"chain {chain}"
        times = feed.pop(key, {}).get("times", 0) + 1
        shown = {
            name: body.get(name) for name in ("topic", "activityType", "previewText", "templateParameters", "chainId")
        }
        feed[key] = shown | {"times": times, "at": milliseconds_text(utc_now())}


def notify_user(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    _check(call.body)
    world.feeds.add(user.id, call.body)
    return Answer(204)


def notify_chat(world: World, call: Call) -> Answer:
    chat = world.chat(call.params["chat"])
    _check(call.body)
    _check_recipient(call.body, "chatMembers", {"chatId": chat.id})
    for member in chat.members:
        world.feeds.add(member, call.body)
    return Answer(204)


def notify_team(world: World, call: Call) -> Answer:
    team = world.team(call.params["team"])
    _check(call.body)
    recipient = call.body.get("recipient") or {}
    if recipient.get("@odata.type") == _KIND.format("channelMembers"):
        channel = world.channel(team.id, str(recipient.get("channelId")))
        _check_recipient(call.body, "channelMembers", {"teamId": team.id, "channelId": channel.id})
    else:
        _check_recipient(call.body, "teamMembers", {"teamId": team.id})
    for member in list(world.users) if team.members is None else team.members:
        world.feeds.add(member, call.body)
    return Answer(204)


def notify_recipients(world: World, call: Call) -> Answer:
    _check(call.body)
    recipients = call.body.get("recipients") or []
    if not 1 <= len(recipients) <= MOST_RECIPIENTS:
        raise bad_request(f"Recipients must be between 1 and {MOST_RECIPIENTS}.")
    for recipient in recipients:
        if recipient.get("@odata.type") != _KIND.format("aadUser") or not recipient.get("userId"):
            raise bad_request("Every recipient must be an aadUserNotificationRecipient with its userId.")
        found = world.find_user(recipient["userId"])
        if found is not None:  # carried out later: whoever is unknown gets nothing
            world.feeds.add(found.id, call.body)
    return Answer(202)


def _check(body: Json) -> None:
    """What the service asks beyond the types."""
    topic, kind = body["topic"], body["activityType"]
    if topic.get("source") == "text":
        if not topic.get("value") or not topic.get("webUrl"):
            raise bad_request("The webUrl of the topic is required when its source is text.")
    elif not str(topic.get("value")).startswith(_GRAPH):
        raise bad_request("The value of the topic must be a Microsoft Graph URL when its source is entityUrl.")
    if kind != "systemDefault":
        raise bad_request(f"The activity type '{kind}' is not declared in the manifest of the Teams app.")
    names = {parameter.get("name") for parameter in body.get("templateParameters") or []}
    if "systemDefaultText" not in names:
        raise bad_request("The template parameter 'systemDefaultText' is missing.")


def _check_recipient(body: Json, kind: str, ids: Json) -> None:
    if body.get("recipient") != {"@odata.type": _KIND.format(kind), **ids}:
        raise bad_request(f"The recipient must be {_KIND.format(kind)} of {ids}.")
