"""JSON as PostgreSQL takes it. jsonb has no U+0000 and no lone surrogates: each becomes U+FFFD."""

from __future__ import annotations

import json
import re
from typing import Any

REPLACEMENT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]")
# An escaped NUL, and not an escaped backslash before the letters u0000.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def to_json(value: Any) -> str:
    """JSON text that any jsonb column takes. Raises ValueError (NaN, infinity) or TypeError (not JSON)."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if "\\u0000" in text:
        text = _NUL.sub(rf"\1{REPLACEMENT}", text)
    return clean_text(text)


def clean_text(text: str) -> str:
    """Text that any text column takes."""
    if not text.isascii():
        text = _SURROGATE.sub(REPLACEMENT, text)
    return text.replace("\x00", REPLACEMENT)
