"""What each sender makes of the same Teams message: Graph's JSON, a bot's activity, a workflow's card, a notification.

Pure functions; `teams_limits` says what a sender cannot carry, before anything is made.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shared.handlers.teams_html import as_html, clean, hosted_images, mentions_as, without_images
from shared.handlers.teams_marker import marked_card, marker

if TYPE_CHECKING:
    from shared.graph.activity import Activity
    from shared.handlers.teams_payload import Mention, TeamsMessage

CARD_TYPE = "application/vnd.microsoft.card.adaptive"
CARD_SCHEMA = "http://adaptivecards.io/schemas/adaptive-card.json"


def content_html(payload: TeamsMessage) -> str:
    """The content as HTML that is fit to send."""
    return clean(payload.content) if payload.content_type == "html" else as_html(payload.content)


def account_message(payload: TeamsMessage, effect_id: UUID) -> dict[str, Any]:
    """Graph's JSON of the message. Always HTML, since a plain text has no room for the mark of the job."""
    content = hosted_images(content_html(payload), [image.content_id for image in payload.images])
    attachments = [
        {"id": file.id, "contentType": "reference", "contentUrl": file.content_url, "name": file.name}
        for file in payload.attachments
    ]
    if payload.card is not None:
        card = json.dumps(payload.card, ensure_ascii=False)
        attachments.append({"id": effect_id.hex, "contentType": CARD_TYPE, "content": card})
    for attachment in attachments:
        if f'<attachment id="{attachment["id"]}"' not in content:
            content += f'<attachment id="{html.escape(attachment["id"])}"></attachment>'
    message: dict[str, Any] = {
        "body": {"contentType": "html", "content": marker(effect_id) + content},
        "importance": payload.importance,
    }
    if payload.mentions:
        message["mentions"] = [_mention(payload, mention) for mention in payload.mentions]
    if attachments:
        message["attachments"] = attachments
    if payload.images:
        message["hostedContents"] = [
            {
                "@microsoft.graph.temporaryId": str(number),
                "contentBytes": image.content_bytes,
                "contentType": image.content_type,
            }
            for number, image in enumerate(payload.images, 1)
        ]
    return message


def bot_activity(payload: TeamsMessage, effect_id: UUID, members: Mapping[int, str]) -> dict[str, Any]:
    """The Bot Framework's activity. `members`: the connector's id of each mentioned person, by the mention's id.

    Images follow the text as attachments: a bot's text has no place for them.
    """
    activity: dict[str, Any] = {"type": "message"}
    names = {mention.id: mention.name for mention in payload.mentions}
    text = mentions_as(without_images(content_html(payload)), names)
    if text or payload.card is None:
        activity |= {"textFormat": "xml", "text": marker(effect_id) + text}
    attachments: list[dict[str, Any]] = []
    if payload.card is not None:
        attachments.append({"contentType": CARD_TYPE, "content": marked_card(payload.card, effect_id)})
    for image in payload.images:
        data = f"data:{image.content_type};base64,{image.content_bytes}"
        attachments.append({"contentType": image.content_type, "contentUrl": data, "name": image.content_id})
    if attachments:
        activity["attachments"] = attachments
    if payload.mentions:
        activity["entities"] = [
            {
                "type": "mention",
                "text": f"<at>{html.escape(mention.name, quote=False)}</at>",
                "mentioned": {"id": members[mention.id], "name": mention.name},
            }
            for mention in payload.mentions
        ]
    return activity


def workflow_message(payload: TeamsMessage, effect_id: UUID) -> dict[str, Any]:
    """What a workflow is started with: one card, the text in front of it. Its text shows as typed, not as Markdown.

    By the mark a notification of it is known as our own.
    """
    lines = payload.content.splitlines() if payload.content.strip() else []
    rows = [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line or " "}]} for line in lines]
    card = payload.card or {"$schema": CARD_SCHEMA, "type": "AdaptiveCard", "version": "1.4"}
    body = card.get("body")
    card = marked_card(card | {"body": [*rows, *(body if isinstance(body, list) else [])]}, effect_id)
    return {"type": "message", "attachments": [{"contentType": CARD_TYPE, "contentUrl": None, "content": card}]}


def feed_activity(payload: TeamsMessage, chain_id: int) -> Activity:
    """The notification in the activity feed: the first line in its row, all of the text in the preview."""
    from shared.graph.activity import PREVIEW_CHARACTERS, Activity

    text = payload.content.strip()
    first = text.splitlines()[0][:PREVIEW_CHARACTERS]
    topic, url = (payload.topic.value, payload.topic.web_url) if payload.topic else (None, None)
    return Activity(first, chain_id, topic=topic, web_url=url, preview=text)


def _mention(payload: TeamsMessage, mention: Mention) -> dict[str, Any]:
    return {"id": mention.id, "mentionText": mention.name, "mentioned": _mentioned(payload, mention)}


def _mentioned(payload: TeamsMessage, mention: Mention) -> dict[str, Any]:
    if mention.kind == "user":
        return {"user": {"id": mention.user_id, "displayName": mention.name, "userIdentityType": "aadUser"}}
    ids = {"everyone": payload.chat_id, "channel": payload.channel_id, "team": payload.team_id}
    kind = "chat" if mention.kind == "everyone" else mention.kind
    conversation = {"id": ids[mention.kind], "displayName": mention.name, "conversationIdentityType": kind}
    return {"conversation": conversation}
