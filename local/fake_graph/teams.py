"""Chats and channels: reading and posting messages, replies and hosted contents."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from local.fake_graph import query
from local.fake_graph.call import (
    Answer,
    Call,
    GraphError,
    Json,
    bad_request,
    milliseconds_text,
    not_found,
    utc_now,
)
from local.fake_graph.state import Change, ChatMessage, Team, User, World

#: Teams takes about 28 KB a post, images beside the text not counted.
MESSAGE_BYTES = 28 * 1024
PAGE = 50
CARD = "application/vnd.microsoft.card.adaptive"
_AT = re.compile(r"<at\b[^>]*\bid=[\"']?(\d+)", re.IGNORECASE)
_ATTACHMENT = re.compile(r"<attachment\b[^>]*\bid=[\"']([^\"']+)[\"']", re.IGNORECASE)
_HOSTED = re.compile(r"(\.\./hostedContents/)([^/\"']+)(/\$value)")


def get_chat(world: World, call: Call) -> Answer:
    chat = world.chat(call.params["chat"])
    _require_member(call, chat.members)
    kind = "oneOnOne" if len(chat.members) == 2 and chat.topic is None else "group"
    body = {
        "@odata.context": f"{call.base_url}/v1.0/$metadata#chats/$entity",
        "id": chat.id,
        "topic": chat.topic,
        "chatType": kind,
        "createdDateTime": milliseconds_text(chat.created_at),
        "lastUpdatedDateTime": milliseconds_text(chat.created_at),
        "tenantId": call.params["tenant"],
        "webUrl": f"https://teams.example/l/chat/{chat.id}/0",
    }
    return Answer(200, query.select(body, call.query.get("$select")))


def list_chat_messages(world: World, call: Call) -> Answer:
    chat = world.chat(call.params["chat"])
    _require_member(call, chat.members)
    items = [message.value for message in chat.messages.values()]
    ordering = call.query.get("$orderby", "lastModifiedDateTime desc")
    if " desc" not in ordering.lower():
        raise bad_request("QueryOptions to order by ascending is not supported.")
    if "$filter" in call.query:
        if not call.query["$filter"].startswith(ordering.split()[0]):
            raise bad_request("QueryOptions to filter must be on the property that the list is ordered by.")
        items = list(filter(query.parse_filter(call.query["$filter"]), items))
    items = query.order(items, ordering, {"createdDateTime", "lastModifiedDateTime"})
    return _page(call, items, f"chats('{chat.id}')/messages")


def get_chat_message(world: World, call: Call) -> Answer:
    chat = world.chat(call.params["chat"])
    _require_member(call, chat.members)
    message = _message(chat.messages, call.params["message"])
    return Answer(200, _entity(call, message, f"chats('{chat.id}')/messages"))


def post_chat_message(world: World, call: Call) -> Answer:
    chat = world.chat(call.params["chat"])
    _require_member(call, chat.members)
    check_message(call.body, len(call.raw))
    message = add_chat_message(world, chat.id, world.user(call.token.subject), call.body, call.base_url)
    return Answer(201, _entity(call, message, f"chats('{chat.id}')/messages"))


def list_channel_messages(world: World, call: Call) -> Answer:
    channel = _channel_for(world, call)
    messages = [message.value for message in channel.messages.values()]
    roots = [message for message in messages if message["replyToId"] is None]
    items = query.order(roots, "lastModifiedDateTime desc", {"lastModifiedDateTime"})
    expand = call.query.get("$expand")
    if expand not in (None, "replies"):
        raise bad_request(f"Could not find a property to expand: {expand}")
    if expand:
        items = [item | {"replies": _replies(messages, item["id"])} for item in items]
    return _page(call, items, f"teams('{call.params['team']}')/channels('{channel.id}')/messages")


def get_channel_message(world: World, call: Call) -> Answer:
    channel = _channel_for(world, call)
    message = _message(channel.messages, call.params["message"])
    return Answer(200, _entity(call, message, _channel_context(call)))


def post_channel_message(world: World, call: Call) -> Answer:
    _channel_for(world, call)
    check_message(call.body, len(call.raw))
    message = add_channel_message(
        world, call.params["team"], call.params["channel"], None, world.user(call.token.subject), call.body,
        call.base_url,
    )  # fmt: skip
    return Answer(201, _entity(call, message, _channel_context(call)))


def list_replies(world: World, call: Call) -> Answer:
    channel = _channel_for(world, call)
    root = _message(channel.messages, call.params["message"])
    replies = _replies([message.value for message in channel.messages.values()], root.id)
    return _page(call, replies, f"{_channel_context(call)}('{root.id}')/replies")


def get_reply(world: World, call: Call) -> Answer:
    channel = _channel_for(world, call)
    reply = _message(channel.messages, call.params["reply"])
    if reply.value["replyToId"] != call.params["message"]:
        raise not_found("NotFound: reply")
    return Answer(200, _entity(call, reply, f"{_channel_context(call)}/replies"))


def post_reply(world: World, call: Call) -> Answer:
    channel = _channel_for(world, call)
    root = _message(channel.messages, call.params["message"])
    if root.value["replyToId"] is not None:
        raise bad_request("A reply cannot be replied to.")
    check_message(call.body, len(call.raw))
    reply = add_channel_message(
        world, call.params["team"], channel.id, root.id, world.user(call.token.subject), call.body, call.base_url
    )
    return Answer(201, _entity(call, reply, f"{_channel_context(call)}('{root.id}')/replies"))


def list_hosted_contents(world: World, call: Call) -> Answer:
    message = _hosting_message(world, call)
    values = [{"id": key, "contentBytes": None, "contentType": None} for key in message.hosted]
    return _page(call, values, "hostedContents")


def get_hosted_content(world: World, call: Call) -> Answer:
    message = _hosting_message(world, call)
    if call.params["content"] not in message.hosted:
        raise not_found("NotFound: hosted content")
    content_type, content = message.hosted[call.params["content"]]
    return Answer(200, content, content_type=content_type)


def check_message(body: Json, size: int) -> None:
    """What Teams asks of a message beyond its schema; `size` is the request's in bytes."""
    hosted = body.get("hostedContents") or []
    if size - sum(len(content.get("contentBytes") or "") for content in hosted) > MESSAGE_BYTES:
        raise GraphError(413, "RequestEntityTooLarge", "The request body is too large: the limit is about 28 KB.")
    content = body["body"].get("content") or ""
    mentions = {str(mention.get("id")) for mention in body.get("mentions") or []}
    if set(_AT.findall(content)) != mentions:
        raise bad_request("Mention IDs in the body and the mentions property do not match.")
    attachments = body.get("attachments") or []
    unknown = set(_ATTACHMENT.findall(content)) - {str(attachment.get("id")) for attachment in attachments}
    if unknown:
        raise bad_request(f"Attachments {sorted(unknown)} are named in the body and not given.")
    for attachment in attachments:
        if attachment.get("contentType") == CARD:
            _check_card(attachment.get("content"))
    given = {content.get("@microsoft.graph.temporaryId") for content in hosted}
    if {match[1] for match in _HOSTED.findall(content)} - given:
        raise bad_request("The body names a hosted content that is not given.")


