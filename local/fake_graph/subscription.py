"""A subscription as the fake Graph keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from local.fake_graph.call import Json

_NEVER_ASKED = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Subscription:
    """`scope` is the resource in one canonical spelling; `value` what Graph shows of it; `quotas` what it counts for.

    Graph may deliver until `deliverable_until`; `is_asked`: it has asked for more.
    """

    id: str
    scope: str
    value: Json
    expires_at: datetime
    immutable_ids: bool
    quotas: dict[str, str] = field(default_factory=dict)
    deliverable_until: datetime = _NEVER_ASKED
    is_asked: bool = False
    renewed_at: datetime | None = None
    reauthorized_at: datetime | None = None
