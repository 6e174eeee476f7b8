"""Posting to webhooks as Graph does: the validation of an address, and batches of notifications."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

import requests

HANDSHAKE_SECONDS = 10.0
#: The first try of a delivery must be answered in this time, a retry in the longer one.
DELIVERY_SECONDS = 3.0
RETRY_SECONDS = 10.0


class HandshakeError(Exception):
    """The endpoint did not validate; the message goes into Graph's answer."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one delivery; `status` is None when there was no answer in time."""

    url: str
    status: int | None
    seconds: float
    error: str | None = None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def shake_hands(url: str, request_id: str) -> None:
    """Ask the endpoint for the token back; HandshakeError when it does not do so as Graph wants it."""
    token = f"Validation: Testing client application reachability for subscription Request-Id: {request_id}"
    address = f"{url}{'&' if '?' in url else '?'}validationToken={quote(token, safe='')}"
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    started = time.monotonic()
    try:
        with _session() as session:
            response = session.post(
                address, data=b"", headers=headers, timeout=HANDSHAKE_SECONDS, allow_redirects=False
            )
    except requests.Timeout:
        raise HandshakeError("The request timed out.") from None
    except requests.RequestException as error:
        raise HandshakeError(f"The endpoint could not be reached: {type(error).__name__}.") from error
    if time.monotonic() - started > HANDSHAKE_SECONDS:
        raise HandshakeError("The request timed out.")
    if response.status_code != 200:
        raise HandshakeError(
            "Notification endpoint must respond with 200 OK to validation request. "
            f"HTTP status code is '{response.status_code}'."
        )
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if content_type != "text/plain":
        raise HandshakeError(f"The response must be text/plain, not '{content_type}'.")
    if response.content != token.encode():
        raise HandshakeError("Response must exactly match validationToken query parameter.")


def post(url: str, body: Any, seconds: float) -> Result:
    """One delivery; slower than `seconds` is not delivered, whatever the answer."""
    started = time.monotonic()
    try:
        with _session() as session:
            response = session.post(url, json=body, timeout=seconds, allow_redirects=False)
    except requests.RequestException as error:
        return Result(url, None, time.monotonic() - started, f"{type(error).__name__}: {error}"[:300])
    taken = time.monotonic() - started
    if taken > seconds:
        return Result(url, None, taken, f"answered {response.status_code} too late")
    return Result(url, response.status_code, taken)


def _session() -> requests.Session:
    session = requests.Session()
    # Proxies and CA bundles of the environment are not for loopback.
    session.trust_env = False
    return session
