"""Ids and etags as Graph's look."""

from __future__ import annotations

import base64
import secrets


def new_outlook_id(prefix: str) -> str:
    """An id as Outlook's look: long, base64 for URLs, with its padding."""
    return prefix + base64.urlsafe_b64encode(secrets.token_bytes(46)).decode()


def new_etag() -> str:
    return f'W/"{base64.urlsafe_b64encode(secrets.token_bytes(18)).decode()}"'
