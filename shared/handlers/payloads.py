"""Payloads of the queues that take no jobs yet; the registry says why. They are the contract for their workers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.handlers.payload_fields import OneLine, Payload


class AttachmentSource(Payload):
    """Where an attachment is: at a mail, at a chat message, or already in our storage."""

    kind: Literal["mail", "chat-message", "storage"]
    resource: Annotated[str, Field(min_length=1, max_length=2000)]


class AttachmentFile(Payload):
    """The file itself; `size` in bytes."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    content_type: OneLine | None = None
    size: Annotated[int, Field(ge=0)] | None = None


class AttachmentOperation(Payload):
    """One step with one attachment."""

    operation: Literal["upload", "download", "scan", "ocr", "delete"]
    source: AttachmentSource
    file: AttachmentFile
