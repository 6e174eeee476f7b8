"""What people do with a message of a chat or channel later: edit, delete, undo the deletion, react."""

from __future__ import annotations

from local.fake_graph import teams
from local.fake_graph.call import Json, milliseconds_text, not_found, utc_now
from local.fake_graph.state import ChatMessage, World


def edit(world: World, order: Json) -> Json:
    """A new text and, where given, other reactions; `order` names the place as `chat`, or `team` and `channel`."""
    message = _find(world, order)
    if "content" in order:
        message.value["body"] = message.value["body"] | {"content": order["content"]}
        message.value["lastEditedDateTime"] = milliseconds_text(utc_now())
    if "reactions" in order:
        message.value["reactions"] = order["reactions"]
    return _changed(world, order, message, "updated")


def delete(world: World, order: Json) -> Json:
    """The message stays with a deletedDateTime and without its content."""
    message = _find(world, order)
    message.value["deletedDateTime"] = milliseconds_text(utc_now())
    message.kept = message.value["body"]
    message.value["body"] = {"contentType": "text", "content": ""}
    return _changed(world, order, message, "deleted")


def restore(world: World, order: Json) -> Json:
    """The author takes the deletion back."""
    message = _find(world, order)
    message.value |= {"deletedDateTime": None, "body": message.kept}
    return _changed(world, order, message, "updated")


def _find(world: World, order: Json) -> ChatMessage:
    place = world.chat(order["chat"]) if "chat" in order else world.channel(order["team"], order["channel"])
    if order["message"] not in place.messages:
        raise not_found("NotFound: message")
    return place.messages[order["message"]]


def _changed(world: World, order: Json, message: ChatMessage, change_type: str) -> Json:
    # Teams' etag is the instant of the last change; two changes never share one.
    message.value["lastModifiedDateTime"] = milliseconds_text(utc_now())
    message.value["etag"] = world.next_message_id()
    if "chat" in order:
        teams.publish_chat_message(world, world.chat(order["chat"]), message, change_type)
    else:
        teams.publish_channel_message(world, order["team"], order["channel"], message, change_type)
    return {"id": message.id}
