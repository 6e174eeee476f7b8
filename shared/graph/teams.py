"""Teams through Graph: posting with the service account, reading with the application."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.graph.client import GraphClient
from shared.graph.errors import AnswerLost, GraphFailure

PAGE = "50"
#: A read-back looks through this many messages at most.
MOST_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where messages stand: a chat, a channel, or a thread of a channel (`reply_to` is its first message).

    In a chat, which has no threads, `reply_to` is a message to quote.
    """

    chat_id: str | None = None
    team_id: str | None = None
    channel_id: str | None = None
    reply_to: str | None = None

    @property
    def messages(self) -> tuple[str, dict[str, str]]:
        """The path of its messages, as a template and what fills it."""
        if self.chat_id is not None:
            return "/chats/{chat}/messages", {"chat": self.chat_id}
        segments = {"team": self.team_id or "", "channel": self.channel_id or ""}
        if self.reply_to is None:
            return "/teams/{team}/channels/{channel}/messages", segments
        return (
            "/teams/{team}/channels/{channel}/messages/{root}/replies",
            segments | {"root": self.reply_to},
        )

    def external_id(self, message_id: str) -> str:
        """Teams' message ids are unique in their chat or channel only; this one is unique everywhere."""
        return f"{self.chat_id or self.channel_id}/{message_id}"

    def thread_id(self, message_id: str) -> str:
        """The chat, or the channel's thread that the message is in or begins."""
        return self.chat_id or f"{self.channel_id}/{self.reply_to or message_id}"


class TooManyMessages(GraphFailure):
    """A read-back went through as many messages as it may without reaching the time it looked for."""


class TeamsClient:
    """Teams operations. `poster` calls as the service account, `reader` as the application.

    `account_id` gives the service account's object id once it has signed in. Methods raise GraphFailure.
    """

    def __init__(self, reader: GraphClient, poster: GraphClient, account_id: Callable[[], str | None]) -> None:
        self._reader = reader
        self._poster = poster
        self._account_id = account_id

    def post(self, place: Place, message: Mapping[str, Any]) -> dict[str, Any]:
        """Post Graph's JSON of a message; returns the message as Teams made it."""
        template, segments = place.messages
        if place.chat_id is not None and place.reply_to is not None:
            template += "/replyWithQuote"
            message = {"messageIds": [place.reply_to], "replyMessage": message}
        posted = _call(self._poster, "POST", template, segments, expect=201, body=message)
        if not isinstance(posted.get("id"), str):
            raise AnswerLost("Graph's answer to a post is no message")
        return posted

    def recent(self, place: Place, since: datetime, *, as_application: bool = False) -> Iterator[dict[str, Any]]:
        """The place's messages changed since then, newest first. Raises TooManyMessages at its limit.

        Read as the service account, which needs to be a member, unless told to as the application.
        """
        template, segments = place.messages
        older = 0
        graph = self._reader if as_application else self._poster
        pages = graph.pages(template, query={"$top": PAGE}, **segments)
        for number, message in enumerate(pages):
            if number >= MOST_MESSAGES:
                raise TooManyMessages(f"no end of messages since {since:%Y-%m-%d %H:%M:%S} in {template}")
            changed = _moment(message.get("lastModifiedDateTime") or message.get("createdDateTime"))
            if changed is not None and changed < since:
                # A channel's list is by thread, so a single older one does not mean that the rest is older.
                older += 1
                if older >= int(PAGE):
                    return
                continue
            older = 0
            yield message

    def message(self, place: Place, message_id: str) -> dict[str, Any]:
        """One message, read as the application."""
        template, segments = place.messages
        return _call(self._reader, "GET", f"{template}/{{message}}", {**segments, "message": message_id})

    def own_account_id(self) -> str | None:
        """The object id of the service account; None while nobody has signed in."""
        return self._account_id()


def _call(
    graph: GraphClient,
    method: str,
    template: str,
    segments: dict[str, str],
    expect: int = 200,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return graph.call(method, template, expect=expect, body=body, query=None, prefer=(), **segments)


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else None
