"""Mobile push through Azure Notification Hubs: its REST API with a shared access signature.

There is no maintained Python package for sending. Facts: Send a template notification
(https://learn.microsoft.com/rest/api/notificationhubs/send-template-notification) and Shared Access Signature
authentication with Service Bus (https://learn.microsoft.com/rest/api/eventhub/generate-sas-token).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from shared.graph.errors import GraphCall
from shared.graph.exchange import error_of, exchange
from shared.http_session import HttpSession

API_VERSION = "2015-01"
#: A signature is made for each request, so it need not live long; a clock may be wrong by some minutes.
SIGNATURE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub of a namespace: `address` is https://<namespace>.servicebus.windows.net, `tag` has a place for {user}."""

    address: str
    name: str
    key_name: str
    key: str = field(repr=False)
    tag: str = "$UserId:{{user}}"


class NotificationHub:
    """Sends template notifications: the hub fills each device's own template, so that no platform is named here."""

    def __init__(self, session: HttpSession, hub: Hub, clock: Callable[[], float] = time.time) -> None:
        self._session = session
        self._hub = hub
        self._clock = clock

    def send(self, user_id: str, properties: Mapping[str, str]) -> str | None:
        """Send to all devices of a user; returns the hub's id of the notification where it gives one.

        The hub takes it for delivery and does not say whether there is a device. Raises GraphFailure.
        """
        url = f"{self._hub.address}/{quote(self._hub.name)}/messages/?api-version={API_VERSION}"
        headers = {
            "Authorization": self._signature(url),
            "Content-Type": "application/json;charset=utf-8",
            "ServiceBusNotification-Format": "template",
            "ServiceBusNotification-Tags": self._hub.tag.replace("{user}", user_id),
        }
        call = GraphCall("POST", "notification hub /messages", str(uuid.uuid4()))
        body = json.dumps(properties, ensure_ascii=False).encode("utf-8", "replace")
        response = exchange(self._session, call, url, headers=headers, body=body)
        if response.status_code not in (200, 201):
            raise error_of(response, call)
        location = response.headers.get("Location", "").partition("?")[0]
        return location.rpartition("/")[2] or None

    def _signature(self, url: str) -> str:
        resource = quote(url.lower(), safe="").lower()
        expiry = int(self._clock()) + SIGNATURE_SECONDS
        digest = hmac.new(self._hub.key.encode(), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
        signed = quote(base64.b64encode(digest), safe="")
        return f"SharedAccessSignature sr={resource}&sig={signed}&se={expiry}&skn={quote(self._hub.key_name, safe='')}"
