"""One look for all who ask: nobody may be able to fill all threads with askers that wait for the same answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: While a look lasts, the one before it is still told for so long after it was last good.
STILL_TOLD_SECONDS = 60.0


class LookUnderWayError(Exception):
    """Another one is looking, it takes long, and there is nothing fresh enough to tell meanwhile."""


class Latest(Generic[T]):
    """Keeps what `look` gave last. `good_for` says for how many seconds, by how many the look took; who has nothing to
    be told meanwhile waits at most `patience` seconds for the look of another one."""

    def __init__(
        self,
        look: Callable[[], T],
        good_for: Callable[[float], float],
        patience: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._good_for = good_for
        self._patience = patience
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: tuple[float, T] | None = None

    def get(self) -> T:
        """The last look where it is good; otherwise a new one, or, while another caller looks, the last at once.

        Raises what a look raises, after which nothing is kept, and LookUnderWayError.
        """
        last = self._fresh()
        if last is not None:
            return last[1]
        last = self._fresh(STILL_TOLD_SECONDS)
        if not self._lock.acquire(timeout=0 if last is not None else self._patience):
            if last is None:
                raise LookUnderWayError
            return last[1]
        try:
            last = self._fresh() or self._looked()
        finally:
            self._lock.release()
        return last[1]

    def _fresh(self, beyond: float = 0.0) -> tuple[float, T] | None:
        last = self._last
        return last if last is not None and self._monotonic() < last[0] + beyond else None

    def _looked(self) -> tuple[float, T]:
        begun = self._monotonic()
        try:
            found = self._look()
        except BaseException:
            self._last = None
            raise
        ended = self._monotonic()
        self._last = (begun + self._good_for(ended - begun), found)
        return self._last
