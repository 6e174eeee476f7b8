"""Who may use the admin API: the keys, and what happens to those who guess."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

log = logging.getLogger(__name__)

#: So many wrong keys in a minute are no mistake any more.
MOST_REFUSALS = 20
WINDOW_SECONDS = 60.0


class Verdict(Enum):
    """What a presented key gets."""

    GRANTED = "granted"
    REFUSED = "refused"
    SLOWED = "slowed"


class AdminAccess:
    """Compares keys as digests, so that neither length nor content shows in the time it takes.

    The right key always passes: whoever guesses can slow down nobody but other guessers.
    """

    def __init__(self, *keys: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._digests = [_digest(key) for key in keys]
        self._clock = clock
        self._refusals: deque[float] = deque(maxlen=MOST_REFUSALS)
        self._lock = threading.Lock()

    def check(self, given: str | None) -> Verdict:
        digest = _digest(given or "")
        if any(hmac.compare_digest(digest, known) for known in self._digests):
            return Verdict.GRANTED
        return self._refuse()

    def _refuse(self) -> Verdict:
        now = self._clock()
        with self._lock:
            slowed = len(self._refusals) == MOST_REFUSALS and now - self._refusals[0] < WINDOW_SECONDS
            self._refusals.append(now)
        if slowed:
            log.error("admin.key_guessing", extra={"refusals": MOST_REFUSALS, "seconds": WINDOW_SECONDS})
            return Verdict.SLOWED
        log.warning("admin.key_refused")
        return Verdict.REFUSED


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
