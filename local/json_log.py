"""Log lines of local programs: one JSON object each, readable by people and by tests."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as JSON: time, level, event, what `current()` says of the moment, and the record's `extra`."""

    def __init__(self, current: Callable[[], Mapping[str, object]]) -> None:
        super().__init__()
        self._current = current

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": time, "level": record.levelname, "event": record.getMessage()}
        line |= self._current()
        line |= {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_json(current: Callable[[], Mapping[str, object]] = dict) -> None:
    """Send all logs to stdout as JSON lines, without the chatter of libraries."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(current))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("azure", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
