"""Sends a mail; each job once, whenever a worker dies or an answer is lost.

The draft is the token of its own sending: it carries the job's id in an extended property, every later attempt
looks for it first, and a draft can be sent only once. Order: create, attach, send, confirm.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from shared.engine.context import Context, Handler
from shared.engine.errors import RejectedError, UncertainError
from shared.engine.job import Completed, Job
from shared.graph.client import to_bytes
from shared.graph.errors import GraphError, GraphFailure
from shared.graph.mail import MailClient, MailState
from shared.handlers.graph_errors import graph_attempt, job_error
from shared.handlers.html_text import plain_text
from shared.handlers.payload_fields import LONGEST_LINE, MailAddress, OneLine, Payload
from shared.handlers.services import AttachmentRecord, Communication, CommunicationLog, Services

#: Graph takes an attachment in one request below 3 MB.
ATTACHMENT_BYTES = 3_000_000
#: Up to this size the draft is created with its attachments; beyond, they follow one by one.
CREATE_BYTES = 3_000_000
BODY_BYTES = 1_000_000
ALL_ATTACHMENTS_BYTES = 25_000_000
MOST_RECIPIENTS = 500
#: Exchange takes this many headers of the sender's own.
MOST_HEADERS = 5
LONGEST_HEADER_VALUE = 900

_HEADER = re.compile(r"[xX]-[A-Za-z0-9-]+")
#: What /send may say of a message that is on its way already.
_MAYBE_SENT = {400, 404, 409}


class Recipient(Payload):
    """An address, with the name to show beside it."""

    address: MailAddress
    name: OneLine = ""


def _from_text(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class Attachment(Payload):
    """A file; `contentBytes` is its base64. An inline one is named in the body as cid:contentId."""

    name: OneLine = Field(min_length=1)
    content_type: OneLine = "application/octet-stream"
    content_bytes: str
    is_inline: bool = False
    content_id: OneLine | None = None

    @field_validator("content_bytes")
    @classmethod
    def _content(cls, value: str) -> str:
        try:
            size = len(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            raise ValueError("is not base64") from None
        if size >= ATTACHMENT_BYTES:
            raise ValueError(
                f"has {size} bytes, and an attachment must stay below {ATTACHMENT_BYTES}: send a link to the file"
            )
        return value

    @model_validator(mode="after")
    def _inline(self) -> Attachment:
        if self.is_inline and not self.content_id:
            raise ValueError("an inline attachment needs a contentId, by which the body names it")
        return self

    @property
    def size(self) -> int:
        return len(self.content_bytes) * 3 // 4 - self.content_bytes[-2:].count("=")


Recipients = list[Annotated[Recipient, BeforeValidator(_from_text)]]


class Mail(Payload):
    """A mail from the mailbox `from`. A recipient is an address, or an object with address and name."""

    from_: MailAddress = Field(alias="from")
    to: Recipients = Field(default_factory=list)
    cc: Recipients = Field(default_factory=list)
    bcc: Recipients = Field(default_factory=list)
    reply_to: Recipients = Field(default_factory=list)
    subject: OneLine
    body: str
    body_type: Literal["text", "html"] = "text"
    importance: Literal["low", "normal", "high"] = "normal"
    attachments: list[Attachment] = Field(default_factory=list)
    headers: dict[str, str] = Field(default_factory=dict, max_length=MOST_HEADERS)

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
        count = len(self.to) + len(self.cc) + len(self.bcc)
        if count == 0:
            raise ValueError("there is no recipient: give at least one address in to, cc or bcc")
        if count > MOST_RECIPIENTS:
            raise ValueError(f"there are {count} recipients in to, cc and bcc; at most {MOST_RECIPIENTS}")
        if sum(attachment.size for attachment in self.attachments) > ALL_ATTACHMENTS_BYTES:
            raise ValueError(f"attachments are larger than {ALL_ATTACHMENTS_BYTES} bytes together")
        return self


class OutlookOutbound:
    """The handler of `outlook-outbound`."""

    def __init__(self, mail: MailClient, log: CommunicationLog) -> None:
        self._mail = mail
        self._log = log

    def __call__(self, job: Job, payload: Mail, context: Context) -> Completed:
        with graph_attempt(context):
            state, confirmed = self._send_once(job, payload, context)
        self._log.record(_communication(job, payload, state))
        return Completed(
            {
                "outcome": "sent",
                "message_id": state.id,
                "internet_message_id": state.internet_message_id,
                "web_url": state.web_link,
                "confirmed": confirmed,
            }
        )

    def _send_once(self, job: Job, payload: Mail, context: Context) -> tuple[MailState, bool]:
        state = self._found(job, payload)
        if state is None:
            begun = _sending_begun(job)
            if begun is not None:
                # Sent, and now between Drafts and Sent Items: a draft that was not taken would still be there.
                return MailState(begun, False, None, None, None), False
            context.checkpoint()
            state = self._create(job, payload, context)
        elif state.is_draft:
            self._attach_missing(payload, state, context)
        if not state.is_draft:
            return state, True
        context.checkpoint()
        context.note(sending=state.id)
        return self._send(job, payload, state, context)

    def _found(self, job: Job, payload: Mail) -> MailState | None:
        """The mail of an earlier attempt: the sent one, or else its draft."""
        if not job.attempts and not job.may_have_taken_effect:
            return None
        found = self._mail.find_by_job(payload.from_, str(job.effect_id))
        return found[0] if found else None

    def _create(self, job: Job, payload: Mail, context: Context) -> MailState:
        message = build_message(payload)
        files = [_file(attachment) for attachment in payload.attachments]
        whole = {**message, "attachments": files} if files else message
        if len(to_bytes(whole)) <= CREATE_BYTES:
            return self._mail.create_draft(payload.from_, whole, str(job.effect_id))
        state = self._mail.create_draft(payload.from_, message, str(job.effect_id))
        self._attach(payload, state, 0, context)
        return state

    def _attach_missing(self, payload: Mail, state: MailState, context: Context) -> None:
        """They are added in order, so their number says which ones a half-made draft has."""
        if not payload.attachments:
            return
        present = len(self._mail.attachments(payload.from_, state.id))
        if present > len(payload.attachments):
            raise RejectedError(
                f"the draft {state.id} has {present} attachments and not {len(payload.attachments)}: somebody "
                "has changed it; send it by hand, or delete it and redrive the job"
            )
        self._attach(payload, state, present, context)

    def _attach(self, payload: Mail, state: MailState, present: int, context: Context) -> None:
        for attachment in payload.attachments[present:]:
            context.checkpoint()
            self._mail.add_attachment(payload.from_, state.id, _file(attachment))

    def _send(self, job: Job, payload: Mail, state: MailState, context: Context) -> tuple[MailState, bool]:
        try:
            self._mail.send_draft(payload.from_, state.id)
        except GraphError as error:
            if not job.attempts or error.status not in _MAYBE_SENT:
                raise _with_draft(error, state) from error
            # An earlier attempt may have sent this draft: then Graph refuses to send it again.
            now = self._mail.state(payload.from_, state.id)
            if now is None or now.is_draft:
                raise UncertainError(
                    f"{error}; an earlier attempt may have sent it", details={"sending": state.id}
                ) from error
            return now, True
        except GraphFailure as failure:
            raise _with_draft(failure, state) from failure
        return self._confirm(payload, state, context)

    def _confirm(self, payload: Mail, state: MailState, context: Context) -> tuple[MailState, bool]:
        """Look once at what Graph made of it. It has taken the mail, so nothing that happens here undoes that."""
        try:
            now = self._mail.state(payload.from_, state.id)
        except GraphFailure as failure:
            context.note(not_confirmed=str(failure))
            return state, False
        return (now, True) if now is not None and not now.is_draft else (state, False)


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built."""
    return OutlookOutbound(services.mail, services.communications)


