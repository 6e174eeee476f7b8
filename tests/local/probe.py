"""Where throwaway function apps and the tests that run them meet, in one process.

An app says `probe.saw(...)` and waits at `probe.gate(name)`; its test waits for what was seen and opens gates.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from typing import Any

SECONDS = 20

_seen: queue.Queue[Any] = queue.Queue()
_gates: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(0))
_lock = threading.Lock()
_active = 0
most_active = 0


def reset() -> None:
    global _seen, most_active, _active
    _seen = queue.Queue()
    _gates.clear()
    most_active = _active = 0


def saw(thing: Any) -> None:
    _seen.put(thing)


def next_seen() -> Any:
    return _seen.get(timeout=SECONDS)


def nothing_more() -> bool:
    return _seen.empty()


def pass_gate(name: str) -> None:
    """Wait until the test opens the gate; counts how many are waiting here together."""
    global _active, most_active
    with _lock:
        _active += 1
        most_active = max(most_active, _active)
    if not _gates[name].acquire(timeout=SECONDS):
        raise TimeoutError(name)
    with _lock:
        _active -= 1


def open_gate(name: str, times: int = 1) -> None:
    for _ in range(times):
        _gates[name].release()
