"""The payload of `teams-outbound`: the same message for every sender."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shared.graph.teams import Place
from shared.handlers.payload_fields import Identifier, MailAddress, OneLine, Payload, has_line_break
from shared.handlers.teams_html import clean, has_content, image_names, mention_ids
from shared.handlers.teams_limits import problems
from shared.handlers.teams_routes import Routes, Sender

LONGEST_URL = 2048
#: No sender takes as much; looking at it must not take long either.
LONGEST_CONTENT = 100_000
#: All images of a message, decoded: Graph takes requests of 4 MB, and base64 makes a third more of them.
IMAGES_BYTES = 3_000_000
#: What the validation context holds the routes under, as something to call: settings are read only when needed. Called,
#: it may give None: then only the handler, which runs when the settings are there, judges what a sender can carry.
ROUTES = "teams_routes"

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


def _https(value: str) -> str:
    if not value.startswith("https://") or has_line_break(value) or " " in value:
        raise ValueError("must be an address that begins with https://, without spaces")
    return value


class Mention(Payload):
    """Whom the text mentions as `<at id="0">Name</at>`: a user, or everyone in the chat, the channel, the team."""

    id: int = Field(ge=0)
    kind: Literal["user", "everyone", "channel", "team"] = "user"
    user_id: Identifier | None = None
    name: OneLine = Field(min_length=1)

    @model_validator(mode="after")
    def _one_person(self) -> Mention:
        if (self.kind == "user") != (self.user_id is not None):
            raise ValueError("userId names a user, and goes with no other kind")
        return self


class FileReference(Payload):
    """A file in SharePoint or OneDrive; `id` is the GUID in its eTag."""

    id: Identifier
    name: OneLine = Field(min_length=1)
    content_url: str = Field(max_length=LONGEST_URL)

    _address = field_validator("content_url")(_https)


class InlineImage(Payload):
    """An image of the message; HTML shows it with <img src="cid:contentId">, and otherwise it stands at the end."""

    content_id: Annotated[str, Field(pattern=r"^[\w.@-]{1,80}$")]
    content_type: Literal["image/png", "image/jpeg", "image/gif"]
    content_bytes: str = Field(min_length=1, repr=False)

    @property
    def size(self) -> int:
        """Bytes of the image itself."""
        return len(self.content_bytes) // 4 * 3 - self.content_bytes[-2:].count("=")

    @model_validator(mode="after")
    def _is_what_it_says(self) -> InlineImage:
        try:
            content = base64.b64decode(self.content_bytes, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("contentBytes is not base64") from None
        found = next((kind for start, kind in _SIGNATURES.items() if content.startswith(start)), None)
        if found is None:
            raise ValueError("contentBytes is no PNG, JPEG or GIF")
        if found != self.content_type:
            raise ValueError(f"contentBytes is {found}: give that as contentType")
        return self


class Topic(Payload):
    """The heading of a notification, and where a click on it leads (a Teams deep link)."""

    value: OneLine = Field(min_length=1)
    web_url: str = Field(max_length=LONGEST_URL)

    _address = field_validator("web_url")(_https)


class TeamsMessage(Payload):
    """A message for chatId, for teamId and channelId, or for userIds, and perhaps who is to send it.

    `reply_to_id`: the first message of a channel's thread, or the message of a chat that is quoted. `sender`,
    `send_as` (a service account) and `workflow` come before what the settings say of the target.
    """

    chat_id: Identifier | None = None
    team_id: Identifier | None = None
    channel_id: Identifier | None = None
    reply_to_id: Identifier | None = None
    user_ids: list[Identifier] = Field(default_factory=list, max_length=100)
    sender: Sender | None = None
    send_as: MailAddress | None = None
    workflow: Identifier | None = None
    content: str = Field("", max_length=LONGEST_CONTENT)
    content_type: Literal["text", "html"] = "text"
    importance: Literal["normal", "high", "urgent"] = "normal"
    mentions: list[Mention] = Field(default_factory=list, max_length=50)
    attachments: list[FileReference] = Field(default_factory=list, max_length=10)
    images: list[InlineImage] = Field(default_factory=list, max_length=10)
    card: dict[str, Any] | None = None
    topic: Topic | None = None

    @property
    def place(self) -> Place:
        return Place(self.chat_id, self.team_id, self.channel_id, self.reply_to_id)

    @property
    def target(self) -> str:
        """What rules of senders are matched with: the chat's id, or team id/channel id; "" for neither."""
        return self.chat_id or (f"{self.team_id}/{self.channel_id or ''}" if self.team_id else "")

    @field_validator("card")
    @classmethod
    def _adaptive(cls, card: dict[str, Any] | None) -> dict[str, Any] | None:
        if card is not None and card.get("type") != "AdaptiveCard":
            raise ValueError('is no Adaptive Card: its "type" must be "AdaptiveCard"')
        return card

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> TeamsMessage:
        self._check_place()
        self._check_content()
        routes = (info.context or {}).get(ROUTES, Routes)()
        if routes is not None and (found := list(problems(self, routes))):
            raise ValueError("; ".join(found))
        return self

    def _check_place(self) -> None:
        if self.chat_id is not None and (self.team_id is not None or self.channel_id is not None):
            raise ValueError("chatId stands alone: leave out teamId and channelId")
        if self.team_id is None and self.channel_id is not None:
            raise ValueError("channelId: teamId is missing; give both")
        if self.user_ids and self.target:
            raise ValueError("userIds stand alone: leave out chatId, teamId and channelId")
        if self.reply_to_id is not None and not self.target:
            raise ValueError("replyToId: give the chatId, or teamId and channelId, of the message as well")

    def _check_content(self) -> None:
        cleaned = clean(self.content) if self.content_type == "html" else ""
        shown = has_content(cleaned) if self.content_type == "html" else bool(self.content.strip())
        if not (shown or self.card or self.attachments or self.images):
            raise ValueError("content is empty: give content, a card, images or attachments")
        if self.mentions and self.content_type != "html":
            raise ValueError('mentions need contentType "html" and <at id="…"> in content')
        given, named = [mention.id for mention in self.mentions], set(mention_ids(cleaned))
        if len(set(given)) != len(given) or set(given) != named:
            raise ValueError('mentions and the <at id="…"> of content must name the same ids, each once')
        images = [image.content_id for image in self.images]
        if len(set(images)) != len(images) or not set(image_names(cleaned)) <= set(images):
            raise ValueError('images and the <img src="cid:…"> of content must name the same contentIds, each once')
        if (size := sum(image.size for image in self.images)) > IMAGES_BYTES:
            raise ValueError(f"images have {size} bytes together, and {IMAGES_BYTES} are the most: make them smaller")
