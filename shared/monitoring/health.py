"""Whether the app can work now, for load balancers and people: what lacks, by name, and nothing secret."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.engine.errors import Problem, StoreNotReadyError, StoreUnavailableError, TransportUnavailableError
from shared.monitoring.latest import Latest, LookUnderWayError
from shared.settings_errors import SettingsError

log = logging.getLogger(__name__)

#: Anybody may ask, and as often as they like.
CACHE_SECONDS = 5.0
#: How long an asker waits for a first look of another one.
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class HealthReport:
    """`checks` says "ok" of each part, or "away", "not configured", "no answer yet" or a StoreNotReadyError's state;
    `settings` what is wrong with which variable."""

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
        self._latest = Latest(self._look, lambda taken: taken + CACHE_SECONDS, PATIENCE_SECONDS, clock)

    def report(self) -> HealthReport:
        """The state now, or a few seconds ago; many askers cause one look, and none waits long for another's."""
        try:
            return self._latest.get()
        except LookUnderWayError:
            return HealthReport(dict.fromkeys(self._parts, "no answer yet"))

    def _look(self) -> HealthReport:
        checks = {name: _state(name, reach) for name, reach in self._parts.items()}
        waiting = self._waiting() if set(checks.values()) == {"ok"} else ()
        return HealthReport(checks, (*self._settings(), *waiting))


def _state(name: str, reach: Callable[[], None]) -> str:
    try:
        reach()
    except SettingsError:
        return "not configured"
    except StoreNotReadyError as error:
        log.error("health.part_not_ready", extra={"part": name, "error": str(error)})
        return error.state
    except (StoreUnavailableError, TransportUnavailableError) as error:
        log.warning("health.part_away", extra={"part": name, "error": str(error)})
        return "away"
    return "ok"
