"""When everybody should leave Graph alone for a while, whoever met it."""

from __future__ import annotations

from datetime import timedelta

from shared.engine.errors import FleetQueueError
from shared.graph.errors import GraphError, GraphFailure, GraphUnreachable, TokenFailure

#: Graph or the authority is away, or asks for a pause without saying how long.
PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)


class HaltError(FleetQueueError):
    """Graph should be left alone for `pause`."""

    def __init__(self, pause: timedelta, reason: str) -> None:
        super().__init__(reason)
        self.pause = pause


def asked_pause(failure: GraphFailure) -> timedelta | None:
    """The pause that this failure asks of all instances: throttled, no token, not reachable; None: of nobody else."""
    if isinstance(failure, TokenFailure | GraphUnreachable):
        return min(failure.retry_after or PAUSE, LONGEST_PAUSE)
    if isinstance(failure, GraphError) and (
        failure.status == 429 or (failure.retry_after is not None and failure.status in (503, 509))
    ):
        return min(failure.retry_after or PAUSE, LONGEST_PAUSE)
    return None
