"""The Bot Framework connector for Teams: proactive messages and members of conversations, under BOT of the address.

From the Bot Connector API, v3. Its tokens are of an audience of their own; messages land in the same chats and channels
that Graph shows.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import unquote

import jwt

from local.fake_graph import teams
from local.fake_graph.call import Answer, Call, GraphError, Json, bad_request
from local.fake_graph.journal import Journal
from local.fake_graph.limits import Limits
from local.fake_graph.state import CLIENT, Bot, World
from local.fake_graph.tokens import BOT_FRAMEWORK, read_access_token

BOT = "/bot/"
#: Teams takes about 100 KB, in UTF-16 and without images.
MESSAGE_BYTES = 100 * 1024
_ACTIVITIES = re.compile(r"/v3/conversations/([^/]+)/activities")
_MEMBER = re.compile(r"/v3/conversations/([^/]+)/members/([^/]+)")
_THREAD = re.compile(r"(?P<channel>[^;]+);messageid=(?P<root>\d+)")
_ACTIVITY_FIELDS = {"type", "from", "text", "textFormat", "attachments", "entities", "summary", "channelData"}
_CARD = "application/vnd.microsoft.card.adaptive"
_MENTION = re.compile(r"<at>(.*?)</at>")


class BotConnector:
    """Posts as the bot CLIENT where it is installed: in every chat and team but those of `without_bot`."""

    def __init__(self, world: World, journal: Journal, limits: Limits) -> None:
        self._world = world
        self._journal = journal
        self._limits = limits

    def reset(self) -> None:
        """Everything that is kept is in the world."""

    def answer(self, call: Call) -> Answer:
        """Carry one request out; what breaks the contract is noted as a violation."""
        try:
            return self._answer(call)
        except GraphError as error:
            if error.violation:
                message = f"{error.status} {error.code}: {error.message}"
                self._journal.violation(self._journal.requests[-1], "request", message)
            body = {"error": {"code": error.code, "message": error.message}}
            return Answer(error.status, body, dict(error.headers))

    def _answer(self, call: Call) -> Answer:
        self._authorise(call)
        path = call.path.removeprefix(BOT.rstrip("/"))
        if call.method == "POST" and path == "/v3/conversations":
            return self._start_thread(_json(call), call)
        if call.method == "POST" and (found := _ACTIVITIES.fullmatch(path)):
            return self._post(unquote(found[1]), _json(call), call)
        if call.method == "GET" and (found := _MEMBER.fullmatch(path)):
            return self._member(unquote(found[1]), unquote(found[2]))
        raise GraphError(404, "ServiceError", f"There is no {call.method} {path}.", violation=True)

    def _authorise(self, call: Call) -> None:
        scheme, _, text = call.headers.get("authorization", "").partition(" ")
        try:
            token = read_access_token(text, BOT_FRAMEWORK)
        except jwt.InvalidTokenError:
            raise GraphError(
                401, "AuthorizationFailed", "Authorization has been denied for this request.", violation=True
            ) from None
        if (
            scheme.lower() != "bearer"
            or token.expires_at < time.time()
            or token.issued_at < self._world.tokens_valid_from
        ):
            raise GraphError(401, "AuthorizationFailed", "Authorization has been denied for this request.")
        call.bearer = token

    def _start_thread(self, body: Json, call: Call) -> Answer:
        channel_id = ((body.get("channelData") or {}).get("channel") or {}).get("id")
        if body.get("isGroup") is not True or not isinstance(channel_id, str):
            raise bad_request("A new thread needs isGroup and channelData.channel.id.", "BadArgument")
        team_id = self._team_of(channel_id)
        message = self._message(body.get("activity"), channel_id, call)
        posted = teams.add_channel_message(self._world, team_id, channel_id, None, _BOT, message, call.base_url)
        return Answer(201, {"id": f"{channel_id};messageid={posted.id}", "activityId": posted.id})

    def _post(self, conversation: str, activity: Json, call: Call) -> Answer:
        message = self._message(activity, conversation, call)
        if thread := _THREAD.fullmatch(conversation):
            team_id = self._team_of(thread["channel"])
            posted = teams.add_channel_message(
                self._world, team_id, thread["channel"], thread["root"], _BOT, message, call.base_url
            )
        else:
            self._require_bot(self._world.chat(conversation).id)
            posted = teams.add_chat_message(self._world, conversation, _BOT, message, call.base_url)
        return Answer(201, {"id": posted.id})

    def _member(self, conversation: str, member: str) -> Answer:
        if conversation in self._world.chats:
            members = self._world.chat(conversation).members
        else:
            team = self._world.team(self._team_of(conversation))
            members = list(self._world.users) if team.members is None else team.members
        user = self._world.find_user(member)
        if user is None or user.id not in members:
            raise GraphError(404, "MemberNotFoundInConversation", "The specified member is not in the conversation.")
        return Answer(200, {"id": f"29:{user.id}", "name": user.name, "aadObjectId": user.id})

    def _team_of(self, channel_id: str) -> str:
        for team in self._world.teams.values():
            if channel_id in team.channels:
                self._require_bot(team.id)
                return team.id
        raise GraphError(404, "ConversationNotFound", "Conversation not found.")

    def _require_bot(self, place: str) -> None:
        if place in self._world.without_bot:
            raise GraphError(403, "BotNotInConversationRoster", "The bot is not part of the conversation roster.")

    def _message(self, activity: Any, conversation: str, call: Call) -> Json:
        """Graph's form of a message out of an activity, as Teams makes it."""
        call.params["conversation"] = conversation
        self._limits.check("bot_post", call)
        _check_activity(activity)
        content = activity.get("text") or ""
        mentions = []
        for number, entity in enumerate(activity.get("entities") or []):
            user = self._world.user(entity["mentioned"]["id"].removeprefix("29:"))
            name = entity["text"].removeprefix("<at>").removesuffix("</at>")
            content = content.replace(entity["text"], f'<at id="{number}">{name}</at>', 1)
            identity = {"id": user.id, "displayName": user.name, "userIdentityType": "aadUser"}
            mentions.append({"id": number, "mentionText": name, "mentioned": {"user": identity}})
        attachments = [_attachment(number, given) for number, given in enumerate(activity.get("attachments") or [])]
        content += "".join(f'<attachment id="{attachment["id"]}"></attachment>' for attachment in attachments)
        if self._world.bots_lose_markup:
            content = re.sub(r"<span\b[^>]*></span>", "", content)
        return {
            "body": {"contentType": "html", "content": content},
            "mentions": mentions,
            "attachments": attachments,
        }


