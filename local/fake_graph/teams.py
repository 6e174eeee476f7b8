"""Chats and channels: reading and posting messages, replies and hosted contents."""

from __future__ import annotations

import copy
from typing import Any

from local.fake_graph import chat_form, query
from local.fake_graph.call import (
    Answer,
    Call,
    GraphError,
    Json,
    bad_request,
    milliseconds_text,
    not_found,
)
from local.fake_graph.state import TENANT, Bot, Change, Chat, ChatMessage, Team, User, World

PAGE = 50
MOST_QUOTED = 10


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
        "tenantId": TENANT,
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
    chat_form.check_message(call.body, len(call.raw))
    message = add_chat_message(world, chat.id, world.user(call.token.subject), call.body, call.base_url)
    return Answer(201, _entity(call, message, f"chats('{chat.id}')/messages"))


def reply_with_quote(world: World, call: Call) -> Answer:
    chat = world.chat(call.params["chat"])
    _require_member(call, chat.members)
    quoted = [_message(chat.messages, str(message_id)) for message_id in call.body["messageIds"]]
    if not 1 <= len(quoted) <= MOST_QUOTED:
        raise bad_request(f"Between 1 and {MOST_QUOTED} messages can be quoted.")
    reply = call.body["replyMessage"]
    chat_form.check_message(reply, len(call.raw))
    body = chat_form.with_quotes(reply, quoted)
    message = add_chat_message(world, chat.id, world.user(call.token.subject), body, call.base_url)
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
    chat_form.check_message(call.body, len(call.raw))
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
    chat_form.check_message(call.body, len(call.raw))
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


def add_chat_message(world: World, chat_id: str, sender: User | Bot, body: Json, base_url: str) -> ChatMessage:
    """Put a message into the chat and tell the subscriptions."""
    chat = world.chat(chat_id)
    message = chat_form.new_message(world, sender, body)
    message.value |= {"chatId": chat.id}
    chat_form.store_hosted(message, body, f"{base_url}/v1.0/chats/{chat.id}/messages/{message.id}")
    chat.messages[message.id] = message
    publish_chat_message(world, chat, message, "created")
    return message


def add_channel_message(
    world: World, team_id: str, channel_id: str, reply_to: str | None, sender: User | Bot, body: Json, base_url: str
) -> ChatMessage:
    """Put a message, or a reply to one, into the channel and tell the subscriptions."""
    channel = world.channel(team_id, channel_id)
    if reply_to is not None:
        _message(channel.messages, reply_to)
    message = chat_form.new_message(world, sender, body)
    message.value |= {
        "channelIdentity": {"teamId": team_id, "channelId": channel_id},
        "replyToId": reply_to,
    }
    parent = f"/{reply_to}/replies" if reply_to else ""
    url = f"{base_url}/v1.0/teams/{team_id}/channels/{channel_id}/messages{parent}/{message.id}"
    chat_form.store_hosted(message, body, url)
    channel.messages[message.id] = message
    publish_channel_message(world, team_id, channel_id, message, "created")
    return message


def publish_chat_message(world: World, chat: Chat, message: ChatMessage, change_type: str) -> None:
    """Tell the subscriptions that see this chat."""
    path = f"chats('{chat.id}')/messages('{message.id}')"
    users = {f"users/{member}/chats/getallmessages" for member in chat.members}
    scopes = {f"chats/{chat.id}/messages".lower(), "chats/getallmessages", *users}
    _publish(world, message, path, scopes, change_type)


def publish_channel_message(
    world: World, team_id: str, channel_id: str, message: ChatMessage, change_type: str
) -> None:
    """Tell the subscriptions that see this channel."""
    root, reply_to = f"teams('{team_id}')/channels('{channel_id}')/messages", message.value["replyToId"]
    path = f"{root}('{message.id}')" if reply_to is None else f"{root}('{reply_to}')/replies('{message.id}')"
    scopes = {f"teams/{team_id}/channels/{channel_id}/messages".lower(), "teams/getallmessages"}
    _publish(world, message, path, scopes, change_type)


def _publish(world: World, message: ChatMessage, path: str, scopes: set[str], change_type: str) -> None:
    place = (path, message.id)
    resource = copy.deepcopy(message.value)
    world.publish(
        Change(change_type, frozenset(scopes), "#Microsoft.Graph.chatMessage", place, place, resource=resource)
    )


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
