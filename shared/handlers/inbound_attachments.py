"""What is attached to a mail that came in, as recorded: nothing but attached items is fetched, and those once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.graph.errors import GraphError
from shared.graph.mail import MailClient
from shared.handlers.inbound import child
from shared.handlers.payload_fields import text_of
from shared.handlers.services import AttachmentRecord

#: Attached items larger than this, and more of them in one mail, are recorded by their name, which is their subject.
LARGEST_ITEM_BYTES = 1_000_000
MOST_ITEMS = 5

_KINDS = {
    "#microsoft.graph.fileattachment": "file",
    "#microsoft.graph.itemattachment": "item",
    "#microsoft.graph.referenceattachment": "reference",
}


def read_attachments(
    mail: MailClient, user: str, message: str, permit: Callable[[], object] = lambda: None
) -> list[AttachmentRecord]:
    """The attachments of a mail, inline ones too. A kind that is not known is recorded as `other`.

    `permit` is called before each request.
    """
    records = []
    items = 0
    permit()
    for number, found in enumerate(mail.attachments(user, message)):
        details = _details(found)
        if _kind(found) == "item" and items < MOST_ITEMS and 0 < _size(found) <= LARGEST_ITEM_BYTES:
            items += 1
            permit()
            details |= _item_details(mail, user, message, text_of(found.get("id")))
        records.append(_record(found, number, details))
    return records


def _record(found: dict[str, Any], number: int, details: dict[str, Any]) -> AttachmentRecord:
    size = found.get("size")
    return AttachmentRecord(
        external_id=text_of(found.get("id")) or f"unnamed-{number}",
        name=text_of(found.get("name")),
        content_type=text_of(found.get("contentType")) or None,
        size=size if isinstance(size, int) else None,
        is_inline=found.get("isInline") is True,
        kind=_kind(found),
        details=details,
    )


def _details(found: dict[str, Any]) -> dict[str, Any]:
    """The id that the body's `cid:` names, and the link where Graph gives one: it is kept and not followed."""
    wanted = {"contentId": found.get("contentId"), "sourceUrl": found.get("sourceUrl")}
    if _kind(found) == "other" and text_of(found.get("@odata.type")):
        wanted["type"] = found.get("@odata.type")
    return {name: text for name, value in wanted.items() if (text := text_of(value))}


def _item_details(mail: MailClient, user: str, message: str, attachment: str) -> dict[str, Any]:
    """Subject, sender and time of an attached message; {} when Graph does not show it."""
    if not attachment:
        return {}
    try:
        item = mail.attached_item(user, message, attachment)
    except GraphError as error:
        if error.status in (400, 404, 405, 413):
            return {}
        raise
    sender = child(child(item, "from"), "emailAddress") or child(child(item, "organizer"), "emailAddress")
    wanted = {
        "itemType": text_of(item.get("@odata.type")).rpartition(".")[2],
        "subject": item.get("subject"),
        "sender": sender.get("address"),
        "sentAt": item.get("sentDateTime"),
        "internetMessageId": item.get("internetMessageId"),
    }
    return {name: text for name, value in wanted.items() if (text := text_of(value))}


def _kind(found: dict[str, Any]) -> str:
    return _KINDS.get(text_of(found.get("@odata.type")).lower(), "other")


def _size(found: dict[str, Any]) -> int:
    size = found.get("size")
    return size if isinstance(size, int) else 0
