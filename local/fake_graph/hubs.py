"""Azure Notification Hubs, as far as sending goes: signatures, headers and bodies are checked, notices kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from urllib.parse import parse_qsl, quote, unquote

from local.fake_graph.call import Answer, Call, Json
from local.fake_graph.state import new_guid

HUBS = "/hubs/"
HUB = "fleet"
KEY_NAME = "DefaultFullSharedAccessSignature"
KEY = "bG9jYWwtaHViLWtleS1vZi1ub3RoaW5nLWF0LWFsbC4="
MESSAGE_BYTES = 64 * 1024
_PATH = re.compile(rf"{HUBS}(?P<hub>[^/]+)/messages/?")


class Hubs:
    """One namespace with one hub. A refusal says why in its text, as the service's do in theirs."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self.notices: list[Json] = []

    def reset(self) -> None:
        self.notices.clear()

    def answer(self, call: Call) -> Answer:
        match = _PATH.fullmatch(unquote(call.path))
        if match is None or match["hub"] != HUB:
            return _refused(404, "there is no such hub")
        if call.method != "POST":
            return _refused(405, "only POST sends")
        fault = self._signature_fault(call)
        if fault:
            return _refused(401, fault)
        if len(call.raw) > MESSAGE_BYTES:
            return _refused(413, "the message is larger than 64 KB")
        properties, fault = _properties(call)
        if fault:
            return _refused(400, fault)
        notice_id = new_guid()
        self.notices.append({"id": notice_id, "tags": call.headers["servicebusnotification-tags"], **properties})
        location = f"{self._base_url}{call.path.rstrip('/')}/{notice_id}?api-version={call.query['api-version']}"
        return Answer(201, None, {"Location": location})

    def _signature_fault(self, call: Call) -> str | None:
        scheme, _, text = call.headers.get("authorization", "").partition(" ")
        fields = dict(parse_qsl(text))
        if scheme != "SharedAccessSignature" or set(fields) != {"sr", "sig", "se", "skn"}:
            return "the authorization is no shared access signature"
        if not (self._base_url + call.path).lower().startswith(fields["sr"].partition("?")[0]):
            return "the signature is for another resource"
        if int(fields["se"]) < time.time() or fields["skn"] != KEY_NAME:
            return "the signature has expired, or its key is unknown"
        signed = f"{quote(fields['sr'], safe='').lower()}\n{fields['se']}".encode()
        good = base64.b64encode(hmac.new(KEY.encode(), signed, hashlib.sha256).digest()).decode()
        return None if hmac.compare_digest(good, fields["sig"]) else "the signature is wrong"


def _properties(call: Call) -> tuple[Json, str | None]:
    headers = call.headers
    if call.query.get("api-version") != "2015-01":
        return {}, "api-version is missing"
    if headers.get("servicebusnotification-format") != "template":
        return {}, "ServiceBusNotification-Format must be template"
    if not re.fullmatch(r"[\w@#.:$\-{}]{1,120}", headers.get("servicebusnotification-tags", "")):
        return {}, "ServiceBusNotification-Tags is no tag"
    if headers.get("content-type") != "application/json;charset=utf-8":
        return {}, "the content type must be application/json;charset=utf-8"
    try:
        properties = json.loads(call.raw)
    except ValueError:
        return {}, "the body is not JSON"
    if not isinstance(properties, dict) or not all(isinstance(value, str) for value in properties.values()):
        return {}, "a template notification has string properties only"
    return properties, None


def _refused(status: int, why: str) -> Answer:
    body = f"<Error><Code>{status}</Code><Detail>{why}</Detail></Error>"
    return Answer(status, body.encode(), content_type="application/xml; charset=utf-8")
