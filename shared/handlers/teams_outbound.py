"""Posts a message to a Teams chat, a channel, or a thread of a channel; each job once, as far as Teams lets one know.

Teams has no id of the sender's own. So each message carries its job's id: in an empty element at its start (the
kind that Teams itself writes into quotes), and as the id of its card's attachment, which Teams gives back as
sent. Before a second send, recent messages are read back and searched for it. Whether the element survived is
checked in the answer to each post and kept on the attempt (`marker_kept`).
"""

from __future__ import annotations

import html
import json
import re
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import Field, field_validator, model_validator

from shared.engine.context import Context, Handler
from shared.engine.errors import UncertainError
from shared.engine.job import Completed, Job
from shared.graph.client import to_bytes
from shared.graph.teams import Place, TeamsClient, TooManyMessages
from shared.handlers.graph_errors import graph_attempt, sending
from shared.handlers.html_text import plain_text
from shared.handlers.payload_fields import Identifier, OneLine, Payload, has_line_break, text_of
from shared.handlers.services import AttachmentRecord, Communication, CommunicationLog, Services

CARD_TYPE = "application/vnd.microsoft.card.adaptive"
#: Teams' limit on a post, all but images.
MESSAGE_BYTES = 28 * 1024
LONGEST_URL = 2048
#: The database's clock and Teams' may differ by this much.
CLOCK_MARGIN = timedelta(minutes=5)

_AT = re.compile(r"<at\b[^>]*?\bid\s*=\s*[\"']?(\d+)", re.IGNORECASE)
_ANY_ID = UUID(int=0)


class Mention(Payload):
    """A person that the text mentions as `<at id="0">Name</at>`."""

    id: int = Field(ge=0)
    user_id: Identifier
    name: OneLine = Field(min_length=1)


class FileReference(Payload):
    """A file in SharePoint or OneDrive; `id` is the GUID in its eTag."""

    id: Identifier
    name: OneLine = Field(min_length=1)
    content_url: str = Field(max_length=LONGEST_URL)

    @field_validator("content_url")
    @classmethod
    def _https(cls, value: str) -> str:
        if not value.startswith("https://") or has_line_break(value) or " " in value:
            raise ValueError("must be an address that begins with https://, without spaces")
        return value


class TeamsMessage(Payload):
    """A message for chatId, or for teamId and channelId (with replyToId: as a reply there)."""

    chat_id: Identifier | None = None
    team_id: Identifier | None = None
    channel_id: Identifier | None = None
    reply_to_id: Identifier | None = None
    content: str = ""
    content_type: Literal["text", "html"] = "text"
    importance: Literal["normal", "high", "urgent"] = "normal"
    mentions: list[Mention] = Field(default_factory=list, max_length=50)
    attachments: list[FileReference] = Field(default_factory=list, max_length=10)
    card: dict[str, Any] | None = None

    @property
    def place(self) -> Place:
        return Place(self.chat_id, self.team_id, self.channel_id, self.reply_to_id)

    @field_validator("card")
    @classmethod
    def _adaptive(cls, card: dict[str, Any] | None) -> dict[str, Any] | None:
        if card is not None and card.get("type") != "AdaptiveCard":
            raise ValueError('is no Adaptive Card: its "type" must be "AdaptiveCard"')
        return card

    @model_validator(mode="after")
    def _whole(self) -> TeamsMessage:
        self._check_place()
        if self.card is None and not self.attachments and not _has_content(self.content, self.content_type):
            raise ValueError("content is empty: give content, a card or attachments")
        self._check_mentions()
        size = len(to_bytes(build_message(self, _ANY_ID)))
        if size > MESSAGE_BYTES:
            raise ValueError(
                f"content, card and mentions take {size} bytes, and Teams takes {MESSAGE_BYTES}: shorten "
                "content, or send the long part as a file"
            )
        return self

    def _check_place(self) -> None:
        channel = (self.team_id, self.channel_id)
        if self.chat_id is not None:
            if any(part is not None for part in (*channel, self.reply_to_id)):
                raise ValueError("chatId stands alone: leave out teamId, channelId and replyToId")
        elif None in channel:
            raise ValueError("no place to post to: give chatId, or teamId and channelId")

    def _check_mentions(self) -> None:
        if self.mentions and self.content_type != "html":
            raise ValueError('mentions need contentType "html" and <at id="…"> in content')
        given = [mention.id for mention in self.mentions]
        named = {int(found) for found in _AT.findall(self.content)} if self.content_type == "html" else set()
        if len(set(given)) != len(given) or set(given) != named:
            raise ValueError('mentions and the <at id="…"> of content must name the same ids, each once')


