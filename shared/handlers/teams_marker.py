"""The mark of its job that each Teams message carries, since Teams knows no id of the sender's own.

It stands in an empty element at the start of the text (of the kind that Teams itself writes into quotes), as the id of
a card's attachment, which Teams gives back as sent, or in an invisible element of a bot's or a workflow's card.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from shared.handlers.payload_fields import text_of

_NAME = "fleet-queue"


def marker(effect_id: UUID) -> str:
    """The empty element."""
    return f'<span itemprop="{_NAME}" itemid="{effect_id}"></span>'


def marked_card(card: dict[str, Any], effect_id: UUID) -> dict[str, Any]:
    """The card with an invisible element whose id is the mark."""
    hidden = {"type": "TextBlock", "id": f"{_NAME}-{effect_id}", "text": " ", "isVisible": False}
    body = card.get("body")
    return card | {"body": [*(body if isinstance(body, list) else []), hidden]}


def carries(message: dict[str, Any], effect_id: UUID) -> bool:
    """Whether Graph's JSON of a message has the mark of this job."""
    return effect_id.hex in _ids(message) or any(str(effect_id) in text for text in _texts(message))


def is_marked(message: dict[str, Any]) -> bool:
    """Whether it has the mark of any job in its text or card."""
    return any(f'"{_NAME}"' in text or f"{_NAME}-" in text for text in _texts(message))


def _ids(message: dict[str, Any]) -> list[str]:
    return [text_of(attachment.get("id")) for attachment in _attachments(message)]


def _texts(message: dict[str, Any]) -> list[str]:
    body = message.get("body")
    content = text_of(body.get("content")) if isinstance(body, dict) else ""
    return [content, *(text_of(attachment.get("content")) for attachment in _attachments(message))]


def _attachments(message: dict[str, Any]) -> list[dict[str, Any]]:
    found = message.get("attachments")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
