"""Built on first use and once in a process: the place where what is built is kept, and settings are read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from shared.setting_types import Group

T = TypeVar("T")
G = TypeVar("G", bound="Group")

lock = threading.RLock()
built: dict[str, Any] = {}


def once(build: Callable[[], T]) -> Callable[[], T]:
    """Build on the first call and keep it until stop(); a build that fails is tried again at the next call."""

    @wraps(build)
    def get() -> T:
        name = build.__name__
        if name not in built:
            with lock:
                if name not in built:
                    built[name] = build()
        return cast(T, built[name])

    return get


def load_settings(group: type[G]) -> G:
    """Read a group of settings, and hide its secrets from the logs from now on."""
    from shared import logs
    from shared.settings import load

    logs.start()
    settings = load(group)
    logs.start(settings.secrets())
    return settings


def stop() -> None:
    """End what runs in the background and close what is open; running handlers end by themselves."""
    with lock:
        ended = dict(built)
        built.clear()
    for name, end in (("worker", "stop"), ("heartbeat", "stop"), ("intake", "close"), ("database", "close")):
        if name in ended:
            getattr(ended[name], end)()
