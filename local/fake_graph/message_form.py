"""The form of a mail message: from a request's JSON to what the mailbox keeps, and back to what Graph shows."""

from __future__ import annotations

import base64
import binascii
import copy
import html
import re
import secrets
import uuid
from typing import Any

from local.fake_graph import query
from local.fake_graph.call import Call, Json, bad_request, seconds_text, utc_now
from local.fake_graph.ids import new_etag, new_outlook_id
from local.fake_graph.state import Mail, User

#: Exchange takes this many headers of the sender's own in a message.
HEADERS = 5
RECIPIENT_FIELDS = ("toRecipients", "ccRecipients", "bccRecipients", "replyTo")
_EXTENDED_ID = re.compile(
    r"^(String|StringArray|Integer|Boolean|Binary|Double|SystemTime|Long|CLSID|Short)A?(Array)? "
    r"\{?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}? (Name .+|Id 0x[0-9a-f]+)$|^\w+ 0x[0-9a-f]+$",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[^>]*>")
_NO_TEXT = re.compile(r"<(style|script|head)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_EXPAND = re.compile(r"^singleValueExtendedProperties\(\$filter=id eq '((?:[^']|'')*)'\)$", re.IGNORECASE)


def new_mail(user: User, body: Json) -> Mail:
    """A draft of this user from the JSON of a message."""
    now = seconds_text(utc_now())
    owner = {"emailAddress": {"name": user.name, "address": user.upn}}
    value: Json = {
        "@odata.etag": new_etag(),
        "createdDateTime": now,
        "lastModifiedDateTime": now,
        "changeKey": secrets.token_urlsafe(18),
        "categories": [],
        "receivedDateTime": now,
        "sentDateTime": now,
        "hasAttachments": False,
        "internetMessageId": f"<{uuid.uuid4().hex}@fleet.example>",
        "subject": "",
        "bodyPreview": "",
        "importance": "normal",
        "conversationId": new_outlook_id("AAQkAD"),
        "isDeliveryReceiptRequested": False,
        "isReadReceiptRequested": False,
        "isRead": True,
        "isDraft": True,
        "webLink": "https://outlook.example/owa/",
        "inferenceClassification": "focused",
        "body": {"contentType": "text", "content": ""},
        "sender": owner,
        "from": owner,
        "toRecipients": [],
        "ccRecipients": [],
        "bccRecipients": [],
        "replyTo": [],
        "flag": {"flagStatus": "notFlagged"},
    }
    mail = Mail("drafts", value)
    apply(mail, body)
    return mail


def apply(mail: Mail, body: Json) -> None:
    """Set the given properties; 400 where Outlook would refuse one."""
    for name, given in body.items():
        match name:
            case "attachments":
                mail.attachments = [new_attachment(item) for item in given or []]
            case "internetMessageHeaders":
                mail.headers = _checked_headers(given or [])
            case "singleValueExtendedProperties":
                _set_extended(mail, given or [])
            case "body":
                content_type = ((given or {}).get("contentType") or "text").lower()
                mail.value["body"] = {"contentType": content_type, "content": (given or {}).get("content") or ""}
            case "importance" | "inferenceClassification":
                mail.value[name] = str(given).lower()
            case _ if name in RECIPIENT_FIELDS:
                mail.value[name] = [_recipient(recipient) for recipient in given or []]
            case "from" | "sender":
                mail.value[name] = _recipient(given)
            case _ if not name.startswith("@"):
                mail.value[name] = given
    touch(mail)


def touch(mail: Mail) -> None:
    """After any change: new etag and time, and what follows from the content."""
    mail.value["bodyPreview"] = preview(mail.value["body"])
    mail.value["hasAttachments"] = any(not item.get("isInline") for item in mail.attachments)
    mail.value["lastModifiedDateTime"] = seconds_text(utc_now())
    mail.value["@odata.etag"] = new_etag()


def mark_sent(mail: Mail) -> None:
    mail.value |= {"isDraft": False, "isRead": True, "sentDateTime": seconds_text(utc_now())}
    mail.value["receivedDateTime"] = mail.value["sentDateTime"]
    touch(mail)


def mark_received(mail: Mail) -> None:
    """A message from outside: unread, no draft, received now."""
    mail.value |= {"isDraft": False, "isRead": False, "receivedDateTime": seconds_text(utc_now())}
    touch(mail)


def received_copy(mail: Mail) -> Mail:
    """What a recipient gets: the same message without bcc and extended properties, unread."""
    value = copy.deepcopy(mail.value) | {"isRead": False, "isDraft": False, "bccRecipients": []}
    value["@odata.etag"] = new_etag()
    # Contents of attachments are never changed in place, so that copies may share them.
    return Mail("inbox", value, [dict(item) for item in mail.attachments], [], copy.deepcopy(mail.headers))


