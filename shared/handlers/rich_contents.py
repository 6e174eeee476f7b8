"""Resource data in notifications: who vouches for it, what it says, and what is told when it cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shared.engine.errors import MessageHeldError
from shared.graph.rich import (
    BrokenSignatureError,
    ContentError,
    EncryptionCertificates,
    UnknownCertificateError,
)
from shared.graph.validation_tokens import InvalidTokenError, KeysUnavailableError, ValidationTokens
from shared.handlers.services import Alert, AlertLevel


class SuspiciousBatchError(Exception):
    """Nobody vouches for the resource data of a delivery: none of it is to be believed."""


@dataclass(slots=True)
class Opened:
    """What came of the resource data of one message's items; items whose data cannot be used are fetched instead."""

    contents: int = 0
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)

    def alerts(self) -> list[Alert]:
        """One for each kind of fault, to be raised or counted up."""
        return [
            Alert(f"resource-data:{kind}", _LEVELS[kind], _TITLES[kind], {"reason": reason}, times)
            for (kind, reason), times in self.faults.items()
        ]


_LEVELS: dict[str, AlertLevel] = {"certificate": "warning", "signature": "critical", "unreadable": "warning"}
_TITLES = {
    "certificate": "Resource data is encrypted for a certificate that is not set; the messages were fetched instead",
    "signature": "Resource data has a wrong signature and was not decrypted; the messages were fetched instead",
    "unreadable": "Resource data cannot be decrypted; the messages were fetched instead",
}


class RichContents:
    """Checks and opens resource data. `tokens` is asked for at the first need, so that basic notifications need none.

    `tokens` may raise MessageHeldError while the settings for it are missing.
    """

    def __init__(self, tokens: Callable[[], ValidationTokens], certificates: EncryptionCertificates) -> None:
        self._tokens = tokens
        self._certificates = certificates

    def check(self, tokens: Sequence[str], received_at: datetime | None) -> None:
        """Raises SuspiciousBatchError, or MessageHeldError while Entra's keys cannot be had."""
        try:
            self._tokens().check(tokens, received_at or datetime.now(UTC))
        except InvalidTokenError as error:
            raise SuspiciousBatchError(str(error)) from error
        except KeysUnavailableError as error:
            raise MessageHeldError(f"resource data cannot be checked now: {error}") from error

    def open(self, item: dict[str, Any], opened: Opened) -> dict[str, Any] | None:
        """The resource that an item brings; None when it brings none or none that can be used, which `opened` notes."""
        content = item.get("encryptedContent")
        if content is None:
            return None
        try:
            resource = self._certificates.decrypt(content)
        except ContentError as error:
            opened.faults[_kind(error), str(error)] += 1
            return None
        opened.contents += 1
        return resource


def suspicious_batch(reason: str, items: int) -> Alert:
    """The alert of a batch that was dropped."""
    return Alert(
        "resource-data:suspicious",
        "critical",
        "Notifications with resource data were dropped: their validation tokens are not Graph's, or not for this app",
        {"reason": reason, "items": items},
    )


def _kind(error: ContentError) -> str:
    if isinstance(error, UnknownCertificateError):
        return "certificate"
    return "signature" if isinstance(error, BrokenSignatureError) else "unreadable"
