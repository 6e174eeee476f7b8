"""How the admin API says no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.engine.errors import FleetQueueError, Problem


class RefusalError(FleetQueueError):
    """Becomes a problem document with this status; `problems` name the wrong fields."""

    def __init__(
        self, status: int, detail: str, problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.problems = tuple(problems)
        self.headers = dict(headers or {})


def wrong_field(field: str, message: str) -> RefusalError:
    return wrong_fields([Problem(field, message)])


def wrong_fields(problems: Sequence[Problem]) -> RefusalError:
    return RefusalError(422, "; ".join(f"{one.field}: {one.message}" for one in problems), problems)


def not_found(what: str) -> RefusalError:
    return RefusalError(404, f"there is no {what}")