def add_chat_message(world: World, chat_id: str, sender: User, body: Json, base_url: str) -> ChatMessage:
    """Put a message into the chat and tell the subscriptions."""
    chat = world.chat(chat_id)
    message = _new_message(world, sender, body)
    message.value |= {"chatId": chat.id}
    _store_hosted(message, body, f"{base_url}/v1.0/chats/{chat.id}/messages/{message.id}")
    chat.messages[message.id] = message
    path = f"chats('{chat.id}')/messages('{message.id}')"
    users = {f"users/{member}/chats/getallmessages" for member in chat.members}
    _publish(world, message, path, {f"chats/{chat.id}/messages".lower(), "chats/getallmessages", *users})
    return message


def add_channel_message(
    world: World, team_id: str, channel_id: str, reply_to: str | None, sender: User, body: Json, base_url: str
) -> ChatMessage:
    """Put a message, or a reply to one, into the channel and tell the subscriptions."""
    channel = world.channel(team_id, channel_id)
    if reply_to is not None:
        _message(channel.messages, reply_to)
    message = _new_message(world, sender, body)
    message.value |= {
        "channelIdentity": {"teamId": team_id, "channelId": channel_id},
        "replyToId": reply_to,
    }
    parent = f"/{reply_to}/replies" if reply_to else ""
    url = f"{base_url}/v1.0/teams/{team_id}/channels/{channel_id}/messages{parent}/{message.id}"
    _store_hosted(message, body, url)
    channel.messages[message.id] = message
    root = f"teams('{team_id}')/channels('{channel_id}')/messages"
    path = f"{root}('{message.id}')" if reply_to is None else f"{root}('{reply_to}')/replies('{message.id}')"
    scopes = {f"teams/{team_id}/channels/{channel_id}/messages".lower(), "teams/getallmessages"}
    _publish(world, message, path, scopes)
    return message


