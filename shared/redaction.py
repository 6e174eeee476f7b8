"""Takes secrets out of a text before anybody keeps it: a log, an attempt, a dead letter. Pure."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "***"
#: A shorter value would blot out ordinary words.
SHORTEST_HIDDEN = 8

_BEARER = re.compile(r"\b(Bearer|SharedKey)\s+[^\s\"',;]{8,}", re.IGNORECASE)
#: A token as Entra writes it, signed or encrypted (JWT).
TOKEN = re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]*){1,3}")
_NAMED = re.compile(
    r"\b(AccountKey|SharedAccessKey|SharedAccessSignature|sig|authtoken|tempauth|client_secret|client_assertion"
    r"|access_token|refresh_token|id_token|clientState|password|x-admin-key|x-functions-key)"
    r"""(["']?\s*[=:]\s*["']?)[^&;\s"',}]{4,}""",
    re.IGNORECASE,
)
#: In a query or a form; elsewhere a code is an error's, and a token or a key is spoken of.
_VALUE = re.compile(r"\b((?:code|token|secret|api[-_]?key)=)[^&;\s\"',}]{4,}", re.IGNORECASE)
#: Behind the user's name and not a port; a password may hold an @ or a slash itself.
_IN_URL = re.compile(r"(://[^:/@\s]*:)(?!\d+/)(?:[^\s/]+|[^@\s]+)(?=@)")


class Secrets:
    """What is hidden: everything that has a secret's form, and the very texts that `hide` was told."""

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def hide(self, values: Iterable[str]) -> None:
        """Hide these very texts from now on, wherever they stand."""
        with self._lock:
            known = {*self._values, *(value for value in values if len(value) >= SHORTEST_HIDDEN)}
            self._values = tuple(sorted(known, key=len, reverse=True))

    def clean(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, HIDDEN)
        text = _BEARER.sub(rf"\1 {HIDDEN}", text)
        text = TOKEN.sub(HIDDEN, text)
        text = _IN_URL.sub(rf"\1{HIDDEN}", text)
        text = _VALUE.sub(rf"\1{HIDDEN}", text)
        return _NAMED.sub(rf"\1\2{HIDDEN}", text)


#: The process's own: bootstrap tells it the secrets of the settings.
SECRETS = Secrets()


def without_secrets(text: str) -> str:
    """The text as it may be kept for people. Addresses stay: who may see them is decided where it is shown."""
    return SECRETS.clean(text)


def facts_without_secrets(facts: Any) -> Any:
    """The same for each text in a JSON value."""
    if isinstance(facts, str):
        return without_secrets(facts)
    if isinstance(facts, Mapping):
        return {name: facts_without_secrets(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [facts_without_secrets(value) for value in facts]
    return facts