_BOT = Bot(CLIENT, "Fleet Queue Bot")


def _check_activity(activity: Any) -> None:
    """What the connector and Teams ask of an activity."""
    if not isinstance(activity, dict) or activity.get("type") != "message":
        raise bad_request("The activity must be of the type message.", "BadSyntax")
    unknown = set(activity) - _ACTIVITY_FIELDS
    if unknown:
        raise bad_request(f"Unknown properties of an activity: {sorted(unknown)}.", "BadSyntax")
    if activity.get("from", {}).get("id") not in (None, f"28:{CLIENT}"):
        raise bad_request("The sender is not the bot of the token.", "BadArgument")
    attachments = activity.get("attachments") or []
    if not activity.get("text") and not attachments:
        raise bad_request("The activity has neither text nor attachments.", "BadArgument")
    counted = activity | {"attachments": [{k: v for k, v in a.items() if k != "contentUrl"} for a in attachments]}
    if len(json.dumps(counted, ensure_ascii=False).encode("utf-16-le")) > MESSAGE_BYTES:
        raise GraphError(413, "MessageSizeTooBig", "Message size too large.")
    for attachment in attachments:
        is_card = attachment.get("contentType") == _CARD
        content = attachment.get("content")
        if is_card and not (isinstance(content, dict) and content.get("type") == "AdaptiveCard"):
            raise bad_request("The content of an adaptive card must be its JSON object.", "BadArgument")
        if not is_card and not str(attachment.get("contentUrl")).startswith("data:image/"):
            raise bad_request("An attachment must be a card or an image.", "BadArgument")
    entities = activity.get("entities") or []
    for entity in entities:
        mentioned = entity.get("mentioned") or {}
        if entity.get("type") != "mention" or not str(mentioned.get("id")).startswith("29:"):
            raise bad_request("A mention must name the person by the connector's own id.", "BadArgument")
    named = [f"<at>{name}</at>" for name in _MENTION.findall(activity.get("text") or "")]
    if not {entity["text"] for entity in entities} <= set(named):
        raise bad_request("The text of a mention does not stand in the text.", "BadArgument")


def _attachment(number: int, given: Json) -> Json:
    content = given.get("content")
    return {
        "id": f"bot-{number}",
        "contentType": given["contentType"],
        "content": json.dumps(content, ensure_ascii=False) if content is not None else None,
        "contentUrl": given.get("contentUrl"),
        "name": given.get("name"),
    }


def _json(call: Call) -> Json:
    if not call.headers.get("content-type", "").startswith("application/json"):
        raise bad_request("The content type must be application/json.", "BadSyntax")
    try:
        body = json.loads(call.raw)
    except ValueError:
        raise bad_request("The body is not JSON.", "BadSyntax") from None
    if not isinstance(body, dict):
        raise bad_request("The body must be a JSON object.", "BadSyntax")
    return body
