"""Requests and answers against Microsoft's published types, as JSON Schemas that schemas.py has made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.protocols import Validator

from local.fake_graph.call import Json

FILE_NAME = "schemas.json"

#: Bodies of actions, and what the REST reference asks for beyond the types. `#/definitions/…` are the types.
_SEND_MAIL: Json = {
    "type": "object",
    "required": ["message"],
    "additionalProperties": False,
    "properties": {
        "message": {"allOf": [{"$ref": "#/definitions/Message"}, {"required": ["toRecipients"]}]},
        "saveToSentItems": {"type": ["boolean", "null"]},
    },
}
_MOVE_MESSAGE: Json = {
    "type": "object",
    "required": ["destinationId"],
    "additionalProperties": False,
    "properties": {"destinationId": {"type": "string"}},
}
_CREATE_ANSWER: Json = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "comment": {"type": ["string", "null"]},
        "message": {"$ref": "#/definitions/Message"},
        "toRecipients": {"type": "array", "items": {"$ref": "#/definitions/Recipient"}},
    },
}
_CREATE_UPLOAD: Json = {
    "type": "object",
    "required": ["AttachmentItem"],
    "additionalProperties": False,
    "properties": {
        "AttachmentItem": {
            "allOf": [{"$ref": "#/definitions/AttachmentItem"}, {"required": ["attachmentType", "name", "size"]}]
        }
    },
}
_REPLY_WITH_QUOTE: Json = {
    "type": "object",
    "required": ["messageIds", "replyMessage"],
    "additionalProperties": False,
    "properties": {
        "messageIds": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "replyMessage": {"allOf": [{"$ref": "#/definitions/ChatMessage"}, {"required": ["body"]}]},
    },
}
_ACTIVITY_NOTIFICATION: Json = {
    "type": "object",
    "required": ["topic", "activityType"],
    "additionalProperties": False,
    "properties": {
        "topic": {"allOf": [{"$ref": "#/definitions/TeamworkActivityTopic"}, {"required": ["source", "value"]}]},
        "activityType": {"type": "string"},
        "chainId": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        "previewText": {"$ref": "#/definitions/ItemBody"},
        "templateParameters": {"type": "array", "items": {"$ref": "#/definitions/KeyValuePair"}},
        "recipient": {"$ref": "#/definitions/TeamworkNotificationRecipient"},
        "recipients": {"type": "array", "items": {"$ref": "#/definitions/TeamworkNotificationRecipient"}},
        "teamsAppId": {"type": "string"},
        "iconId": {"type": "string"},
    },
}
#: Bodies of actions by the name that the operations use.
_OWN = {
    "SendMail": _SEND_MAIL,
    "MoveMessage": _MOVE_MESSAGE,
    "ReplyWithQuote": _REPLY_WITH_QUOTE,
    "ActivityNotification": _ACTIVITY_NOTIFICATION,
    "CreateAnswer": _CREATE_ANSWER,
    "CreateUpload": _CREATE_UPLOAD,
}
_REQUIRED = {
    "create_subscription": ["changeType", "notificationUrl", "resource", "expirationDateTime"],
    "post_chat_message": ["body"],
    "post_channel_message": ["body"],
    "post_reply": ["body"],
    "add_attachment": ["@odata.type", "name"],
}


class Checks:
    """Validators for the types of one schema file; without a file only what needs no type is checked."""

    def __init__(self, path: Path | None = None) -> None:
        self._definitions: Json | None = None
        self._validators: dict[str, Validator] = {}
        if path is not None:
            file = path / FILE_NAME if path.is_dir() else path
            if not file.is_file():
                raise FileNotFoundError(
                    f"There are no schemas at {file}; make them: python -m local.fake_graph.schemas --out {path}"
                )
            self._definitions = json.loads(file.read_text())["definitions"]

    def action_body(self, type_name: str, body: Any) -> Any:
        """The body of an action with its parameters in our spelling: Graph does not mind the case of their names."""
        known = {name.lower(): name for name in _OWN.get(type_name, {}).get("properties", {})}
        if not isinstance(body, dict) or not known:
            return body
        return {known.get(name.lower(), name): value for name, value in body.items()}

    def request_fault(self, operation: str, type_name: str, body: Any) -> str | None:
        """What is wrong with the body of a request, or None."""
        if not isinstance(body, dict):
            return "The body must be a JSON object."
        missing = [name for name in _REQUIRED.get(operation, []) if body.get(name) is None]
        if missing:
            return f"Missing required properties: {', '.join(missing)}."
        return self._fault(type_name, body)

    def answer_fault(self, type_name: str, body: Any) -> str | None:
        """What is wrong with the fake's own answer, or None; `[Type]` is a collection."""
        if not type_name.startswith("["):
            return self._fault(type_name, body)
        if not isinstance(body, dict) or not isinstance(body.get("value"), list):
            return "A collection must have a list as its value."
        unknown = set(body) - {"@odata.context", "@odata.nextLink", "@odata.deltaLink", "@odata.count", "value"}
        if unknown:
            return f"Unknown properties of a collection: {sorted(unknown)}"
        faults = (
            self._fault(type_name[1:-1], {name: value for name, value in item.items() if name != "@removed"})
            for item in body["value"]
        )
        return next((fault for fault in faults if fault), None)

    def _fault(self, type_name: str, body: Any) -> str | None:
        if self._definitions is None:
            return None
        validator = self._validators.get(type_name)
        if validator is None:
            validator = self._validators[type_name] = self._make(type_name, self._definitions)
        error = jsonschema.exceptions.best_match(validator.iter_errors(body))
        if error is None:
            return None
        where = "/".join(str(part) for part in error.absolute_path) or "the body"
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            unknown = sorted(name for name in error.instance if name not in known and "@odata." not in name)
            return f"{where}: the property '{unknown[0]}' does not exist on the type"
        return f"{where}: {error.message}"[:500]

    @staticmethod
    def _make(type_name: str, definitions: Json) -> Validator:
        schema = _OWN.get(type_name) or {"$ref": f"#/definitions/{type_name}"}
        return jsonschema.Draft7Validator(schema | {"definitions": definitions})
