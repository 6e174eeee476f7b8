"""Payloads of the queues that take no jobs yet; the registry says why. They are the contract for their workers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.handlers.payload_fields import Identifier, OneLine, Payload


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


class SyncRequest(Payload):
    """Bring one kind of resource of a user or a team up to date; `full_sync` starts from the beginning."""

    resource_type: Literal["messages", "emails", "calendar", "contacts", "files"]
    user_id: Identifier | None = None
    team_id: Identifier | None = None
    full_sync: bool = False

    @model_validator(mode="after")
    def _one_owner(self) -> Self:
        if (self.user_id is None) == (self.team_id is None):
            raise ValueError("give userId or teamId, one of them")
        return self
