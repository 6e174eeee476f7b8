"""Takes in a mail that a notification names: fetches it with immutable ids and keeps it once.

Left out: drafts, and what this queue itself has sent. The outbound handler has recorded those, so the copy in
Sent Items (told by our mark and the folder) is no news.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import field_validator

from shared.engine.context import Context, Handler
from shared.engine.job import Completed, Job
from shared.graph.errors import GraphError
from shared.graph.mail import SENT_ITEMS, MailClient, job_id_of
from shared.handlers.graph_errors import graph_attempt
from shared.handlers.html_text import plain_text
from shared.handlers.inbound import (
    NotificationReference,
    child,
    either,
    ids,
    look_again,
    moment,
    objects,
    segment,
    sortable,
)
from shared.handlers.non_delivery import NonDelivery
from shared.handlers.payload_fields import text_of
from shared.handlers.services import AttachmentRecord, Communication, CommunicationLog, Services

_MAIL = re.compile(
    rf"users{segment('user')}(?:/mailfolders(?:\('[^'/]+'\)|/[^/'()]+))*/messages{segment('message')}",
    re.IGNORECASE,
)
_KEPT = ("importance", "categories", "webLink", "parentFolderId", "from", "sender", "replyTo", "sentDateTime")
_KINDS = {
    "#microsoft.graph.fileattachment": "file",
    "#microsoft.graph.itemattachment": "item",
    "#microsoft.graph.referenceattachment": "reference",
}


class MailReference(NotificationReference):
    """A message of a mailbox."""

    @field_validator("resource")
    @classmethod
    def _path(cls, value: str) -> str:
        address(value)
        return value


class OutlookInbound:
    """The handler of `outlook-inbound`."""

    def __init__(self, mail: MailClient, log: CommunicationLog, non_delivery: NonDelivery) -> None:
        self._mail = mail
        self._log = log
        self._non_delivery = non_delivery

    def __call__(self, job: Job, payload: MailReference, context: Context) -> Completed:
        user, message_id = address(payload.resource)
        attachments: list[dict[str, Any]] = []
        with graph_attempt(context):
            message = self._message(job, payload, user, message_id)
            if message is None:
                self._log.mark_deleted("outlook", message_id, None)
                return Completed({"outcome": "gone"})
            if message.get("isDraft") is True:
                return Completed({"outcome": "ignored", "message_type": "draft"})
            if self._is_own(user, message):
                return Completed({"outcome": "own"})
            self._non_delivery.take_in(user, message)
            if may_have_attachments(message):
                attachments = self._mail.attachments(user, text_of(message.get("id")) or message_id)
        is_new = self._log.record(communication(job, user, message_id, message, attachments))
        return Completed({"outcome": "stored" if is_new else "updated"})

    def _message(self, job: Job, payload: MailReference, user: str, message_id: str) -> dict[str, Any] | None:
        try:
            return self._mail.message(user, message_id)
        except GraphError as error:
            if error.status != 404:
                raise
            if payload.change_type != "deleted":
                look_again(job, error)
            return None

    def _is_own(self, user: str, message: dict[str, Any]) -> bool:
        """The folder decides: a colleague's copy of our mail may carry the mark too, and is news to him."""
        job_id = job_id_of(message)
        if job_id is None:
            return False
        sent = self._mail.find_by_job(user, job_id, folder=SENT_ITEMS)
        return any(state.id == message.get("id") for state in sent)


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built."""
    non_delivery = NonDelivery(services.mail, services.delivery_failures)
    return OutlookInbound(services.mail, services.communications, non_delivery)


def address(resource: str) -> tuple[str, str]:
    """The mailbox and the message's id, from a notification's resource path."""
    found = ids(_MAIL, resource)
    return either(found, "user") or "", either(found, "message") or ""


def may_have_attachments(message: Mapping[str, Any]) -> bool:
    """Graph says no when there are only inline ones, so the body is looked at as well."""
    content = text_of(child(message, "body").get("content"))
    return message.get("hasAttachments") is True or "cid:" in content.lower()


def communication(
    job: Job, user: str, message_id: str, message: dict[str, Any], attachments: list[dict[str, Any]]
) -> Communication:
    body = child(message, "body")
    content = text_of(body.get("content"))
    is_html = text_of(body.get("contentType")).lower() == "html"
    recipients = [
        _address_of(recipient)
        for field in ("toRecipients", "ccRecipients", "bccRecipients")
        for recipient in objects(message.get(field))
    ]
    return Communication(
        direction="in",
        channel="outlook",
        external_id=text_of(message.get("id")) or message_id,
        thread_id=text_of(message.get("conversationId")) or None,
        sender=_address_of(child(message, "from")) or _address_of(child(message, "sender")) or None,
        recipients=[recipient for recipient in dict.fromkeys(recipients) if recipient],
        subject=text_of(message.get("subject")) or None,
        body=content,
        body_type="html" if is_html else "text",
        text=plain_text(content) if is_html else content.strip(),
        occurred_at=moment(message.get("receivedDateTime")),
        internet_message_id=text_of(message.get("internetMessageId")) or None,
        account=user,
        attachments=[_attachment(item, number) for number, item in enumerate(attachments)],
        job_id=job.id,
        correlation_id=job.correlation_id,
        raw={name: message[name] for name in _KEPT if message.get(name) is not None}
        | {
            "headers": objects(message.get("internetMessageHeaders")),
            "modifiedAt": sortable(message.get("lastModifiedDateTime")),
        },
    )


def _address_of(recipient: dict[str, Any]) -> str:
    return text_of(child(recipient, "emailAddress").get("address"))


def _attachment(item: dict[str, Any], number: int) -> AttachmentRecord:
    size = item.get("size")
    return AttachmentRecord(
        external_id=text_of(item.get("id")) or f"unnamed-{number}",
        name=text_of(item.get("name")),
        content_type=text_of(item.get("contentType")) or None,
        size=size if isinstance(size, int) else None,
        is_inline=item.get("isInline") is True,
        kind=_KINDS.get(text_of(item.get("@odata.type")).lower(), "other"),
    )
