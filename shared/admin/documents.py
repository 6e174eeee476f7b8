"""What the route of the OpenAPI document does."""

from __future__ import annotations

import json

from shared.admin.dispatch import Reply
from shared.admin.ports import Call


def openapi(_call: Call) -> Reply:
    from shared.admin.openapi import document

    return Reply(200, json.dumps(document()).encode())
