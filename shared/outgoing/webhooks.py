"""Signed outgoing webhooks, as Standard Webhooks describes them (https://www.standardwebhooks.com).

A receiver checks the signature with any of that specification's libraries, and knows a repeat by its webhook-id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime

from shared.graph.errors import AnswerLost, GraphCall
from shared.graph.exchange import error_of, exchange
from shared.outgoing.session import PublicSession


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where signed webhooks go. Every key signs (two during a rotation), so that the receiver may know either."""

    name: str
    url: str = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)


class WebhookSender:
    """Posts to endpoints. Safe to share between threads."""

    def __init__(self, session: PublicSession) -> None:
        self._session = session

    def send(self, endpoint: Endpoint, message_id: str, body: bytes, at: datetime) -> None:
        """Post a JSON body once; any 2xx is success. Raises GraphFailure; an answer that redirects is an error.

        The same `message_id` on every attempt lets the receiver do the thing once.
        """
        timestamp = int(at.timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "fleet-queue",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(endpoint.keys, message_id, timestamp, body),
        }
        call = GraphCall("POST", f"webhook endpoint {endpoint.name}", message_id)
        response = exchange(self._session, call, endpoint.url, headers=headers, body=body)
        if 300 <= response.status_code < 400:
            raise AnswerLost(f"{call} redirects, and redirects are not followed: give its last address", call=call)
        if not 200 <= response.status_code < 300:
            raise error_of(response, call)


def signature(keys: tuple[bytes, ...], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of webhook-signature: one `v1,` signature for each key, separated by spaces."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
