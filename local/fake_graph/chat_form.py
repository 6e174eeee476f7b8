"""The form of a chat or channel message: what Teams asks of one, and what it makes of it."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from local.fake_graph.call import GraphError, Json, bad_request, milliseconds_text, utc_now
from local.fake_graph.state import Bot, ChatMessage, User, World

#: Teams takes about 28 KB a post, images beside the text not counted.
MESSAGE_BYTES = 28 * 1024
CARD = "application/vnd.microsoft.card.adaptive"
_AT = re.compile(r"<at\b[^>]*\bid=[\"']?(\d+)", re.IGNORECASE)
_ATTACHMENT = re.compile(r"<attachment\b[^>]*\bid=[\"']([^\"']+)[\"']", re.IGNORECASE)
_HOSTED = re.compile(r"(\.\./hostedContents/)([^/\"']+)(/\$value)")


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


def new_message(world: World, sender: User | Bot, body: Json) -> ChatMessage:
    """Graph's chatMessage of this sender; place and hosted contents are still to be set."""
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
        "from": _from(sender),
        "body": {
            "contentType": (content.get("contentType") or "text").lower(),
            "content": content.get("content") or "",
        },
        "attachments": [_attachment(attachment) for attachment in body.get("attachments") or []],
        "mentions": body.get("mentions") or [],
        "reactions": [],
    }
    return ChatMessage(value)


def with_quotes(body: Json, quoted: list[ChatMessage]) -> Json:
    """The message with the ones that it quotes in front, as Teams shows them."""
    content, attachments = body["body"].get("content") or "", list(body.get("attachments") or [])
    for message in reversed(quoted):
        preview = re.sub(r"<[^>]*>", "", message.value["body"]["content"])[:100]
        reference = {"messageId": message.id, "messagePreview": preview, "messageSender": message.value["from"]}
        attachments.insert(0, {"id": message.id, "contentType": "messageReference", "content": json.dumps(reference)})
        content = f'<attachment id="{message.id}"></attachment>{content}'
    return body | {"body": {"contentType": "html", "content": content}, "attachments": attachments}


def _from(sender: User | Bot) -> Json:
    kind = "User" if isinstance(sender, User) else "Application"
    identity = {
        "@odata.type": f"#microsoft.graph.teamwork{kind}Identity",
        "id": sender.id,
        "displayName": sender.name,
        f"{kind.lower()}IdentityType": "aadUser" if kind == "User" else "bot",
    }
    return {"application": None, "device": None, "user": None} | {kind.lower(): identity}


def _attachment(given: Json) -> Json:
    names = ("id", "contentType", "contentUrl", "content", "name", "thumbnailUrl", "teamsAppId")
    return {name: given.get(name) for name in names}


def store_hosted(message: ChatMessage, body: Json, url: str) -> None:
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


def _check_card(content: Any) -> None:
    try:
        card = json.loads(content) if isinstance(content, str) else None
    except ValueError:
        card = None
    if not isinstance(card, dict) or card.get("type") != "AdaptiveCard":
        raise bad_request("The content of an adaptive card must be its JSON as a string.")
