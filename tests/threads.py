"""Several callers at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def at_once(n: int, call: Callable[[int], T]) -> list[T]:
    """Run `call(0..n-1)` in n threads that start together; raises what any of them raised."""
    start = threading.Barrier(n)

    def run(index: int) -> T:
        start.wait(10)
        return call(index)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))
