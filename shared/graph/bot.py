"""Teams through the Bot Framework connector: what a bot says unasked (a proactive message), and who is in a chat.

Facts: Bot Connector REST API v3 (https://learn.microsoft.com/azure/bot-service/rest-api/bot-framework-rest-connector-api-reference)
and Send proactive messages (https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/send-proactive-messages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.graph.client import GraphClient, TokenSource
from shared.graph.errors import AnswerLost, TokenRefused, TokenUnavailable
from shared.graph.teams import Place

BOT_SCOPES = ("https://api.botframework.com/.default",)
#: What a failure's `identity` says when it is the bot's.
BOT = "bot"
#: Both are in use for a message that was taken.
_TAKEN = (200, 201)


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in a conversation; `id` is the connector's own (29:…), which its mentions need."""

    id: str
    name: str


class BotTokens:
    """Tokens for the connector, whose failures name the bot: it may lack a token while Graph gives one, and the other
    way round. `own_application`: its credential is in settings of its own.
    """

    def __init__(self, tokens: TokenSource, *, own_application: bool) -> None:
        self._tokens = tokens
        self._own_application = own_application

    def token(self, *, refused: str | None = None, claims: str | None = None) -> str:
        """See TokenSource."""
        try:
            return self._tokens.token(refused=refused, claims=claims)
        except TokenUnavailable as failure:
            raise TokenUnavailable(f"the bot: {failure}", identity=BOT, retry_after=failure.retry_after) from failure
        except TokenRefused as failure:
            message, remedy = str(failure).removesuffix(failure.remedy).strip(), failure.remedy
            if self._own_application:
                remedy = remedy.replace("GRAPH_CLIENT", "TEAMS_BOT_CLIENT")
                remedy = remedy.replace("GRAPH_TENANT_ID", "TEAMS_BOT_TENANT_ID")
            raise TokenRefused(f"The bot: {message}", remedy=remedy, codes=failure.codes, identity=BOT) from failure


class BotClient:
    """The connector as one bot. `connector` calls the service URL; `app_id` is the bot's application id."""

    def __init__(self, connector: GraphClient, app_id: str) -> None:
        self._connector = connector
        self.app_id = app_id

    def post(self, place: Place, activity: Mapping[str, Any]) -> str:
        """Post an activity and return the id of the message that came of it. Raises GraphFailure.

        The bot must be installed in the chat or team. A reply goes to the thread of `place.reply_to`.
        """
        body = {"from": {"id": f"28:{self.app_id}"}, **activity}
        if place.chat_id is None and place.reply_to is None:
            conversation = {"isGroup": True, "channelData": {"channel": {"id": place.channel_id}}, "activity": body}
            made = self._connector.call("POST", "/v3/conversations", expect=_TAKEN, body=conversation)
            return _id(made, "activityId")
        posted = self._connector.call(
            "POST",
            "/v3/conversations/{conversation}/activities",
            expect=_TAKEN,
            body=body,
            conversation=_conversation(place),
        )
        return _id(posted, "id")

    def member(self, place: Place, user_id: str) -> Member:
        """Who a person (by Entra object id) is in this conversation. GraphError 404: not in it."""
        found = self._connector.call(
            "GET",
            "/v3/conversations/{conversation}/members/{member}",
            conversation=place.chat_id or place.channel_id or "",
            member=user_id,
        )
        return Member(_id(found, "id"), str(found.get("name") or ""))


def _conversation(place: Place) -> str:
    if place.chat_id is not None:
        return place.chat_id
    return f"{place.channel_id};messageid={place.reply_to}"


def _id(answer: dict[str, Any], name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str) or not found:
        raise AnswerLost(f"the Bot Framework's answer has no {name}")
    return found
