"""Takes in a mail that a notification names: fetches it with immutable ids and keeps it once.

It is fetched also when the notification brings it: what is attached, and the mark that tells our own mail, have to be
asked for anyway, and only an answer of Graph's shows that it is not deleted meanwhile.

Graph names the mailbox by its user's id; the mail is kept under the name that the declaration gives, as a sync does.

Left out: drafts, and what this queue itself has sent. The outbound handler has recorded those, so the copy in
Sent Items (told by our mark and the folder) is no news. What else lies there was sent by the user, and is kept as
going out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
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
    Told,
    child,
    either,
    ids,
    look_again,
    moment,
    objects,
    segment,
    sortable,
)
from shared.handlers.inbound_attachments import read_attachments
from shared.handlers.non_delivery import NonDelivery
from shared.handlers.payload_fields import text_of
from shared.handlers.services import AttachmentRecord, Communication, CommunicationLog, Services

#: Of so many the folder is remembered, a few hundred bytes each.
MOST_MAILBOXES = 10_000

_MAIL = re.compile(
    rf"users{segment('user')}(?:/mailfolders(?:\('[^'/]+'\)|/[^/'()]+))*/messages{segment('message')}",
    re.IGNORECASE,
)
_KEPT = ("importance", "categories", "webLink", "parentFolderId", "from", "sender", "replyTo", "sentDateTime")
#: Headers by which a machine says so: RFC 3834, and what mailing lists and older answering machines write.
_AUTOMATIC = {
    "auto-submitted": re.compile(r"(?!no\b)", re.IGNORECASE),
    "precedence": re.compile(r"bulk|junk|list|auto_reply", re.IGNORECASE),
    "list-id": re.compile(""),
    "x-autoreply": re.compile(""),
    "x-autorespond": re.compile(""),
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

    def __init__(
        self,
        mail: MailClient,
        log: CommunicationLog,
        non_delivery: NonDelivery,
        told: Told | None = None,
        declared_user: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._mail = mail
        self._log = log
        self._non_delivery = non_delivery
        self._told = told or Told()
        self._declared_user = declared_user
        self._sent_items: dict[str, str] = {}

    def __call__(self, job: Job, payload: MailReference, context: Context) -> Completed:
        user, message_id = address(payload.resource)
        attachments: list[AttachmentRecord] = []
        with graph_attempt(context):
            message = self._message(job, payload, user, message_id)
            if message is None:
                return self._told.of(self._log.mark_deleted("outlook", message_id, job.id), job, "outlook")
            if message.get("isDraft") is True:
                return Completed({"outcome": "ignored", "message_type": "draft"})
            if self._is_own(user, message):
                return Completed({"outcome": "own"})
            is_sent = self._is_sent(user, message)
            self._non_delivery.take_in(user, message)
            if may_have_attachments(message):
                attachments = read_attachments(self._mail, user, text_of(message.get("id")) or message_id)
        account = (payload.subscription_id and self._declared_user(payload.subscription_id)) or user
        found = communication(job, account, message_id, message, attachments)
        recorded = self._log.record(replace(found, direction="out") if is_sent else found)
        return self._told.of(recorded, job, "outlook")

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

    def _is_sent(self, user: str, message: dict[str, Any]) -> bool:
        """Whether the user has sent it, by the folder, as a sync tells it; asked for once for each mailbox."""
        if user not in self._sent_items:
            folder = self._mail.folder_id(user, SENT_ITEMS)
            if folder is None:
                return False
            if len(self._sent_items) >= MOST_MAILBOXES:
                self._sent_items.clear()
            self._sent_items[user] = folder
        return self._sent_items[user] == message.get("parentFolderId")


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built."""
    non_delivery = NonDelivery(services.mail, services.delivery_failures)
    told = Told(services.events_endpoint)
    return OutlookInbound(services.mail, services.communications, non_delivery, told, services.sync.declared_user)


def address(resource: str) -> tuple[str, str]:
    """The mailbox and the message's id, from a notification's resource path."""
    found = ids(_MAIL, resource)
    return either(found, "user") or "", either(found, "message") or ""


def is_automatic(message: dict[str, Any]) -> bool:
    """Whether a machine wrote it, as far as its headers tell."""
    for header in objects(message.get("internetMessageHeaders")):
        pattern = _AUTOMATIC.get(text_of(header.get("name")).lower())
        if pattern is not None and pattern.match(text_of(header.get("value")).strip()):
            return True
    return False


def may_have_attachments(message: Mapping[str, Any]) -> bool:
    """Graph says no when there are only inline ones, so the body is looked at as well."""
    content = text_of(child(message, "body").get("content"))
    return message.get("hasAttachments") is True or "cid:" in content.lower()


def communication(
    job: Job, account: str, message_id: str, message: dict[str, Any], attachments: list[AttachmentRecord]
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
        account=account,
        automatic=is_automatic(message),
        attachments=attachments,
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