def _new_message(world: World, sender: User, body: Json) -> ChatMessage:
    message_id = world.next_message_id()
    now = milliseconds_text(utc_now())
    content = body["body"]
    value: Json = {
        "id": message_id,
        "replyToId": None,
        "etag": message_id,
        "messageType": "message",
        "createdDateTime": now,
        "lastModifiedDateTime": now,
        "lastEditedDateTime": None,
        "deletedDateTime": None,
        "subject": body.get("subject"),
        "summary": body.get("summary"),
        "chatId": None,
        "importance": body.get("importance") or "normal",
        "locale": "en-us",
        "webUrl": None,
        "channelIdentity": None,
        "policyViolation": None,
        "eventDetail": None,
        "from": {
            "application": None,
            "device": None,
            "user": {
                "@odata.type": "#microsoft.graph.teamworkUserIdentity",
                "id": sender.id,
                "displayName": sender.name,
                "userIdentityType": "aadUser",
            },
        },
        "body": {
            "contentType": (content.get("contentType") or "text").lower(),
            "content": content.get("content") or "",
        },
        "attachments": [_attachment(attachment) for attachment in body.get("attachments") or []],
        "mentions": body.get("mentions") or [],
        "reactions": [],
    }
    return ChatMessage(value)


def _attachment(given: Json) -> Json:
    names = ("id", "contentType", "contentUrl", "content", "name", "thumbnailUrl", "teamsAppId")
    return {name: given.get(name) for name in names}


def _store_hosted(message: ChatMessage, body: Json, url: str) -> None:
    """Keep the given images, and name their new addresses in the body."""
    ids: dict[str, str] = {}
    for number, content in enumerate(body.get("hostedContents") or [], start=1):
        try:
            data = base64.b64decode(content.get("contentBytes") or "", validate=True)
        except binascii.Error:
            raise bad_request("contentBytes is not base64.") from None
        key = base64.urlsafe_b64encode(f"id=x_{message.id},type=1,n={number}".encode()).decode()
        message.hosted[key] = (content.get("contentType") or "application/octet-stream", data)
        ids[str(content.get("@microsoft.graph.temporaryId"))] = key
    text = message.value["body"]["content"]
    message.value["body"]["content"] = _HOSTED.sub(
        lambda match: f"{url}/hostedContents/{ids[match[2]]}{match[3]}" if match[2] in ids else match[0], text
    )


def _publish(world: World, message: ChatMessage, path: str, scopes: set[str]) -> None:
    place = (path, message.id)
    change = Change("created", frozenset(scopes), "#Microsoft.Graph.chatMessage", place, place)
    world.publish(change)


def _check_card(content: Any) -> None:
    try:
        card = json.loads(content) if isinstance(content, str) else None
    except ValueError:
        card = None
    if not isinstance(card, dict) or card.get("type") != "AdaptiveCard":
        raise bad_request("The content of an adaptive card must be its JSON as a string.")


def _channel_for(world: World, call: Call) -> Any:
    channel = world.channel(call.params["team"], call.params["channel"])
    _require_member(call, _members(world, world.team(call.params["team"])))
    return channel


def _members(world: World, team: Team) -> list[str]:
    return list(world.users) if team.members is None else team.members


def _require_member(call: Call, members: list[str]) -> None:
    if call.token.is_user and call.token.subject not in members:
        raise GraphError(403, "Forbidden", "User is not a member: the request is not allowed.")


def _hosting_message(world: World, call: Call) -> ChatMessage:
    if "chat" in call.params:
        chat = world.chat(call.params["chat"])
        _require_member(call, chat.members)
        return _message(chat.messages, call.params["message"])
    channel = _channel_for(world, call)
    return _message(channel.messages, call.params.get("reply") or call.params["message"])


def _message(messages: dict[str, ChatMessage], message_id: str) -> ChatMessage:
    if message_id not in messages:
        raise not_found("NotFound: message")
    return messages[message_id]


def _replies(messages: list[Json], root_id: str) -> list[Json]:
    replies = [message for message in messages if message["replyToId"] == root_id]
    return query.order(replies, "lastModifiedDateTime desc", {"lastModifiedDateTime"})


def _channel_context(call: Call) -> str:
    return f"teams('{call.params['team']}')/channels('{call.params['channel']}')/messages"


def _entity(call: Call, message: ChatMessage, context: str) -> Json:
    return {"@odata.context": f"{call.base_url}/v1.0/$metadata#{context}/$entity"} | message.value


def _page(call: Call, items: list[Json], context: str) -> Answer:
    top = query.number(call, "$top", 20, 1, PAGE)
    return Answer(200, query.page(call, items, top, context))
