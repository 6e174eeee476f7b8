"""Structured logs: one JSON object a line, and in none of them a secret or a person's address, whoever logs.

A line that is written while a job runs says which one, also where the code that logs knows of no job.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from shared import tracing
from shared.redaction import HIDDEN, SECRETS, Secrets

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: In a log a code is hidden in any form: it is written of requests and answers.
_CODE = re.compile(r"""\b(code)(["']?\s*[=:]\s*["']?)[^&;\s"',}]{4,}""", re.IGNORECASE)
#: A mail address; not the id of a chat, which has its form.
_ADDRESS = re.compile(r"(?<![\w.+-])([\w+])[\w.+-]*@(?!thread\.|unq\.)([\w-]+(?:\.[\w-]+)+)")


class Redaction(logging.Filter):
    """Takes secrets and addresses out of a record before anything formats it: its text, its extras, its exception."""

    def __init__(self, secrets: Secrets = SECRETS) -> None:
        super().__init__()
        self._secrets = secrets

    def clean(self, text: str) -> str:
        text = _ADDRESS.sub(rf"\1{HIDDEN}@\2", self._secrets.clean(text))
        return _CODE.sub(rf"\1\2{HIDDEN}", text)

    def filter(self, record: logging.LogRecord) -> bool:
        for name, fact in tracing.facts().items():
            if name not in vars(record):
                setattr(record, name, fact)
        record.msg, record.args = self.clean(record.getMessage()), None
        for name, value in vars(record).items():
            if name not in _STANDARD and not isinstance(value, int | float | bool | None):
                setattr(record, name, self.clean(str(value)))
        if record.exc_info:
            text = self.clean(logging.Formatter().formatException(record.exc_info))
            record.exc_info, record.exc_text = None, text
            vars(record)["exception"] = text
        return True


class JsonFormatter(logging.Formatter):
    """A record as one line of ASCII JSON, so that nothing in it can begin a new line or colour a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname, "logger": record.name, "event": record.getMessage()}
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(line, default=str)


_redaction = Redaction()


def start(secrets: Iterable[str] = ()) -> None:
    """Redact on every handler of the root logger, and write JSON where a handler has no format of its own.

    Safe to call again: with more secrets, or after the host has added a handler.
    """
    SECRETS.hide(secrets)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_redaction)
        if handler.formatter is None:
            handler.setFormatter(JsonFormatter())
    # It writes the headers of every request at INFO.
    logging.getLogger("azure").setLevel(logging.WARNING)