def build_message(payload: Mail) -> dict[str, Any]:
    """Graph's JSON of the message, without attachments."""
    message: dict[str, Any] = {
        "subject": payload.subject,
        "body": {"contentType": payload.body_type, "content": payload.body},
        "importance": payload.importance,
        "toRecipients": _recipients(payload.to),
        "ccRecipients": _recipients(payload.cc),
        "bccRecipients": _recipients(payload.bcc),
    }
    if payload.reply_to:
        message["replyTo"] = _recipients(payload.reply_to)
    if payload.headers:
        message["internetMessageHeaders"] = [{"name": n, "value": v} for n, v in payload.headers.items()]
    return message


def _with_draft(failure: GraphFailure, state: MailState) -> Exception:
    error = job_error(failure, send=True)
    if isinstance(error, UncertainError):
        error.details["sending"] = state.id
    return error


def _sending_begun(job: Job) -> str | None:
    """The draft whose sending an earlier attempt began and of which it got no answer."""
    for attempt in reversed(job.attempts):
        draft = attempt.details.get("sending")
        if isinstance(draft, str) and attempt.error_class == UncertainError.error_class:
            return draft
    return None


def _recipients(recipients: Iterable[Recipient]) -> list[dict[str, Any]]:
    """Each address once, as first given."""
    unique: dict[str, Recipient] = {}
    for recipient in recipients:
        unique.setdefault(recipient.address.lower(), recipient)
    return [{"emailAddress": {"address": r.address, **({"name": r.name} if r.name else {})}} for r in unique.values()]


def _file(attachment: Attachment) -> dict[str, Any]:
    file: dict[str, Any] = {
        "@odata.type": "#microsoft.graph.fileAttachment",
        "name": attachment.name,
        "contentType": attachment.content_type,
        "contentBytes": attachment.content_bytes,
        "isInline": attachment.is_inline,
    }
    if attachment.content_id:
        file["contentId"] = attachment.content_id
    return file


def _communication(job: Job, payload: Mail, state: MailState) -> Communication:
    recipients = [r.address for r in (*payload.to, *payload.cc, *payload.bcc)]
    return Communication(
        direction="out",
        channel="outlook",
        external_id=state.id,
        thread_id=state.conversation_id,
        sender=payload.from_,
        recipients=list(dict.fromkeys(recipients)),
        subject=payload.subject,
        body=payload.body,
        body_type=payload.body_type,
        text=plain_text(payload.body) if payload.body_type == "html" else payload.body.strip(),
        occurred_at=None,
        internet_message_id=state.internet_message_id,
        account=payload.from_,
        attachments=[
            AttachmentRecord(f"sent-{number}", a.name, a.content_type, a.size, is_inline=a.is_inline, kind="file")
            for number, a in enumerate(payload.attachments)
        ],
        job_id=job.id,
        correlation_id=job.correlation_id,
        raw={"importance": payload.importance, "headers": payload.headers, "webUrl": state.web_link},
    )
