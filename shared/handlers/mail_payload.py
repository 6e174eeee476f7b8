"""What a job of `outlook-outbound` carries: a mail, checked field by field before it is stored."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from shared.handlers.payload_fields import LONGEST_LINE, Identifier, MailAddress, OneLine, Payload, has_line_break

BODY_BYTES = 1_000_000
#: What the payload itself may carry, all attachments together: base64 of it still fits into a job's payload.
CARRIED_BYTES = 6_000_000
MOST_RECIPIENTS = 500
#: Exchange takes so many attachments in a message, and this many headers of the sender's own.
MOST_ATTACHMENTS = 250
MOST_HEADERS = 5
LONGEST_HEADER_VALUE = 900
MOST_CATEGORIES = 25
LONGEST_BLOB_NAME = 1024

_HEADER = re.compile(r"[xX]-[A-Za-z0-9-]+")
_BLOB = re.compile(r"(?P<container>[a-z0-9](?:-?[a-z0-9]){2,62})/(?P<name>[^\\]+)")


def _from_text(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


def _blob(value: str) -> str:
    if "://" in value:
        raise ValueError("is an address: name the blob as container/name; nothing is fetched from elsewhere")
    found = _BLOB.fullmatch(value)
    if found is None or has_line_break(value) or len(found["name"]) > LONGEST_BLOB_NAME:
        raise ValueError("is no blob: name it as container/name")
    if any(part in ("", ".", "..") for part in found["name"].split("/")):
        raise ValueError("is no blob: a part of its name is empty, . or ..")
    return value


class Recipient(Payload):
    """An address, with the name to show beside it."""

    address: MailAddress
    name: OneLine = ""


class From(Payload):
    """Whose mail it is. With a `sender`, the mail is made in the sender's mailbox and sent for `address`, which
    the sender may send as, or on behalf of."""

    address: MailAddress
    sender: MailAddress | None = None


class Original(Payload):
    """The message of the same mailbox that this mail answers or passes on; `message_id` is Graph's id of it."""

    message_id: Identifier
    action: Literal["reply", "replyAll", "forward"]


class Attachment(Payload):
    """A file: its base64 in `contentBytes`, or a `blob` (container/name) of the app's own storage account.

    An inline one is named in the body as cid:contentId.
    """

    name: OneLine = Field(min_length=1)
    content_type: OneLine = "application/octet-stream"
    content_bytes: str | None = None
    blob: Annotated[str, AfterValidator(_blob)] | None = None
    is_inline: bool = False
    content_id: OneLine | None = None

    @field_validator("content_bytes")
    @classmethod
    def _content(cls, value: str | None) -> str | None:
        try:
            base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not base64") from None
        return value

    @model_validator(mode="after")
    def _whole(self) -> Attachment:
        if (self.content_bytes is None) == (self.blob is None):
            raise ValueError("give its contentBytes (base64) or its blob (container/name), one of the two")
        if self.is_inline and not self.content_id:
            raise ValueError("an inline attachment needs a contentId, by which the body names it")
        return self

    @property
    def carried(self) -> int:
        """How many bytes of it the payload carries."""
        content = self.content_bytes or ""
        return len(content) * 3 // 4 - content[-2:].count("=")


Recipients = list[Annotated[Recipient, BeforeValidator(_from_text)]]


class Mail(Payload):
    """A mail from the mailbox `from`. A recipient is an address, or an object with address and name.

    With an `original` it is a reply or forward: the subject may be left out, and so may a reply's recipients.
    """

    from_: Annotated[From, BeforeValidator(_from_text)] = Field(alias="from")
    to: Recipients = Field(default_factory=list)
    cc: Recipients = Field(default_factory=list)
    bcc: Recipients = Field(default_factory=list)
    reply_to: Recipients = Field(default_factory=list)
    subject: OneLine | None = None
    body: str
    body_type: Literal["text", "html"] = "text"
    importance: Literal["low", "normal", "high"] = "normal"
    categories: list[OneLine] = Field(default_factory=list, max_length=MOST_CATEGORIES)
    attachments: list[Attachment] = Field(default_factory=list, max_length=MOST_ATTACHMENTS)
    headers: dict[str, str] = Field(default_factory=dict, max_length=MOST_HEADERS)
    original: Original | None = None
    save_to_sent_items: bool = True

    @field_validator("body")
    @classmethod
    def _body(cls, value: str) -> str:
        if len(value.encode("utf-8", "replace")) > BODY_BYTES:
            raise ValueError(f"is longer than {BODY_BYTES} bytes: send the long part as an attachment")
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name) or len(name) > LONGEST_LINE:
                raise ValueError("a header's name must be x- followed by letters, digits and hyphens")
            if not value.isascii() or not value.isprintable() or len(value) > LONGEST_HEADER_VALUE:
                raise ValueError(
                    f"the value of {name} must be one line of at most {LONGEST_HEADER_VALUE} ASCII characters"
                )
        if len({name.lower() for name in headers}) != len(headers):
            raise ValueError("a header is given twice")
        return headers

    @model_validator(mode="after")
    def _whole(self) -> Mail:
        action = self.original.action if self.original else None
        count = len(self.to) + len(self.cc) + len(self.bcc)
        if count == 0 and action not in ("reply", "replyAll"):
            raise ValueError("there is no recipient: give at least one address in to, cc or bcc")
        if count > MOST_RECIPIENTS:
            raise ValueError(f"there are {count} recipients in to, cc and bcc; at most {MOST_RECIPIENTS}")
        if self.subject is None and action is None:
            raise ValueError("there is no subject: only a reply or a forward has one without it")
        carried = sum(attachment.carried for attachment in self.attachments)
        if carried > CARRIED_BYTES:
            raise ValueError(
                f"the attachments in the payload have {carried} bytes together; at most {CARRIED_BYTES}: put large "
                "files into blob storage and name them by blob"
            )
        return self

    @property
    def mailbox(self) -> str:
        """The mailbox that the mail is made in."""
        return self.from_.sender or self.from_.address
