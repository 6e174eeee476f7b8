"""A message of the `webhooks` queue: what intake packs and the processor reads, perhaps of another release."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from shared.engine.errors import MessageHeldError, UnreadableMessageError
from shared.engine.worker import RELEASE_PATIENCE
from shared.handlers.loading import has_only_unknown_fields


class NotificationBatch(BaseModel):
    """A message of the `webhooks` queue: items as Graph sent them, less their clientState."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    notifications: list[Any]
    received_at: AwareDatetime | None = None
    validation_tokens: list[str] = Field(default_factory=list, repr=False)
    traceparent: str | None = None

    @property
    def is_rich(self) -> bool:
        """Whether there is anything that somebody must vouch for."""
        return bool(self.validation_tokens) or any(
            isinstance(item, dict) and item.get("encryptedContent") is not None for item in self.notifications
        )


def read_batch(body: dict[str, Any]) -> NotificationBatch:
    """The batch in a decoded message. Raises UnreadableMessageError when it is none, and MessageHeldError when it has
    fields that this release does not know, for as long as a deployment may be under way."""
    try:
        return NotificationBatch.model_validate(body)
    except ValidationError as error:
        reasons = f"the body is no batch of notifications: {_reasons(error)}"
        if has_only_unknown_fields(error) and _is_fresh(body):
            raise MessageHeldError(f"{reasons}; it waits for the release that made it") from None
        raise UnreadableMessageError(reasons) from None


def _is_fresh(body: dict[str, Any]) -> bool:
    known = {name: value for name, value in body.items() if name in ("notifications", "receivedAt")}
    received_at = NotificationBatch.model_validate(known).received_at
    return received_at is not None and datetime.now(UTC) - received_at < RELEASE_PATIENCE


def _reasons(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in found)
