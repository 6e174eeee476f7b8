"""Looks after the identities that jobs wait for, and after the certificate's end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

log = logging.getLogger(__name__)

#: So long before its end a certificate is warned of, and then with urgency.
WARNING = timedelta(days=30)
URGENT = timedelta(days=7)
CERTIFICATE = "certificate:application"


class Waits(Protocol):
    """Which identities jobs wait for."""

    def broken(self) -> Sequence[str]: ...

    def mend(self, identity: str) -> int:
        """Resolve its alert and call its jobs back; returns how many."""
        ...


class Alerts(Protocol):
    """Alerts that are open until something is mended."""

    def open(
        self, key: str, level: Literal["warning", "critical"], title: str, details: Mapping[str, Any]
    ) -> object: ...

    def resolve(self, key: str) -> bool: ...


class IdentityWatch:
    """`failure_of` asks the authority for a new token of an identity and says why there is none, or None;
    `certificate_ends` is None where no certificate proves the application."""

    def __init__(
        self,
        waits: Waits,
        alerts: Alerts,
        failure_of: Callable[[str], str | None],
        certificate_ends: Callable[[], datetime | None],
    ) -> None:
        self._waits = waits
        self._alerts = alerts
        self._failure_of = failure_of
        self._certificate_ends = certificate_ends

    def run(self) -> None:
        """Let the jobs of every identity go on that works again, and warn of a certificate that ends soon."""
        for identity in self._waits.broken():
            failure = self._failure_of(identity)
            if failure is None:
                log.info("identity.mended", extra={"identity": identity, "jobs": self._waits.mend(identity)})
            else:
                log.warning("identity.still_broken", extra={"identity": identity, "error": failure})
        self._look_at_certificate(self._certificate_ends())

    def _look_at_certificate(self, ends_at: datetime | None) -> None:
        left = ends_at - datetime.now(UTC) if ends_at is not None else None
        if ends_at is None or left is None or left > WARNING:
            self._alerts.resolve(CERTIFICATE)
            return
        verb = "expires" if left > timedelta() else "expired"
        title = f"The application's certificate {verb} on {ends_at:%Y-%m-%d}"
        remedy = "Make a new one, upload it to the app registration beside the old one, then put it into the setting."
        details = {"expiresAt": ends_at.isoformat(), "remedy": remedy}
        self._alerts.open(CERTIFICATE, "critical" if left < URGENT else "warning", title, details)
        log.warning("certificate.ends_soon", extra={"expires_at": ends_at.isoformat()})
