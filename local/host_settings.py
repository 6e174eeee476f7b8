"""host.json, and the names of settings in bindings, as Azure's function host reads them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from local.worker import AppError


class QueueSettings(BaseModel):
    """extensions.queues of host.json, with the defaults of Azure's host in a development environment."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")
    batch_size: int = Field(16, ge=1, le=32)
    new_batch_threshold: int = Field(8 * (os.cpu_count() or 1), ge=0)
    max_polling_interval: timedelta = Field(timedelta(seconds=2), ge=timedelta(seconds=0.1))
    visibility_timeout: timedelta = timedelta()
    max_dequeue_count: int = Field(5, ge=1)
    message_encoding: Literal["base64", "none"] = "base64"


def read_host_json(folder: Path) -> tuple[QueueSettings, str]:
    """The settings of the queues, and the prefix of all routes."""
    try:
        extensions = json.loads((folder / "host.json").read_text()).get("extensions", {})
        prefix = extensions.get("http", {}).get("routePrefix", "api").strip("/")
        return QueueSettings.model_validate(extensions.get("queues", {})), prefix
    except (OSError, ValueError) as error:
        raise AppError(f"host.json: {error}") from error


def resolve(text: str, settings: Mapping[str, str]) -> str:
    """Replace each %NAME% by that setting."""
    try:
        return re.sub(r"%([^%]+)%", lambda match: settings[match[1]], text)
    except KeyError as error:
        raise AppError(f"{text!r} in a binding names the setting {error}, which does not exist") from error
