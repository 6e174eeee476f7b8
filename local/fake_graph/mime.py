"""MIME to mail messages and back."""

from __future__ import annotations

import base64
import binascii
import email
import email.policy
from email.message import EmailMessage, MIMEPart
from email.utils import getaddresses, parsedate_to_datetime
from typing import cast

from local.fake_graph import message_form as form
from local.fake_graph.call import Json, bad_request, seconds_text, utc_now
from local.fake_graph.ids import new_outlook_id
from local.fake_graph.state import Mail, User


def parse_base64(body: bytes, user: User) -> Mail:
    """A draft of this user from base64 MIME, as sendMail takes it with text/plain."""
    try:
        return parse(base64.b64decode(body, validate=True), user)
    except binascii.Error:
        raise bad_request("Invalid base64 string for MIME content.", "ErrorMimeContentInvalidBase64String") from None


def parse(raw: bytes, user: User) -> Mail:
    """A message from RFC 822 bytes: html body preferred, inline images and files as attachments."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    mail = form.new_mail(user, _properties(message))
    if message["Date"]:
        mail.value["sentDateTime"] = seconds_text(parsedate_to_datetime(str(message["Date"])))
    mail.value["internetMessageId"] = str(message["Message-ID"] or mail.value["internetMessageId"])
    mail.headers = [{"name": name, "value": str(value)} for name, value in message.items()]
    body = message.get_body(("html", "plain"))
    mail.attachments = [_attachment(part) for part in _attached(message, body)]
    form.touch(mail)
    return mail


def build(mail: Mail) -> bytes:
    """RFC 822 bytes of a message of the mailbox."""
    message = EmailMessage()
    message["From"] = _address(mail.value["from"])
    for header, field in (("To", "toRecipients"), ("Cc", "ccRecipients"), ("Reply-To", "replyTo")):
        if mail.value[field]:
            message[header] = ", ".join(_address(recipient) for recipient in mail.value[field])
    message["Subject"] = mail.value["subject"]
    message["Message-ID"] = mail.value["internetMessageId"]
    for own in mail.headers:
        if own["name"].lower().startswith("x-"):
            message[own["name"]] = own["value"]
    body = mail.value["body"]
    message.set_content(body["content"], subtype="html" if body["contentType"] == "html" else "plain")
    for item in mail.attachments:
        main, _, sub = (item["contentType"] or "application/octet-stream").partition("/")
        content = item["raw"] if "raw" in item else base64.b64decode(item["contentBytes"])
        if main == "message":
            main, sub = "application", "octet-stream"
        message.add_attachment(content, maintype=main, subtype=sub, filename=item["name"], cid=item.get("contentId"))
    return message.as_bytes()


def _properties(message: EmailMessage) -> Json:
    body = message.get_body(("html", "plain"))
    properties: Json = {
        "subject": str(message["Subject"] or ""),
        "toRecipients": _recipients(message, "To"),
        "ccRecipients": _recipients(message, "Cc"),
        "bccRecipients": _recipients(message, "Bcc"),
        "replyTo": _recipients(message, "Reply-To"),
        "importance": str(message["Importance"] or "normal").lower(),
    }
    if body is not None:
        kind = "html" if body.get_content_type() == "text/html" else "text"
        properties["body"] = {"contentType": kind, "content": body.get_content()}
    senders = _recipients(message, "From")
    if senders:
        properties |= {"from": senders[0], "sender": senders[0]}
    return properties


def _recipients(message: EmailMessage, header: str) -> list[Json]:
    pairs = getaddresses([str(value) for value in message.get_all(header, [])])
    return [{"emailAddress": {"name": name or address, "address": address}} for name, address in pairs if address]


def _attached(message: EmailMessage, body: MIMEPart | None) -> list[EmailMessage]:
    """Every leaf that is no reading of the body: files, inline images, attached messages."""
    found: list[EmailMessage] = []

    def visit(part: EmailMessage) -> None:
        if part.get_content_type() == "message/rfc822" and part is not message:
            found.append(part)
        elif part.is_multipart():
            for child in part.iter_parts():
                visit(cast(EmailMessage, child))
        elif part is not body and not _is_other_reading(part):
            found.append(part)

    visit(message)
    return found


def _is_other_reading(part: EmailMessage) -> bool:
    return part.get_content_maintype() == "text" and not part.is_attachment() and part.get_filename() is None


def _attachment(part: EmailMessage) -> Json:
    content_id = part["Content-ID"]
    item: Json = {
        "@odata.type": "#microsoft.graph.fileAttachment",
        "name": part.get_filename() or "attachment",
        "contentType": part.get_content_type(),
        "isInline": part.get_content_disposition() == "inline" or (content_id is not None and not part.is_attachment()),
    }
    if part.get_content_type() == "message/rfc822":
        return _item_attachment(part, item)
    content = part.get_payload(decode=True)
    data = content if isinstance(content, bytes) else b""
    item["contentBytes"] = base64.b64encode(data).decode()
    item["contentId"] = None if content_id is None else str(content_id).strip("<> ")
    return form.new_attachment(item)


def _item_attachment(part: EmailMessage, item: Json) -> Json:
    inner = next(iter(part.iter_parts()))
    raw = inner.as_bytes()
    return {
        "@odata.type": "#microsoft.graph.itemAttachment",
        "id": new_outlook_id("AAMkAE"),
        "lastModifiedDateTime": seconds_text(utc_now()),
        "name": str(inner["Subject"] or item["name"]),
        "contentType": None,
        "isInline": False,
        "size": len(raw),
        "raw": raw,
    }


def _address(recipient: Json) -> str:
    address = recipient["emailAddress"]
    return email.utils.formataddr((address["name"], address["address"]))
