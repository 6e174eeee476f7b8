"""The base of all payload models, and the checks that several of them share. Messages never repeat the value."""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

LONGEST_LINE = 255
LONGEST_ID = 512
LONGEST_ADDRESS = 254

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_ADDRESS = re.compile(r"""[^\s@<>()\[\],;:\\"\x00-\x1f\x7f]+@[\w-]+(\.[\w-]+)*""")


class Payload(BaseModel):
    """A payload: camelCase names, no unknown ones, no guessing of types."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True, frozen=True)


def has_line_break(text: str) -> bool:
    """Whether the text would break a header line, as it is or as an encoded word that hides the break."""
    if _CONTROL.search(text):
        return True
    if "=?" not in text:
        return False
    try:
        return any(
            _CONTROL.search(part.decode("latin-1") if isinstance(part, bytes) else part)
            for part, _ in decode_header(text)
        )
    except (HeaderParseError, ValueError):
        return True


def _one_line(text: str) -> str:
    if has_line_break(text):
        raise ValueError("has a line break or control character: put it on one line")
    return text


def _identifier(text: str) -> str:
    if _CONTROL.search(text) or text != text.strip() or text in (".", ".."):
        raise ValueError("is no id: give it as Microsoft Graph does, without spaces around it")
    return text


def _address(text: str) -> str:
    if len(text) > LONGEST_ADDRESS or not _ADDRESS.fullmatch(text):
        raise ValueError("is not a mail address: write it as name@example.com")
    return text


OneLine = Annotated[str, Field(max_length=LONGEST_LINE), AfterValidator(_one_line)]
Identifier = Annotated[str, Field(min_length=1, max_length=LONGEST_ID), AfterValidator(_identifier)]
MailAddress = Annotated[str, AfterValidator(_address)]


def text_of(value: Any) -> str:
    """A string of Graph's JSON, "" for anything else."""
    return value if isinstance(value, str) else ""
