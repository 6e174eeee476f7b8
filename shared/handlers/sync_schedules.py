"""Recurring syncs: the backstop for changes that no notification told of."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import get_args

from shared.engine.schedules import Schedule, Schedules
from shared.handlers.sync_store import ResourceType

RESOURCE_TYPES: tuple[ResourceType, ...] = get_args(ResourceType)
OF_TEAMS: tuple[ResourceType, ...] = ("messages", "files")
HOUR = 60


def keep_in_step(
    schedules: Schedules,
    *,
    user_id: str | None = None,
    team_id: str | None = None,
    resource_types: Sequence[ResourceType] | None = None,
    every_minutes: int = 60,
) -> list[Schedule]:
    """Have these synced every so many minutes (a divisor of 60), each account at minutes of its own.

    Left out, `resource_types` are all that the user or team has. To be called again at any time: a schedule that is
    there stays. Raises PayloadError, StoreUnavailableError.
    """
    types = resource_types or (RESOURCE_TYPES if team_id is None else OF_TEAMS)
    owner = {"userId": user_id} if user_id is not None else {"teamId": team_id}
    return [
        schedules.put(
            schedule_name(kind, user_id or team_id or ""),
            "sync",
            {"resourceType": kind, **owner},
            _cron(kind, user_id or team_id or "", every_minutes),
        )
        for kind in types
    ]


def stop_keeping(schedules: Schedules, account: str) -> int:
    """End the recurring syncs of a user or team; how many there were. What was stored stays."""
    return sum(schedules.delete(schedule_name(kind, account)) for kind in RESOURCE_TYPES)


def schedule_name(kind: ResourceType, account: str) -> str:
    """What the schedule of these is called. It fits, however long an id is."""
    name = f"sync {kind} {account.lower()}"
    return name if len(name) <= 100 else f"{name[:90]} {zlib.crc32(account.lower().encode()):08x}"


def _cron(kind: str, account: str, every: int) -> str:
    """Spread over the hour, so that not all mailboxes are asked in the same minute."""
    if not 1 <= every <= HOUR or HOUR % every:
        raise ValueError(f"every_minutes must divide {HOUR}, {every} does not")
    first = zlib.crc32(f"{kind} {account}".encode()) % every
    return f"{','.join(str(minute) for minute in range(first, HOUR, every))} * * * *"
