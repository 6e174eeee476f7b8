"""Graph's JSON of a mail: of a new message, of what turns the draft of a reply into ours, and of its attachments."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

from shared.handlers.html_text import plain_text
from shared.handlers.mail_payload import Attachment, Mail, Recipient

_LINE_BREAK = re.compile(r"\r\n|\r|\n")


def build_message(mail: Mail) -> dict[str, Any]:
    """A new message, without attachments."""
    to, cc, bcc = _unique(mail)
    message: dict[str, Any] = {
        "subject": mail.subject,
        "body": {"contentType": mail.body_type, "content": mail.body},
        "toRecipients": to,
        "ccRecipients": cc,
        "bccRecipients": bcc,
    } | _common(mail)
    if mail.headers:
        message["internetMessageHeaders"] = _headers(mail)
    return message


def build_answer(mail: Mail, placeholder: str) -> dict[str, Any]:
    """The request for the draft of a reply or forward: the placeholder stands where our text goes.

    Headers are taken here only: Graph lets nobody change them later.
    """
    request: dict[str, Any] = {"comment": placeholder}
    if mail.headers:
        request["message"] = {"internetMessageHeaders": _headers(mail)}
    return request


def answer_changes(mail: Mail, body: Mapping[str, Any], placeholder: str) -> dict[str, Any]:
    """What makes Graph's draft of a reply or forward ours; `body` is the draft's, with the placeholder in it.

    Absolute values only, so that making the same change again changes nothing.
    """
    is_html = str(body.get("contentType")).lower() == "html"
    own = _as_html(mail) if is_html else _as_text(mail)
    content = str(body.get("content") or "")
    whole = content.replace(placeholder, own, 1) if placeholder in content else own + content
    changes = {"body": {"contentType": "html" if is_html else "text", "content": whole}} | _common(mail)
    if mail.subject is not None:
        changes["subject"] = mail.subject
    for name, recipients in zip(("toRecipients", "ccRecipients", "bccRecipients"), _unique(mail), strict=True):
        if recipients:
            changes[name] = recipients
    return changes


def build_file(attachment: Attachment, content: str) -> dict[str, Any]:
    """An attachment with its content, in base64."""
    file: dict[str, Any] = {
        "@odata.type": "#microsoft.graph.fileAttachment",
        "name": attachment.name,
        "contentType": attachment.content_type,
        "contentBytes": content,
        "isInline": attachment.is_inline,
    }
    if attachment.content_id:
        file["contentId"] = attachment.content_id
    return file


def build_upload(attachment: Attachment, size: int) -> dict[str, Any]:
    """An attachment whose content follows in an upload session."""
    item: dict[str, Any] = {
        "attachmentType": "file",
        "name": attachment.name,
        "contentType": attachment.content_type,
        "size": size,
        "isInline": attachment.is_inline,
    }
    if attachment.content_id:
        item["contentId"] = attachment.content_id
    return item


def _common(mail: Mail) -> dict[str, Any]:
    message: dict[str, Any] = {"importance": mail.importance}
    if mail.from_.sender is not None:
        message["from"] = {"emailAddress": {"address": mail.from_.address}}
        message["sender"] = {"emailAddress": {"address": mail.from_.sender}}
    if mail.reply_to:
        message["replyTo"] = _recipients(mail.reply_to, set())
    if mail.categories:
        message["categories"] = list(dict.fromkeys(mail.categories))
    return message


def _unique(mail: Mail) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """to, cc and bcc, each address once: as first given, in the most visible place."""
    seen: set[str] = set()
    return _recipients(mail.to, seen), _recipients(mail.cc, seen), _recipients(mail.bcc, seen)


def _recipients(recipients: Iterable[Recipient], seen: set[str]) -> list[dict[str, Any]]:
    found = []
    for recipient in recipients:
        if recipient.address.lower() not in seen:
            seen.add(recipient.address.lower())
            name = {"name": recipient.name} if recipient.name else {}
            found.append({"emailAddress": {"address": recipient.address, **name}})
    return found


def _headers(mail: Mail) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in mail.headers.items()]


def _as_html(mail: Mail) -> str:
    if mail.body_type == "html":
        return mail.body
    return _LINE_BREAK.sub("<br>", html.escape(mail.body, quote=False))


def _as_text(mail: Mail) -> str:
    return plain_text(mail.body) if mail.body_type == "html" else mail.body