def new_attachment(body: Json) -> Json:
    """An attachment as the mailbox keeps it, from the JSON of a request."""
    kind = body.get("@odata.type")
    item: Json = {
        "@odata.type": kind,
        "id": new_outlook_id("AAMkAE"),
        "lastModifiedDateTime": seconds_text(utc_now()),
        "name": body.get("name"),
        "contentType": body.get("contentType"),
        "isInline": bool(body.get("isInline")),
        "size": 0,
    }
    if kind != "#microsoft.graph.fileAttachment":
        raise bad_request(f"The fake keeps file attachments only, not {kind}.", "ErrorNotSupported")
    try:
        content = base64.b64decode(body.get("contentBytes") or "", validate=True)
    except binascii.Error:
        raise bad_request("Cannot convert the literal of contentBytes to Edm.Binary.", "RequestBodyRead") from None
    return item | {
        "size": len(content),
        "contentId": body.get("contentId"),
        "contentLocation": body.get("contentLocation"),
        "contentBytes": base64.b64encode(content).decode(),
    }


def whole_attachment(item: Json, content: bytes) -> Json:
    """An attachment that came by an upload session."""
    wanted = {name: item.get(name) for name in ("name", "contentType", "isInline", "contentId")}
    encoded = base64.b64encode(content).decode()
    return new_attachment({"@odata.type": "#microsoft.graph.fileAttachment", **wanted, "contentBytes": encoded})


def attachment_view(item: Json) -> Json:
    """What Graph shows of an attachment: the MIME of an attached message only as $value."""
    return {key: value for key, value in item.items() if key not in ("raw", "item")}


def full(user: User, mail: Mail, call: Call) -> Json:
    """Everything of a message, for filters; `trim` takes away what Graph does not show unasked."""
    immutable = call.wants_immutable_ids
    body = mail.value["body"]
    if call.wants_text_body and body["contentType"] == "html":
        body = {"contentType": "text", "content": plain_text(body["content"])}
    return mail.value | {
        "id": mail.immutable_id if immutable else mail.id,
        "parentFolderId": user.folder_id(mail.folder),
        "body": body,
        "internetMessageHeaders": mail.headers,
        "singleValueExtendedProperties": mail.extended,
        "attachments": [attachment_view(item) for item in mail.attachments],
    }


def trim(view: Json, call: Call) -> Json:
    """Leave what $select and $expand ask for; headers only when selected, the rest only when expanded."""
    selected = call.query.get("$select")
    expanded: Json = {}
    for part in _expansions(call.query.get("$expand", "")):
        if part == "attachments":
            expanded["attachments"] = view["attachments"]
        elif match := _EXPAND.match(part):
            wanted = match[1].replace("''", "'").lower()
            found = [item for item in view["singleValueExtendedProperties"] if item["id"].lower() == wanted]
            if found:
                expanded["singleValueExtendedProperties"] = found
        else:
            raise bad_request(f"Could not find a property to expand: {part}")
    hidden = {"singleValueExtendedProperties", "attachments"}
    if "internetMessageHeaders" not in (selected or ""):
        hidden.add("internetMessageHeaders")
    shown = {name: value for name, value in view.items() if name not in hidden}
    return query.select(shown, selected) | expanded


def render(user: User, mail: Mail, call: Call, *, keep_headers: bool = True) -> Json:
    view = full(user, mail, call)
    if not keep_headers:
        view["internetMessageHeaders"] = []
    context = f"{call.base_url}/v1.0/$metadata#users('{user.id}')/messages/$entity"
    return {"@odata.context": context} | trim(view, call)


def preview(body: Json) -> str:
    text = plain_text(body["content"]) if body["contentType"] == "html" else body["content"]
    return text.strip()[:255]


def plain_text(markup: str) -> str:
    return html.unescape(_TAG.sub("", _NO_TEXT.sub("", markup))).strip()


def _expansions(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts = re.split(r",(?![^(]*\))", text) if text else []
    return [part.strip() for part in parts]


def _checked_headers(headers: list[Json]) -> list[Json]:
    if len(headers) > HEADERS:
        raise bad_request(f"A message takes at most {HEADERS} custom headers.", "ErrorInvalidInternetHeaders")
    for header in headers:
        if not str(header.get("name", "")).lower().startswith("x-"):
            raise bad_request(
                f"The internet message header name '{header.get('name')}' should start with 'x-' or 'X-'.",
                "InvalidInternetMessageHeader",
            )
    return headers


def _set_extended(mail: Mail, given: list[Json]) -> None:
    for prop in given:
        if not _EXTENDED_ID.match(str(prop.get("id", ""))):
            raise bad_request(f"PropertyId value '{prop.get('id')}' is not valid.", "ErrorInvalidProperty")
    names = {prop["id"] for prop in given}
    mail.extended = [prop for prop in mail.extended if prop["id"] not in names] + given


def _recipient(given: Any) -> Json:
    address = (given or {}).get("emailAddress") or {}
    shown = address.get("address") or ""
    return {"emailAddress": {"name": address.get("name") or shown, "address": shown}}
