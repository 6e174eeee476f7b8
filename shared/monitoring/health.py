"""Whether the app can work now, for load balancers and people: what lacks, by name, and nothing secret."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.engine.errors import Problem, StoreUnavailableError, TransportUnavailableError
from shared.settings_errors import SettingsError

log = logging.getLogger(__name__)

#: Anybody may ask, and as often as they like.
CACHE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class HealthReport:
    """`checks` says "ok", "away" or "not configured" of each part; `settings` what is wrong with which variable."""

    checks: Mapping[str, str]
    settings: Sequence[Problem] = field(default_factory=tuple)

    @property
    def is_healthy(self) -> bool:
        return not self.settings and all(state == "ok" for state in self.checks.values())


class Health:
    """`parts` are reached one after the other; each raises when it is away. `settings` lists what is wrong there;
    `waiting` what jobs lack, and is asked only while all parts are there."""

    def __init__(
        self,
        parts: Mapping[str, Callable[[], None]],
        settings: Callable[[], Sequence[Problem]],
        clock: Callable[[], float] = time.monotonic,
        waiting: Callable[[], Sequence[Problem]] = tuple,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._waiting = waiting
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[float, HealthReport] | None = None

    def report(self) -> HealthReport:
        """The state now, or a few seconds ago; many askers cause one look."""
        with self._lock:
            if self._last is None or self._clock() - self._last[0] >= CACHE_SECONDS:
                checks = {name: _state(name, reach) for name, reach in self._parts.items()}
                waiting = self._waiting() if set(checks.values()) == {"ok"} else ()
                self._last = (self._clock(), HealthReport(checks, (*self._settings(), *waiting)))
            return self._last[1]


def _state(name: str, reach: Callable[[], None]) -> str:
    try:
        reach()
    except SettingsError:
        return "not configured"
    except (StoreUnavailableError, TransportUnavailableError) as error:
        log.warning("health.part_away", extra={"part": name, "error": str(error)})
        return "away"
    return "ok"