class TeamsOutbound:
    """The handler of `teams-outbound`."""

    def __init__(self, teams: TeamsClient, log: CommunicationLog, account: str | None) -> None:
        self._teams = teams
        self._log = log
        self._account = account

    def __call__(self, job: Job, payload: TeamsMessage, context: Context) -> Completed:
        with graph_attempt(context):
            since = job.effect_since
            message = self._sent_before(job, payload.place, since) if since is not None else None
            read_back = message is not None
            if message is None:
                message = self._post(job, payload, context)
        context.note(marker_kept=_carries(message, job.effect_id))
        self._log.record(self._communication(job, payload, message))
        return Completed(
            {
                "outcome": "sent",
                "message_id": message["id"],
                "web_url": message.get("webUrl"),
                "read_back": read_back,
            }
        )

    def _post(self, job: Job, payload: TeamsMessage, context: Context) -> dict[str, Any]:
        body = build_message(payload, job.effect_id)
        context.checkpoint()
        with sending():
            return self._teams.post(payload.place, body)

    def _sent_before(self, job: Job, place: Place, since: datetime) -> dict[str, Any] | None:
        """The message that an earlier attempt has posted, if it has."""
        own = self._teams.own_account_id()
        try:
            for message in self._teams.recent(place, since - CLOCK_MARGIN):
                if _carries(message, job.effect_id) and sender_id(message) in (own, None):
                    return message
        except TooManyMessages as error:
            raise UncertainError(f"cannot tell whether it was sent: {error}") from error
        return None

    def _communication(self, job: Job, payload: TeamsMessage, message: dict[str, Any]) -> Communication:
        place = payload.place
        is_html = payload.content_type == "html"
        return Communication(
            direction="out",
            channel="teams",
            external_id=place.external_id(message["id"]),
            thread_id=place.thread_id(message["id"]),
            sender=self._account,
            recipients=[payload.chat_id or f"{payload.team_id}/{payload.channel_id}"],
            subject=None,
            body=payload.content,
            body_type=payload.content_type,
            text=plain_text(payload.content) if is_html else payload.content.strip(),
            occurred_at=_moment(message.get("createdDateTime")),
            account=self._account,
            attachments=[
                AttachmentRecord(file.id, file.name, "reference", None, is_inline=False, kind="reference")
                for file in payload.attachments
            ],
            job_id=job.id,
            correlation_id=job.correlation_id,
            raw={
                "importance": payload.importance,
                "mentions": [mention.model_dump(by_alias=True) for mention in payload.mentions],
                "card": payload.card,
                "webUrl": message.get("webUrl"),
            },
        )


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built."""
    return TeamsOutbound(services.teams, services.communications, services.service_account)


def build_message(payload: TeamsMessage, job_id: UUID) -> dict[str, Any]:
    """Graph's JSON of the message. Always HTML, since a plain text has no room for the mark of the job."""
    content = payload.content if payload.content_type == "html" else as_html(payload.content)
    attachments = [
        {"id": file.id, "contentType": "reference", "contentUrl": file.content_url, "name": file.name}
        for file in payload.attachments
    ]
    if payload.card is not None:
        card = json.dumps(payload.card, ensure_ascii=False)
        attachments.append({"id": job_id.hex, "contentType": CARD_TYPE, "content": card})
    for attachment in attachments:
        if f'<attachment id="{attachment["id"]}"' not in content:
            content += f'<attachment id="{html.escape(attachment["id"])}"></attachment>'
    message: dict[str, Any] = {
        "body": {"contentType": "html", "content": _marker(job_id) + content},
        "importance": payload.importance,
    }
    if payload.mentions:
        message["mentions"] = [_mention(mention) for mention in payload.mentions]
    if attachments:
        message["attachments"] = attachments
    return message


def as_html(text: str) -> str:
    """Text that shows as it was typed: markup escaped once, lines and indents kept."""
    escaped = html.escape(text, quote=False).replace("\t", "    ").replace("  ", "&nbsp; ")
    return re.sub(r"\r\n|\r|\n", "<br>", escaped)


def sender_id(message: dict[str, Any]) -> str | None:
    """The object id of the person who wrote the message."""
    sender = message.get("from")
    user = sender.get("user") if isinstance(sender, dict) else None
    return text_of(user.get("id")) or None if isinstance(user, dict) else None


def _marker(job_id: UUID) -> str:
    return f'<span itemprop="fleet-queue" itemid="{job_id}"></span>'


def _carries(message: dict[str, Any], job_id: UUID) -> bool:
    body = message.get("body")
    content = text_of(body.get("content")) if isinstance(body, dict) else ""
    attachments = message.get("attachments")
    ids = [text_of(item.get("id")) for item in attachments or [] if isinstance(item, dict)]
    return str(job_id) in content or job_id.hex in ids


def _mention(mention: Mention) -> dict[str, Any]:
    user = {"id": mention.user_id, "displayName": mention.name, "userIdentityType": "aadUser"}
    return {"id": mention.id, "mentionText": mention.name, "mentioned": {"user": user}}


def _has_content(content: str, content_type: str) -> bool:
    return bool(content.strip()) if content_type == "text" else bool(plain_text(content)) or "<img" in content.lower()


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
