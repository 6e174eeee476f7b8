"""Receivers of signed webhooks: what a fleet application would have behind its address."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from urllib.parse import unquote

from local.fake_graph.call import Answer, Call, Json

RECEIVERS = "/receivers/"
SECRET = "whsec_" + base64.b64encode(b"a secret of the local receivers.").decode()
TOLERANCE_SECONDS = 300


class Receivers:
    """Takes what is signed with SECRET, each webhook-id once; `received` has the events of each receiver."""

    def __init__(self) -> None:
        self.received: dict[str, list[Json]] = {}
        self.ids: set[tuple[str, str]] = set()

    def reset(self) -> None:
        self.received.clear()
        self.ids.clear()

    def answer(self, call: Call) -> Answer:
        name = unquote(call.path.removeprefix(RECEIVERS))
        message_id = call.headers.get("webhook-id", "")
        if call.method != "POST" or not _is_signed(call, message_id):
            return Answer(401, {"error": "not signed"})
        if (name, message_id) not in self.ids:
            self.ids.add((name, message_id))
            self.received.setdefault(name, []).append(json.loads(call.raw) | {"id": message_id})
        return Answer(204)


def _is_signed(call: Call, message_id: str) -> bool:
    timestamp = call.headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + call.raw
    good = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(good, one) for one in call.headers.get("webhook-signature", "").split())
