"""What each sender of Teams messages can carry: anything else is refused before it is sent, with a way out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shared.graph.client import to_bytes
from shared.handlers.teams_bodies import account_message, bot_activity, workflow_message
from shared.handlers.teams_routes import Route, Routes, Sender

if TYPE_CHECKING:
    from shared.handlers.teams_payload import TeamsMessage

#: Teams' limit on a person's post and on a workflow's, in UTF-8, images beside the text not counted.
MESSAGE_BYTES = 28 * 1024
#: What Microsoft advises of the about 100 KB that a bot may send, in UTF-16, images not counted.
BOT_BYTES = 80 * 1024
#: A bot's image, decoded.
BOT_IMAGE_BYTES = 1024 * 1024

_ANY_ID = UUID(int=0)
_BY_ACCOUNT = 'send with "sender": "account"'


def route_of(payload: TeamsMessage, routes: Routes) -> Route:
    """Who sends the message: what the payload asks for, else what the rules say of its target."""
    if payload.workflow is not None:
        return Route("workflow", payload.workflow)
    if payload.send_as is not None:
        return Route("account", payload.send_as)
    asked = payload.sender or ("activity" if payload.user_ids else None)
    ruled = routes.of(payload.target) if payload.target else Route("account")
    return Route(asked) if asked is not None and asked != ruled.sender else ruled


def problems(payload: TeamsMessage, routes: Routes) -> Iterator[str]:
    """Everything that the message's sender cannot do, each with the field and the remedy."""
    route = route_of(payload, routes)
    yield from _of_the_choice(payload, route, routes)
    if payload.topic is not None and route.sender != "activity":
        yield 'topic: only "sender": "activity" has one; leave it out'
    refused = list(_REFUSALS[route.sender](payload))
    yield from refused
    if not refused:
        yield from _of_size(payload, route.sender)


def _of_the_choice(payload: TeamsMessage, route: Route, routes: Routes) -> Iterator[str]:
    if payload.sender not in (None, route.sender) or (payload.workflow is not None and payload.send_as is not None):
        yield "sender: workflow goes with workflow only, and sendAs with account only; leave one of them out"
    if payload.user_ids and route.sender != "activity":
        yield 'userIds: people are told by "sender": "activity" only; give chatId, or teamId and channelId'
    known = routes.workflows
    if route.sender == "workflow":
        if route.name is None:
            yield "workflow: it is missing; name one of TEAMS_WORKFLOWS"
        elif known is not None and route.name not in known:
            yield f"workflow: there is none of this name; the names in TEAMS_WORKFLOWS are: {', '.join(sorted(known))}"
    elif route.name is not None and not _is_account(route.name, routes):
        yield "sendAs: it is no service account; add it to GRAPH_SERVICE_ACCOUNT and sign it in"
    if route.sender != "activity" and payload.team_id is not None and payload.channel_id is None:
        yield "channelId: it is missing; give teamId and channelId"
    if route.sender not in ("workflow", "activity") and not payload.target:
        yield "no place to post to: give chatId, or teamId and channelId"


def _is_account(name: str, routes: Routes) -> bool:
    return routes.accounts is None or name.lower() in [account.lower() for account in routes.accounts]


def _of_account(payload: TeamsMessage) -> Iterator[str]:
    for mention in payload.mentions:
        if mention.kind == "everyone" and payload.chat_id is None:
            yield "mentions: everyone is for chats; mention the channel or team"
        if mention.kind in ("channel", "team") and payload.chat_id is not None:
            yield f"mentions: a chat has no {mention.kind}; mention everyone"


def _of_bot(payload: TeamsMessage) -> Iterator[str]:
    if payload.importance != "normal":
        yield f"importance: a bot's messages have none; leave it out, or {_BY_ACCOUNT}"
    if any(mention.kind != "user" for mention in payload.mentions):
        yield f"mentions: a bot mentions people only; mention them, or {_BY_ACCOUNT}"
    if payload.attachments:
        yield f"attachments: a bot cannot refer to files; put a link into content, or {_BY_ACCOUNT}"
    if payload.chat_id is not None and payload.reply_to_id is not None:
        yield f"replyToId: a bot cannot quote in a chat; leave it out, or {_BY_ACCOUNT}"
    for number, image in enumerate(payload.images):
        if image.size > BOT_IMAGE_BYTES:
            yield f"images.{number}: it has {image.size} bytes, and a bot's may have {BOT_IMAGE_BYTES}; make it smaller"


def _of_workflow(payload: TeamsMessage) -> Iterator[str]:
    if payload.content_type == "html":
        yield f"contentType: a workflow posts text or a card; give one of them, or {_BY_ACCOUNT}"
    if payload.mentions:
        yield f"mentions: a workflow takes none; put msteams.entities into the card, or {_BY_ACCOUNT}"
    yield from _card_only(payload, "a workflow")


def _of_activity(payload: TeamsMessage) -> Iterator[str]:
    if payload.content_type == "html":
        yield "contentType: a notification is plain text; give text"
    if payload.mentions:
        yield "mentions: a notification takes none; leave them out"
    if payload.card is not None:
        yield f"card: a notification takes none; leave it out, or {_BY_ACCOUNT}"
    if not payload.content.strip():
        yield "content: it is empty; a notification needs a text"
    if payload.user_ids and payload.topic is None:
        yield "topic: a notification to people needs one; give value and webUrl"
    yield from _card_only(payload, "a notification")


def _card_only(payload: TeamsMessage, sender: str) -> Iterator[str]:
    """What neither a workflow nor a notification has."""
    if payload.importance != "normal":
        yield f"importance: {sender} has none; leave it out, or {_BY_ACCOUNT}"
    if payload.attachments:
        yield f"attachments: {sender} takes no files; put a link into the text, or {_BY_ACCOUNT}"
    if payload.images:
        yield f"images: {sender} takes none; link to one in a card, or {_BY_ACCOUNT}"
    if payload.reply_to_id is not None:
        yield f"replyToId: {sender} cannot reply; leave it out, or {_BY_ACCOUNT}"


_REFUSALS: dict[Sender, Callable[[TeamsMessage], Iterator[str]]] = {
    "account": _of_account,
    "bot": _of_bot,
    "workflow": _of_workflow,
    "activity": _of_activity,
}


def _of_size(payload: TeamsMessage, sender: Sender) -> Iterator[str]:
    size, most = _size(payload, sender)
    if size > most:
        yield (
            f"content, card and mentions take {size} bytes, {size - most} more than the {most} that Teams takes: "
            "shorten content, or send the long part as a file"
        )


def _size(payload: TeamsMessage, sender: Sender) -> tuple[int, int]:
    """How many bytes count, and how many may."""
    if sender == "activity":
        return 0, MESSAGE_BYTES  # Teams shows the start of any text
    if sender == "workflow":
        return len(to_bytes(workflow_message(payload, _ANY_ID))), MESSAGE_BYTES
    if sender == "bot":
        names = {mention.id: "29:" + "x" * 80 for mention in payload.mentions}
        activity = _without(bot_activity(payload, _ANY_ID, names), "attachments", "contentUrl")
        return len(json.dumps(activity, ensure_ascii=False).encode("utf-16-le", "surrogatepass")), BOT_BYTES
    return len(to_bytes(_without(account_message(payload, _ANY_ID), "hostedContents", "contentBytes"))), MESSAGE_BYTES


def _without(body: dict[str, Any], group: str, name: str) -> dict[str, Any]:
    """The body without the bytes of its images."""
    parts = [{key: value for key, value in part.items() if key != name} for part in body.get(group, [])]
    return body | {group: parts} if parts else body
